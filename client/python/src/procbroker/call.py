"""One call: its request, how long it may take, and what may be done when its connection is lost.

A request that may be carried out twice is sent again; one that may not is given up, and the caller
told so. Nothing here touches a socket.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable, Dict, List, Optional, Tuple

from .connection import Connection
from .errors import (
    BrokerError,
    ClientTimeout,
    ConnectionLost,
    NotFound,
    ProtocolViolation,
    ShuttingDown,
    error_from_wire,
)
from .values import time_from_wire
from .waiting import Deadline

#: How many connections in a row a call may see lost, each within STABLE_AFTER of sending. A request that brings a
#: broker down must not be sent to it forever.
_LOSSES_MAX = 5
#: A connection that has lasted so long after the request was sent was not ended by it, in seconds.
_STABLE_AFTER = 1.0
#: What must not be carried out twice.
_NEVER_TWICE = frozenset({"signal", "shutdown", "upgrade"})
#: What may be carried out twice on the same children. A name can have passed on to another one meanwhile, and what was
#: created since can have the same labels.
_TWICE_ON_THE_SAME = frozenset({"destroy", "renew", "restart", "wait"})
#: A UUID with its hyphens, and all forms in which the broker takes one.
_HYPHENED = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID = rf"[0-9a-f]{{32}}|(urn:uuid:)?{_HYPHENED}|\{{{_HYPHENED}\}}"
#: What is told by its result that the broker shuts down, and not by an error alone.
TELLING = frozenset({"shutdown", "status"})
#: What comes of reading an answer that lacks what it must have.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)
#: Made once: what json.dumps and json.loads do about their options takes as long as the rest.
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_from_json = json.JSONDecoder().raw_decode


def _kept_encoder() -> Callable[[Mapping[str, Any], int], Iterable[str]]:
    """Return what ``_encoder`` makes anew for each text, which takes longer than to write that.

    But for one thing: it does not look for circles, and comes to the end of the stack in one.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # as with PyPy
        return lambda value, _level: _encoder.iterencode(value)
    made: Callable[[Mapping[str, Any], int], Iterable[str]] = make(
        None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, True
    )
    return made


_pieces_of_json = _kept_encoder()


