"""The asynchronous client, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Callable, List, Literal, Optional, Tuple, Type, TypeVar, Union

from .arguments import (
    Argument,
    Cleanup,
    CreateOptions,
    Duration,
    Lifetime,
    Limit,
    Path,
    Ready,
    Resources,
    Restart,
    RlimitName,
    Scope,
    Signal,
    Since,
    SocketPath,
    Stop,
    Stream,
    Unpack,
)
from .async_child import AsyncChild
from .async_shutdown_watch import AsyncShutdownWatch
from .async_straight import converse_async
from .async_streams import AsyncEvents, AsyncLogFollow
from .async_waiting import run_async
from .exchange import Asked
from .requests import Default, Extent, Requests, Target, Timeout, which
from .values import Field, Logs, ShutdownReport, Status, Upgrade

__all__ = ["AsyncBroker"]

T = TypeVar("T")


class AsyncBroker:
    """The broker, for asyncio.

    Nothing is connected before the first call, no task runs behind it, and it belongs to no event loop. Cancelling a
    task gives up what it asked for at once; the broker may still carry it out.

    Every method raises, beside what it says of itself, :class:`BrokerUnavailable` when nobody listens,
    :class:`ClientTimeout` when no answer comes within ``timeout`` (in seconds, a timedelta or a text; None for as
    long as it takes), and the :class:`BrokerError` that the broker answers. A connection that is lost is made again,
    and the request sent again where it may be carried out twice, as a create may: it is known by its request id.
    """

    def __init__(
        self,
        socket: Optional[SocketPath] = None,
        *,
        timeout: Optional[Duration] = 30.0,
        connect_timeout: Duration = 5.0,
        wait_for_broker: bool = False,
    ) -> None:
        """Take where the broker is, and how long calls may take.

        Without ``socket`` it is ``$PROCBROKER_SOCKET``, else the one of the user's own broker if that exists,
        else ``/run/procbroker/procbroker.sock``. A broker that was there once is expected back, after a restart, within
        ``connect_timeout``; with ``wait_for_broker`` the first connection is tried for so long as well.
        """
        self._settings = (socket, timeout, connect_timeout, wait_for_broker)
        self._requests: Requests[AsyncChild] = Requests(*self._settings, AsyncChild, self)
        self._watches: List[AsyncShutdownWatch] = []

    @property
    def socket(self) -> str:
        """The path of the broker's socket."""
        return self._requests.socket

    async def create(
        self,
        command: Sequence[Argument],
        *,
        name: Optional[str] = None,
        if_exists: Literal["fail", "reuse", "replace"] = "fail",
        request_id: Optional[str] = None,
        labels: Optional[Mapping[str, str]] = None,
        cwd: Optional[Path] = None,
        env: Optional[Mapping[str, Argument]] = None,
        env_clear: bool = False,
        inherit_env: bool = False,
        umask: Union[str, int, None] = None,
        user: Union[str, int, None] = None,
        groups: Optional[Sequence[Union[str, int]]] = None,
        stdout: Union[str, int] = "log",
        stderr: Union[str, int] = "stdout",
        stop: Optional[Stop] = None,
        stop_order: int = 0,
        ready: Ready = "spawn",
        ready_timeout: Optional[Duration] = None,
        watchdog: Optional[Duration] = None,
        no_wait: bool = False,
        restart: Union[Literal["never", "on-failure", "always"], Restart, None] = None,
        lifetime: Lifetime = "broker",
        linger: Optional[Duration] = None,
        cleanup: Union[Sequence[Argument], Cleanup, None] = None,
        limit: Union[Limit, Tuple[str, int], Mapping[str, Any], None] = None,
        rlimits: Optional[Mapping[RlimitName, Union[int, Literal["unlimited"]]]] = None,
        resources: Optional[Resources] = None,
        timeout: Timeout = Default.TIMEOUT,
    ) -> AsyncChild:
        """Start a child, or get the one of that name; ``outcome`` and ``same_spec`` of what it returns tell which.

        The parameters and errors are those of :meth:`procbroker.Broker.create`.
        """
        options: CreateOptions = {
            "name": name,
            "if_exists": if_exists,
            "request_id": request_id,
            "labels": labels,
            "cwd": cwd,
            "env": env,
            "env_clear": env_clear,
            "inherit_env": inherit_env,
            "umask": umask,
            "user": user,
            "groups": groups,
            "stdout": stdout,
            "stderr": stderr,
            "stop": stop,
            "stop_order": stop_order,
            "ready": ready,
            "ready_timeout": ready_timeout,
            "watchdog": watchdog,
            "no_wait": no_wait,
            "restart": restart,
            "lifetime": lifetime,
            "linger": linger,
            "cleanup": cleanup,
            "limit": limit,
            "rlimits": rlimits,
            "resources": resources,
        }
        return await self._ask(self._requests.create(command, options, timeout))

    async def process(
        self,
        target: Union[Callable[..., Any], str],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
        *,
        python: Optional[Path] = None,
        timeout: Timeout = Default.TIMEOUT,
        **options: Unpack[CreateOptions],
    ) -> AsyncChild:
        """Start a child that runs a function in an interpreter of its own, or get the one of that name.

        The parameters and errors are those of :meth:`procbroker.Broker.process`.
        """
        return await run_async(self._requests.process(target, args, kwargs, python, options, timeout))

    async def destroy(
        self,
        target: Optional[Target] = None,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        stop: Optional[Stop] = None,
        no_wait: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[AsyncChild]:
        """Stop one child, those with all these labels, or all; return them when they have ended and are cleaned up.

        ``stop`` replaces the children's own steps; the timeout of the Broker has their times added to it.
        Destroying one that has ended is no error. Raises NotFound.
        """
        return await self._ask(self._requests.destroy(which(target, labels, all), stop, no_wait, timeout))

    async def list(
        self,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        fields: Optional[Sequence[Field]] = None,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[AsyncChild]:
        """Return the live children, oldest first; those with all these labels; with ``all`` ended ones too.

        With ``fields`` only those are told, beside ``id``: less to send and to read where there are many. Others raise
        AttributeError. ``"usage"`` is told only when it is among them.
        """
        return await self._ask(self._requests.list(labels, all, fields, timeout))

    async def get(self, target: Target, *, timeout: Timeout = Default.TIMEOUT) -> AsyncChild:
        """Return the child of that id, or the one that has that name, or had it last. Raises NotFound."""
        return await self._ask(self._requests.get(target, timeout))

    async def wait(
        self, target: Target, until: Literal["ready", "ended"] = "ended", *, timeout: Optional[Duration] = None
    ) -> AsyncChild:
        """Return a child when it has ended and is cleaned up, or when it is ready or has ended before it was.

        Without a timeout that takes as long as it takes. Raises NotFound, and with a timeout TimedOut.
        """
        return await self._ask(self._requests.wait(target, until, timeout))

    async def signal(
        self,
        target: Optional[Target],
        signal: Signal,
        scope: Scope = "main",
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[AsyncChild]:
        """Send a signal to the process of each child, to its process group, or to all that descends from it.

        Raises NotFound, and ConnectionLost when it is unknown whether it was sent.
        """
        return await self._ask(self._requests.signal(which(target, labels, all), signal, scope, timeout))

    async def restart(
        self,
        target: Optional[Target] = None,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[AsyncChild]:
        """Stop children and start them again: same ids and names, new processes. Raises as ``signal`` does.

        Raises SpawnFailed for one child whose program cannot be executed any more.
        """
        return await self._ask(self._requests.restart(which(target, labels, all), timeout))

    async def renew(
        self,
        target: Optional[Target] = None,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[AsyncChild]:
        """Give children with a time to live their whole time again. Raises NotFound, Unsupported."""
        return await self._ask(self._requests.renew(which(target, labels, all), timeout))

    async def logs(
        self,
        target: Target,
        stream: Stream = "stdout",
        *,
        tail: Optional[int] = None,
        since: Optional[Since] = None,
        timestamps: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> Logs:
        """Return what a child wrote: all that is kept, or the last ``tail`` lines, or what came ``since`` then.

        ``since`` is a time or an age; with ``timestamps`` each line begins with its time. Raises NotFound.
        """
        return await self._ask(self._requests.logs(target, stream, Extent(tail, since, timestamps), timeout))

    def follow(
        self,
        target: Target,
        stream: Stream = "stdout",
        *,
        tail: Optional[int] = None,
        since: Optional[Since] = None,
        timestamps: bool = False,
    ) -> AsyncLogFollow:
        """Iterate over what a child wrote, as far back as ``logs`` would, and goes on to write. Raises NotFound."""
        return AsyncLogFollow(self._requests.follow(target, stream, Extent(tail, since, timestamps)))

    def events(
        self, since: Optional[int] = None, *, labels: Optional[Mapping[str, str]] = None
    ) -> AsyncEvents[AsyncChild]:
        """Iterate over what happens, from now on or from that sequence number on, to children with all these labels.

        It yields ChildEvent and BrokerEvent, and Lagged and BrokerRestarted where some were missed; all have ``kind``.
        """
        return AsyncEvents(self._requests.events(since, labels))

    async def on_shutdown(self, callback: Callable[[], Any]) -> AsyncShutdownWatch:
        """Call back once, in a task of the running event loop, when the broker begins to shut down.

        What the callback returns is awaited if it can be. It is called at once if the shutdown has begun already. That
        the connection is lost is not taken for a shutdown: a broker that crashed or is upgraded comes back, and one
        that shuts down says so before anything else. A lost connection is made again for as long as it
        takes, and what was told meanwhile is caught up with. Raises what the first subscription raises,
        BrokerUnavailable for instance.
        """
        events = AsyncEvents(self._requests.shutdown_event())
        await events.open()
        watch = AsyncShutdownWatch(events, callback)
        self._watches.append(watch)
        return watch

    async def status(self, *, timeout: Timeout = Default.TIMEOUT) -> Status:
        """Return the broker itself: its version, process, counts, bounds, and what the machine offers."""
        return await self._ask(self._requests.status(timeout))

    async def metrics(self, *, timeout: Timeout = Default.TIMEOUT) -> str:
        """Return what the broker counts, in Prometheus's text format. Raises PermissionDenied."""
        return await self._ask(self._requests.metrics(timeout))

    async def shutdown(self, *, timeout: Optional[Duration] = None) -> ShutdownReport[AsyncChild]:
        """Stop every child and then the broker, within a timeout (the broker's own unless given).

        Children that are left at the end of it are killed. Raises PermissionDenied, ConnectionLost.
        """
        return await self._ask(self._requests.shutdown(timeout))

    async def upgrade(self, *, timeout: Timeout = Default.TIMEOUT) -> Upgrade:
        """Put the program that is now in the broker's place into its process. Children do not notice.

        Returns when that serves. Raises BrokerError with the reason where the broker stays as it is (PermissionDenied
        for instance) or was lost and started again, and ClientTimeout when it was about to give up its place and still
        has not, 15 seconds later.
        """
        return await run_async(self._requests.upgrade(timeout))

    async def close(self) -> None:
        """Close the connections of this process, and end subscriptions and callbacks. Children live on.

        Those with the lifetime ``connection`` that this Broker created or reused end, if nobody else holds them.
        """
        for watch in self._watches:
            watch.cancel()
        self._requests.pool.close()

    async def __aenter__(self) -> AsyncBroker:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close it."""
        await self.close()

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle and copy it as its settings: what comes of them is another client, with connections of its own."""
        return _made_of, (self._settings,)

    def __repr__(self) -> str:
        """Return where the broker is."""
        return f"<{type(self).__name__} {self.socket}>"

    async def _ask(self, asked: Asked[T]) -> T:
        return await converse_async(self._requests.pool, *asked)

    def _where(self) -> AsyncBroker:
        """Return a client of the same broker, wherever that is unpickled: its path is fixed, as its children are."""
        return _made_of((self.socket, *self._settings[1:]))

    def _release(self, child: str) -> None:
        self._requests.pool.release(child)


def _made_of(settings: Tuple[Optional[SocketPath], Optional[Duration], Duration, bool]) -> AsyncBroker:
    socket, timeout, connect_timeout, wait_for_broker = settings
    return AsyncBroker(socket, timeout=timeout, connect_timeout=connect_timeout, wait_for_broker=wait_for_broker)
