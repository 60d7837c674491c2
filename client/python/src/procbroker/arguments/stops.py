"""Signals, and the steps of a stop, as the wire has them."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, Dict, List, Optional, Tuple, Union

from .kinds import Duration, Signal, Step, Stop
from .times import seconds


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