class Call:
    """One call, over as many connections as it takes."""

    __slots__ = (
        "_losses",
        "_path",
        "_sent",
        "_waits_for",
        "bound",
        "connection",
        "deadline",
        "holds",
        "method",
        "params",
        "repeated",
    )

    def __init__(self, method: str, params: Dict[str, Any], seconds: Optional[float], path: Callable[[], str]) -> None:
        """Begin now, and end within these seconds; None is never. ``path`` tells where the socket is."""
        self.method = method
        self.params = params
        self.deadline = Deadline(seconds)
        #: What carries it at present, for whoever cancels it.
        self.connection: Optional[Connection] = None
        self._path = path
        self._sent = self.deadline.began
        #: The time that a wait was given, for a child or for a place, from its beginning.
        self._waits_for: Optional[float] = None
        if method == "wait":
            self._waits_for = params.get("timeout")
        elif method == "create" and params.get("limit") is not None:
            self._waits_for = params["limit"].get("wait")
        self._losses = 0
        #: Whether it is sent again, and what was sent before may have been carried out.
        self.repeated = False
        #: Those whom it was for when it began, once it is sent again to each by itself.
        self.bound: Optional[List[Mapping[str, Any]]] = None
        #: Whether the connection that carries it is to stay open, for a child whose life is bound to it.
        self.holds = method == "create" and params.get("lifetime") == "connection"

    def request(self, connection: Connection, number: int) -> bytes:
        """Return the line to send now over a connection; a wait's time is cut by what has passed."""
        self._sent = time.monotonic()
        if self._waits_for is not None:
            left = max(0.0, self._waits_for - (self._sent - self.deadline.began))
            if self.method == "wait":
                self.params["timeout"] = left
            else:
                self.params["limit"] = {**self.params["limit"], "wait": left}
        if self.method == "create" and "request_id" not in self.params:
            self.params["request_id"] = f"{connection.token}{number:012x}"
        return encode(number, self.method, self.params)

    @property
    def may_hold(self) -> bool:
        """Whether the connection may have to stay open: a child that is reused has the lifetime it was created with."""
        return self.method == "create" and self.params.get("if_exists") == "reuse"

    def not_sent(self) -> None:
        """Take note that nothing was sent. Raises ConnectionLost when that goes on and on."""
        if time.monotonic() - self._sent >= _STABLE_AFTER:
            self._losses = 0
        self._losses += 1
        if self._losses > _LOSSES_MAX:
            raise self._lost_for_good()

    def lost(self) -> None:
        """Take note that the connection was lost with the request underway.

        Raises ConnectionLost when the request must not be sent again.
        """
        if self.method in _NEVER_TWICE:
            raise self._lost_for_good()
        self.repeated = True
        self.not_sent()

    @property
    def attempt(self) -> str:
        """What is attempted, and on what."""
        about = self.params.get("name") or self.params.get("target") or self.params.get("command")
        return self.method if about is None else f"{self.method} {_shown(about)}"

    def timed_out(self) -> ClientTimeout:
        """Return the error for an answer that did not come in time."""
        return ClientTimeout(self.attempt, self.deadline.seconds or 0.0, self._path())

    def cancel(self) -> None:
        """Give it up for the thread or task that makes it, which is told by DeadlinePassed or Lost."""
        self.deadline.pass_now()
        if self.connection is not None:
            self.connection.wake()

    def announces_shutdown(self, answer: Mapping[str, Any]) -> bool:
        """Return whether an answer tells that the broker shuts down."""
        result, error = answer.get("result"), answer.get("error")
        if isinstance(result, dict):
            return self.method == "shutdown" or (self.method == "status" and result.get("shutting_down") is True)
        data = error.get("data") if isinstance(error, dict) else None
        return isinstance(data, dict) and data.get("kind") == ShuttingDown.KIND

    @property
    def is_to_be_bound(self) -> bool:
        """Whether it is sent again, and is to be known first who was meant, or whether that was restarted meanwhile."""
        if not self.repeated or self.method not in _TWICE_ON_THE_SAME:
            return False
        return self.method == "restart" or not _is_id(self.params.get("target"))

    def question(self) -> Dict[str, Any]:
        """Return the parameters of the list of all who can have been meant, the ended among them."""
        target = self.params["target"]
        labels = {} if isinstance(target, str) else {"labels": target.get("labels", {})}
        return {"all": True, **labels, "fields": ["name", "state", "created_at", "started_at", "exit"]}

    def bind(self, children: List[Mapping[str, Any]]) -> None:
        """Bind it, of all who can have been meant, to those who were there when the call began.

        When nobody held the name, that stays: the broker will find none either, or one that was created after the call.
        """
        there = [child for child in children if _moment(child["created_at"]) <= self._began_at]
        target = self.params["target"]
        if not isinstance(target, str):
            self.bound = [child for child in there if self._was_meant(child)]
            return
        held = [child for child in there if _is_named(child, target)]
        self.repeated = bool(held)
        if not held:
            return
        holder = max(held, key=lambda child: (child["created_at"], child["id"]))
        if self.method == "restart":
            self.bound = [holder]
        else:
            self.params["target"] = holder["id"]

    @property
    def _began_at(self) -> float:
        return time.time() - (time.monotonic() - self.deadline.began)

    def _was_meant(self, child: Mapping[str, Any]) -> bool:
        """Return whether one that was created before the call is one of those with its labels, or of all."""
        if child["state"] != "ended":
            return True
        # Who destroys is told of those who have ended of it, too; nothing else can be done to them any more.
        return self.method == "destroy" and _moment(child["exit"]["at"]) >= self._began_at

    def _is_as_it_was(self, child: Mapping[str, Any]) -> bool:
        """Return whether a restart of it has not begun: the broker that was lost has left it as it was."""
        started_at = child["started_at"]
        has_settled = child["state"] in ("running", "ended")
        return has_settled and (started_at is None or _moment(started_at) <= self._began_at)

    def rounds(self, bound: List[Mapping[str, Any]]) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """Return what to send, methods and parameters, one after the other, to all whom it is bound to.

        Every stop is begun before the first is waited for, so that they take no longer than the longest of them. What
        has been started since the call began, or is on its way to that, is not restarted once more.
        """
        if self.method == "destroy" and not self.params.get("no_wait"):
            yield from (("destroy", {**self.params, "target": child["id"], "no_wait": True}) for child in bound)
        for child in bound:
            if self.method == "restart" and not self._is_as_it_was(child):
                yield "wait", {"target": child["id"], "until": "ready"}
            else:
                yield self.method, {**self.params, "target": child["id"]}

    def conclude(self, answer: Mapping[str, Any], socket: str) -> Dict[str, Any]:
        """Return the result that an answer has, or raise the error."""
        try:
            return result_of(answer, socket)
        except NotFound:
            # The child was there when it was first asked for. A broker that does not know it any more has ended
            # it, and forgotten it since.
            if self.method == "destroy" and self.repeated and _is_id(self.params["target"]):
                return {"children": []}
            raise

    def held_in(self, answer: Mapping[str, Any]) -> Optional[str]:
        """Return the id of the child which the connection holds since this answer, if there is one.

        Every create that returns a live child with the lifetime ``connection`` does so, whatever that create has named.
        """
        return held_in(answer) if self.method == "create" else None

    def _lost_for_good(self) -> ConnectionLost:
        return ConnectionLost(self.method, self._path())


