"""Requests to a server, many at a time."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .place import PATIENCE


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    body: Any
    #: The process that answered, where it says so.
    worker: int | None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Web:
    """A server, at a port of 127.0.0.1 or at a socket."""

    address: int | Path

    def ask(self, method: str, path: str) -> Answer:
        """Send a request on a connection of its own, and return what is answered."""
        if isinstance(self.address, int):
            connection: http.client.HTTPConnection = http.client.HTTPConnection("127.0.0.1", self.address, PATIENCE)
        else:
            connection = _UnixConnection(self.address)
        try:
            connection.request(method, path, headers={"Connection": "close"})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = response.getheader("Content-Type", "").startswith("application/json")
        worker = response.getheader("X-Worker")
        return Answer(response.status, json.loads(text) if is_json else text, int(worker) if worker else None)

    def ask_at_once(self, method: str, paths: Sequence[str]) -> list[Answer]:
        """Send requests all at once, and return what is answered, in the same order."""
        together = threading.Barrier(len(paths))

        def ask(path: str) -> Answer:
            together.wait(PATIENCE)
            return self.ask(method, path)

        with ThreadPoolExecutor(len(paths)) as threads:
            return list(threads.map(ask, paths))


class Port:
    """A port of 127.0.0.1 that nobody else is given, until it is closed: bound, but not listened at."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give it back."""
        self._socket.close()
