"""What a process may not do before its function is called: start children.

Until then it imports modules, that of the function and those of its arguments. A module that starts a process at its
top level would be imported by that process, which would start the next one, and so on without end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Optional

#: The function that this interpreter is about to call; None in every other one. It holds for all threads, those that a
#: module has started at its top level among them.
_about_to_run: Optional[str] = None


class Refused(RuntimeError):
    """What is at the top level of a module would start a child."""


@contextlib.contextmanager
def of(name: str) -> Iterator[None]:
    """Let no child be started from here within this block, as it is but the outset of that function's process."""
    global _about_to_run  # noqa: PLW0603 - it is that of the interpreter
    _about_to_run = name
    try:
        yield
    finally:
        _about_to_run = None


def refuse(method: str, about: object, options: Mapping[str, Any]) -> None:
    """Raise Refused, a RuntimeError, where this interpreter has not come to its function yet.

    What takes up a child that is there already starts one at the most, wherever it stands.
    """
    if _about_to_run is not None and options.get("if_exists") != "reuse":
        shown = " ".join(str(word) for word in about) if isinstance(about, (list, tuple)) else about
        raise Refused(
            f"cannot {method} {shown} here: this is a child that still imports what it needs to run {_about_to_run}, "
            "and each child that does so comes by here and would start another one; put the call below "
            "'if __name__ == \"__main__\":', or into a function, or take up the child that is there (if_exists='reuse')"
        )
