"""The blocking client."""

from __future__ import annotations

import functools
import os
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
from .exchange import Asked
from .pool import Pool
from .requests import Default, Extent, Requests, Target, Timeout, which
from .shutdown_watch import ShutdownWatch
from .straight import converse
from .streams import Events, LogFollow
from .sync_child import Child
from .values import Field, Logs, ShutdownReport, Status, Upgrade
from .waiting import Steps, run

__all__ = ["Broker"]

T = TypeVar("T")
#: Where the broker is, the two times, and whether the first connection is waited for.
_Settings = Tuple[Optional[SocketPath], Optional[Duration], Duration, bool]


class Broker:
    """The broker, for code that may block.

    Nothing is connected before the first call. One Broker serves all threads of a process, none of which waits for
    another one's call, and may be made before a fork: each process uses connections of its own.

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
        self._requests: Requests[Child] = Requests(*self._settings, Child, self)
        self._watches: List[ShutdownWatch] = []
        self._pid = os.getpid()

    @property
    def socket(self) -> str:
        """The path of the broker's socket."""
        return self._requests.socket

    def create(
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
    ) -> Child:
        """Start a child, or get the one of that name; ``outcome`` and ``same_spec`` of what it returns tell which.

        Parameters
        ----------
        command
            The program, looked up in the child's PATH, and its arguments. No shell reads it.
        name
            What it is called while it lives: at most one live child has a name.
        if_exists
            What to do when a live child has it: ``"fail"`` with NameTaken, ``"reuse"`` that child (one that is
            stopping is waited for, and created anew), or ``"replace"`` it: destroy it, then create.
        request_id
            A UUID: the same one gets the first answer again. Without one, each call has a fresh one.
        labels
            For selecting children together.
        cwd, umask
            As usual. The directory is ``/`` unless given; ``"."``, and what is relative, is this process's own.
        env, env_clear, inherit_env
            The environment is the broker's own with ``env`` on top, ``env`` alone with ``env_clear``, or with
            ``inherit_env`` that of this process with ``env`` on top.
        user, groups
            Who it runs as: the caller unless given. Only root may name another.
        stdout, stderr
            ``"log"``, ``"null"`` or ``"inherit"``; ``stderr`` may be ``"stdout"``. DEVNULL and STDOUT of
            :mod:`subprocess` do as well.
        stop
            The signals to end it with, tried in turn, each with the time it is given: ``[("SIGHUP", 10), "SIGTERM"]``.
            SIGKILL to all that is left always ends it. Default: SIGTERM, 10 seconds.
        stop_order
            At the broker's shutdown, lower ones are stopped first, and entirely, before the user's next begin.
        ready, ready_timeout, no_wait
            From when on it counts as running: from ``"spawn"`` on, or as :mod:`procbroker.ready` says, as in
            ``ready.notify()`` or ``ready.tcp(8080)``, within 30 seconds unless given; ``no_wait`` returns before that.
        watchdog
            With ``ready.notify()``: how often at least it has to say WATCHDOG=1; one that does not is stopped.
        restart
            When it is started again after it ended by itself, as in ``procbroker.restart.on_failure()``.
        lifetime, linger
            What its life is bound to: ``"broker"``; ``"connection"``, here to this Broker in this process, until the
            child is released, the Broker closed or the process ended, and ``linger`` longer; ``lifetime.ttl(30)``
            of :mod:`procbroker.lifetime` unless renewed; ``lifetime.pid(os.getpid())`` until that process ends. One
            that is reused keeps what it was created with.
        cleanup
            The command that runs after it and all its descendants are gone, however it ended. It does not run when the
            child's program was never started, as with SpawnFailed.
        limit
            ``Limit("render", 4, wait=10)``: at most four live children under that key; a place is waited for so long.
        rlimits, resources
            ``{"nofile": 1024}``; ``{"memory_max": 1 << 30}`` where the broker has control groups.
        timeout
            How long this call may take. That of the Broker has ``ready_timeout`` added to it where that counts.

        Raises
        ------
        NameTaken, LimitExceeded, SpawnFailed, StartFailed, TimedOut (it was not ready in time), ShuttingDown,
        PermissionDenied, InvalidParams, Unsupported, Overloaded.

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
        return self._ask(self._requests.create(command, options, timeout))

    def process(
        self,
        target: Union[Callable[..., Any], str],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
        *,
        python: Optional[Path] = None,
        timeout: Timeout = Default.TIMEOUT,
        **options: Unpack[CreateOptions],
    ) -> Child:
        """Start a child that runs a function in an interpreter of its own, or get the one of that name.

        It reads like :class:`multiprocessing.Process`, but a child comes of it, which outlives this worker and which
        every worker sees by its name; wait for it, follow its log, destroy it as any other. ``child.result()`` waits
        for its end, and returns what the function has returned or raises what it has raised.

        Parameters
        ----------
        target
            A function at the top level of a module, or its name, such as ``"app.jobs:render"``. An ``async def`` is run
            by :func:`asyncio.run` there.
        args, kwargs
            What it is called with. They are pickled, at most 16 MiB, and go by a folder that is closed to everybody
            but the user whom the child runs as: below ``/dev/shm``, or what PROCBROKER_HANDOVER names where the
            broker is in another container. No command line, environment or log ever has them. What the function
            returns comes back the same way, and has the same bound.
        python
            The interpreter: this application's own, with its virtual environment, unless given. The child has this
            application's ``sys.path``.
        timeout
            How long this call may take, as with ``create``.
        options
            The other parameters of ``create``, of which two differ: ``cwd`` is this process's own folder unless
            given, and ``same_spec`` tells whether the child that was there has the same target and arguments.

        Raises
        ------
        ValueError for a target or an argument that another interpreter cannot find (a lambda, what is local to a
        function, what is of ``__main__``) and, before Python 3.11, for a ``cwd`` that everybody may write to; TypeError
        for what cannot be pickled; Unsupported when the child would run as a user to whom nothing private can be handed
        over; RuntimeError, as ``create`` does too, at the top level of a module that such a child imports before its
        function is called; and what ``create`` raises.

        """
        return self._run(self._requests.process(target, args, kwargs, python, options, timeout))

    def destroy(
        self,
        target: Optional[Target] = None,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        stop: Optional[Stop] = None,
        no_wait: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[Child]:
        """Stop one child, those with all these labels, or all; return them when they have ended and are cleaned up.

        ``stop`` replaces the children's own steps; the timeout of the Broker has their times added to it.
        Destroying one that has ended is no error. Raises NotFound.
        """
        return self._ask(self._requests.destroy(which(target, labels, all), stop, no_wait, timeout))

    def list(
        self,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        fields: Optional[Sequence[Field]] = None,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[Child]:
        """Return the live children, oldest first; those with all these labels; with ``all`` ended ones too.

        With ``fields`` only those are told, beside ``id``: less to send and to read where there are many. Others raise
        AttributeError. ``"usage"`` is told only when it is among them.
        """
        return self._ask(self._requests.list(labels, all, fields, timeout))

    def get(self, target: Target, *, timeout: Timeout = Default.TIMEOUT) -> Child:
        """Return the child of that id, or the one that has that name, or had it last. Raises NotFound."""
        return self._ask(self._requests.get(target, timeout))

    def wait(
        self, target: Target, until: Literal["ready", "ended"] = "ended", *, timeout: Optional[Duration] = None
    ) -> Child:
        """Return a child when it has ended and is cleaned up, or when it is ready or has ended before it was.

        Without a timeout that takes as long as it takes. Raises NotFound, and with a timeout TimedOut.
        """
        return self._ask(self._requests.wait(target, until, timeout))

    def signal(
        self,
        target: Optional[Target],
        signal: Signal,
        scope: Scope = "main",
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[Child]:
        """Send a signal to the process of each child, to its process group, or to all that descends from it.

        Raises NotFound, and ConnectionLost when it is unknown whether it was sent.
        """
        return self._ask(self._requests.signal(which(target, labels, all), signal, scope, timeout))

    def restart(
        self,
        target: Optional[Target] = None,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[Child]:
        """Stop children and start them again: same ids and names, new processes. Raises as ``signal`` does.

        Raises SpawnFailed for one child whose program cannot be executed any more.
        """
        return self._ask(self._requests.restart(which(target, labels, all), timeout))

    def renew(
        self,
        target: Optional[Target] = None,
        *,
        labels: Optional[Mapping[str, str]] = None,
        all: bool = False,
        timeout: Timeout = Default.TIMEOUT,
    ) -> List[Child]:
        """Give children with a time to live their whole time again. Raises NotFound, Unsupported."""
        return self._ask(self._requests.renew(which(target, labels, all), timeout))

    def logs(
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
        return self._ask(self._requests.logs(target, stream, Extent(tail, since, timestamps), timeout))

    def follow(
        self,
        target: Target,
        stream: Stream = "stdout",
        *,
        tail: Optional[int] = None,
        since: Optional[Since] = None,
        timestamps: bool = False,
    ) -> LogFollow:
        """Iterate over what a child wrote, as far back as ``logs`` would, and goes on to write. Raises NotFound."""
        return LogFollow(self._requests.follow(target, stream, Extent(tail, since, timestamps)))

    def events(self, since: Optional[int] = None, *, labels: Optional[Mapping[str, str]] = None) -> Events[Child]:
        """Iterate over what happens, from now on or from that sequence number on, to children with all these labels.

        It yields ChildEvent and BrokerEvent, and Lagged and BrokerRestarted where some were missed; all have ``kind``.
        """
        return Events(self._requests.events(since, labels))

    def on_shutdown(self, callback: Callable[[], Any]) -> ShutdownWatch:
        """Call back once, in a thread of its own, when the broker begins to shut down.

        It is called at once if that has begun already. That the connection is lost is not taken for a shutdown: a
        broker that crashed or is upgraded comes back, and one that shuts down says so before anything
        else. A lost connection is made again for as long as it takes, and what was told meanwhile is caught up
        with. In a process that is forked later, it holds from the first call of this Broker on. Raises what the
        first subscription raises, BrokerUnavailable for instance.
        """
        watch = ShutdownWatch(functools.partial(_another, self._settings, self._requests.pool), callback)
        self._watches.append(watch)
        return watch

    def status(self, *, timeout: Timeout = Default.TIMEOUT) -> Status:
        """Return the broker itself: its version, process, counts, bounds, and what the machine offers."""
        return self._ask(self._requests.status(timeout))

    def metrics(self, *, timeout: Timeout = Default.TIMEOUT) -> str:
        """Return what the broker counts, in Prometheus's text format. Raises PermissionDenied."""
        return self._ask(self._requests.metrics(timeout))

    def shutdown(self, *, timeout: Optional[Duration] = None) -> ShutdownReport[Child]:
        """Stop every child and then the broker, within a timeout (the broker's own unless given).

        Children that are left at the end of it are killed. Raises PermissionDenied, ConnectionLost.
        """
        return self._ask(self._requests.shutdown(timeout))

    def upgrade(self, *, timeout: Timeout = Default.TIMEOUT) -> Upgrade:
        """Put the program that is now in the broker's place into its process. Children do not notice.

        Returns when that serves. Raises BrokerError with the reason where the broker stays as it is (PermissionDenied
        for instance) or was lost and started again, and ClientTimeout when it was about to give up its place and still
        has not, 15 seconds later.
        """
        return self._run(self._requests.upgrade(timeout))

    def close(self) -> None:
        """Close the connections of this process, and end subscriptions and callbacks. Children live on.

        Those with the lifetime ``connection`` that this Broker created or reused end, if nobody else holds them.
        """
        for watch in self._watches:
            watch.cancel()
        self._requests.pool.close()

    def __enter__(self) -> Broker:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickle and copy it as its settings: what comes of them is another client, with connections of its own."""
        return _made_of, (self._settings,)

    def __repr__(self) -> str:
        """Return where the broker is."""
        return f"<{type(self).__name__} {self.socket}>"

    def _ask(self, asked: Asked[T]) -> T:
        if self._watches:
            self._go_on_watching()
        return converse(self._requests.pool, *asked)

    def _run(self, steps: Steps[T]) -> T:
        if self._watches:
            self._go_on_watching()
        return run(steps)

    def _go_on_watching(self) -> None:
        """Watch in a forked process, too."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            for watch in self._watches:
                watch.after_fork()

    def _shutdown_event(self) -> Events[Child]:
        return Events(self._requests.shutdown_event())

    def _where(self) -> Broker:
        """Return a client of the same broker, wherever that is unpickled: its path is fixed, as its children are."""
        return _made_of((self.socket, *self._settings[1:]))

    def _release(self, child: str) -> None:
        self._requests.pool.release(child)


def _made_of(settings: _Settings) -> Broker:
    socket, timeout, connect_timeout, wait_for_broker = settings
    return Broker(socket, timeout=timeout, connect_timeout=connect_timeout, wait_for_broker=wait_for_broker)


def _another(settings: _Settings, pool: Pool) -> Broker:
    """Return another client, which shares what is known of the broker, and sees to what the first one holds."""
    other = _made_of(settings)
    other._requests.pool.outlook, other._requests.pool.holder = pool.outlook, pool
    return other
