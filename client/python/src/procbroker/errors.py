"""What can go wrong, as classes.

Every error of this package is a :class:`ProcbrokerError`. Those that the broker answers are
:class:`BrokerError`, one subclass for each kind; the others arise on this side of the socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Dict, Optional, Type

from .values import Exit

__all__ = [
    "BrokerError",
    "BrokerUnavailable",
    "ClientClosed",
    "ClientTimeout",
    "ConnectionLost",
    "InternalError",
    "InvalidParams",
    "LimitExceeded",
    "NameTaken",
    "NoResult",
    "NotASocket",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "ProcbrokerError",
    "ProcessFailed",
    "ProtocolViolation",
    "RemoteTraceback",
    "ShuttingDown",
    "SocketPathTooLong",
    "SpawnFailed",
    "StartFailed",
    "TimedOut",
    "Unsupported",
]


#: How much of a line of a child is a part of a message, in characters.
_LINE_LONGEST = 300


class ProcbrokerError(Exception):
    """Any failure of this package."""


class BrokerError(ProcbrokerError):
    """The broker's own answer that something could not be done.

    The class follows from the kind. A kind that this version does not know, from a newer broker, is a
    plain ``BrokerError``.
    """

    #: The kind that this class stands for, as the wire has it.
    KIND: ClassVar[str] = ""

    def __init__(self, kind: str, message: str, data: Optional[Mapping[str, Any]] = None) -> None:
        """Take what the wire has: the kind, the message, and the facts that belong to the kind."""
        _set_args(self, kind, message, data)
        #: What kind of failure, such as ``"name_taken"``.
        self.kind: str = kind
        #: What was attempted, on what, and what to do.
        self.message: str = message
        #: The facts of the failure as they came, ``kind`` among them.
        self.data: Dict[str, Any] = dict(data or {})

    def __str__(self) -> str:
        """Return the message, for people."""
        return self.message


class NameTaken(BrokerError):
    """A live child holds the name already."""

    KIND = "name_taken"

    @property
    def holder(self) -> Optional[str]:
        """The id of the child that holds it, where the caller may see that."""
        return _text(self.data.get("id"))

    @property
    def holder_state(self) -> Optional[str]:
        """The state of that child, such as ``"stopping"``."""
        return _text(self.data.get("state"))


class NotFound(BrokerError, LookupError):
    """There is no such child, or it is not the caller's to see."""

    KIND = "not_found"


class PermissionDenied(BrokerError, PermissionError):
    """The caller may not do this, or may not talk to this broker or its socket at all."""

    KIND = "permission_denied"


class LimitExceeded(BrokerError):
    """A bound is reached: the child's own ``limit``, or one on children, connections or messages."""

    KIND = "limit_exceeded"


class SpawnFailed(BrokerError):
    """The process could not be started."""

    KIND = "spawn_failed"

    @property
    def errno(self) -> Optional[int]:
        """The number of the system's error, as in :mod:`errno`."""
        number = self.data.get("errno")
        return number if isinstance(number, int) else None

    @property
    def errno_name(self) -> Optional[str]:
        """The name of the system's error, such as ``"ENOENT"``."""
        return _text(self.data.get("errno_name"))

    @property
    def step(self) -> Optional[str]:
        """What failed: ``"exec"``, ``"cwd"``, ``"user"``, ``"rlimits"`` and so on."""
        return _text(self.data.get("step"))


class StartFailed(BrokerError):
    """The child was started, and ended before it was ready."""

    KIND = "start_failed"

    @property
    def exit(self) -> Optional[Exit]:
        """How it ended."""
        exit_ = self.data.get("exit")
        return Exit.from_wire(exit_) if isinstance(exit_, dict) else None

    @property
    def log_tail(self) -> str:
        """The last of what it wrote."""
        return _text(self.data.get("log_tail")) or ""

    def __str__(self) -> str:
        """Return the message and the last line that it wrote, which mostly says why it has ended.

        Of that line, no character steers a terminal or turns the text around: it has an escape instead.
        """
        lines = self.log_tail.split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if not last:
            return self.message
        if len(last) > _LINE_LONGEST:
            last = last[: _LINE_LONGEST - 1] + "…"
        return f"{self.message}; its last line: {harmless(last)}"


class ShuttingDown(BrokerError):
    """The broker is shutting down, and starts nothing any more."""

    KIND = "shutting_down"


