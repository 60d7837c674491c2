"""The program that ``Broker.process`` starts: ``python -m procbroker.child MODULE:FUNCTION FOLDER``.

It takes the call from the folder, sets up the application's own path of modules, calls the function, and leaves in the
folder what that has returned or raised.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import traceback
from collections.abc import Coroutine
from typing import Any, List

from . import handover, outset, target


def main(arguments: List[str]) -> int:
    """Run the function, and return the status to exit with: 0, or 1 when it raised an exception."""
    if len(arguments) != 2:
        print("procbroker.child is what Broker.process starts: MODULE:FUNCTION FOLDER", file=sys.stderr)  # noqa: T201
        return 2
    name, folder = arguments
    try:
        call = handover.take(folder)
    except (OSError, handover.Disbelieved) as error:
        print(  # noqa: T201
            f"procbroker.child cannot take the arguments of {name}: {error}; {handover.PLACE_VARIABLE} names a folder "
            "for them that the application and the broker both see",
            file=sys.stderr,
        )
        return 1
    sys.path[:] = call["path"]
    sys.argv = [name]
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What it prints is in its log at once, as on a terminal, and not when some thousand bytes have come together.
        sys.stdout.reconfigure(line_buffering=True)
    os.environ.update(call["environ"])
    for variable in call["unset"]:
        os.environ.pop(variable, None)
    try:
        with outset.of(name):
            function = target.resolve(name)
            args, kwargs = pickle.loads(call["arguments"])  # noqa: S301 - the folder is this user's, and closed to others
        value = function(*args, **kwargs)
        if isinstance(value, Coroutine):
            value = _run(value)
    except outset.Refused:
        # Whoever calls process at the top level of a module hardly asks for its result, and nobody would remove it.
        traceback.print_exc()
        return 1
    except Exception as error:  # whatever it is, the caller is told
        traceback.print_exc()
        handover.put_result(folder, _of_error(error))
        return 1
    try:
        words = _pickled("returned", value, "")
    except _CannotTravel as error:
        print(f"procbroker.child cannot hand over the result of {name}: {error}", file=sys.stderr)  # noqa: T201
        handover.put_result(folder, _pickled("kept", str(error), ""))
        return 1
    handover.put_result(folder, words)
    return 0


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what an ``async def`` returns, in an event loop of its own."""
    import asyncio  # noqa: PLC0415 - most functions are none, and need not wait for it

    return asyncio.run(coroutine)


class _CannotTravel(Exception):
    """What a function has returned or raised cannot be brought to the caller."""


def _pickled(what: str, value: object, words: str) -> bytes:
    try:
        packed = pickle.dumps((what, value, words))
    except Exception as error:
        raise _CannotTravel(
            f"what it {what} cannot be pickled ({type(error).__name__}: {error})"[:4096]
            + "; return what pickle takes, or write it to a file and return its path"
        ) from error
    if len(packed) > handover.BYTES_MAX:
        raise _CannotTravel(
            f"what it {what} has {len(packed)} bytes when pickled, and may have {handover.BYTES_MAX}; "
            "write it to a file, and return its path"
        )
    return packed


def _of_error(error: Exception) -> bytes:
    words = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        packed = pickle.dumps(("raised", error, words))
    except Exception as refusal:
        why = f"it cannot be pickled ({type(refusal).__name__}: {refusal})"
    else:
        why = _why_it_does_not_come_back(packed)
        if not why:
            return packed
    return pickle.dumps(("raised", f"{type(error).__name__}: {error}"[:4096], words[-65536:], why[:4096]))


def _why_it_does_not_come_back(packed: bytes) -> str:
    if len(packed) > handover.BYTES_MAX:
        return f"it has {len(packed)} bytes when pickled, and may have {handover.BYTES_MAX}"
    try:
        pickle.loads(packed)  # noqa: S301 - not every exception comes back from what it was pickled to
    except Exception as refusal:
        return (
            f"it cannot be unpickled ({type(refusal).__name__}: {refusal}); a class with an __init__ of its own passes "
            "all arguments on to super().__init__, or has a __reduce__"
        )
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
