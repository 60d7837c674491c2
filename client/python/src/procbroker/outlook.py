"""Whether a broker that is not there is expected back, and for how long."""

from __future__ import annotations

import time
from typing import Optional

from .waiting import Deadline

#: Why a broker that has said that it shuts down is not waited for.
SHUT_DOWN = "it has shut down, as it had announced"


class Outlook:
    """What a client has learned about its broker: shared by the client and the watches that it makes.

    Every change is one assignment, so that threads need no lock, and a fork leaves none held.
    """

    def __init__(self, expected: bool) -> None:
        """Take whether a broker is waited for that was never there."""
        self._expected = expected
        #: Whether the broker has announced its shutdown, and no other one has been met since.
        self.leaving = False
        self._missed_at: Optional[float] = None

    def announced(self) -> None:
        """Take note that the broker shuts down."""
        self.leaving = True

    def met(self, *, shutting_down: bool) -> None:
        """Take note of the status of a broker that was reached."""
        self.leaving = shutting_down

    def reached(self) -> float:
        """Take note of a connection, and return for how many seconds none came about."""
        missed_at, self._missed_at, self._expected = self._missed_at, None, True
        return 0.0 if missed_at is None else time.monotonic() - missed_at

    def patience(self, seconds: float) -> Deadline:
        """Return until when a broker that is not there is waited for, ``seconds`` after it was first missed.

        The time is that of the broker's absence and not of the call's: else each call would wait anew.
        """
        if self.leaving or not self._expected:
            return Deadline(0.0)
        if self._missed_at is None:
            self._missed_at = time.monotonic()
        return Deadline(max(0.0, self._missed_at + seconds - time.monotonic()))
