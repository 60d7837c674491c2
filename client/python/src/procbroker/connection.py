"""One connection to the broker: lines out, lines in.

It carries one request at a time, or one subscription, so that no caller ever waits behind another one.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import Optional, Set, Union

from . import access, address
from .errors import BrokerUnavailable, NotASocket, PermissionDenied
from .waiting import (
    OWN_POLL,
    Deadline,
    DeadlinePassed,
    Pause,
    Readable,
    Steps,
    Writable,
    block,
    can_be_read,
    kept_poll,
)

#: The longest answer of a broker, in bytes: 64 MiB and the rest of its line.
ANSWER_BYTES_MAX = (64 << 20) + 4096
#: How much is read at a time, in bytes: first, and then of a line that is longer. Python allocates as much before it
#: knows how much has come, which from 128 KiB on costs three system calls and fresh pages each time: see mallopt(3).
_READ_FIRST, _READ_MORE = 64 << 10, 256 << 10
#: The first and the longest pause before a full queue of connections is tried again, in seconds.
_PAUSE_FIRST, _PAUSE_LONGEST = 0.001, 0.1
#: The pid, user id and group id of SO_PEERCRED.
_CREDENTIALS = struct.Struct("iII")
#: What a file system or a listener says when nobody is there.
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK, errno.ENOTDIR)


class NotSent(Exception):
    """The connection had ended before a byte of the request was taken: nothing can have happened."""


class Lost(Exception):
    """The connection ended with the request underway."""


class AnswerTooLong(Exception):
    """A line has more bytes than a broker sends."""


class Connection:
    """A connected socket that never blocks, and what has been read from it."""

    __slots__ = (
        "__weakref__",
        "_poll",
        "_received",
        "_searched",
        "answered",
        "held",
        "ids",
        "path",
        "pid",
        "sock",
        "token",
        "underway",
    )

    def __init__(self, sock: socket.socket, path: str) -> None:
        """Take a connected, non-blocking socket, and the path that it was connected to."""
        self.sock = sock
        self.path = path
        #: The process that made it, and the only one that may use it.
        self.pid = os.getpid()
        #: The ids of the children that it holds.
        self.held: Set[str] = set()
        #: Whether a broker has said anything over it. Before that it can be in the queue of one that is about to end.
        self.answered = False
        #: Whether the answer to a request is still to come.
        self.underway = False
        #: The numbers of its requests.
        self.ids: Iterator[int] = itertools.count(1)
        #: What makes request ids with these numbers.
        self.token = new_token()
        #: What polls it for reading, as long as that is the interpreter's own way.
        self._poll = kept_poll(sock)
        self._received = bytearray()
        self._searched = 0

    def ask(self, line: bytes, deadline: Deadline, sent: int = 0) -> Steps[bytes]:
        """Send a line, of which so much was sent already, and return the next one that comes.

        Raises as ``send`` and ``receive`` do.
        """
        self.underway = True
        if not sent:
            sent = self._send(line)
        if sent < len(line):
            yield from self._send_rest(line, sent, deadline)
        if not self._received:
            # No answer is there at once, and so it is not looked for.
            yield Readable(self.sock, deadline)
            answer = self._read_line()
            if answer is not None:
                self.underway = False
                return answer
        answer = yield from self.receive(deadline)
        self.underway = False
        return answer

    def block(self, deadline: Deadline) -> None:
        """Wait in this thread until it can be read, or the deadline has passed."""
        poll = self._poll
        if poll is not None and getattr(select, "poll", None) is OWN_POLL:
            poll.poll(deadline.milliseconds())
        else:
            block(Readable(self.sock, deadline))

    def read_at_once(self) -> Optional[bytes]:
        """Return the line that has come, if it is whole and nothing else has: ``receive`` finds out why it is not."""
        try:
            chunk = self.sock.recv(_READ_FIRST)
        except OSError:
            return None
        if chunk and not self._received and chunk.find(b"\n") == len(chunk) - 1:
            return chunk[:-1]
        self._received += chunk
        return None

    def send(self, line: bytes, deadline: Deadline) -> Steps[None]:
        """Send a line. Raises NotSent, Lost or DeadlinePassed."""
        yield from self._send_rest(line, self._send(line), deadline)

    def _send_rest(self, line: bytes, sent: int, deadline: Deadline) -> Steps[None]:
        while sent < len(line):
            if deadline.passed():
                raise DeadlinePassed
            yield Writable(self.sock, deadline)
            try:
                sent += self._send(memoryview(line)[sent:])
            except NotSent as error:
                raise (Lost if sent else NotSent) from error

    def _send(self, line: Union[bytes, memoryview]) -> int:
        """Return how many bytes of a line were taken. Raises NotSent."""
        try:
            return self.sock.send(line)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise NotSent from error

    def receive(self, deadline: Deadline) -> Steps[bytes]:
        """Return the next line. Raises Lost, DeadlinePassed or AnswerTooLong."""
        line = self.take_line()
        while line is None:
            line = self._read_line()
            if line is None:
                if deadline.passed():
                    raise DeadlinePassed
                yield Readable(self.sock, deadline)
        return line

    def _read_line(self) -> Optional[bytes]:
        """Read what has come, and return the first line if that is whole. Raises Lost or AnswerTooLong."""
        try:
            chunk = self.sock.recv(_READ_MORE if self._received else _READ_FIRST)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Lost from error
        if not chunk:
            raise Lost
        self.answered = True
        if not self._received and chunk.find(b"\n") == len(chunk) - 1:
            return chunk[:-1]
        self._received += chunk
        return self.take_line()

    def take_line(self) -> Optional[bytes]:
        """Return the first whole line of what has been read."""
        end = self._received.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._received)
            if self._searched > ANSWER_BYTES_MAX:
                raise AnswerTooLong
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._searched = 0
        return line

    def peer_user(self) -> int:
        """Return the user id of whoever listens, as the kernel knows it: SO_PEERCRED of unix(7)."""
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(credentials)[1])

    def is_quiet(self) -> bool:
        """Return whether it is open, with nothing to read: fit for the next request."""
        if self._received:
            return False
        poll = self._poll
        if poll is not None and getattr(select, "poll", None) is OWN_POLL:
            return not poll.poll(0)
        return not can_be_read(self.sock)

    def late_line(self) -> Optional[bytes]:
        """Return the next line, if it has come, without waiting for it. Raises Lost or AnswerTooLong."""
        line = self.take_line()
        return self._read_line() if line is None else line

    def last_line(self) -> Optional[bytes]:
        """Return the line that the other side left before it ended the connection, if it left one."""
        try:
            while True:
                line = self.take_line()
                if line is not None:
                    return line
                chunk = self.sock.recv(_READ_FIRST)
                if not chunk:
                    return None
                self._received += chunk
        except (OSError, AnswerTooLong):
            return None

    def wake(self) -> None:
        """End it for whoever waits for it in this process, which is then to close it."""
        # In a forked process this would end the connection of the process that made it.
        if self.pid == os.getpid():
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this process's descriptor of it."""
        # It knows the descriptor's number only, which can become another file's.
        self._poll = None
        with contextlib.suppress(OSError):
            self.sock.close()

    def __del__(self) -> None:
        """Close it: a loop over events is commonly left without closing them."""
        self.close()


