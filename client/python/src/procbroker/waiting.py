"""Waiting, apart from what is waited for.

Everything that talks to the broker is written once, as a generator of *steps*: it tries, and where it would block it
yields what it waits for. :func:`run` takes the steps of a caller that may block, :func:`run_async` those of a
coroutine. The modules of the standard library are asked by name at each call, so that they can be
patched (gevent) before or after this package is imported.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Optional, TypeVar, Union

T = TypeVar("T")

#: The longest single wait, in seconds; who waits longer looks at the clock in between.
_LONGEST = 3600.0


class Deadline:
    """A moment of the monotonic clock, or never."""

    def __init__(self, seconds: Optional[float]) -> None:
        """Begin now; None is never."""
        #: How long it was from the beginning, in seconds.
        self.seconds = seconds
        self._at = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Return how many seconds are left: infinity for never, 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())

    def passed(self) -> bool:
        """Return whether it has passed."""
        return self.left() <= 0.0


class DeadlinePassed(Exception):
    """What was waited for did not come in time."""


@dataclass(frozen=True)
class Readable:
    """Wait until the socket can be read, or the deadline has passed."""

    sock: socket.socket
    deadline: Deadline


@dataclass(frozen=True)
class Writable:
    """Wait until the socket can be written, or the deadline has passed."""

    sock: socket.socket
    deadline: Deadline


@dataclass(frozen=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


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


async def run_async(steps: Steps[T]) -> T:
    """Take all steps, and let the event loop go on where they wait."""
    try:
        wait = next(steps)
        while True:
            try:
                await _suspend(wait)
            except BaseException as error:  # such as asyncio.CancelledError
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
    left = min(wait.deadline.left(), _LONGEST)
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(wait.sock, select.POLLIN if isinstance(wait, Readable) else select.POLLOUT)
        poll.poll(math.ceil(left * 1000))
    elif isinstance(wait, Readable):  # eventlet removes poll
        select.select([wait.sock], [], [], left)
    else:
        select.select([], [wait.sock], [], left)


async def _suspend(wait: Wait) -> None:
    if isinstance(wait, Pause):
        await asyncio.sleep(wait.seconds)
        return
    loop = asyncio.get_running_loop()
    # Waiting for the socket to be ready, instead of for its bytes: whoever is cancelled has taken none of them.
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = wait.sock.fileno()
    add, remove = (
        (loop.add_reader, loop.remove_reader) if isinstance(wait, Readable) else (loop.add_writer, loop.remove_writer)
    )
    timer = loop.call_later(min(wait.deadline.left(), _LONGEST), _settle, ready)
    add(descriptor, _settle, ready)
    try:
        await ready
    finally:
        timer.cancel()
        remove(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
