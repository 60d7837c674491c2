"""From what a caller writes in Python to the parameters that go over the wire.

What cannot be right is refused here, before anything is sent: a wrong type is a TypeError, a wrong value a
ValueError. The rest is the broker's to judge.
"""

from __future__ import annotations

from .create import cleanup_to_wire as cleanup_to_wire
from .create import create_params as create_params
from .kinds import (
    Argument,
    Cleanup,
    CreateOptions,
    Duration,
    Lifetime,
    Limit,
    OfProcess,
    Path,
    Ready,
    Resources,
    Restart,
    RlimitName,
    Scope,
    Signal,
    Since,
    Step,
    Stop,
    Stream,
    TimeToLive,
)
from .kinds import SocketPath as SocketPath
from .stops import signal_to_wire as signal_to_wire
from .stops import stop_to_wire as stop_to_wire
from .stops import total_grace as total_grace
from .times import seconds as seconds
from .times import since_to_wire as since_to_wire
from .unpack import Unpack
from .words import command_to_wire as command_to_wire
from .words import env_to_wire as env_to_wire
from .words import labels_to_wire as labels_to_wire
from .words import text as text

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
