"""When a child that ends by itself is started again, for ``restart=`` of a create: ``restart.on_failure(max=3)``."""

from __future__ import annotations

from typing import Optional

from .arguments import Duration, Restart

__all__ = ["always", "never", "on_failure"]


def never() -> Restart:
    """Not at all."""
    return {"policy": "never"}


def on_failure(
    *,
    max: Optional[int] = None,
    window: Optional[Duration] = None,
    backoff: Optional[Duration] = None,
    backoff_max: Optional[Duration] = None,
) -> Restart:
    """When it exits with another code than 0, or by a signal.

    At most ``max`` times (5) within ``window`` (60 seconds), after a pause of ``backoff`` (0.1 seconds), which doubles
    with each up to ``backoff_max`` (30 seconds).
    """
    return _with_settings({"policy": "on-failure"}, max, window, backoff, backoff_max)


def always(
    *,
    max: Optional[int] = None,
    window: Optional[Duration] = None,
    backoff: Optional[Duration] = None,
    backoff_max: Optional[Duration] = None,
) -> Restart:
    """However it ends, with the settings that ``on_failure`` has."""
    return _with_settings({"policy": "always"}, max, window, backoff, backoff_max)


def _with_settings(
    restart: Restart,
    max: Optional[int],
    window: Optional[Duration],
    backoff: Optional[Duration],
    backoff_max: Optional[Duration],
) -> Restart:
    if max is not None:
        restart["max"] = max
    if window is not None:
        restart["window"] = window
    if backoff is not None:
        restart["backoff"] = backoff
    if backoff_max is not None:
        restart["backoff_max"] = backoff_max
    return restart
