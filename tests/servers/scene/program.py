"""A program whose output is followed as it comes, and which is gone at the end of a test."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .place import PATIENCE


class Program:
    """A process that a test has started."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], *, leader: bool = False) -> None:
        """Start it; as the leader of a process group of its own, if its signals are to be sent to that."""
        self._words = [str(word) for word in command]
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._over = False
        self._process = subprocess.Popen(
            self._words,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0 if leader else None,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has written so far."""
        with self._changed:
            return "".join(self._lines)

    def mark(self) -> int:
        """Return where its output ends now."""
        with self._changed:
            return len(self._lines)

    def says(self, pattern: str, after: int = 0, count: int = 1) -> re.Match[str]:
        """Wait for a line of its output, or so many of them, from a mark on."""
        expression = re.compile(pattern)
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                for line in self._lines[after:]:
                    if match := expression.search(line):
                        count -= 1
                        if count == 0:
                            return match
                after = max(after, len(self._lines))
                if self._over or not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"{pattern!r} was not said by {self._words}:\n{''.join(self._lines)}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ended(self, within: float = PATIENCE) -> int:
        """Wait for its end, and return its status, negative where a signal ended it."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self._words} goes on after {within} s:\n{self.output}") from None

    def stop(self) -> None:
        """End it, and wait for all that writes where it does: SIGTERM, and SIGKILL where that does not do."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(PATIENCE)
            if self._process.stdout and not self._reader.is_alive():
                self._process.stdout.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        if error is not None:
            error.add_note(f"{self._words} wrote:\n{self.output}")
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


def processes(socket: Path) -> list[int]:
    """Return the processes that know of a broker from their environment: its server, its children and their own."""
    return [pid for pid, _ in _environments(socket)]


def named(socket: Path, name: str) -> list[int]:
    """Return the processes of a broker that are, or descend from, a child of that name."""
    word = f"PROCBROKER_CHILD_NAME={name}".encode()
    return [pid for pid, environment in _environments(socket) if word in environment]


def kill_all(pids: Sequence[int]) -> None:
    """Kill processes that should not be there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _environments(socket: Path) -> list[tuple[int, list[bytes]]]:
    word = f"PROCBROKER_SOCKET={socket}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0")
                if word in environment:
                    found.append((int(entry.name), environment))
    return found
