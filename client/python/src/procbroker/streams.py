"""Events and logs for the blocking client, as iterators."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Generic, NoReturn, Optional, Type, TypeVar

from . import arguments
from .arguments import Duration
from .errors import ClientTimeout
from .event import AnyEvent
from .feed import EventFeed, Feed, LogFeed
from .waiting import Deadline, DeadlinePassed, run

__all__ = ["Events", "LogFollow"]

T = TypeVar("T")
ChildT = TypeVar("ChildT")


class _Stream(Iterator[T]):
    """What comes over a subscription, for one thread to iterate over, and for any to close."""

    def __init__(self, feed: Feed[T]) -> None:
        self._feed = feed
        run(feed.open())

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied. Raises TypeError."""
        raise TypeError(f"{type(self).__name__} is a connection of this process, and cannot be pickled or copied")

    def next(self, timeout: Optional[Duration] = None) -> Optional[T]:
        """Return the next one, or None at the end.

        Raises ClientTimeout when none comes within the timeout; nothing is lost by that.
        """
        deadline = Deadline(None if timeout is None else arguments.seconds(timeout, "timeout"))
        try:
            return run(self._feed.next(deadline))
        except DeadlinePassed:
            raise ClientTimeout(self._feed.NEXT, deadline.seconds or 0.0, self._feed.socket) from None

    def close(self) -> None:
        """End the subscription; a thread that waits for the next one leaves its loop."""
        self._feed.close()

    def __next__(self) -> T:
        """Return the next one."""
        one = self.next()
        if one is None:
            raise StopIteration
        return one

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close it."""
        self.close()


class Events(_Stream[AnyEvent[ChildT]], Generic[ChildT]):
    """What happens, from a subscription on: an endless iterator. As a context manager it is closed.

    A connection that is lost is made again, and the events go on where they were. The iteration ends when it
    is closed, by any thread; it raises BrokerUnavailable when the broker does not come back within the
    client's ``connect_timeout``, and at once after the last event of one that has announced its shutdown. It can be
    gone on with when there is a broker again.
    """

    def __init__(self, feed: EventFeed[ChildT]) -> None:
        """Made by Broker.events, not by hand."""
        super().__init__(feed)
        self._events = feed

    @property
    def next_seq(self) -> int:
        """The number of the first event that was not returned yet, for ``since=`` of a later subscription."""
        return self._events.next_seq

    def __enter__(self) -> Events[ChildT]:
        """Return itself."""
        return self


class LogFollow(_Stream[str]):
    """What a child wrote and goes on to write, piece by piece as it comes (not line by line), until it ends.

    A connection that is lost is made again, and the text goes on where it was, no byte twice and none missing, as far
    as it is kept; after a restart of the broker by a crash, too. Raises BrokerUnavailable when the broker does not come
    back within the client's ``connect_timeout``, and can be gone on with then; ConnectionLost where it is an older one
    that does not say how far the text had come. As a context manager it is closed.
    """

    def __init__(self, feed: LogFeed) -> None:
        """Made by Broker.follow and Child.follow, not by hand."""
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

    def __enter__(self) -> LogFollow:
        """Return itself."""
        return self
