"""From what a caller writes in Python to the parameters that go over the wire.

What cannot be right is refused here, before anything is sent: a wrong type is a TypeError, a wrong value a
ValueError. The rest is the broker's to judge.
"""

from __future__ import annotations

import datetime
import math
import operator
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Literal, NamedTuple, Optional, Tuple, TypedDict, Union

if TYPE_CHECKING:
    from typing_extensions import Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack
else:

    class Unpack:
        """What stands for it where annotations are read at run time: its own argument."""

        def __class_getitem__(cls, options: Any) -> Any:
            """Return the argument."""
            return options


__all__ = [
    "Argument",
    "Cleanup",
    "CreateOptions",
    "Duration",
    "Lifetime",
    "Limit",
    "OfProcess",
    "Path",
    "Ready",
    "Resources",
    "Restart",
    "RlimitName",
    "Scope",
    "Signal",
    "Since",
    "Step",
    "Stop",
    "Stream",
    "TimeToLive",
    "Unpack",
]

#: A number of seconds, or a timedelta.
Duration = Union[float, datetime.timedelta]
#: From when on: a time with its zone, or an age in seconds, as a timedelta or as a text such as ``"5m"``.
Since = Union[datetime.datetime, Duration, str]
#: A signal: ``signal.SIGHUP``, ``"SIGHUP"``, ``"HUP"`` or its number.
Signal = Union[str, int, signal.Signals]
#: A path in the file system.
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
#: Where a broker's socket is.
SocketPath = Path
#: One word of a command line: a text, a path, bytes of UTF-8, or a number.
Argument = Union[Path, int, float]


#: DEVNULL and STDOUT of :mod:`subprocess`, which takes long to import.
_DEVNULL, _STDOUT = -3, -2

#: Which processes of a child get a signal: the one that the broker started, its group, or all that descends from it.
Scope = Literal["main", "group", "all"]
#: One of a child's outputs.
Stream = Literal["stdout", "stderr"]


class Step(NamedTuple):
    """One step of a stop: the signal, and how long the child may take to end before the next step."""

    #: What is sent to the child's process group.
    signal: Signal
    #: In seconds, or a timedelta; None is the broker's default, 10 seconds.
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


def seconds(duration: Duration, what: str) -> float:
    """Return a duration in seconds.

    Raises TypeError for what is neither a number nor a timedelta, ValueError for a negative or endless one.
    """
    if isinstance(duration, datetime.timedelta):
        number = duration.total_seconds()
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        number = duration
    else:
        raise TypeError(f"{what} is a number of seconds or a timedelta, not {duration!r}")
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{what} of {number} seconds is out of range: it is finite, and at least 0")
    return number


def signal_to_wire(value: Signal) -> Union[str, int]:
    """Return the name or the number of a signal."""
    if isinstance(value, signal.Signals):
        return int(value)
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return value
    raise TypeError(f"a signal is a name, a number or a signal.Signals, not {value!r}")


def stop_to_wire(stop: Stop) -> List[Dict[str, Any]]:
    """Return the steps of a stop."""
    if isinstance(stop, str) or not isinstance(stop, Sequence):
        raise TypeError(f'stop is a list of steps such as [("SIGHUP", 10), "SIGTERM"], not {stop!r}')
    return [_step_to_wire(step) for step in stop]


def _step_to_wire(step: Union[str, signal.Signals, Step, Tuple[Signal, Duration]]) -> Dict[str, Any]:
    if isinstance(step, (str, signal.Signals)):
        return {"signal": signal_to_wire(step)}
    # A bare number would let ("SIGHUP", 10) in the place of [("SIGHUP", 10)] pass as two signals.
    if not isinstance(step, (tuple, list)) or len(step) != 2:
        raise TypeError(f'a step of a stop is a signal, or a pair such as ("SIGHUP", 10), not {step!r}')
    wire: Dict[str, Any] = {"signal": signal_to_wire(step[0])}
    if step[1] is not None:
        wire["grace"] = seconds(step[1], "the grace of a stop's step")
    return wire


def total_grace(stop: Optional[Stop]) -> float:
    """Return how long a stop's own steps may take, in seconds."""
    return sum(step.get("grace", 10.0) for step in stop_to_wire(stop)) if stop else 0.0


def labels_to_wire(labels: Mapping[str, str], what: str = "labels") -> Dict[str, str]:
    """Return a map of texts to texts."""
    if not isinstance(labels, Mapping):
        raise TypeError(f"{what} is a mapping of texts to texts, not {labels!r}")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"{what} is a mapping of texts to texts, and has {key!r}: {value!r}")
    return {text(key, f"a key of {what}"): text(value, f"a value of {what}") for key, value in labels.items()}


