"""The parameters of ``create``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Callable, Dict, Tuple, Union

from .kinds import Argument, Cleanup, CreateOptions, Lifetime, Limit, Ready, Restart
from .stops import stop_to_wire
from .times import seconds
from .words import command_to_wire, env_to_wire, folder_to_wire, inherited, labels_to_wire, text

#: DEVNULL and STDOUT of :mod:`subprocess`, which takes long to import.
_DEVNULL, _STDOUT = -3, -2


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


def umask_to_wire(value: Union[str, int]) -> str:
    """Return a file mode creation mask in octal digits."""
    return value if isinstance(value, str) else f"{value:03o}"


def lifetime_to_wire(lifetime: Lifetime) -> Union[str, Dict[str, Any]]:
    """Return what a child's life is bound to."""
    if isinstance(lifetime, str):
        return _bare_word(lifetime, "lifetime", ("pid", "ttl"))
    if isinstance(lifetime, (int, float, timedelta)):
        raise TypeError(f"a lifetime of so long is procbroker.lifetime.ttl({lifetime!r}), and not {lifetime!r} alone")
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


#: What is not sent, as it means what is not given: None, but for these.
_DEFAULTS: Dict[str, Any] = {
    **dict.fromkeys(CreateOptions.__annotations__),
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
        if value is None or value is _DEFAULTS[name] or name == "inherit_env":
            continue
        if name in _CONVERTERS:
            params[name] = _CONVERTERS[name](value)
        else:
            params[name] = text(value, name) if isinstance(value, str) else value
    return params