def new_token() -> str:
    """Return the beginning of a random UUID (version 4), to which a number of twelve hexadecimal digits is the end.

    With the number of a request it is a request id like no other: no other connection has the same 72 random bits, and
    a connection, which no forked process uses nor two threads at once, counts its requests. To ask the kernel for
    random bits each time takes longer.
    """
    digits = os.urandom(9).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-a{digits[15:18]}-"


def connect(path: str, deadline: Deadline) -> Steps[Connection]:
    """Connect once. Raises BrokerUnavailable or what comes of it, PermissionDenied or DeadlinePassed."""
    address.checked(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        pause = _PAUSE_FIRST
        while True:
            try:
                sock.connect(path)
                return Connection(sock, path)
            except BlockingIOError:
                # connect(2): EAGAIN says that the listener's queue is full; nothing tells when it no longer is.
                if deadline.passed():
                    raise DeadlinePassed from None
                yield Pause(min(pause, deadline.left()))
                pause = min(pause * 2, _PAUSE_LONGEST)
    except OSError as error:
        sock.close()
        raise _why_not(path, error) from error
    except BaseException:
        sock.close()
        raise


def _why_not(path: str, error: OSError) -> Exception:
    reason = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(PermissionDenied.KIND, access.refusal(path), {"kind": PermissionDenied.KIND})
    if error.errno in _NOBODY:
        other = address.other_than_socket(path)
        return NotASocket(path, other) if other else BrokerUnavailable(path, reason)
    return BrokerUnavailable(path, f"[{errno.errorcode.get(error.errno or 0, error.errno)}] {reason}")
