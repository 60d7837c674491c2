"""A server and a broker, together in one of the two ways that there are."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import procbroker

from .kinds import DEFAULT, Kind, Settings
from .place import ACCOUNT, BROKER, PATIENCE, Place, is_root, own_place
from .program import Program, kill_all, processes
from .web import Web

#: How long a server has for its end when its graceful stop has taken too long. Apache's own takes up to 10 seconds.
KILLED_AFTER_S = 15
#: So long that everybody has the time that he asks for, and none is shared out.
SHUTDOWN_TIMEOUT = "120s"


@dataclass(frozen=True)
class Way:
    """How a server is put under `procbroker run`."""

    #: Which of its processes the stop goes to.
    stop_scope: Literal["main", "group"] = "main"
    #: The words of another program that starts the broker, and of one that starts the server.
    before_broker: Sequence[str] = ()
    before_server: Sequence[str] = ()


#: As most tests want it.
PLAIN = Way()


@dataclass(frozen=True)
class Stage:
    """A server that answers, and its broker."""

    place: Place
    web: Web
    #: `procbroker run`, or the server itself where the broker is a process of its own.
    program: Program
    #: The broker as the test talks to it: as its own user.
    broker: procbroker.Broker

    @property
    def socket(self) -> Path:
        """Where the broker listens, which all its processes know."""
        return self.place.broker_socket

    @property
    def main_pid(self) -> int:
        """The main process of the server, under `procbroker run`."""
        return int(self.program.says(r"started child=\S+ pid=(\d+)")[1])

    def children(self) -> dict[str, int]:
        """Return the process of each named child."""
        return {child.name or "": child.pid or 0 for child in self.broker.list()}

    def works(self, name: str) -> None:
        """Wait until a job says that it is at work, and so holds its resource."""
        with self.broker.follow(name) as follow:
            text = ""
            while "at work" not in text:
                piece = follow.next(PATIENCE)
                assert piece is not None, f"{name} ended after {text!r}"
                text += piece


def broker_flags(place: Place) -> list[str | Path]:
    """Return what the broker is told: the servers' user may connect."""
    flags: list[str | Path] = ["--socket", place.broker_socket, "--state-dir", place.state]
    return [*flags, "--allow-user", ACCOUNT, "--socket-mode", "666"] if is_root() else flags


@contextmanager
def under_the_broker(kind: Kind, settings: Settings = DEFAULT, *, way: Way = PLAIN) -> Iterator[Stage]:
    """Start a server as the main command of `procbroker run`."""
    with ExitStack() as stack:
        place = stack.enter_context(own_place())
        stack.callback(_nothing_is_left, place)
        command = kind.prepare(place, settings, stack)
        stop = [f"{kind.graceful}:{settings.failsafe_s}s", f"{kind.failsafe}:{KILLED_AFTER_S}s"]
        if kind.own_failsafe:
            stop = [f"{kind.graceful}:{settings.failsafe_s + KILLED_AFTER_S}s"]
        stops = [
            "--main-stop",
            ",".join(stop),
            "--main-stop-scope",
            way.stop_scope,
            "--shutdown-timeout",
            SHUTDOWN_TIMEOUT,
        ]
        words = [
            *way.before_broker,
            BROKER,
            "run",
            *stops,
            *broker_flags(place),
            "--",
            *way.before_server,
            *command.words,
        ]
        program = stack.enter_context(Program(words, {**place.environment(), **command.environment}))
        program.says(kind.ready, count=kind.ready_count)
        broker = stack.enter_context(procbroker.Broker(place.broker_socket))
        yield Stage(place, command.web, program, broker)


@contextmanager
def serving(place: Place) -> Iterator[Program]:
    """Start a broker on its own."""
    with Program([BROKER, "serve", *broker_flags(place)], place.environment()) as program:
        program.says("ready")
        yield program


@contextmanager
def beside_a_broker(kind: Kind) -> Iterator[Stage]:
    """Start a server whose broker is up to the test, and may come and go."""
    with ExitStack() as stack:
        place = stack.enter_context(own_place())
        stack.callback(_nothing_is_left, place)
        command = kind.prepare(place, DEFAULT, stack)
        program = stack.enter_context(Program(command.words, {**place.environment(), **command.environment}))
        stack.callback(program.signal, signal.Signals[kind.failsafe])
        program.says(kind.ready, count=kind.ready_count)
        broker = stack.enter_context(procbroker.Broker(place.broker_socket, wait_for_broker=True))
        yield Stage(place, command.web, program, broker)


def _nothing_is_left(place: Place) -> None:
    left = processes(place.broker_socket)
    commands = [_command(pid) for pid in left]
    kill_all(left)
    assert not left, f"left behind: {commands}"


def _command(pid: int) -> str:
    try:
        return f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')}"
    except OSError:
        return f"{pid} (gone)"
