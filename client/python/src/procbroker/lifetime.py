"""What a child's life is bound to, for ``lifetime=`` of a create: ``procbroker.lifetime.ttl(30)``."""

from __future__ import annotations

from typing import Literal

from .arguments import Duration, OfProcess, TimeToLive

__all__ = ["broker", "connection", "pid", "ttl"]


def broker() -> Literal["broker"]:
    """Bind it to the broker's own life."""
    return "broker"


def connection() -> Literal["connection"]:
    """Bind it to whoever creates or reuses it: it ends ``linger`` after the last one has let go of it, or is gone."""
    return "connection"


def pid(number: int) -> OfProcess:
    """Bind it to the life of another process, such as ``os.getpid()``: one of this user, if that is not root."""
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"a process is meant by its number, not by {number!r}")
    if number <= 0:
        raise ValueError(f"the number of a process is positive, not {number}")
    return {"pid": number}


def ttl(time: Duration) -> TimeToLive:
    """Bind it to a time, in seconds, a timedelta or a text such as ``"10m"``, which ``renew`` begins anew."""
    return {"ttl": time}
