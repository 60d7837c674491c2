"""Subscriptions: what the broker tells without being asked again.

Each has a connection of its own. A program that takes its time holds up no other call, and closing the feed ends
the subscription.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from typing import Any, Callable, ClassVar, Dict, Generic, List, Optional, TypeVar

from . import journal
from .call import Call, decode, encode, result_of, well_formed
from .connection import AnswerTooLong, Connection, Lost, NotSent
from .errors import ConnectionLost, ProcbrokerError, ProtocolViolation
from .event import AnyEvent, BrokerEvent, BrokerRestarted, Lagged, event_from_wire
from .exchange import subscribe
from .pool import Pool
from .waiting import Deadline, DeadlinePassed, Steps

T = TypeVar("T")
ChildT = TypeVar("ChildT")

#: How many connections in a row may be lost, each within STABLE_AFTER of its beginning.
_LOSSES_MAX = 5
#: In seconds.
_STABLE_AFTER = 1.0


class Feed(Generic[T]):
    """A connection that carries one subscription, read by one thread or task at a time."""

    #: What somebody waits for who waits for the next one.
    NEXT: ClassVar[str]

    def __init__(self, pool: Pool, seconds: Optional[float]) -> None:
        self._pool = pool
        #: How long subscribing may take.
        self._seconds = seconds
        self._connection: Optional[Connection] = None
        #: What makes the connection, or makes it again.
        self._subscribing: Optional[Call] = None
        self._closed = False
        self._reading = threading.Lock()
        self._reading_pid = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether it, or the client that it belongs to, was closed."""
        return self._closed or self._pool.closed

    @property
    def socket(self) -> str:
        """The path of the broker's socket."""
        return self._pool.path()

    def open(self) -> Steps[None]:
        """Subscribe for the first time."""
        raise NotImplementedError

    def next(self, deadline: Deadline) -> Steps[Optional[T]]:
        """Return the next one, None at the end. Raises DeadlinePassed, and what connecting raises."""
        if not self._begin_reading():
            # Whoever closes it holds the lock, too, for a moment.
            if self.closed:
                return None
            raise RuntimeError("this subscription is being read by another thread or task; make one for each")
        try:
            return (yield from self._next(deadline))
        except (ProcbrokerError, DeadlinePassed):
            # What came of its being closed while it was waited for, or was being made again.
            if self.closed:
                return None
            raise
        finally:
            self._reading.release()
            if self.closed:
                self._drop_unless_read()

    def _next(self, deadline: Deadline) -> Steps[Optional[T]]:
        raise NotImplementedError

    def close(self) -> None:
        """End the subscription; whoever waits for it is told that it has ended."""
        self._closed = True
        if self._drop_unless_read():
            return
        # The reader closes what it has. Closed here, its descriptor could become another file's while the reader waits.
        call, connection = self._subscribing, self._connection
        if call is not None:
            call.cancel()
        if connection is not None:
            connection.wake()

    def _drop_unless_read(self) -> bool:
        """Drop the connection, and return True, unless somebody reads it, who does so afterwards."""
        if not self._begin_reading():
            return False
        self._drop()
        self._reading.release()
        return True

    def _begin_reading(self) -> bool:
        if self._reading_pid != os.getpid():
            # A thread that was reading at a fork does not exist here.
            self._reading, self._reading_pid = threading.Lock(), os.getpid()
        return self._reading.acquire(blocking=False)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _subscribe(
        self, method: str, params: Dict[str, Any], meet: Optional[Callable[[str], None]] = None
    ) -> Steps[Dict[str, Any]]:
        call = Call(method, params, self._seconds, self._pool.path)
        self._subscribing = call
        try:
            # Whoever closed it before that has not seen the call.
            if self._closed:
                call.cancel()
            self._connection, result = yield from subscribe(self._pool, call, meet)
        finally:
            self._subscribing = None
        self._pool.add(self)
        return result

    def _message(self, connection: Connection, deadline: Deadline) -> Steps[Dict[str, Any]]:
        try:
            return decode((yield from connection.receive(deadline)), connection.path)
        except AnswerTooLong:
            raise ProtocolViolation(connection.path, "it sent a line longer than any of a broker") from None

    def _told(self, message: Dict[str, Any], method: str) -> Dict[str, Any]:
        params = message.get("params")
        lagged = isinstance(params, dict) and params.get("kind") == "lagged"
        if not isinstance(params, dict) or (message.get("method") != method and not lagged):
            raise ProtocolViolation(self.socket, f"it sent a subscriber to {method}s {message!r:.200}")
        return params


