"""Which connections of a client hold which children, and which holds are lost."""

from __future__ import annotations

from typing import Any, Collection, Dict, List, NamedTuple, Optional

from .call import decode, held_in
from .connection import AnswerTooLong, Connection, Lost
from .errors import ProtocolViolation

#: How many connections of a client hold a child alone; children beyond that share them.
_HOLDING_MAX = 32


class Hold:
    """A hold on a child with the lifetime ``connection``: one, for however many creates have returned that child."""

    def __init__(self, child: str, params: Dict[str, Any]) -> None:
        """Take the child's id, and the parameters of the create that took hold of it."""
        self.child = child
        self.params = params
        #: How many creates have returned the child that were not released yet.
        self.times = 0
        #: What holds it; None when that is lost.
        self.connection: Optional[Connection] = None
        #: Whether somebody takes it again at the moment.
        self.being_taken = False
        #: How many connections in a row were lost while it was being taken again.
        self.losses = 0


class Retired(NamedTuple):
    """A connection over which an answer is still to come that nobody waits for."""

    connection: Connection
    #: The parameters of the create that it may be the answer to.
    params: Dict[str, Any]


class Holds:
    """The holds of one process, and the connections that carry them.

    They are changed under the pool's guard.
    """

    def __init__(self) -> None:
        #: Connections that hold children, and are not in use. They carry creates only, and close with the pool.
        self.idle: List[Connection] = []
        #: Those that may hold a child once their answer has come.
        self.retired: List[Retired] = []
        #: The holds, by the ids of their children.
        self.by_child: Dict[str, Hold] = {}

    @property
    def concern(self) -> bool:
        """Whether a connection may have ended, or has, that holds a child or may hold one."""
        return bool(self.by_child or self.retired)

    def take_shared(self) -> Optional[Connection]:
        """Take out the connection that is to hold another child; None as long as each may have one of its own."""
        if len(self.idle) < _HOLDING_MAX:
            return None
        connection = min(self.idle, key=lambda one: len(one.held))
        self.idle.remove(connection)
        return connection

    def add(self, connection: Connection, child: str, params: Dict[str, Any]) -> None:
        """Take note that a create over a connection has returned a child that it holds."""
        self._adopt(connection, child, params).times += 1

    def _adopt(self, connection: Connection, child: str, params: Dict[str, Any]) -> Hold:
        """Take note that a connection holds a child, and return the hold: a new one is nobody's yet."""
        hold = self.by_child.setdefault(child, Hold(child, params))
        before = hold.connection
        # One that holds it already is enough.
        if before is None or (before in self.idle and not before.is_quiet()):
            self._carry(hold, connection)
        return hold

    def release(self, child: str) -> Optional[Connection]:
        """Undo one ``add``; return the connection that holds nothing any more, and is the caller's to close."""
        hold = self.by_child.get(child)
        if hold is None:
            return None
        hold.times -= 1
        return None if hold.times > 0 else self.forget(child)

    def forget(self, child: str) -> Optional[Connection]:
        """Undo every ``add`` of a child; return the connection that is the caller's to close, as ``release`` does."""
        hold = self.by_child.pop(child, None)
        if hold is None:
            return None
        connection = hold.connection
        if connection is None:
            return None
        connection.held.discard(child)
        # One that is in use at the moment is closed when it is given back.
        if connection.held or connection not in self.idle:
            return None
        self.idle.remove(connection)
        return connection

    def lose(self, connection: Connection) -> None:
        """Take note that a connection has ended: what it held is lost."""
        for child in connection.held:
            hold = self.by_child.get(child)
            if hold is not None and hold.connection is connection:
                hold.connection = None
        connection.held.clear()

    def lose_the_ended(self) -> List[Connection]:
        """Take out the connections that have ended, as those to a broker that crashed, and return them."""
        ended = [one for one in self.idle if not one.is_quiet()]
        for connection in ended:
            self.lose(connection)
        self.idle = [one for one in self.idle if one not in ended]
        return ended

    def read_late_answers(self) -> List[Connection]:
        """Take out the connections whose late answers have come; return those that hold nothing, to be closed.

        A child that was created after all is held: by whoever creates it again under its name, and by the client, until
        that is closed or the child ends.
        """
        useless: List[Connection] = []
        retired, self.retired = self.retired, []
        for one in retired:
            connection = one.connection
            try:
                line = connection.late_line()
                if line is None:
                    self.retired.append(one)
                    continue
                answer = decode(line, connection.path)
            except (Lost, AnswerTooLong, ProtocolViolation):
                self.lose(connection)
            else:
                # Under the number 0 something was asked before the create, which was not sent then.
                child = held_in(answer) if answer.get("id") else None
                if child is not None:
                    self._adopt(connection, child, one.params)
                connection.underway = False
            if connection.held:
                self.idle.append(connection)
            else:
                useless.append(connection)
        return useless

    def begin_to_take_again(self, but: Collection[str]) -> Optional[Hold]:
        """Return a lost hold which nobody takes again yet, of another child than these."""
        for hold in self.by_child.values():
            if hold.connection is None and not hold.being_taken and hold.child not in but:
                hold.being_taken = True
                return hold
        return None

    def taken_again(self, hold: Hold, connection: Connection) -> None:
        """Take note that a connection holds a child again, unless it was released or taken meanwhile."""
        hold.being_taken, hold.losses = False, 0
        if self.by_child.get(hold.child) is hold and hold.connection is None:
            self._carry(hold, connection)

    def give_up(self, hold: Hold) -> None:
        """Take note that a child cannot be held again."""
        if self.by_child.get(hold.child) is hold and hold.connection is None:
            del self.by_child[hold.child]

    def clear(self) -> List[Connection]:
        """Take out every connection that is not in use."""
        unused = self.idle + [one.connection for one in self.retired]
        self.idle, self.retired = [], []
        return unused

    def _carry(self, hold: Hold, connection: Connection) -> None:
        if hold.connection is not None:
            hold.connection.held.discard(hold.child)
        hold.connection = connection
        connection.held.add(hold.child)
