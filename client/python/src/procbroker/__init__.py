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

import importlib
from typing import TYPE_CHECKING, Any, List

from . import lifetime, ready, restart
from .address import default_socket
from .arguments import (
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
from .broker import Broker
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
    NoResult,
    NotASocket,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProcbrokerError,
    ProcessFailed,
    ProtocolViolation,
    RemoteTraceback,
    ShuttingDown,
    SocketPathTooLong,
    SpawnFailed,
    StartFailed,
    TimedOut,
    Unsupported,
)
from .event import AnyEvent, BrokerEvent, BrokerRestarted, ChildEvent, Lagged
from .requests import Target, Timeout
from .shutdown_watch import ShutdownWatch
from .streams import Events, LogFollow
from .sync_child import Child
from .values import Cleaned, Exit, Field, Logs, Owner, ShutdownReport, Status, StepTaken, Upgrade, Usage
from .view import ChildView

if TYPE_CHECKING:
    from .async_broker import AsyncBroker
    from .async_child import AsyncChild
    from .async_shutdown_watch import AsyncShutdownWatch
    from .async_streams import AsyncEvents, AsyncLogFollow

__version__ = "0.1.0"

__all__ = [
    "AnyEvent",
    "Argument",
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
    "CreateOptions",
    "Duration",
    "Events",
    "Exit",
    "Field",
    "InternalError",
    "InvalidParams",
    "Lagged",
    "Lifetime",
    "Limit",
    "LimitExceeded",
    "LogFollow",
    "Logs",
    "NameTaken",
    "NoResult",
    "NotASocket",
    "NotFound",
    "OfProcess",
    "Overloaded",
    "Owner",
    "Path",
    "PermissionDenied",
    "ProcbrokerError",
    "ProcessFailed",
    "ProtocolViolation",
    "Ready",
    "RemoteTraceback",
    "Resources",
    "Restart",
    "RlimitName",
    "Scope",
    "ShutdownReport",
    "ShutdownWatch",
    "ShuttingDown",
    "Signal",
    "Since",
    "SocketPathTooLong",
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
    "Usage",
    "__version__",
    "default_socket",
    "lifetime",
    "ready",
    "restart",
]

#: What is imported when it is asked for first: whoever blocks does not wait for asyncio.
_ASYNC = {
    "AsyncBroker": "async_broker",
    "AsyncChild": "async_child",
    "AsyncEvents": "async_streams",
    "AsyncLogFollow": "async_streams",
    "AsyncShutdownWatch": "async_shutdown_watch",
}


def __getattr__(name: str) -> Any:
    """Import a part of the asynchronous client."""
    if name not in _ASYNC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_ASYNC[name]}", __name__), name)
    return value


def __dir__() -> List[str]:
    """Return every name, those that are not imported yet too."""
    return sorted({*globals(), *_ASYNC})