class EventFeed(Feed[AnyEvent[ChildT]], Generic[ChildT]):
    """A subscription to events, which outlives its connections."""

    NEXT = "the next event"

    def __init__(
        self,
        pool: Pool,
        seconds: Optional[float],
        since: Optional[int],
        labels: Dict[str, str],
        make_child: Callable[[Any], ChildT],
        *,
        late_shutdown: bool = False,
    ) -> None:
        """Take how long subscribing may take, the first number wanted, and whose events.

        With ``late_shutdown``, a shutdown that began before the subscription is told of as an event, too.
        """
        super().__init__(pool, seconds)
        self._labels = labels
        self._make_child = make_child
        self._since = since
        #: The number of the first event that was not returned yet, as far as is known.
        self.next_seq = 0
        #: Which start of the broker the number is of.
        self._instance: Optional[str] = None
        #: Whether the broker was started anew, and that is still to be told.
        self._restarted = False
        self._late_shutdown = late_shutdown
        #: The number of a question for the status that is not answered yet.
        self._asked: Optional[int] = None
        self._losses = 0
        self._subscribed_at = 0.0

    def open(self) -> Steps[None]:
        """Subscribe for the first time."""
        upcoming = yield from self._subscribe_since(self._since)
        # Of the kept events that were asked for, none has been seen yet.
        self.next_seq = upcoming if self._since is None else min(self._since, upcoming)

    def _next(self, deadline: Deadline) -> Steps[Optional[AnyEvent[ChildT]]]:
        while not self.closed:
            connection = self._connection
            if connection is None or connection.pid != os.getpid():
                # From the first event that was not seen.
                yield from self._subscribe_since(self.next_seq)
                continue
            if self._restarted:
                self._restarted = False
                return BrokerRestarted()
            try:
                message = yield from self._message(connection, deadline)
            except Lost:
                self._lose()
                continue
            if self._asked is not None and message.get("id") == self._asked:
                self._asked = None
                with well_formed(connection.path):
                    if result_of(message, connection.path)["shutting_down"]:
                        self._pool.outlook.announced()
                        return BrokerEvent("shutting_down", self.next_seq, datetime.datetime.now(datetime.timezone.utc))
                continue
            params = self._told(message, "event")
            with well_formed(connection.path):
                event = event_from_wire(params, self._make_child)
            self.next_seq = self.next_seq + event.missed if isinstance(event, Lagged) else event.seq + 1
            self._losses = 0
            if event.kind == "shutting_down":
                self._pool.outlook.announced()
                journal.inform("the broker at %s shuts down", connection.path)
            return event
        return None

    def _lose(self) -> None:
        self._drop()
        if not self.closed:
            journal.warn("a subscription to events lost its connection to %s; subscribing again", self.socket)
        stable = time.monotonic() - self._subscribed_at >= _STABLE_AFTER
        self._losses = 0 if stable else self._losses + 1
        if self._losses > _LOSSES_MAX:
            self._losses = 0
            raise ConnectionLost("events", self.socket)

    def _subscribe_since(self, since: Optional[int]) -> Steps[int]:
        params: Dict[str, Any] = {"labels": self._labels}
        if since is not None:
            params["since"] = since

        met = self._instance

        def meet(instance: str) -> None:
            nonlocal met
            met = instance
            # Each start of a broker counts from the beginning: the numbers of another one mean nothing to it.
            if self._instance not in (None, instance):
                params["since"] = 0

        result = yield from self._subscribe("events", params, meet)
        # Only now: whoever gives up before the subscription stands is told of the restart the next time.
        if self._instance not in (None, met):
            self.next_seq, self._restarted = 0, True
        self._instance = met
        self._subscribed_at = time.monotonic()
        if self._late_shutdown and self._connection is not None:
            self._asked = next(self._connection.ids)
            with contextlib.suppress(NotSent, Lost):  # which the reader finds out, after what came before
                yield from self._connection.send(encode(self._asked, "status", {}), Deadline(self._seconds))
        with well_formed(self.socket):
            return int(result["next"])


class LogFeed(Feed[str]):
    """What a child wrote, and goes on to write."""

    NEXT = "more of a log"

    def __init__(self, pool: Pool, seconds: Optional[float], params: Dict[str, Any]) -> None:
        """Take how long subscribing may take, and the parameters of ``logs``."""
        super().__init__(pool, seconds)
        self._params = params
        self._pieces: List[str] = []
        self._ended = False
        #: How many connections in a row were lost early.
        self._losses = 0
        self._subscribed_at = 0.0
        #: Whether output that is older than the first piece was released already.
        self.truncated = False
        #: How many pieces were lost since, because they were not read in time.
        self.missed = 0

    def open(self) -> Steps[None]:
        """Subscribe."""
        result = yield from self._subscribe("logs", {**self._params, "follow": True})
        with well_formed(self.socket):
            self._pieces.append(result["text"])
            self.truncated = result["truncated"]
            self._ended = result.get("subscription") is None
            if "position" in result:
                # The very child: its name may be another one's by then.
                go_on = {key: value for key, value in self._params.items() if key not in ("tail", "since")}
                self._params = {**go_on, "target": result["id"], "position": result["position"]}
        self._subscribed_at = time.monotonic()

    def _go_on(self) -> Steps[None]:
        """Subscribe again, from where the text had come."""
        if "position" not in self._params:
            # An older broker, which does not say how far that is.
            raise ConnectionLost("logs", self.socket)
        result = yield from self._subscribe("logs", {**self._params, "follow": True})
        with well_formed(self.socket):
            self._ended = result.get("subscription") is None
        self._subscribed_at = time.monotonic()

    def _lose(self) -> None:
        self._drop()
        stable = time.monotonic() - self._subscribed_at >= _STABLE_AFTER
        self._losses = 0 if stable else self._losses + 1
        if self._losses > _LOSSES_MAX:
            self._losses = 0
            raise ConnectionLost("logs", self.socket)

    def _next(self, deadline: Deadline) -> Steps[Optional[str]]:
        while not self.closed:
            piece = self._pieces.pop(0) if self._pieces else ""
            if piece:
                return piece
            if self._ended:
                self._closed = True
                return None
            connection = self._connection
            if connection is None or connection.pid != os.getpid():
                yield from self._go_on()
                continue
            try:
                message = yield from self._message(connection, deadline)
            except Lost:
                self._lose()
                continue
            params = self._told(message, "log")
            with well_formed(connection.path):
                if params.get("kind") == "lagged":
                    self.missed += int(params["missed"])
                    continue
                self._pieces.append(params["text"])
                self._ended = bool(params.get("ended", False))
                if "position" in params:
                    self._params["position"] = params["position"]
            self._losses = 0
        return None
