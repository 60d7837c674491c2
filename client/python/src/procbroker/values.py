"""What the broker tells about a child and about itself, as typed values.

Fields that a newer broker adds are ignored here, and kept in the ``raw`` of those classes that have one.
"""

from __future__ import annotations

import datetime
import signal
from collections.abc import Mapping
from typing import Any, Dict, Generic, List, Literal, Optional, Tuple, TypeVar

from .deferred import dataclass, field

__all__ = ["Cleaned", "Exit", "Field", "Logs", "Owner", "ShutdownReport", "Status", "StepTaken", "Upgrade", "Usage"]

#: What can be told of a child: the names of its members on the wire.
Field = Literal[
    "id",
    "name",
    "labels",
    "command",
    "pid",
    "owner",
    "state",
    "status_text",
    "created_at",
    "started_at",
    "restarts",
    "lifetime",
    "stop_order",
    "exit",
    "cleanup",
    "containment",
    "usage",
]

ChildT = TypeVar("ChildT")


def signal_number(name: str) -> Optional[int]:
    """Return the number of a signal's name such as ``"SIGTERM"`` or ``"SIGRTMIN+3"``, None for another text."""
    base, plus, offset = name.partition("+")
    number = signal.Signals.__members__.get(base)
    if number is None or (plus and not offset.isdigit()):
        return None
    return number + int(offset or 0)


def time_from_wire(text: str) -> datetime.datetime:
    """Read a time as the wire has it (RFC 3339, UTC), to the microsecond."""
    # fromisoformat of Python 3.9 takes neither the letter Z nor any number of digits but 3 and 6.
    seconds, _, fraction = text.rstrip("Zz").partition(".")
    return datetime.datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")


def optional_time(text: Optional[str]) -> Optional[datetime.datetime]:
    """Read a time that may be missing."""
    return None if text is None else time_from_wire(text)


@dataclass(frozen=True)
class Owner:
    """The user and the group that a child belongs to."""

    #: The user id of the client that created it.
    uid: int
    #: The group id of that client.
    gid: int


@dataclass(frozen=True)
class StepTaken:
    """A signal that was sent to end a child."""

    #: The signal's name.
    signal: str
    #: When it was sent.
    at: datetime.datetime


@dataclass(frozen=True)
class Exit:
    """How a child ended: just one of ``code``, ``signal`` and ``unknown`` says what the kernel reported."""

    #: It exited with this code.
    code: Optional[int]
    #: The signal of this name ended it, such as ``"SIGKILL"``.
    signal: Optional[str]
    #: The kernel kept no status of it: it ended while no broker could see it.
    unknown: bool
    #: Why: ``exited destroyed shutdown replaced expired owner_gone start_failed watchdog broker_lost``.
    reason: str
    #: Whether SIGKILL was needed.
    forced: bool
    #: The signals that were sent to end it, in their order.
    steps: Tuple[StepTaken, ...]
    #: When its main process ended, as far as is known.
    at: datetime.datetime
    #: Whether it was not started again because it had been too often already.
    gave_up: bool = False
    #: Whether it was killed for want of memory.
    oom: bool = False

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Exit:
        """Read what the wire has."""
        return cls(
            code=wire.get("code"),
            signal=wire.get("signal"),
            unknown=bool(wire.get("unknown", False)),
            reason=wire["reason"],
            forced=wire["forced"],
            steps=tuple(StepTaken(step["signal"], time_from_wire(step["at"])) for step in wire["steps"]),
            at=time_from_wire(wire["at"]),
            gave_up=bool(wire.get("gave_up", False)),
            oom=bool(wire.get("oom", False)),
        )

    @property
    def returncode(self) -> Optional[int]:
        """The status as :mod:`subprocess` has it: negative for a signal, None when it is unknown."""
        return _returncode(self.code, self.signal)