@contextlib.contextmanager
def well_formed(socket: str) -> Iterator[None]:
    """Read an answer; one that lacks what it must have is a ProtocolViolation."""
    try:
        yield
    except MALFORMED as error:
        raise malformed(error, socket) from error


def malformed(error: Exception, socket: str) -> ProtocolViolation:
    """Return the error for an answer that lacks what it must have."""
    return ProtocolViolation(socket, f"its answer is not as it should be ({type(error).__name__}: {error})")


def held_in(answer: Mapping[str, Any]) -> Optional[str]:
    """Return the id of the child which a connection holds since this answer to a create, if there is one."""
    result = answer.get("result")
    child = result.get("child") if isinstance(result, dict) else None
    if not isinstance(child, dict) or child.get("lifetime") != "connection" or child.get("state") == "ended":
        return None
    found = child.get("id")
    return found if isinstance(found, str) else None


def encode(number: int, method: str, params: Mapping[str, Any]) -> bytes:
    """Return a request as a line of JSON-RPC 2.0."""
    try:
        text = "".join(_pieces_of_json(params, 0))
    except RecursionError:
        text = _encoder.encode(params)  # which tells a circle by its name
    try:
        return f'{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{text}}}\n'.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a parameter of {method} has text that is not UTF-8, which is all the wire carries") from None


def decode(line: bytes, socket: str) -> Dict[str, Any]:
    """Return the message that a line holds. Raises ProtocolViolation."""
    try:
        text = line.strip().decode()
        message, end = _from_json(text)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or end != len(text):
        raise ProtocolViolation(socket, f"it sent a line that is no JSON object: {line[:80]!r}")
    return message


def result_of(answer: Mapping[str, Any], socket: str) -> Dict[str, Any]:
    """Return the result of an answer. Raises its error, or ProtocolViolation."""
    error, result = answer.get("error"), answer.get("result")
    if isinstance(error, dict):
        raise error_from_wire(error)
    if not isinstance(result, dict):
        raise ProtocolViolation(socket, "it sent an answer with neither a result nor an error")
    return result


def refusal_of(line: bytes, socket: str) -> Optional[BrokerError]:
    """Return the error of a line that answers no request: the broker's refusal of a connection."""
    try:
        message = decode(line, socket)
    except ProtocolViolation:
        return None
    error = message.get("error")
    return error_from_wire(error) if isinstance(error, dict) and message.get("id") is None else None


def _is_id(target: Any) -> bool:
    """Return whether a target is one of the forms of a UUID that the broker takes; any other text is a name to it.

    That of the class UUID takes hyphens anywhere, as in names.
    """
    return isinstance(target, str) and re.fullmatch(_ID, target, re.ASCII | re.IGNORECASE) is not None


def _is_named(child: Mapping[str, Any], target: str) -> bool:
    return bool(child["name"] == target) or (_is_id(target) and _digits(target) == _digits(child["id"]))


def _digits(an_id: str) -> str:
    return re.sub("urn:uuid:|[-{}]", "", an_id.lower())


def _moment(time_on_the_wire: str) -> float:
    return time_from_wire(time_on_the_wire).timestamp()


def _shown(about: Any) -> str:
    return " ".join(about) if isinstance(about, list) else str(about)