class TimedOut(BrokerError, TimeoutError):
    """It took longer than the caller wanted to wait, says the broker. The child is left as it is."""

    KIND = "timeout"

    @property
    def probe(self) -> Optional[Dict[str, Any]]:
        """Why the last ``ready`` command said no to a child that was not ready in time, where that is known.

        It has ``errno``, ``errno_name`` and ``step`` where the command could not be started, ``exit`` where it ended
        badly, and ``timed_out`` where it was killed because it took too long.
        """
        probe = self.data.get("probe")
        return probe if isinstance(probe, dict) else None


class Overloaded(BrokerError):
    """The broker has too much to do for this caller. Try again later."""

    KIND = "overloaded"


class Unsupported(BrokerError):
    """The broker, or the machine that it runs on, does not offer it."""

    KIND = "unsupported"


class InvalidParams(BrokerError, ValueError):
    """The parameters are out of form; the message names the one."""

    KIND = "invalid_params"


class InternalError(BrokerError):
    """The broker itself failed."""

    KIND = "internal"


class BrokerUnavailable(ProcbrokerError, ConnectionError):
    """Nobody listens on the socket."""

    def __init__(self, socket: str, reason: str) -> None:
        """Take the path that was tried, and the system's word on it."""
        _set_args(self, socket, reason)
        #: The path of the socket that was tried.
        self.socket: str = socket
        #: Why no connection came about.
        self.reason: str = reason

    def __str__(self) -> str:
        """Return what was tried, and what to do."""
        return (
            f"cannot reach a broker at {self.socket}: {self.reason}; "
            f"start one with 'procbroker serve --socket {self.socket}', "
            "or name the socket of another one in PROCBROKER_SOCKET"
        )


class SocketPathTooLong(BrokerUnavailable, ValueError):
    """The path has more bytes than the address of a socket can hold: no broker can be there."""

    def __init__(self, socket: str, length: int, longest: int) -> None:
        """Take the path, its length, and the longest that there can be, in bytes."""
        super().__init__(socket, f"the path has {length} bytes, and that of a socket has at most {longest}")
        _set_args(self, socket, length, longest)
        #: How long the path is, in bytes.
        self.length: int = length
        #: How long it may be, in bytes.
        self.longest: int = longest

    def __str__(self) -> str:
        """Return what was tried, and what to do."""
        return (
            f"no broker can be at {self.socket}: {self.reason}; name a shorter path, in PROCBROKER_SOCKET for instance"
        )


class NotASocket(BrokerUnavailable, ValueError):
    """What is at the path is no socket: no broker can be there."""

    def __init__(self, socket: str, kind: str) -> None:
        """Take the path, and what is there, such as ``"a folder"``."""
        super().__init__(socket, f"there is {kind}, and no socket")
        _set_args(self, socket, kind)
        #: What is there.
        self.kind: str = kind

    def __str__(self) -> str:
        """Return what was tried, and what to do."""
        return (
            f"no broker can be at {self.socket}: {self.reason}; "
            "name the broker's socket, in PROCBROKER_SOCKET for instance"
        )


class ConnectionLost(ProcbrokerError, ConnectionError):
    """The connection ended before the answer came: the request may or may not have been carried out.

    Raised only for what must not happen twice (``signal``, ``shutdown``, ``upgrade``) and for a
    log that is being followed; everything else is sent again, until connections are lost again and again.
    """

    def __init__(self, method: str, socket: str) -> None:
        """Take the method that was called, and the path of the broker's socket."""
        _set_args(self, method, socket)
        #: The method that was called.
        self.method: str = method
        #: The path of the broker's socket.
        self.socket: str = socket

    def __str__(self) -> str:
        """Return what was attempted, and what to do."""
        if self.method == "logs":
            return (
                f"the connection to the broker at {self.socket} ended before all of the log had come; "
                "ask for it again: that begins with what is kept, or with its last lines (tail=)"
            )
        return (
            f"the connection to the broker at {self.socket} ended before it answered {self.method}; "
            "whether that was carried out is not known: look at the child before trying again"
        )


class ClientTimeout(ProcbrokerError, TimeoutError):
    """No answer came within the time that this side was ready to wait.

    What was asked for may still be carried out.
    """

    def __init__(self, attempt: str, seconds: float, socket: str) -> None:
        """Take what was attempted, after how many seconds it was given up, and the socket's path."""
        _set_args(self, attempt, seconds, socket)
        #: What was attempted.
        self.attempt: str = attempt
        #: After how many seconds it was given up.
        self.seconds: float = seconds
        #: The path of the broker's socket.
        self.socket: str = socket

    def __str__(self) -> str:
        """Return what was given up, and what to do."""
        return (
            f"gave up on {self.attempt} after {self.seconds:g} s without an answer from {self.socket}; "
            "it may still be carried out: pass a longer timeout, or look at the child before trying again"
        )