def command_to_wire(command: Sequence[Argument], what: str = "command") -> List[str]:
    """Return the words of a command line."""
    if not isinstance(command, (list, tuple)) and (
        isinstance(command, (str, bytes, bytearray, memoryview, os.PathLike)) or not isinstance(command, Sequence)
    ):
        raise TypeError(
            f"{what} is a list of the program and its arguments, and no shell reads it; "
            f"split a line with shlex.split: {command!r}"
        )
    return [
        word if type(word) is str and _is_plain(word) else word_to_wire(word, f"word {number} of {what}")
        for number, word in enumerate(command)
    ]


def word_to_wire(value: Any, what: str) -> str:
    """Return a word for a program: a text, a path, bytes of UTF-8, or a number in decimal digits."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return text(value, what)
    if isinstance(value, float):
        return float.__repr__(value)
    # A class has the methods of its objects.
    if isinstance(value, (bool, type)) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} is a text, a path, bytes or a number, not {value!r}: write it as the program reads it")
    return str(int(operator.index(value)))


def _is_plain(word: str) -> bool:
    """Return whether it can go over the wire and to a program, as far as that is seen at once."""
    return word.isascii() and "\0" not in word


def text(value: Path, what: str) -> str:
    """Return a text, a path or bytes as a text that can go over the wire and to a program."""
    if type(value) is str and _is_plain(value):
        return value
    try:
        word = os.fspath(value)
    except TypeError:
        raise TypeError(f"{what} is a text, a path or bytes, not {value!r}") from None
    try:
        word = word.decode() if isinstance(word, bytes) else word
        word.encode()
    except UnicodeError:
        raise ValueError(f"{what} is not UTF-8, which is all that goes over the wire: {word!r}") from None
    if "\0" in word:
        raise ValueError(f"{what} has a NUL character, which no program can be given: {word!r}")
    return word


def folder_to_wire(value: Path) -> str:
    """Return a folder: one that is relative, such as ``"."``, is below this process's own."""
    folder = text(value, "cwd")
    if os.path.isabs(folder) or not folder:
        return folder
    own = text(os.getcwd(), "the folder of this process")
    return own if folder == os.curdir else os.path.join(own, folder)


def env_to_wire(env: Mapping[Any, Any]) -> Dict[str, str]:
    """Return variables of an environment."""
    if not isinstance(env, Mapping):
        raise TypeError(f"env is a mapping of names to values, not {env!r}")
    return {text(name, "a name in env"): word_to_wire(value, f"{name!r} in env") for name, value in env.items()}


def inherited(env: Optional[Mapping[Any, Any]]) -> Dict[str, str]:
    """Return the environment of this process, with others on top, less what belongs to a process of its own."""
    own = {
        name: value
        for name, value in os.environ.items()
        # The kernel lets an environment have a nameless variable (``=x``), which nobody can set.
        if name and name not in _OF_ONE_PROCESS and not name.startswith(("LISTEN_", "WATCHDOG_"))
    }
    for name, value in own.items():
        text(name, "the name of a variable in this process's environment")
        text(value, f"the value of {name} in this process's environment")
    return {**own, **env_to_wire(env or {})}


def output_to_wire(value: Union[str, int], what: str) -> str:
    """Return where an output goes: the wire's own word, or the one that subprocess's constant stands for."""
    if value == _DEVNULL:
        return "null"
    if value == _STDOUT and what == "stderr":
        return "stdout"
    if not isinstance(value, str):
        raise ValueError(
            f'{what} is "log", "null" or "inherit" (the child outlives whoever could read a pipe; '
            f"read its log with logs or follow), not {value!r}"
        )
    return value


#: Variables that mean one process, and must not be handed on to another.
_OF_ONE_PROCESS = frozenset({"NOTIFY_SOCKET", "PROCBROKER_SOCKET", "PROCBROKER_CHILD_ID", "PROCBROKER_CHILD_NAME"})


def umask_to_wire(value: Union[str, int]) -> str:
    """Return a file mode creation mask in octal digits."""
    return value if isinstance(value, str) else f"{value:03o}"


def lifetime_to_wire(lifetime: Lifetime) -> Union[str, Dict[str, Any]]:
    """Return what a child's life is bound to."""
    if isinstance(lifetime, str):
        return _bare_word(lifetime, "lifetime", ("pid", "ttl"))
    return _with_seconds(lifetime, "lifetime", ("ttl",))


def restart_to_wire(restart: Union[str, Restart]) -> Dict[str, Any]:
    """Return a restart policy with its settings."""
    if isinstance(restart, str):
        return {"policy": restart}
    return _with_seconds(restart, "restart", ("window", "backoff", "backoff_max"))


def cleanup_to_wire(cleanup: Union[Sequence[Argument], Cleanup]) -> Dict[str, Any]:
    """Return a cleanup command with its settings."""
    if not isinstance(cleanup, Mapping):
        return {"command": command_to_wire(cleanup, "cleanup")}
    wire = _with_seconds(cleanup, "cleanup", ("timeout",))
    if "command" in wire:
        wire["command"] = command_to_wire(wire["command"], "the command of cleanup")
    return wire


