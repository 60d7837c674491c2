"""The connections of one client: which are idle, which hold children, and what becomes of them at a fork.

A process uses its own connections only. The state of a pool belongs to a process; a forked one begins with a
new one, and closes its copies of the descriptors: else a connection that the parent closes would stay
open, and hold children, for as long as the forked process lives.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import Any, Callable, Collection, Dict, List, Optional, Protocol

from . import journal
from .connection import Connection, connect
from .errors import BrokerUnavailable, ClientClosed, NotASocket, SocketPathTooLong
from .guard import Guard
from .holds import Hold, Holds, Retired
from .outlook import SHUT_DOWN, Outlook
from .waiting import Deadline, Pause, Steps

#: How many connections are kept for later calls.
_IDLE_MAX = 8
#: The first and the longest pause before a broker that is not there is tried again, in seconds.
_PAUSE_FIRST, _PAUSE_LONGEST = 0.01, 0.25


class Subscription(Protocol):
    """What ends with the pool."""

    def close(self) -> None:
        """End it."""


class _State:
    """What one process has. What is not changed in one step is changed under its guard alone."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.guard = Guard()
        self.idle: List[Connection] = []
        self.holds = Holds()
        self.every: weakref.WeakSet[Connection] = weakref.WeakSet()
        self.subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self.closed = False

    def take_idle(self) -> Optional[Connection]:
        """Take out a connection that is idle."""
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def close_idle(self) -> None:
        """Close the connections that are idle."""
        while True:
            connection = self.take_idle()
            if connection is None:
                return
            connection.close()

    def close(self) -> None:
        """Close what is held, end the subscriptions, and wake whoever uses a connection, which is to close it then."""
        unused = self.holds.clear()
        for subscription in list(self.subscriptions):
            subscription.close()
        for connection in unused:
            connection.close()
        for connection in list(self.every):
            connection.wake()


