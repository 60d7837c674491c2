"""Durations, and moments, as the wire has them."""

from __future__ import annotations

import datetime
import math
from typing import Union

from .kinds import Duration

#: The units of durations, by the letters and words that the wire has for them, in seconds.
_UNITS = {
    unit: length
    for units, length in (
        ("nanos nsec ns", 1e-9),
        ("usec us µs", 1e-6),
        ("millis msec ms", 1e-3),
        ("seconds second secs sec s", 1.0),
        ("minutes minute mins min m", 60.0),
        ("hours hour hrs hr h", 3600.0),
        ("days day d", 86400.0),
        ("weeks week wk wks w", 604800.0),
        ("months month", 2630016.0),
        ("years year yrs yr y", 31557600.0),
    )
    for unit in units.split()
}


def seconds(duration: Duration, what: str) -> float:
    """Return a duration in seconds.

    Raises TypeError for what is no duration, ValueError for a text of another form, and for a negative or endless one.
    """
    if isinstance(duration, str):
        return _seconds_of_text(duration, what)
    if isinstance(duration, datetime.timedelta):
        number = duration.total_seconds()
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        number = duration
    else:
        raise TypeError(f'{what} is a number of seconds, a timedelta or a text such as "10m", not {duration!r}')
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{what} of {number} seconds is out of range: it is finite, and at least 0")
    return number


def _seconds_of_text(words: str, what: str) -> float:
    import re  # noqa: PLC0415 - most callers give numbers

    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", words, re.ASCII):
        return float(words)
    one = r"(\d+(?:\.\d+)?)\s*([a-zA-Zµ]+)"
    parts = re.findall(one, words, re.ASCII) if re.fullmatch(rf"\s*(?:{one}\s*)+", words, re.ASCII) else []
    if any(unit == "M" for _, unit in parts):
        minutes = words.replace("M", "m")
        raise ValueError(
            f"{what} of {words!r} has M, which is a month; {minutes!r} is minutes, and 'months' says the other"
        )
    if not parts or any(unit not in _UNITS for _, unit in parts):
        raise ValueError(f'{what} is a duration such as "250ms", "10s", "5m" or "1h 30m", not {words!r}')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


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
