"""A request and its answer: over the connections of a pool, again where one is lost and that is safe."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple, TypeVar

from . import journal
from .call import MALFORMED, TELLING, Call, decode, encode, malformed, refusal_of, result_of, well_formed
from .connection import AnswerTooLong, Connection, Lost, NotSent
from .errors import (
    BrokerError,
    BrokerUnavailable,
    LimitExceeded,
    NotFound,
    Overloaded,
    ProtocolViolation,
    ShuttingDown,
    error_from_wire,
)
from .holds import Hold
from .pool import Pool
from .waiting import Deadline, DeadlinePassed, Steps

T = TypeVar("T")

#: How many connections in a row may be lost while a hold is taken again. A request that brings a broker down must not
#: be sent to it forever.
_LOSSES_MAX = 5


#: A call, and what makes of its result what the caller gets.
Asked = Tuple[Call, Callable[[Dict[str, Any]], T]]


#: A request that is on its way: the connection, its number on that, its line, and how many bytes of that were sent.
Begun = Tuple[Connection, int, bytes, int]


class _BeingStopped(Exception):
    """A child is being stopped: to end, or for a restart, after which it can be held again."""


def exchange(pool: Pool, call: Call, reader: Callable[[Dict[str, Any]], T], begun: Optional[Begun] = None) -> Steps[T]:
    """Return what a reader makes of the result of a call, which may have begun.

    Raises the broker's error, or one of this side.
    """
    connection, answer = yield from _converse(pool, call, begun)
    return settle(pool, call, connection, answer, reader)


def settle(
    pool: Pool, call: Call, connection: Connection, answer: Dict[str, Any], reader: Callable[[Dict[str, Any]], T]
) -> T:
    """Give back the connection that an answer has come over, and return what a reader makes of the result."""
    result: Any = answer.get("result")
    # Of most answers it is seen at once that they tell of no shutdown, and raise nothing.
    plain = "error" not in answer and isinstance(result, dict)
    if not (plain and call.method not in TELLING) and call.announces_shutdown(answer):
        pool.outlook.announced()
    held = call.held_in(answer) if call.method == "create" else None
    if call.holds or connection.held or held is not None:
        pool.hold(connection, held, call.params)
    else:
        pool.put(connection)
    if not plain:
        result = call.conclude(answer, connection.path)
    try:
        return reader(result)
    except MALFORMED as error:
        raise malformed(error, connection.path) from error


def subscribe(
    pool: Pool, call: Call, meet: Optional[Callable[[str], None]] = None
) -> Steps[Tuple[Connection, Dict[str, Any]]]:
    """Return the result of a call, and the connection of its own that what follows comes over.

    ``meet`` is told beforehand which instance of the broker it is, and may change the call.
    """
    connection, answer = yield from _converse(pool, call, fresh=True, meet=meet)
    if call.announces_shutdown(answer):
        pool.outlook.announced()
    try:
        return connection, call.conclude(answer, connection.path)
    except BaseException:
        connection.close()
        raise


def peer_user(pool: Pool, call: Call) -> Steps[int]:
    """Return the user id of whoever listens, who need not own the file of the socket. Raises what connecting raises.

    That is the broker's user, or systemd's where that has made the socket. Root's starts brokers of root, and where it
    is told to start one of another user, ``user`` says of which.
    """
    connection = pool.take_idle(holds=False)
    if connection is None:
        try:
            connection = yield from pool.dial(call.deadline)
        except DeadlinePassed:
            raise call.timed_out() from None
    try:
        return connection.peer_user()
    finally:
        pool.put(connection)


def _converse(
    pool: Pool,
    call: Call,
    begun: Optional[Begun] = None,
    *,
    fresh: bool = False,
    meet: Optional[Callable[[str], None]] = None,
) -> Steps[Tuple[Connection, Dict[str, Any]]]:
    """Return the answer to a call, whatever that is, and the connection that it came over, which is the caller's.

    Once one was lost, the next is a new one: a broker that ends closes one connection after the other, and those that
    are idle in that moment are next.
    """
    while True:
        connection: Optional[Connection] = None if begun is None else begun[0]
        try:
            if begun is None:
                connection = None if fresh else pool.take_idle(holds=call.holds, may_hold=call.may_hold)
                if connection is None:
                    connection = yield from pool.dial(call.deadline)
                call.connection = connection
                if meet is not None or _asks_first(pool, connection, call):
                    yield from _ask_first(pool, connection, call, meet)
                if call.bound is not None:
                    return connection, (yield from _ask_each(connection, call, call.bound))
                number = next(connection.ids)
                begun = (connection, number, call.request(connection, number), 0)
            connection, number, request, sent = begun
            answer = yield from connection.ask(request, call.deadline, sent)
            return connection, answer_in(answer, number, connection)
        except (NotSent, Lost) as error:
            _close_after_last_words(pool, connection)
            _send_again(pool, call, error)
            begun, fresh = None, True
        except DeadlinePassed:
            abandon(pool, connection, call)
            raise call.timed_out() from None
        except AnswerTooLong:
            abandon(pool, connection, call)
            raise ProtocolViolation(pool.path(), "it sent a line longer than any answer of a broker") from None
        except BaseException:  # KeyboardInterrupt, CancelledError, GreenletExit and so on, too
            abandon(pool, connection, call)
            raise


def _asks_first(pool: Pool, connection: Connection, call: Call) -> bool:
    """Return whether there may be something to ask or to do before a call: mostly there is nothing."""
    return pool.outlook.leaving or not connection.answered or pool.holder.may_have_lost_holds or call.repeated


def _ask_first(pool: Pool, connection: Connection, call: Call, meet: Optional[Callable[[str], None]]) -> Steps[None]:
    """Ask what is to be known before a call, and take hold again of what was lost."""
    if meet is not None or _is_to_be_met(pool, connection):
        yield from _meet(pool, connection, call, meet)
    yield from hold_again(pool.holder, call.deadline)
    if call.is_to_be_bound:
        found = yield from _ask_aside(connection, call, encode(0, "list", call.question()))
        with well_formed(connection.path):
            call.bind(found["children"])


def _ask_each(connection: Connection, call: Call, bound: List[Mapping[str, Any]]) -> Steps[Dict[str, Any]]:
    """Return the answer to a call that is sent again to each by itself; of several, one that is not found is gone."""
    children: Dict[str, Any] = {}
    for method, params in call.rounds(bound):
        try:
            found = yield from _ask_aside(connection, call, encode(0, method, params))
        except NotFound:
            if isinstance(call.params["target"], str):
                raise
            children.pop(params["target"], None)
            continue
        with well_formed(connection.path):
            answered = found["children"] if "children" in found else [found["child"]]
            children.update((child["id"], child) for child in answered)
    return {"result": {"children": list(children.values())}}


def _is_to_be_met(pool: Pool, connection: Connection) -> bool:
    """Return whether it matters who the broker is: after one has announced its shutdown, and for holds.

    A new connection can be in the queue of a program that another one is about to replace. It is known whether that has
    happened, and with it whether holds are lost, once it was answered: the connections of a program end with it.
    """
    return pool.outlook.leaving or (not connection.answered and pool.holder.holds_any)


def _meet(pool: Pool, connection: Connection, call: Call, meet: Optional[Callable[[str], None]]) -> Steps[None]:
    status = yield from _ask_aside(connection, call, encode(0, "status", {}))
    with well_formed(connection.path):
        pool.outlook.met(shutting_down=status["shutting_down"])
        if meet is not None:
            meet(status.get("events_instance", status["instance"]))


def hold_again(pool: Pool, deadline: Deadline) -> Steps[None]:
    """Take hold again of the children whose connections were lost, if they live: there is a broker again.

    It is a matter of seconds: a broker that crashed or was upgraded keeps a child for its ``linger``, at least 10.
    A hold that cannot be had at the moment is left to the next call.
    """
    tried: Set[str] = set()
    while True:
        hold = pool.lost_hold(tried)
        if hold is None:
            return
        tried.add(hold.child)
        try:
            yield from _take_again(pool, hold, deadline)
        except (Lost, NotSent, BrokerUnavailable):
            # There is no broker again. The call finds that out, too, and comes back to this with the next one.
            return
        finally:
            hold.being_taken = False


def _take_again(pool: Pool, hold: Hold, deadline: Deadline) -> Steps[None]:
    """Take one hold again, give it up, or leave it for later. Raises what connections raise, and DeadlinePassed."""
    connection = pool.take_idle(holds=True)
    if connection is None:
        connection = yield from pool.dial(deadline)
    try:
        taken = yield from _is_held_again(pool, connection, hold, deadline)
    except (Overloaded, LimitExceeded, _BeingStopped):
        return pool.hold(connection, None, {})
    except BrokerError:
        taken = False
    except (Lost, NotSent):
        pool.lose(connection)
        hold.losses += 1
        if hold.losses > _LOSSES_MAX:
            _give_up(pool, hold)
        raise
    except (ProtocolViolation, AnswerTooLong, KeyError, TypeError):
        pool.lose(connection)
        return _give_up(pool, hold)
    except BaseException:
        pool.retire(connection, hold.params)
        raise
    if not taken:
        _give_up(pool, hold)
        return pool.hold(connection, None, {})
    pool.taken_again(hold, connection)
    journal.inform("holding %s again at %s", hold.child, pool.path())


def _is_held_again(pool: Pool, connection: Connection, hold: Hold, deadline: Deadline) -> Steps[bool]:
    """Return whether a connection holds a child from now on."""
    params = {**hold.params, "lifetime": "connection", "no_wait": True}
    if params.get("name") is not None:
        # A broker that crashed has forgotten the request ids of those that reused a child, and goes by the name.
        params["if_exists"] = "reuse"
    call = Call("create", params, None, pool.path)
    call.deadline = deadline
    found = yield from _ask_aside(connection, call, encode(0, "get", {"target": hold.child}))
    # A create of one that is going, or gone, would start another.
    state = found["child"]["state"]
    if state in ("stopping", "cleaning"):
        raise _BeingStopped
    if state == "ended":
        return False
    number = next(connection.ids)
    answer = answer_in((yield from connection.ask(call.request(connection, number), deadline)), number, connection)
    call.conclude(answer, connection.path)
    return call.held_in(answer) == hold.child


def _give_up(pool: Pool, hold: Hold) -> None:
    pool.give_up(hold)
    journal.warn("%s is not held any more: its connection to %s was lost", hold.child, pool.path())


def _ask_aside(connection: Connection, call: Call, line: bytes) -> Steps[Dict[str, Any]]:
    """Ask something else first, under the number 0."""
    answer = answer_in((yield from connection.ask(line, call.deadline)), 0, connection)
    return result_of(answer, connection.path)


def answer_in(line: bytes, number: int, connection: Connection) -> Dict[str, Any]:
    """Return the answer that a line holds to the request of that number. Raises what refuses the connection as such."""
    message = decode(line, connection.path)
    if message.get("id") == number:
        return message
    error = message.get("error")
    if message.get("id") is None and isinstance(error, dict):
        # It answers no request: the broker refuses the connection as such.
        raise error_from_wire(error)
    raise ProtocolViolation(connection.path, f"it answered another request than number {number}: {message!r:.200}")


def _send_again(pool: Pool, call: Call, why: Exception) -> None:
    """Take note that a call goes on over another connection. Raises ConnectionLost when it must not."""
    if isinstance(why, NotSent):
        call.not_sent()
        journal.inform("a connection to %s had ended; sending %s over another one", pool.path(), call.method)
    else:
        call.lost()
        journal.warn("the connection to %s was lost; sending %s again", pool.path(), call.attempt)


def _close_after_last_words(pool: Pool, connection: Optional[Connection]) -> None:
    """Close a connection that the broker has ended. Raises the refusal, if that is the last that it said."""
    if connection is None:
        return
    refusal: Optional[BrokerError] = None
    try:
        line = connection.last_line()
        refusal = None if line is None else refusal_of(line, connection.path)
    finally:
        pool.lose(connection)
    if refusal is not None:
        if isinstance(refusal, ShuttingDown):
            pool.outlook.announced()
        raise refusal


def abandon(pool: Pool, connection: Optional[Connection], call: Call) -> None:
    """Give up a connection with a request underway: what holds a child has to stay open."""
    if connection is None:
        return
    if call.holds or connection.held:
        pool.retire(connection, call.params)
    else:
        connection.close()
