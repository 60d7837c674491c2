"""Telling an asynchronous worker in time that the broker shuts down."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Callable, NoReturn

from .async_streams import AsyncEvents
from .errors import ProcbrokerError

__all__ = ["AsyncShutdownWatch"]

#: The first and the longest pause before a broker that cannot be reached is tried again, in seconds.
_PAUSE_FIRST, _PAUSE_LONGEST = 0.1, 5.0


class AsyncShutdownWatch:
    """A task that calls back once, when the broker begins to shut down. ``cancel`` ends it."""

    def __init__(self, events: AsyncEvents[Any], callback: Callable[[], Any]) -> None:
        """Take events that are subscribed to, and begin in the running event loop."""
        self._events = events
        self._callback = callback
        # The loop itself keeps no task alive that nobody else refers to.
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied. Raises TypeError."""
        raise TypeError(f"{type(self).__name__} belongs to this process, and cannot be pickled or copied")

    def cancel(self) -> None:
        """End it; the callback is not called any more, unless it is being called already."""
        # A task that is cancelled before its first step does not come to close them itself.
        self._events.close()
        if self._task is not _current_task():
            self._task.cancel()

    async def _watch(self) -> None:
        pause = _PAUSE_FIRST
        async with self._events:
            while not await self._told():
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_LONGEST)
        outcome = self._callback()
        if inspect.isawaitable(outcome):
            await outcome

    async def _told(self) -> bool:
        try:
            async for event in self._events:
                if event.kind == "shutting_down":
                    return True
        except (ProcbrokerError, OSError):
            pass
        return False


def _current_task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
