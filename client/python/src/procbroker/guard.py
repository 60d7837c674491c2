"""One change of a state at a time, also where a signal handler comes in between a change of its own thread.

Such a handler can neither wait for the change that it has interrupted, nor see it half made.
"""

from __future__ import annotations

import threading
from typing import Callable, List, Optional, TypeVar

T = TypeVar("T")


class Guard:
    """What makes changes one after the other."""

    def __init__(self) -> None:
        """Begin with nothing to change."""
        #: Its own thread may come to it again, in a signal handler.
        self._lock = threading.RLock()
        #: Whether whoever has the lock is in the middle of a change.
        self._is_changing = False
        self._put_off: List[Callable[[], object]] = []

    @property
    def is_putting_off(self) -> bool:
        """Whether a change is still to be made."""
        return bool(self._put_off)

    def change(self, change: Callable[[], object]) -> None:
        """Make a change; within a signal handler that has interrupted another one, once that is made."""
        with self._lock:
            self._put_off.append(change)
            if not self._is_changing:
                self._make_changes()

    def try_change(self, change: Callable[[], T]) -> Optional[T]:
        """Make a change, and return what comes of it; None within a signal handler that has interrupted another one."""
        with self._lock:
            if self._is_changing:
                return None
            self._is_changing = True
            try:
                return change()
            finally:
                self._is_changing = False
                self._make_changes()

    def _make_changes(self) -> None:
        while self._put_off:
            self._is_changing = True
            try:
                # A handler may have made them meanwhile; from now on it puts off its own.
                if self._put_off:
                    self._put_off.pop(0)()
            except BaseException:  # such as SystemExit of a handler, which has closed the client before
                self._is_changing = False
                self._make_changes()
                raise
            self._is_changing = False
