"""The client of procbroker, the one process that owns every long-lived child process of a web application.

::

    import procbroker

    broker = procbroker.Broker()
    child = broker.create(["python3", "render.py"], name="render-42", if_exists="reuse", stop=[("SIGHUP", 10)])
    print(child.outcome, child.pid)
    child.wait(timeout=5)
    child.destroy()

:class:`Broker` is for code that may block, :class:`AsyncBroker` for asyncio. Both are safe where web applications
run: under threads, after a fork, in sub-interpreters, under gevent.
"""

from __future__ import annotations

from .address import default_socket
from .arguments import Cleanup, Duration, Lifetime, OfProcess, Restart, Scope, Signal, Step, Stop, Stream, TimeToLive
from .async_broker import AsyncBroker
from .async_child import AsyncChild
from .async_shutdown_watch import AsyncShutdownWatch
from .async_streams import AsyncEvents, AsyncLogFollow
from .broker import Broker
from .child import Child
from .errors import (
    BrokerError,
    BrokerUnavailable,
    ClientClosed,
    ClientTimeout,
    ConnectionLost,
    InternalError,
    InvalidParams,
    LimitExceeded,
    NameTaken,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProcbrokerError,
    ProtocolViolation,
    ShuttingDown,
    SpawnFailed,
    StartFailed,
    TimedOut,
    Unsupported,
)
from .event import AnyEvent, BrokerEvent, BrokerRestarted, ChildEvent, Lagged
from .requests import Target, Timeout
from .shutdown_watch import ShutdownWatch
from .streams import Events, LogFollow
from .values import Cleaned, Exit, Logs, Owner, ShutdownReport, Status, StepTaken, Upgrade
from .view import ChildView

__all__ = [
    "AnyEvent",
    "AsyncBroker",
    "AsyncChild",
    "AsyncEvents",
    "AsyncLogFollow",
    "AsyncShutdownWatch",
    "Broker",
    "BrokerError",
    "BrokerEvent",
    "BrokerRestarted",
    "BrokerUnavailable",
    "Child",
    "ChildEvent",
    "ChildView",
    "Cleaned",
    "Cleanup",
    "ClientClosed",
    "ClientTimeout",
    "ConnectionLost",
    "Duration",
    "Events",
    "Exit",
    "InternalError",
    "InvalidParams",
    "Lagged",
    "Lifetime",
    "LimitExceeded",
    "LogFollow",
    "Logs",
    "NameTaken",
    "NotFound",
    "OfProcess",
    "Overloaded",
    "Owner",
    "PermissionDenied",
    "ProcbrokerError",
    "ProtocolViolation",
    "Restart",
    "Scope",
    "ShutdownReport",
    "ShutdownWatch",
    "ShuttingDown",
    "Signal",
    "SpawnFailed",
    "StartFailed",
    "Status",
    "Step",
    "StepTaken",
    "Stop",
    "Stream",
    "Target",
    "TimeToLive",
    "TimedOut",
    "Timeout",
    "Unsupported",
    "Upgrade",
    "default_socket",
]
