"""When a child counts as ready, for ``ready=`` of a create: ``procbroker.ready.tcp("127.0.0.1:8080")``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Dict, Literal, Optional, Union

from .arguments import Argument, Duration, Path, command_to_wire, seconds, text

__all__ = ["command", "log", "notify", "spawn", "tcp", "unix"]


def spawn() -> Literal["spawn"]:
    """Ready as soon as its program runs."""
    return "spawn"


def notify() -> Literal["notify"]:
    """Ready when it says so: READY=1 to the socket that NOTIFY_SOCKET names, as sd_notify(3) does."""
    return "notify"


def tcp(address: Union[str, int], port: Optional[int] = None, *, interval: Optional[Duration] = None) -> Dict[str, Any]:
    """Ready when something accepts there: ``tcp("127.0.0.1:8080")``, ``tcp("::1", 8080)``, ``tcp(8080)`` for 127.0.0.1.

    Another program that listens there makes it ready, too: take a port of its own, or ``unix`` or ``notify``.
    It is tried again after ``interval`` (0.1 seconds, doubling to 1 second, unless given).
    """
    if isinstance(address, int):
        if port is not None or isinstance(address, bool):
            raise TypeError(f"tcp takes an address with its port, or a port alone, not {address!r} and {port!r}")
        return tcp("127.0.0.1", address, interval=interval)
    if port is not None:
        if not isinstance(port, int) or not 0 < port < 1 << 16:
            raise ValueError(f"a port is a number from 1 to 65535, not {port!r}")
        bare = text(address, "the address of ready")
        address = f"[{bare}]:{port}" if ":" in bare and not bare.startswith("[") else f"{bare}:{port}"
    elif ":" not in text(address, "the address of ready"):
        raise ValueError(f"the address of ready has a port, as 127.0.0.1:8080 has, unlike {address!r}")
    return _probe("tcp", text(address, "the address of ready"), interval)


def unix(path: Path, *, interval: Optional[Duration] = None) -> Dict[str, Any]:
    """Ready when something accepts on the Unix stream socket at that path. It is tried again as ``tcp`` says."""
    return _probe("unix", text(path, "the path of ready"), interval)


def log(what: str) -> Dict[str, Any]:
    """Ready when a line of its output contains that text."""
    return _probe("log", text(what, "the text of ready"), None)


def command(words: Sequence[Argument], *, interval: Optional[Duration] = None) -> Dict[str, Any]:
    """Ready when that command exits with 0, within five seconds; it is tried again as ``tcp`` says.

    It runs as the child does, with its user, environment, folder and limits. What it says is not kept.
    """
    return _probe("command", command_to_wire(words, "the command of ready"), interval)


def _probe(kind: str, what: Any, interval: Optional[Duration]) -> Dict[str, Any]:
    probe = {kind: what}
    if interval is not None:
        probe["interval"] = seconds(interval, "the interval of ready")
    return probe
