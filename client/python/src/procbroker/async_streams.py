"""Events and logs for the asynchronous client, as asynchronous iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, NoReturn, Optional, Type, TypeVar

from . import arguments
from .arguments import Duration
from .async_waiting import run_async
from .errors import ClientTimeout, ProcbrokerError
from .event import AnyEvent
from .feed import EventFeed, Feed, LogFeed
from .waiting import Deadline, DeadlinePassed

__all__ = ["AsyncEvents", "AsyncLogFollow"]

T = TypeVar("T")
ChildT = TypeVar("ChildT")


class _Stream(AsyncIterator[T]):
    """What comes over a subscription, for one task to iterate over."""

    def __init__(self, feed: Feed[T]) -> None:
        self._feed = feed
        self._opened = False

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied. Raises TypeError."""
        raise TypeError(f"{type(self).__name__} is a connection of this process, and cannot be pickled or copied")

    async def open(self) -> None:
        """Subscribe; what happens from then on is told. The first ``next`` does so as well."""
        if not self._opened:
            await run_async(self._feed.open())
            self._opened = True

    async def next(self, timeout: Optional[Duration] = None) -> Optional[T]:
        """Return the next one, or None at the end.

        Raises ClientTimeout when none comes within the timeout; nothing is lost by that.
        """
        deadline = Deadline(None if timeout is None else arguments.seconds(timeout, "timeout"))
        try:
            await self.open()
        except ProcbrokerError:
            # What came of its being closed before it was open.
            if self._feed.closed:
                return None
            raise
        try:
            return await run_async(self._feed.next(deadline))
        except DeadlinePassed:
            raise ClientTimeout(self._feed.NEXT, deadline.seconds or 0.0, self._feed.socket) from None

    def close(self) -> None:
        """End the subscription; a task that waits for the next one leaves its loop."""
        self._feed.close()

    async def __anext__(self) -> T:
        """Return the next one."""
        one = await self.next()
        if one is None:
            raise StopAsyncIteration
        return one

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close it."""
        self.close()


class AsyncEvents(_Stream[AnyEvent[ChildT]], Generic[ChildT]):
    """What happens: an endless iterator.

    It subscribes at the beginning of ``async with``, which closes it at the end, or with the first event asked for.

    A connection that is lost is made again, and the events go on where they were. The iteration ends when it
    is closed; it raises BrokerUnavailable when the broker does not come back within the
    client's ``connect_timeout``, and at once after the last event of one that has announced its shutdown. It can be
    gone on with when there is a broker again.
    """

    def __init__(self, feed: EventFeed[ChildT]) -> None:
        """Made by AsyncBroker.events, not by hand."""
        super().__init__(feed)
        self._events = feed

    @property
    def next_seq(self) -> int:
        """The number of the first event that was not returned yet, for ``since=`` of a later subscription."""
        return self._events.next_seq

    async def __aenter__(self) -> AsyncEvents[ChildT]:
        """Subscribe, and return itself."""
        await self.open()
        return self


class AsyncLogFollow(_Stream[str]):
    """What a child wrote and goes on to write, piece by piece as it comes (not line by line), until it ends.

    It subscribes at the beginning of ``async with``, which closes it at the end, or with the first piece asked for.
    A connection that is lost is made again, and the text goes on where it was, as with LogFollow. Raises
    BrokerUnavailable when the broker does not come back, and ConnectionLost where it is an older one that does not say
    how far the text had come.
    """

    def __init__(self, feed: LogFeed) -> None:
        """Made by AsyncBroker.follow and AsyncChild.follow, not by hand."""
        super().__init__(feed)
        self._log = feed

    @property
    def truncated(self) -> bool:
        """Whether output that is older than the first piece was released already."""
        return self._log.truncated

    @property
    def missed(self) -> int:
        """How many pieces were lost because they were not read in time."""
        return self._log.missed

    async def __aenter__(self) -> AsyncLogFollow:
        """Subscribe, and return itself."""
        await self.open()
        return self
