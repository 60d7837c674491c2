"""Taking steps in a coroutine. Whoever blocks does not need asyncio, which takes long to import."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from .waiting import LONGEST, Pause, Readable, Steps, Wait, can_be_read

T = TypeVar("T")


async def run_async(steps: Steps[T]) -> T:
    """Take all steps, and let the event loop go on where they wait."""
    try:
        wait = next(steps)
        while True:
            try:
                await suspend(wait)
            except BaseException as error:  # such as asyncio.CancelledError
                wait = steps.throw(error)
            else:
                wait = next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def suspend(wait: Wait) -> None:
    """Let the event loop go on until the wait is over."""
    if isinstance(wait, Pause):
        await asyncio.sleep(wait.seconds)
        return
    # To wait for what is there already takes a turn of the event loop, which is many times as long as to look.
    if isinstance(wait, Readable) and can_be_read(wait.sock):
        return
    loop = asyncio.get_running_loop()
    # Waiting for the socket to be ready, instead of for its bytes: whoever is cancelled has taken none of them.
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = wait.sock.fileno()
    add, remove = (
        (loop.add_reader, loop.remove_reader) if isinstance(wait, Readable) else (loop.add_writer, loop.remove_writer)
    )
    timer = loop.call_later(min(wait.deadline.left(), LONGEST), _settle, ready)
    add(descriptor, _settle, ready)
    try:
        await ready
    finally:
        timer.cancel()
        remove(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
