"""From what a caller writes in Python to the parameters that go over the wire.

What cannot be right is refused here, before anything is sent: a wrong type is a TypeError, a wrong value a
ValueError. The rest is the broker's to judge.
"""

from __future__ import annotations

import datetime
import math
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Dict, List, Literal, NamedTuple, Optional, Tuple, TypedDict, Union

__all__ = [
    "Argument",
    "Cleanup",
    "Duration",
    "Lifetime",
    "OfProcess",
    "Restart",
    "Scope",
    "Signal",
    "Step",
    "Stop",
    "Stream",
    "TimeToLive",
]

#: A number of seconds, or a timedelta.
Duration = Union[float, datetime.timedelta]
#: A signal: ``signal.SIGHUP``, ``"SIGHUP"``, ``"HUP"`` or its number.
Signal = Union[str, int, signal.Signals]
#: One word of a command line.
Argument = Union[str, "os.PathLike[str]"]


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


class _CleanupCommand(TypedDict):
    command: Sequence[Argument]


class Cleanup(_CleanupCommand, total=False):
    """A command that releases what a child leaves behind: ``{"command": [...], "timeout": 5}``."""

    #: How long it may run before it is killed; 30 seconds unless given.
    timeout: Duration


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
    if isinstance(command, (str, bytes)) or not isinstance(command, Sequence):
        raise TypeError(
            f"{what} is a list of the program and its arguments, and no shell reads it; "
            f"split a line with shlex.split: {command!r}"
        )
    return [text(word, f"a word of {what}") for word in command]


def text(value: Argument, what: str) -> str:
    """Return a text or a path as a text that can go over the wire."""
    word = os.fspath(value)
    if not isinstance(word, str):
        raise TypeError(f"{what} is a text or a path of text, not {value!r}")
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not UTF-8, which is all that goes over the wire: {word!r}") from None
    return word


def output_to_wire(value: Union[str, int], what: str) -> str:
    """Return where an output goes: the wire's own word, or the one that subprocess's constant stands for."""
    if value == subprocess.DEVNULL:
        return "null"
    if value == subprocess.STDOUT and what == "stderr":
        return "stdout"
    if not isinstance(value, str):
        raise ValueError(
            f'{what} is "log", "null" or "inherit" (the child outlives whoever could read a pipe; '
            f"read its log with logs or follow), not {value!r}"
        )
    return value


def umask_to_wire(value: Union[str, int]) -> str:
    """Return a file mode creation mask in octal digits."""
    return value if isinstance(value, str) else f"{value:03o}"


def lifetime_to_wire(lifetime: Lifetime) -> Union[str, Dict[str, Any]]:
    """Return what a child's life is bound to."""
    if isinstance(lifetime, str):
        return lifetime
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


def limit_to_wire(limit: Union[Tuple[str, int], Mapping[str, Any]]) -> Dict[str, Any]:
    """Return a limit: its key and how many."""
    if isinstance(limit, Mapping):
        return dict(limit)
    if not isinstance(limit, (tuple, list)) or len(limit) != 2:
        raise TypeError(f'limit is a pair such as ("render", 4), not {limit!r}')
    return {"key": limit[0], "max": limit[1]}


def _with_seconds(mapping: Any, what: str, durations: Sequence[str]) -> Dict[str, Any]:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{what} is a text or a mapping, not {mapping!r}")
    return {
        key: seconds(value, f"{key} of {what}") if key in durations and value is not None else value
        for key, value in mapping.items()
    }


def create_params(command: Sequence[Argument], options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the parameters of ``create``."""
    given = {name: value for name, value in options.items() if value is not None}
    converters: Dict[str, Callable[[Any], Any]] = {
        "labels": labels_to_wire,
        "cwd": lambda value: text(value, "cwd"),
        "env": lambda value: labels_to_wire(value, "env"),
        "umask": umask_to_wire,
        "groups": list,
        "stdout": lambda value: output_to_wire(value, "stdout"),
        "stderr": lambda value: output_to_wire(value, "stderr"),
        "stop": stop_to_wire,
        "ready_timeout": lambda value: seconds(value, "ready_timeout"),
        "restart": restart_to_wire,
        "lifetime": lifetime_to_wire,
        "linger": lambda value: seconds(value, "linger"),
        "cleanup": cleanup_to_wire,
        "limit": limit_to_wire,
        "rlimits": dict,
        "resources": dict,
    }
    params = {
        name: converters[name](value) if name in converters else text(value, name) if isinstance(value, str) else value
        for name, value in given.items()
    }
    return {"command": command_to_wire(command), **params}
