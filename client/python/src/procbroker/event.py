"""What a subscriber to events is told.

Each class has a ``kind``, so that a program can look at that alone; mypy knows the class from it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Callable, ClassVar, Generic, Literal, TypeVar, Union

from .deferred import dataclass
from .values import time_from_wire

__all__ = ["BrokerEvent", "BrokerRestarted", "ChildEvent", "Lagged"]

ChildT = TypeVar("ChildT")

ChildEventKind = Literal["created", "started", "ready", "stopping", "exited", "restarting", "cleaning", "ended"]


@dataclass(frozen=True)
class ChildEvent(Generic[ChildT]):
    """Something happened to a child."""

    #: ``created started ready stopping exited restarting cleaning ended``.
    kind: ChildEventKind
    #: The event's number; they count up by one.
    seq: int
    #: When it happened.
    at: datetime.datetime
    #: The child, right after it happened.
    child: ChildT


@dataclass(frozen=True)
class BrokerEvent:
    """Something happened to the broker itself."""

    #: The broker began to shut down.
    kind: Literal["shutting_down"]
    #: The event's number; they count up by one.
    seq: int
    #: When it happened.
    at: datetime.datetime


@dataclass(frozen=True)
class Lagged:
    """Events were missed: this program read too slowly, or they are older than what the broker keeps."""

    #: How many.
    missed: int
    kind: ClassVar[Literal["lagged"]] = "lagged"


@dataclass(frozen=True)
class BrokerRestarted:
    """The broker was started anew, and counts its events from the beginning.

    What happened meanwhile is not told; a list shows how things are.
    """

    kind: ClassVar[Literal["broker_restarted"]] = "broker_restarted"


#: What comes over the wire.
ToldEvent = Union[ChildEvent[ChildT], BrokerEvent, Lagged]
#: What iterating over events yields.
AnyEvent = Union[ChildEvent[ChildT], BrokerEvent, Lagged, BrokerRestarted]


def event_from_wire(params: Mapping[str, Any], make_child: Callable[[Any], ChildT]) -> ToldEvent[ChildT]:
    """Read the parameters of a notification ``event``."""
    kind = params["kind"]
    if kind == "lagged":
        return Lagged(int(params["missed"]))
    seq, at, child = int(params["seq"]), time_from_wire(params["at"]), params.get("child")
    return BrokerEvent(kind, seq, at) if child is None else ChildEvent(kind, seq, at, make_child(child))
