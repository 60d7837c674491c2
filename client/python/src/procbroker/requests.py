"""The requests of a client, the same whether their answers block or are awaited: parameters, times and results."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Dict, Final, Generic, List, NamedTuple, Optional, Type, TypeVar, Union

from . import address, arguments, outset
from .arguments import Argument, Duration, Signal, Since, SocketPath, Stop
from .call import Call, well_formed
from .errors import BrokerError, BrokerUnavailable
from .exchange import Asked, exchange, peer_user
from .feed import EventFeed, LogFeed
from .pool import Pool
from .upgrade import upgraded
from .values import Logs, ShutdownReport, Status, Upgrade
from .view import ChildView
from .waiting import Deadline, Steps

T = TypeVar("T")
ChildT = TypeVar("ChildT", bound=ChildView)

#: How much longer than the broker this side waits where the broker keeps the time, in seconds.
_SLACK = 2.0
#: How long the broker waits for readiness when it is not told, in seconds.
_READY_TIMEOUT = 30.0


class Default(enum.Enum):
    """The value of a timeout that was not given."""

    #: As long as the client's ``timeout`` says.
    TIMEOUT = "the client's timeout"

    def __repr__(self) -> str:
        """Return what a signature is to show."""
        return f"<{self.value}>"


_OF_THE_CLIENT: Final = Default.TIMEOUT
#: How long a call may take: seconds, a timedelta, a text, None for as long as it takes.
Timeout = Union[Duration, None, Default]


class Extent(NamedTuple):
    """How much of a log is wanted."""

    tail: Optional[int]
    since: Optional[Since]
    timestamps: bool


#: One child: itself, its id or its name.
Target = Union[str, ChildView]


class Requests(Generic[ChildT]):
    """What one client asks for: calls to be made, and the steps of what takes more than one."""

    def __init__(
        self,
        socket: Optional[SocketPath],
        timeout: Optional[Duration],
        connect_timeout: Duration,
        wait_for_broker: bool,
        kind: Type[ChildT],
        client: Any,
    ) -> None:
        """Take the settings of the client, the class of its children, and itself, which they have in hand."""
        path = None if socket is None else address.checked(socket)
        self._seconds = None if timeout is None else arguments.seconds(timeout, "timeout")
        patience = arguments.seconds(connect_timeout, "connect_timeout")
        self._kind = kind
        self._client = client
        self.pool = Pool(lambda: address.default_socket() if path is None else path, patience, wait_for_broker)

    @property
    def socket(self) -> str:
        """The path of the socket that the next connection is made to."""
        return self.pool.path()

    def create(self, command: Sequence[Argument], options: Mapping[str, Any], timeout: Timeout) -> Asked[ChildT]:
        """Start a child."""
        outset.refuse("create", command, options)
        params = arguments.create_params(command, options)
        longer = 0.0
        if params.get("ready", "spawn") != "spawn" and not params.get("no_wait"):
            longer = params.get("ready_timeout", _READY_TIMEOUT)
        if "limit" in params:
            longer += params["limit"].get("wait") or 0.0
        return self._call("create", params, self._created, timeout, longer)

    def process(
        self,
        target: Union[Callable[..., Any], str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        python: Optional[arguments.Path],
        options: Mapping[str, Any],
        timeout: Timeout,
    ) -> Steps[ChildT]:
        """Start a child that runs a function."""
        from .process import Process  # noqa: PLC0415 - pickle takes long

        unknown = set(options) - set(arguments.CreateOptions.__annotations__)
        if unknown:
            raise TypeError(f"process has no parameter {', '.join(sorted(unknown))}")
        process = Process(target, args, kwargs, python, options)
        brokers = 0
        if process.runs_as_its_broker_says:
            call = Call("process", {"name": process.name}, self._limit(timeout), self.pool.path)
            brokers = yield from peer_user(self.pool, call)
        process.hand_over(brokers)
        try:
            child = yield from exchange(self.pool, *self.create(process.command, process.options, timeout))
        except (BrokerError, BrokerUnavailable, TypeError, ValueError):
            # After any other error, a child may have come of it all the same.
            process.withdraw()
            raise
        process.settle(child)
        return child

    def destroy(self, which: Any, stop: Optional[Stop], no_wait: bool, timeout: Timeout) -> Asked[List[ChildT]]:
        """Stop children, and return them when they have ended and are cleaned up."""
        params: Dict[str, Any] = {"target": which}
        longer = 0.0
        if no_wait is not False:
            params["no_wait"] = no_wait
        if stop is not None:
            params["stop"] = arguments.stop_to_wire(stop)
            longer = arguments.total_grace(stop)
        return self._call("destroy", params, self._children, timeout, longer)

    def list(
        self, labels: Optional[Mapping[str, str]], everything: bool, fields: Optional[Sequence[str]], timeout: Timeout
    ) -> Asked[List[ChildT]]:
        """Return the caller's children."""
        params: Dict[str, Any] = {"labels": arguments.labels_to_wire(labels or {}), "all": everything}
        if fields is not None:
            if isinstance(fields, str):
                raise TypeError(f"fields is a list of names, not {fields!r}")
            params["fields"] = [arguments.text(name, "a name in fields") for name in fields]
        return self._call("list", params, self._children, timeout)

    def get(self, target: Target, timeout: Timeout) -> Asked[ChildT]:
        """Return one child, with its specification."""
        return self._call("get", {"target": name_of(target)}, self._specified, timeout)

    def wait(self, target: Target, until: str, timeout: Optional[Duration]) -> Asked[ChildT]:
        """Return one child when it is ready or has ended."""
        params: Dict[str, Any] = {"target": name_of(target), "until": until}
        longest = None
        if timeout is not None:
            params["timeout"] = arguments.seconds(timeout, "timeout")
            longest = params["timeout"] + _SLACK
        return self._call("wait", params, self._child, longest)

    def signal(self, which: Any, signal: Signal, scope: str, timeout: Timeout) -> Asked[List[ChildT]]:
        """Send a signal to children."""
        params = {"target": which, "signal": arguments.signal_to_wire(signal), "scope": scope}
        return self._call("signal", params, self._children, timeout)

    def restart(self, which: Any, timeout: Timeout) -> Asked[List[ChildT]]:
        """Stop children and start them again."""
        return self._call("restart", {"target": which}, self._children, timeout)

    def renew(self, which: Any, timeout: Timeout) -> Asked[List[ChildT]]:
        """Give children with a time to live their whole time again."""
        return self._call("renew", {"target": which}, self._children, timeout)

    def logs(self, target: Target, stream: str, extent: Extent, timeout: Timeout) -> Asked[Logs]:
        """Return what one child wrote."""
        return self._call("logs", _log_params(target, stream, extent), Logs.from_wire, timeout)

    def follow(self, target: Target, stream: str, extent: Extent) -> LogFeed:
        """Return what one child wrote and goes on to write, not yet subscribed to."""
        return LogFeed(self.pool, self._seconds, _log_params(target, stream, extent))

    def events(self, since: Optional[int], labels: Optional[Mapping[str, str]]) -> EventFeed[ChildT]:
        """Return what happens, not yet subscribed to."""
        wanted = arguments.labels_to_wire(labels or {})
        return EventFeed(self.pool, self._seconds, since, wanted, self._make_child)

    def shutdown_event(self) -> EventFeed[ChildT]:
        """Return what happens, not yet subscribed to, and that a shutdown has begun already."""
        return EventFeed(self.pool, self._seconds, None, {}, self._make_child, late_shutdown=True)

    def status(self, timeout: Timeout) -> Asked[Status]:
        """Return the broker itself."""
        return self._call("status", {}, Status.from_wire, timeout)

    def metrics(self, timeout: Timeout) -> Asked[str]:
        """Return what the broker counts."""
        return self._call("metrics", {}, lambda result: str(result["text"]), timeout)

    def shutdown(self, timeout: Optional[Duration]) -> Asked[ShutdownReport[ChildT]]:
        """Stop every child and the broker."""
        params: Dict[str, Any] = {}
        longest = None
        if timeout is not None:
            params["timeout"] = arguments.seconds(timeout, "timeout")
            longest = params["timeout"] + _SLACK
        return self._call("shutdown", params, self._report, longest)

    def upgrade(self, timeout: Timeout) -> Steps[Upgrade]:
        """Put another program in the broker's place."""
        before, after = yield from upgraded(self.pool, self._limit(timeout), self.socket)
        with well_formed(self.socket):
            return Upgrade(Status.from_wire(before), Status.from_wire(after))

    def deadline(self, timeout: Timeout) -> Deadline:
        """Return when a call that begins now is given up."""
        return Deadline(self._limit(timeout))

    def _created(self, result: Mapping[str, Any]) -> ChildT:
        child = self._kind(result["child"], result, self._client)
        if self.pool.holds_any:
            self._let_go_of_the_ended([child])
        return child

    def _child(self, result: Mapping[str, Any]) -> ChildT:
        return self._make_child(result["child"])

    def _specified(self, result: Mapping[str, Any]) -> ChildT:
        child = self._child(result)
        child._specify(result.get("spec"))
        return child

    def _children(self, result: Mapping[str, Any]) -> List[ChildT]:
        children = [self._kind(raw, None, self._client) for raw in result["children"]]
        if self.pool.holds_any:
            self._let_go_of_the_ended(children)
        return children

    def _report(self, result: Mapping[str, Any]) -> ShutdownReport[ChildT]:
        return ShutdownReport(self._children(result), result["forced"], result["took"])

    def _make_child(self, raw: Mapping[str, Any]) -> ChildT:
        """Return a child that was told of."""
        child = self._kind(raw, None, self._client)
        if self.pool.holds_any:
            self._let_go_of_the_ended([child])
        return child

    def _let_go_of_the_ended(self, children: List[ChildT]) -> None:
        """Give up the holds of those that have ended: no connection is needed for them any more."""
        for child in children:
            if child._over:
                self.pool.forget(child.id)

    def _limit(self, timeout: Timeout, longer: float = 0.0) -> Optional[float]:
        if timeout is _OF_THE_CLIENT:
            return None if self._seconds is None else self._seconds + longer
        return None if timeout is None else arguments.seconds(timeout, "timeout")

    def _call(
        self,
        method: str,
        params: Dict[str, Any],
        reader: Callable[[Dict[str, Any]], T],
        timeout: Timeout,
        longer: float = 0.0,
    ) -> Asked[T]:
        """Return a call that takes no longer than a timeout, or than that of the client and some more."""
        seconds = self._seconds if timeout is _OF_THE_CLIENT and not longer else self._limit(timeout, longer)
        return Call(method, params, seconds, self.pool.path), reader


def name_of(target: Target) -> str:
    """Return the text that means one child."""
    if isinstance(target, ChildView):
        return target._id
    if not isinstance(target, str):
        raise TypeError(f"a target is a Child, an id or a name, not {target!r}")
    return target


def which(target: Optional[Target], labels: Optional[Mapping[str, str]], everything: bool) -> Any:
    """Return which children are meant; just one of the three says it."""
    if target is not None and labels is None and not everything:
        return name_of(target)
    given = (target is not None) + (labels is not None) + bool(everything)
    if given != 1:
        raise TypeError("say which children: one of a target (a Child, an id or a name), labels=... and all=True")
    return {"all": True} if labels is None else {"labels": arguments.labels_to_wire(labels)}


def _log_params(target: Target, stream: str, extent: Extent) -> Dict[str, Any]:
    params: Dict[str, Any] = {"target": name_of(target), "stream": stream}
    if extent.tail is not None:
        params["tail"] = extent.tail
    if extent.since is not None:
        params["since"] = arguments.since_to_wire(extent.since)
    if extent.timestamps:
        params["timestamps"] = True
    return params
