"""What a caller may write: the types of parameters."""

from __future__ import annotations

import datetime
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Optional, Tuple, TypedDict, Union

#: A number of seconds, a timedelta, or a text such as ``"10m"`` or ``"1h 30m"``.
Duration = Union[float, datetime.timedelta, str]
#: From when on: a time with its zone, or an age in seconds, as a timedelta or as a text such as ``"5m"``.
Since = Union[datetime.datetime, Duration]
#: A signal: ``signal.SIGHUP``, ``"SIGHUP"``, ``"HUP"`` or its number.
Signal = Union[str, int, signal.Signals]
#: A path in the file system.
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
#: Where a broker's socket is.
SocketPath = Path
#: One word of a command line: a text, a path, bytes of UTF-8, or a number.
Argument = Union[Path, int, float]

#: Which processes of a child get a signal: the one that the broker started, its group, or all that descends from it.
Scope = Literal["main", "group", "all"]
#: One of a child's outputs.
Stream = Literal["stdout", "stderr"]


class Step(NamedTuple):
    """One step of a stop: the signal, and how long the child may take to end before the next step."""

    #: What is sent to the child's process group.
    signal: Signal
    #: In seconds, a timedelta or a text; None is the broker's default, 10 seconds.
    grace: Optional[Duration] = None


#: The steps of a stop. SIGKILL to all that is left always ends it.
Stop = Sequence[Union[str, signal.Signals, Step, Tuple[Signal, Duration]]]


class TimeToLive(TypedDict):
    """The lifetime that ends after a time, unless it is renewed: ``{"ttl": 60}``."""

    ttl: Duration


class OfProcess(TypedDict):
    """The lifetime that ends with another process: ``{"pid": 4711}``."""

    pid: int


#: What a child's life is bound to.
Lifetime = Union[Literal["broker", "connection"], TimeToLive, OfProcess]


class _RestartPolicy(TypedDict):
    policy: Literal["never", "on-failure", "always"]


class Restart(_RestartPolicy, total=False):
    """When a child that ends by itself is started again: ``{"policy": "on-failure", "max": 3}``."""

    #: At most so many times within ``window``.
    max: int
    #: The time over which restarts are counted.
    window: Duration
    #: The pause before the first one; it doubles with each.
    backoff: Duration
    #: The longest pause.
    backoff_max: Duration


#: When a child counts as ready: :mod:`procbroker.ready` makes what is more than a word.
Ready = Union[Literal["spawn", "notify"], Mapping[str, Any]]


class Limit(NamedTuple):
    """At most so many live children under a key, whoever creates them: ``Limit("render", 4)``."""

    #: What they are counted under, in the whole broker.
    key: str
    #: How many there may be.
    max: int
    #: How long a create waits for a place, in the order of arrival; None is not at all.
    wait: Optional[Duration] = None


#: The bounds of a process that setrlimit(2) names, without their prefix and in small letters.
RlimitName = Literal[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]


class Resources(TypedDict, total=False):
    """What a child and its descendants may use together, where the broker has control groups: see cgroups(7)."""

    #: Bytes of memory, or a text such as ``"512M"``, or ``"max"``. What is over it is killed, and ``exit.oom`` says so.
    memory_max: Union[int, str]
    #: Memory from which on it is slowed down, in the same forms.
    memory_high: Union[int, str]
    #: Its share of the processors, from 1 to 10,000; 100 is what everybody has.
    cpu_weight: int
    #: Processors, such as ``1.5``; or ``"150%"``, or a quota and its period in microseconds, as ``"150000 100000"``.
    cpu_max: Union[float, str]
    #: Processes and threads.
    pids_max: int
    #: Its share of the disks, from 1 to 10,000; 100 is what everybody has.
    io_weight: int


class _CleanupCommand(TypedDict):
    command: Sequence[Argument]


class Cleanup(_CleanupCommand, total=False):
    """A command that releases what a child leaves behind: ``{"command": [...], "timeout": 5}``."""

    #: How long it may run before it is killed; 30 seconds unless given.
    timeout: Duration


class CreateOptions(TypedDict, total=False):
    """The parameters of a create beside its command."""

    name: Optional[str]
    if_exists: Literal["fail", "reuse", "replace"]
    request_id: Optional[str]
    labels: Optional[Mapping[str, str]]
    cwd: Optional[Path]
    env: Optional[Mapping[str, Argument]]
    env_clear: bool
    inherit_env: bool
    umask: Union[str, int, None]
    user: Union[str, int, None]
    groups: Optional[Sequence[Union[str, int]]]
    stdout: Union[str, int]
    stderr: Union[str, int]
    stop: Optional[Stop]
    stop_order: int
    ready: Ready
    ready_timeout: Optional[Duration]
    watchdog: Optional[Duration]
    no_wait: bool
    restart: Union[Literal["never", "on-failure", "always"], Restart, None]
    lifetime: Lifetime
    linger: Optional[Duration]
    cleanup: Union[Sequence[Argument], Cleanup, None]
    limit: Union[Limit, Tuple[str, int], Mapping[str, Any], None]
    rlimits: Optional[Mapping[RlimitName, Union[int, Literal["unlimited"]]]]
    resources: Optional[Resources]
