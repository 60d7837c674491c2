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


#: The interpreter's own poll, unless another one had its place before this was imported.
OWN_POLL: object = getattr(select, "poll", None)
if not isinstance(OWN_POLL, BuiltinFunctionType):
    OWN_POLL = object()


class Deadline:
    """A moment of the monotonic clock, or never."""

    __slots__ = ("_at", "began", "seconds")

    def __init__(self, seconds: Optional[float]) -> None:
        """Begin now; None is never."""
        #: How long it was from the beginning, in seconds.
        self.seconds = seconds
        #: When that was, on the monotonic clock.
        self.began = time.monotonic()
        self._at = math.inf if seconds is None else self.began + seconds

    def left(self) -> float:
        """Return how many seconds are left: infinity for never, 0 when it has passed."""
        left = self._at - time.monotonic()
        return left if left > 0.0 else 0.0

    def milliseconds(self) -> int:
        """Return how long a single wait until then may take, as poll(2) has it."""
        left = self._at - time.monotonic()
        return 0 if left <= 0.0 else math.ceil(min(left, LONGEST) * 1000)

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


def kept_poll(sock: socket.socket) -> Optional[select.poll]:
    """Return what polls a socket for reading, to be used as long as ``select.poll`` is OWN_POLL; else None.

    What gevent puts in its place is of one thread, and tells nothing that it need not wait for; eventlet removes it.
    """
    if getattr(select, "poll", None) is not OWN_POLL:
        return None
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return poll


def can_be_read(sock: socket.socket) -> bool:
    """Return whether a read is over at once: something has come, or the end, or the socket is closed."""
    try:
        # Without the exception it costs half.
        poll = kept_poll(sock)
        if poll is not None:
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
                block(wait)
            except BaseException as error:  # such as KeyboardInterrupt, or gevent's Timeout
                wait = steps.throw(error)
            else:
                wait = next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result


def block(wait: Wait) -> None:
    """Wait in this thread."""
    if isinstance(wait, Pause):
        time.sleep(wait.seconds)
        return
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(wait.sock, select.POLLIN if isinstance(wait, Readable) else select.POLLOUT)
        poll.poll(wait.deadline.milliseconds())
    elif isinstance(wait, Readable):  # eventlet removes poll
        select.select([wait.sock], [], [], min(wait.deadline.left(), LONGEST))
    else:
        select.select([], [wait.sock], [], min(wait.deadline.left(), LONGEST))