class ClientClosed(ProcbrokerError, ValueError):
    """The client was closed, before the call or while it waited."""

    def __init__(self, socket: str) -> None:
        """Take the path of the broker's socket."""
        _set_args(self, socket)
        #: The path of the broker's socket.
        self.socket: str = socket

    def __str__(self) -> str:
        """Return what was closed, and what to do."""
        return f"this client of the broker at {self.socket} is closed; make another one"


class ProtocolViolation(ProcbrokerError):
    """What listens on the socket does not answer as a broker does."""

    def __init__(self, socket: str, detail: str) -> None:
        """Take the socket's path, and what was wrong."""
        _set_args(self, socket, detail)
        #: The path of the socket.
        self.socket: str = socket
        #: What was wrong with the answer.
        self.detail: str = detail

    def __str__(self) -> str:
        """Return what was wrong, and what to do."""
        return f"what listens on {self.socket} does not answer as a broker does: {self.detail}"


class NoResult(ProcbrokerError):
    """The function of a process has neither returned nor raised, or what it did cannot be had any more."""

    def __init__(self, process: str, reason: str) -> None:
        """Take which process, and why there is nothing."""
        _set_args(self, process, reason)
        #: Which process: its name or id, and its function.
        self.process: str = process
        #: Why there is no result.
        self.reason: str = reason

    def __str__(self) -> str:
        """Return which process has no result, and why."""
        return f"{self.process} has no result: {self.reason}"


class ProcessFailed(ProcbrokerError):
    """The function of a process has raised an exception that cannot travel itself, or returned what cannot.

    What it returns is pickled, and has at most 16 MiB then.
    """

    def __init__(self, process: str, error: str, traceback: str, reason: str = "") -> None:
        """Take which process, the exception's own words, its traceback, and why it is not raised itself."""
        _set_args(self, process, error, traceback, reason)
        #: Which process: its name or id, and its function.
        self.process: str = process
        #: The exception: the name of its class, and its message. Or why what was returned cannot travel.
        self.error: str = error
        #: The exception's traceback, as Python prints it; empty where the function has returned.
        self.traceback: str = traceback
        #: Why the exception itself is not raised in the place of this one; empty where the function has returned.
        self.reason: str = reason

    def __str__(self) -> str:
        """Return the exception, why it does not come itself, and its traceback; or why there is no result."""
        if not self.traceback:
            return f"{self.process} has returned, but its result cannot be brought here: {self.error}"
        itself = f" (the exception itself cannot be brought here: {self.reason})" if self.reason else ""
        return f"{self.process} raised {self.error}{itself}\n\n{self.traceback}"


class RemoteTraceback(Exception):
    """The cause of an exception that the function of a process has raised: its traceback there, as a text."""

    def __str__(self) -> str:
        """Return the traceback, apart from the one that it is printed within."""
        return f'\n"""\n{self.args[0]}"""'


_CLASSES: Dict[str, Type[BrokerError]] = {
    kind.KIND: kind
    for kind in (
        NameTaken,
        NotFound,
        PermissionDenied,
        LimitExceeded,
        SpawnFailed,
        StartFailed,
        ShuttingDown,
        TimedOut,
        Overloaded,
        Unsupported,
        InvalidParams,
        InternalError,
    )
}


def harmless(text: str) -> str:
    """Return the text of a child with an escape, as in Python's literals, for whatever is more than to be seen."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def error_from_wire(error: Mapping[str, Any]) -> BrokerError:
    """Make the error that an ``error`` object of JSON-RPC stands for."""
    data = error.get("data")
    data = data if isinstance(data, dict) else {}
    kind = data.get("kind")
    kind = kind if isinstance(kind, str) else f"error {error.get('code')}"
    return _CLASSES.get(kind, BrokerError)(kind, str(error.get("message")), data)


def _set_args(error: BaseException, *args: Any) -> None:
    """Set ``args``, by which an error is pickled.

    OSError's own initializer, which some classes inherit, would take them for an errno and its message.
    """
    BaseException.__init__(error, *args)


def _text(value: object) -> Optional[str]:
    return value if isinstance(value, str) else None