class Pool:
    """The connections of one client."""

    def __init__(self, path: Callable[[], str], connect_timeout: float, wait_for_broker: bool) -> None:
        """Take where the socket is, asked at each attempt, and how long an absent broker is waited for."""
        self.path = path
        self._connect_timeout = connect_timeout
        #: What is known of the broker. A client and its watches have one in common.
        self.outlook = Outlook(wait_for_broker)
        #: The pool whose children are held again as soon as a broker is reached: a watch has its client's.
        self.holder: Pool = self
        self._own = _State()
        _pools.add(self)

    @property
    def _state(self) -> _State:
        if self._own.pid != os.getpid():
            self.after_fork()
        return self._own

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._state.closed

    def after_fork(self) -> None:
        """Begin anew in a forked process. No lock is taken: one may have been held at the fork."""
        before, self._own = self._own, _State()
        self._own.closed = before.closed
        for connection in list(before.every):
            connection.close()

    def take_idle(self, *, holds: bool, may_hold: bool = False) -> Optional[Connection]:
        """Return a connection for one request that is there already; without one, a new one is to be dialed.

        One that ``holds`` is for a child to hold; one that ``may_hold`` is so where many are held already.
        """
        state = self._state
        while True:
            connection = state.guard.try_change(state.holds.take_shared) if holds or may_hold else None
            if connection is None and not holds:
                connection = state.take_idle()
            if connection is None or connection.is_quiet():
                return connection
            self.lose(connection)

    def take_usual(self) -> Optional[Connection]:
        """Return a connection for one request that is there already, and over which nothing is to be asked before.

        Every request comes by here, and so it does by itself what others call ``_state`` and ``Holds.concern`` for.
        """
        state = self._own
        if state.pid != os.getpid():
            state = self._state
        holds = self.holder._own.holds
        if self.outlook.leaving or holds.by_child or holds.retired:
            return None
        connection = state.take_idle()
        if connection is None or connection.is_quiet():
            return connection
        self.lose(connection)
        return None

    def dial(self, deadline: Deadline) -> Steps[Connection]:
        """Return a new connection. A broker that was there is expected back, unless it has announced its shutdown.

        Raises BrokerUnavailable, PermissionDenied or DeadlinePassed.
        """
        pause = _PAUSE_FIRST
        while True:
            if self.closed:
                raise ClientClosed(self.path())
            try:
                connection = yield from connect(self.path(), deadline)
            except (NotASocket, SocketPathTooLong):
                raise
            except BrokerUnavailable as error:
                if self.outlook.leaving:
                    raise BrokerUnavailable(error.socket, SHUT_DOWN) from error
                left = min(self.outlook.patience(self._connect_timeout).left(), deadline.left())
                if left <= 0.0:
                    raise
                if pause == _PAUSE_FIRST:
                    journal.warn(
                        "no broker at %s (%s); waiting %.1f s for it to come back", error.socket, error.reason, left
                    )
                yield Pause(min(pause, left))
                pause = min(pause * 2, _PAUSE_LONGEST)
                continue
            away = self.outlook.reached()
            if away:
                journal.inform("a broker is at %s again, after %.1f s", connection.path, away)
            state = self._state
            state.guard.change(functools.partial(state.every.add, connection))
            if state.closed:
                # While it was being made: whoever closed the pool knows nothing of it.
                connection.close()
                raise ClientClosed(self.path())
            return connection

    def put(self, connection: Connection) -> None:
        """Take back a connection whose request has been answered."""
        # That it belongs to this process was looked at when it was taken.
        state = self._own
        if connection.pid != state.pid or state.closed or len(state.idle) >= _IDLE_MAX:
            connection.close()
            return
        state.idle.append(connection)
        if state.closed:
            # Meanwhile: whoever closed the pool may have been through with those that are idle.
            state.close_idle()

    @property
    def holds_any(self) -> bool:
        """Whether it holds a child, or did until its connection was lost, or is about to."""
        return bool(self._own.holds.by_child) or self._own.guard.is_putting_off

    @property
    def may_have_lost_holds(self) -> bool:
        """Whether ``lost_hold`` has anything to look at."""
        return self._own.holds.concern

    def hold(self, connection: Connection, child: Optional[str], params: Dict[str, Any]) -> None:
        """Take back a connection that holds a child from now on, or None after a create that came to nothing.

        ``params`` are what it was created with, by which it can be held again when the connection is lost.
        """

        def change() -> None:
            if child is not None and self._keeps(connection):
                self._own.holds.add(connection, child, params)
            self._put_holding(connection)

        self._state.guard.change(change)

    def release(self, child: str) -> None:
        """Undo one ``hold`` of a child; a connection that holds none any more is closed, which tells the broker."""
        state = self._state
        state.guard.change(lambda: _close(state.holds.release(child)))

    def forget(self, child: str) -> None:
        """Undo every ``hold`` of a child, as it has ended."""
        state = self._state
        state.guard.change(lambda: _close(state.holds.forget(child)))

    def lose(self, connection: Connection) -> None:
        """Close a connection that has ended; what it held can be taken again."""
        state = self._state
        state.guard.change(functools.partial(state.holds.lose, connection))
        connection.close()

    def retire(self, connection: Connection, params: Dict[str, Any]) -> None:
        """Keep a connection that may still hold a child: a create with these parameters was given up over it."""
        if not connection.underway:
            # Nothing is to come; what it holds already it goes on to hold.
            self.hold(connection, None, {})
            return

        def change() -> None:
            if self._keeps(connection):
                self._own.holds.retired.append(Retired(connection, params))
            else:
                connection.close()

        self._state.guard.change(change)

    def lost_hold(self, but: Collection[str]) -> Optional[Hold]:
        """Return a hold whose connection is lost, as with a broker that crashed: it is the caller's to take again.

        Those of the children ``but`` are left out.
        """
        holds = self._state.holds

        def change() -> Optional[Hold]:
            for connection in holds.read_late_answers() + holds.lose_the_ended():
                connection.close()
            return holds.begin_to_take_again(but)

        return self._state.guard.try_change(change)

    def taken_again(self, hold: Hold, connection: Connection) -> None:
        """Take back a connection that holds a child again."""

        def change() -> None:
            if self._keeps(connection):
                self._own.holds.taken_again(hold, connection)
            self._put_holding(connection)

        self._state.guard.change(change)

    def give_up(self, hold: Hold) -> None:
        """Take note that a child cannot be held again."""
        state = self._state
        state.guard.change(functools.partial(state.holds.give_up, hold))

    def _keeps(self, connection: Connection) -> bool:
        state = self._state
        return connection.pid == state.pid and not state.closed

    def _put_holding(self, connection: Connection) -> None:
        if connection.held and self._keeps(connection):
            self._own.holds.idle.append(connection)
        else:
            connection.close()

    def add(self, subscription: Subscription) -> None:
        """Take note of a subscription that is to be closed with the pool."""
        state = self._state
        state.guard.change(functools.partial(state.subscriptions.add, subscription))

    def close(self) -> None:
        """Close all connections; those in use are closed by their users."""
        state = self._state
        state.closed = True
        state.close_idle()
        state.guard.change(state.close)


def _close(connection: Optional[Connection]) -> None:
    if connection is not None:
        connection.close()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.after_fork()


_hook: Optional[Callable[..., None]] = getattr(os, "register_at_fork", None)
if _hook is not None:
    _hook(after_in_child=_after_fork_in_child)