def limit_to_wire(limit: Union[Limit, Tuple[str, int], Mapping[str, Any]]) -> Dict[str, Any]:
    """Return a limit: its key, how many, and how long a place is waited for."""
    if isinstance(limit, Mapping):
        return _with_seconds(limit, "limit", ("wait",))
    if not isinstance(limit, (tuple, list)) or len(limit) not in (2, 3):
        raise TypeError(f'limit is a Limit or a pair such as ("render", 4), not {limit!r}')
    whole = Limit(*limit)
    wire: Dict[str, Any] = {"key": whole.key, "max": whole.max}
    if whole.wait is not None:
        wire["wait"] = seconds(whole.wait, "wait of limit")
    return wire


def ready_to_wire(ready: Ready) -> Any:
    """Return when a child counts as ready."""
    if isinstance(ready, str):
        return _bare_word(ready, "ready", ("tcp", "unix", "log", "command"))
    if callable(ready):
        raise TypeError("ready is what a function of procbroker.ready returns, not the function: call it")
    return _with_seconds(ready, "ready", ("interval",))


def rlimits_to_wire(rlimits: Mapping[str, Any]) -> Dict[str, Any]:
    """Return bounds of a process; RLIM_INFINITY of :mod:`resource` means what ``"unlimited"`` does."""
    if not isinstance(rlimits, Mapping):
        raise TypeError(f'rlimits is a mapping such as {{"nofile": 1024}}, not {rlimits!r}')
    for name, value in rlimits.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, (int, str)):
            raise TypeError(f'rlimits maps names to numbers or "unlimited", and has {name!r}: {value!r}')
    return {name: "unlimited" if value == -1 else value for name, value in rlimits.items()}


def resources_to_wire(resources: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what a child may use."""
    if not isinstance(resources, Mapping):
        raise TypeError(f'resources is a mapping such as {{"memory_max": 1 << 30}}, not {resources!r}')
    return dict(resources)


def since_to_wire(since: Union[datetime.datetime, Duration, str]) -> Union[str, float]:
    """Return from when on something is wanted: a time, or an age.

    Raises ValueError for a time without its zone, which could be any.
    """
    if isinstance(since, str):
        return since
    if isinstance(since, datetime.datetime):
        if since.tzinfo is None:
            raise ValueError(f"since has no time zone: {since!r}; give it one, with astimezone() for instance")
        moment = since.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return moment.isoformat(timespec="microseconds") + "Z"
    return seconds(since, "since")


def _bare_word(word: str, what: str, functions: Sequence[str]) -> str:
    """Return a word, which the broker judges; one of the command line, such as ``"ttl:5s"``, is a function here."""
    kind = word.partition(":")[0]
    if kind in functions:
        raise ValueError(f"{what} {word!r} is written procbroker.{what}.{kind}(...) in Python")
    return word


def _with_seconds(mapping: Any, what: str, durations: Sequence[str]) -> Dict[str, Any]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{what} is a text or a mapping, not {mapping!r}")
    return {
        key: seconds(value, f"{key} of {what}") if key in durations and value is not None else value
        for key, value in mapping.items()
    }


#: What is not sent, as it means what is not given.
_DEFAULTS: Dict[str, Any] = {
    "if_exists": "fail",
    "env_clear": False,
    "stdout": "log",
    "stderr": "stdout",
    "stop_order": 0,
    "ready": "spawn",
    "no_wait": False,
    "lifetime": "broker",
}

#: What makes of a parameter what the wire has; the others go over it as they are.
_CONVERTERS: Dict[str, Callable[[Any], Any]] = {
    "labels": labels_to_wire,
    "cwd": folder_to_wire,
    "env": env_to_wire,
    "umask": umask_to_wire,
    "groups": list,
    "stdout": lambda value: output_to_wire(value, "stdout"),
    "stderr": lambda value: output_to_wire(value, "stderr"),
    "stop": stop_to_wire,
    "ready": ready_to_wire,
    "ready_timeout": lambda value: seconds(value, "ready_timeout"),
    "watchdog": lambda value: seconds(value, "watchdog"),
    "restart": restart_to_wire,
    "lifetime": lifetime_to_wire,
    "linger": lambda value: seconds(value, "linger"),
    "cleanup": cleanup_to_wire,
    "limit": limit_to_wire,
    "rlimits": rlimits_to_wire,
    "resources": resources_to_wire,
}


def create_params(command: Sequence[Argument], options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the parameters of ``create``."""
    if options.get("inherit_env"):
        if options.get("env_clear"):
            raise TypeError(
                "inherit_env takes the environment of this process, and env_clear takes none: give one of them"
            )
        # Nothing of the broker's own.
        options = {**options, "env": inherited(options.get("env")), "env_clear": True}
    params: Dict[str, Any] = {"command": command_to_wire(command)}
    for name, value in options.items():
        if value is None or value is _DEFAULTS.get(name) or name == "inherit_env":
            continue
        if name in _CONVERTERS:
            params[name] = _CONVERTERS[name](value)
        else:
            params[name] = text(value, name) if isinstance(value, str) else value
    return params
