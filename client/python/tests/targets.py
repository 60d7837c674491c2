"""Functions that tests run as processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List, Tuple, Union

import procbroker


class Broken(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    @staticmethod
    def moved(point: Point, by: int = 1) -> Point:
        return Point(point.x + by)

    def method(self) -> int:
        return self.x


def add(a: Any, b: Any = 0) -> Any:
    return a + b


def surroundings() -> Dict[str, Any]:
    return {
        "path": sys.path,
        "cwd": os.getcwd(),
        "argv": sys.argv,
        "prefix": sys.prefix,
        "environ": dict(os.environ),
        "cmdline": Path("/proc/self/cmdline").read_bytes(),
        "initial": Path("/proc/self/environ").read_bytes(),
        "uid": os.getuid(),
    }


def nothing() -> None:
    print("at work", flush=True)


def fail(message: str) -> None:
    raise ValueError(message)


async def add_later(a: int, b: int) -> int:
    import asyncio  # noqa: PLC0415

    await asyncio.sleep(0)
    return a + b


async def fail_later(message: str) -> None:
    raise ValueError(message)


def fail_unpicklably() -> None:
    error = ValueError("holds a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def fail_badly() -> None:
    raise Broken("a", "b")


def give_lambda() -> Any:
    return lambda: 0


def give_much() -> bytes:
    return b"x" * (17 << 20)


def leave(code: Union[int, str]) -> None:
    sys.exit(code)


def stay(path: str = "") -> None:
    if path:
        Path(path).write_text("there")
    os.execvp("sleep", ["sleep", "1000"])


def once_more(path: str) -> List[str]:
    """Crash in the first run, and return in the second."""
    runs = Path(path)
    with runs.open("a") as file:
        file.write("run\n")
    if runs.read_text().count("run") == 1:
        os.abort()
    return runs.read_text().split()


def fail_once(path: str) -> None:
    """Raise in the first run, and stay in the second."""
    runs = Path(path)
    with runs.open("a") as file:
        file.write("run\n")
    if runs.read_text().count("run") == 1:
        raise ValueError("the first run")
    signal.pause()


def speak(words: str) -> None:
    print(words)
    signal.pause()


def start_another(socket: str) -> Tuple[str, Any]:
    """Start a child and a process of its own."""
    with procbroker.Broker(socket) as broker:
        child = broker.create(["true"])
        return str(child.outcome), broker.process(add, (40, 2)).result(keep=False)
