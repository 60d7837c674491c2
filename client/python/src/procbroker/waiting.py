"""Waiting, apart from what is waited for.

Everything that talks to the broker is written once, as a generator of *steps*: it tries, and where it would block it
yields what it waits for. :func:`run` takes the steps of a caller that may block,
:func:`procbroker.async_waiting.run_async` those of a coroutine. The modules of the standard library are asked by name
at each call, so that they can be patched (gevent) before or after this package is imported.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Generator
from types import BuiltinFunctionType
from typing import NamedTuple, Optional, TypeVar, Union

T = TypeVar("T")

#: The longest single wait, in seconds; who waits longer looks at the clock in between.
LONGEST = 3600.0


class Deadline:
    """A moment of the monotonic clock, or never."""

    def __init__(self, seconds: Optional[float]) -> None:
        """Begin now; None is never."""
        #: How long it was from the beginning, in seconds.
        self.seconds = seconds
        self._at = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Return how many seconds are left: infinity for never, 0 when it has passed."""
        left = self._at - time.monotonic()
        return left if left > 0.0 else 0.0

    def pass_now(self) -> None:
        """Let it have passed."""
        self._at = -math.inf

    def passed(self) -> bool:
        """Return whether it has passed."""
        return self.left() <= 0.0


class DeadlinePassed(Exception):
    """What was waited for did not come in time."""


class Readable(NamedTuple):
    """Wait until the socket can be read, or the deadline has passed."""

    sock: socket.socket
    deadline: Deadline


class Writable(NamedTuple):
    """Wait until the socket can be written, or the deadline has passed."""

    sock: socket.socket
    deadline: Deadline


class Pause(NamedTuple):
    """Wait for some seconds."""

    seconds: float


def can_be_read(sock: socket.socket) -> bool:
    """Return whether a read is over at once: something has come, or the end, or the socket is closed."""
    try:
        # Without the exception it costs half. What gevent puts in the place of poll tells nothing that it need not wait
        # for, and eventlet removes it.
        if isinstance(getattr(select, "poll", None), BuiltinFunctionType):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True
    return True


Wait = Union[Readable, Writable, Pause]
#: Something that takes waiting, and returns a T.
Steps = Generator[Wait, None, T]


def run(steps: Steps[T]) -> T:
    """Take all steps, and block where they wait."""
    try:
        wait = next(steps)
        while True:
            try:
                _block(wait)
            except BaseException as error:  # such as KeyboardInterrupt, or gevent's Timeout
                wait = steps.throw(error)
            else:
                wait = next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _block(wait: Wait) -> None:
    if isinstance(wait, Pause):
        time.sleep(wait.seconds)
        return
    left = min(wait.deadline.left(), LONGEST)
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(wait.sock, select.POLLIN if isinstance(wait, Readable) else select.POLLOUT)
        poll.poll(math.ceil(left * 1000))
    elif isinstance(wait, Readable):  # eventlet removes poll
        select.select([wait.sock], [], [], left)
    else:
        select.select([], [wait.sock], [], left)