@dataclass(frozen=True)
class Usage:
    """What a child and its descendants use; None where that cannot be told."""

    #: Seconds of processor time so far.
    cpu: Optional[float]
    #: Bytes of memory now.
    memory: Optional[int]
    #: The most bytes of memory at any time.
    memory_peak: Optional[int]
    #: Processes now.
    processes: Optional[int]

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Usage:
        """Read what the wire has."""
        return cls(wire.get("cpu"), wire.get("memory"), wire.get("memory_peak"), wire.get("processes"))


@dataclass(frozen=True)
class Cleaned:
    """What the cleanup command of a child did."""

    #: Whether it exited with code 0.
    ok: bool
    #: The exit code of its last attempt, if that exited.
    code: Optional[int]
    #: The name of the signal that ended its last attempt, if one did.
    signal: Optional[str]
    #: How often it was started.
    attempts: int

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Cleaned:
        """Read what the wire has."""
        exit_ = wire.get("exit") or {}
        return cls(wire["ok"], exit_.get("code"), exit_.get("signal"), wire["attempts"])

    @property
    def returncode(self) -> Optional[int]:
        """The status as :mod:`subprocess` has it; None when it is unknown, or it could not be started."""
        return _returncode(self.code, self.signal)


@dataclass(frozen=True)
class Logs:
    """What a child wrote."""

    #: The text; bytes that are not UTF-8 are replaced.
    text: str
    #: Whether older output was released already.
    truncated: bool
    #: How many bytes could not be kept, for want of space.
    dropped: int = 0

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Logs:
        """Read what the wire has."""
        return cls(wire["text"], wire["truncated"], int(wire.get("dropped") or 0))

    def __str__(self) -> str:
        """Return the text."""
        return self.text


@dataclass(frozen=True)
class ShutdownReport(Generic[ChildT]):
    """What a shutdown of the broker did."""

    #: Every child that it ended, in the order of their ends.
    children: List[ChildT]
    #: How many of them needed SIGKILL.
    forced: int
    #: How many seconds it took.
    took: float


@dataclass(frozen=True)
class Status:
    """The broker at one moment."""

    #: The version of its program.
    version: str
    #: The lowest and the highest version of the binary protocol that it speaks, which the Rust client uses.
    protocol: Tuple[int, int]
    #: Its process.
    pid: int
    #: A new UUID for each start.
    instance: str
    #: The instance with which the numbers of events began: an upgrade goes on with them.
    events_instance: str
    #: When it was started.
    started_at: datetime.datetime
    #: Whether it is shutting down.
    shutting_down: bool
    #: Why the last upgrade failed that this instance was asked for, if one did.
    failed_upgrade: Optional[str]
    #: How many children are in each state.
    children: Dict[str, int]
    #: How many clients are connected.
    connections: int
    #: What the kernel offers, and which way is in use.
    facilities: Dict[str, Any]
    #: The bounds in force; times are in seconds.
    limits: Dict[str, Any]
    #: All of it as it came.
    raw: Dict[str, Any] = field(repr=False)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Status:
        """Read what the wire has."""
        return cls(
            version=wire["version"],
            protocol=(wire["protocol"]["lowest"], wire["protocol"]["highest"]),
            pid=wire["pid"],
            instance=wire["instance"],
            events_instance=wire.get("events_instance", wire["instance"]),
            started_at=time_from_wire(wire["started_at"]),
            shutting_down=wire["shutting_down"],
            failed_upgrade=(wire.get("failed_upgrade") or {}).get("message"),
            children=wire["children"],
            connections=wire["connections"],
            facilities=wire["facilities"],
            limits=wire["limits"],
            raw=dict(wire),
        )


@dataclass(frozen=True)
class Upgrade:
    """What an upgrade of the broker has changed."""

    #: The broker before it.
    before: Status
    #: The broker after it, as soon as it served.
    after: Status


def _returncode(code: Optional[int], signal_name: Optional[str]) -> Optional[int]:
    if code is not None:
        return code
    number = None if signal_name is None else signal_number(signal_name)
    return None if number is None else -number
