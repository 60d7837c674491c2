"""Durations, and moments, as the wire has them."""

from __future__ import annotations

import datetime
import math
from typing import Union

from .kinds import Duration


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
