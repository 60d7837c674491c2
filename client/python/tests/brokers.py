"""The brokers that tests talk to: the real binary, and one that does what a test says."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

REPOSITORY = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
BINARY = os.environ.get("PROCBROKER_BIN", str(TARGET / "debug/procbroker"))
#: How long a test waits for something that has to come, in seconds.
PATIENCE = 30.0


def comes_true(condition: Callable[[], bool], what: str) -> None:
    """Ask again and again until something is so that nothing tells, such as how many connections a broker has."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"after {PATIENCE} s still not: {what}"


class RealBroker:
    """The binary, with a socket and a state folder below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = str(folder / "sock")
        self._process: Optional[subprocess.Popen[bytes]] = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it says that it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self.folder / "log", "ab") as log:
            path = self.folder / "ready"
            path.unlink(missing_ok=True)
            ready.bind(str(path))
            ready.settimeout(PATIENCE)
            self._process = subprocess.Popen(
                [BINARY, "serve", "--socket", self.socket, "--state-dir", str(self.folder / "state")],
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(path)},
            )
            while b"READY=1" not in ready.recv(4096):
                pass

    def kill(self) -> None:
        """Kill it, and what it leaves without an owner."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def crash(self) -> None:
        """Kill it alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """Stop it in order; nothing is left then."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(PATIENCE) == 0, (self.folder / "log").read_text()
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert left == []

    def processes(self) -> List[int]:
        """Return the processes that know of this broker from their environment: its children."""
        mark = f"PROCBROKER_SOCKET={self.socket}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found


class FakeConnection:
    """One connection of a fake broker."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lines = sock.makefile("rb")

    def request(self) -> Dict[str, Any]:
        """Return the next request."""
        line = self._lines.readline()
        assert line.endswith(b"\n"), f"a request was expected instead of {line!r}"
        message: Dict[str, Any] = json.loads(line)
        return message

    def gone(self) -> bool:
        """Wait for the client to close the connection, or to send more; return whether it is closed."""
        try:
            return self._lines.readline() == b""
        except ConnectionResetError:
            return True

    def send(self, message: Dict[str, Any]) -> None:
        """Send a message."""
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def answer(self, result: Dict[str, Any]) -> Dict[str, Any]:
        """Answer the next request, and return it."""
        request = self.request()
        self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})
        return request

    def subscribe(self, upcoming: int, instance: str = "first") -> Dict[str, Any]:
        """Tell who it is, answer the request for events that follows, and return that."""
        assert self.answer({**STATUS, "instance": instance})["method"] == "status"
        request = self.answer({"subscription": 1, "next": upcoming})
        assert request["method"] == "events"
        return request

    def refuse(self, kind: str, **data: Any) -> Dict[str, Any]:
        """Answer the next request with an error, and return it."""
        request = self.request()
        error = {"code": 1, "message": f"that is {kind}", "data": {"kind": kind, **data}}
        self.send({"jsonrpc": "2.0", "id": request["id"], "error": error})
        return request

    def notify(self, method: str, **params: Any) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method, "params": {"subscription": 1, **params}})

    def close(self) -> None:
        """Close it."""
        self._lines.close()
        self.sock.close()


class FakeBroker:
    """A listener that treats each connection as the test says, in the order in which they come."""

    def __init__(self, path: Path) -> None:
        self.socket = str(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket)
        self._listener.listen()
        self._plays: queue.Queue[Optional[Callable[[FakeConnection], Any]]] = queue.Queue()
        #: What becomes of each connection, in the order in which they came.
        self._results: queue.Queue[Future[Any]] = queue.Queue()
        self._connections: List[FakeConnection] = []
        self._threads: List[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def play(self, *plays: Callable[[FakeConnection], Any]) -> None:
        """Treat the next connections like that; each is closed at the end, unless the play returns KEEP."""
        for play in plays:
            self._plays.put(play)

    def result(self) -> Any:
        """Return what the next play that does not keep its connection returns, or raise what it raises."""
        result = KEEP
        while result is KEEP:
            result = self._results.get(timeout=PATIENCE).result(PATIENCE)
        return result

    def _accept(self) -> None:
        while True:
            play = self._plays.get()
            if play is None:
                return
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            connection = FakeConnection(sock)
            self._connections.append(connection)
            result: Future[Any] = Future()
            self._results.put(result)
            thread = threading.Thread(target=self._serve, args=(play, connection, result))
            self._threads.append(thread)
            thread.start()

    def _serve(self, play: Callable[[FakeConnection], Any], connection: FakeConnection, result: Future[Any]) -> None:
        try:
            returned = play(connection)
        except BaseException as error:
            connection.close()
            result.set_exception(error)
        else:
            if returned is not KEEP:
                connection.close()
            result.set_result(returned)

    def __enter__(self) -> FakeBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self._plays.put(None)
        # Wakes up accept, which closing does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for connection in self._connections:
            connection.close()
        self._listener.close()


#: What a play returns whose connection is to stay open.
KEEP = object()


def child(name: Optional[str] = "one", **changes: Any) -> Dict[str, Any]:
    """Return a child as the wire has it."""
    return {
        "id": "01935b2c-7d00-7abc-8def-0123456789ab",
        "name": name,
        "labels": {},
        "command": ["sleep", "60"],
        "pid": 4711,
        "owner": {"uid": 33, "gid": 33},
        "state": "running",
        "created_at": "2026-11-23T14:52:17.123456Z",
        "started_at": "2026-11-23T14:52:18.5Z",
        "restarts": 0,
        "lifetime": "broker",
        "stop_order": 0,
        "exit": None,
        "cleanup": None,
        "containment": "subreaper",
        **changes,
    }


#: A broker's status as the wire has it.
STATUS: Dict[str, Any] = {
    "version": "0.1.0",
    "protocol": {"lowest": 1, "highest": 1},
    "pid": 1,
    "instance": "67e55044-10b1-426f-9247-bb680e5fe0c8",
    "started_at": "2026-11-23T14:52:17Z",
    "shutting_down": False,
    "children": {},
    "connections": 1,
    "facilities": {},
    "limits": {},
}
