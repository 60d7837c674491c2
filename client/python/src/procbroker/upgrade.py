"""The upgrade of a broker: asked for, and waited for until the other program serves."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Optional, Tuple

from .call import Call, well_formed
from .connection import Lost
from .errors import ConnectionLost, InternalError
from .exchange import exchange, subscribe
from .pool import Pool
from .waiting import Deadline, DeadlinePassed, Steps

#: How long a broker that has agreed to be replaced may take to be gone, in seconds.
_TAKEN_OVER_WITHIN = 15.0

#: How long a broker that has agreed, and has not closed the connection, is left alone, in seconds.
_LOOK_EVERY = 1.0


def upgraded(pool: Pool, seconds: Optional[float], socket: str) -> Steps[Tuple[Dict[str, Any], Dict[str, Any]]]:
    """Return the status of the broker before its upgrade and after it.

    Raises BrokerError with the reason when the broker stays as it is, goes on again because the other program has
    failed, or was lost and started again, and ClientTimeout.
    """
    before = yield from exchange(pool, Call("status", {}, seconds, pool.path), dict)
    call = Call("upgrade", {}, seconds, pool.path)
    # Where it is lost, the answer has ended with the program that had it.
    with contextlib.suppress(ConnectionLost):
        yield from exchange(pool, call, dict)
    taking_over = Call("upgrade", {}, min(call.deadline.left(), _TAKEN_OVER_WITHIN), pool.path)
    while True:
        connection, now = yield from subscribe(pool, Call("status", {}, taking_over.deadline.left(), pool.path))
        try:
            with well_formed(socket):
                if now["instance"] != before["instance"]:
                    if now["pid"] != before["pid"]:
                        raise InternalError("internal", _lost(before["pid"], now["pid"]))
                    return before, now
                failed = now.get("failed_upgrade")
                if failed != before.get("failed_upgrade") and failed is not None:
                    raise InternalError("internal", f"not upgraded, and nothing has changed: {failed['message']}")
            # It is still the old program, whose connections end with it, unless the other one cannot be executed.
            yield from connection.receive(Deadline(min(taking_over.deadline.left(), _LOOK_EVERY)))
        except Lost:
            pass
        except DeadlinePassed:
            if taking_over.deadline.left() <= 0:
                raise taking_over.timed_out() from None
        finally:
            connection.close()


def _lost(before: int, now: int) -> str:
    # An upgrade keeps the process; whatever starts a broker that has crashed makes another one.
    return (
        f"not upgraded: the broker was lost and started again, as process {now} instead of {before}; its children are "
        "taken up as after every crash, and its log may tell why it was lost"
    )
