"""A signal handler that uses the client, wherever it comes in between what its own thread does with it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any, Callable, Iterator, List

import pytest
from brokers import PATIENCE, RealBroker, comes_true

from procbroker import Broker, ClientClosed
from procbroker.guard import Guard
from procbroker.holds import Holds

FOREVER = ["sleep", "1000"]
HELD = {"lifetime": "connection"}


@contextlib.contextmanager
def handled(handler: Callable[[], Any]) -> Iterator[None]:
    """Have SIGUSR1 handled by this once."""

    def once(*_: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        handler()

    signal.signal(signal.SIGUSR1, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def interrupted(change: Callable[..., Any]) -> Callable[..., Any]:
    """Return a change in the midst of which SIGUSR1 comes, if it is handled."""

    def midst(*args: Any) -> Any:
        if callable(signal.getsignal(signal.SIGUSR1)):
            os.kill(os.getpid(), signal.SIGUSR1)
        return change(*args)

    return midst


def use(broker: Broker) -> None:
    """Do with a client what there is to do."""
    broker.status()
    broker.create(FOREVER, name="first", if_exists="reuse", **HELD)  # type: ignore[arg-type]
    with broker.create(FOREVER, name="second", if_exists="reuse", **HELD):  # type: ignore[arg-type]
        broker.list()
    broker.destroy("first", stop=[])


@pytest.mark.parametrize(
    "change", ["take_shared", "add", "release", "forget", "read_late_answers", "lose_the_ended", "begin_to_take_again"]
)
def test_a_handler_uses_the_client_in_the_midst_of_every_change(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    came: List[bool] = []
    monkeypatch.setattr(Holds, change, interrupted(getattr(Holds, change)))

    def handler() -> None:
        use(other)
        came.append(True)

    with Broker(broker.socket) as other, handled(handler):
        use(other)
        assert came == [True]
        other.create(FOREVER, name="third", **HELD)  # type: ignore[arg-type]
        holds = other._requests.pool._own.holds
        # What was put off is done: nothing is held but what lives.
        assert [hold.params["name"] for hold in holds.by_child.values() if hold.connection] == ["third"]
    comes_true(lambda: not broker.list(), "the client has let go of all")


@pytest.mark.parametrize("change", ["take_shared", "add", "lose_the_ended"])
def test_a_handler_closes_the_client_in_the_midst_of_a_change(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(Holds, change, interrupted(getattr(Holds, change)))
    other = Broker(broker.socket)
    connections = broker.status().connections
    with handled(other.close), contextlib.suppress(ClientClosed):
        use(other)
    with pytest.raises(ClientClosed):
        other.status()
    comes_true(lambda: broker.status().connections == connections, "its connections are closed")
    comes_true(lambda: all(child.name != "first" or child.ended for child in broker.list()), "it holds nothing")


def test_a_handler_that_closes_the_client_and_exits_leaves_nothing_open(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Broker(broker.socket)
    connections = broker.status().connections
    one = other.create(FOREVER, **HELD)  # type: ignore[arg-type]
    monkeypatch.setattr(Holds, "add", interrupted(Holds.add))

    def leave() -> None:
        other.close()
        raise SystemExit

    with handled(leave), pytest.raises(SystemExit):
        other.create(FOREVER, **HELD)  # type: ignore[arg-type]
    comes_true(lambda: broker.get(one).ended, "nobody holds it any more")
    comes_true(lambda: broker.status().connections == connections, "its connections are closed")


def test_no_call_of_many_is_held_up_by_a_handler_that_makes_calls_all_the_time(real: RealBroker) -> None:
    with Broker(real.socket) as broker:
        calls: List[int] = []
        over = threading.Event()
        before = signal.signal(signal.SIGALRM, lambda *_: calls.append(broker.status().pid))
        guard = threading.Timer(PATIENCE, over.set)
        guard.start()
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.003)
        try:
            while len(calls) < 100 and not over.is_set():
                broker.status()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            guard.cancel()
        assert len(calls) >= 100


def test_what_is_changed_by_a_handler_is_changed_after_what_it_interrupts() -> None:
    guard, done = Guard(), []

    def outer() -> None:
        done.append("begun")
        guard.change(lambda: done.append("put off"))
        assert guard.try_change(lambda: done.append("never")) is None
        done.append("ended")

    guard.change(outer)
    assert done == ["begun", "ended", "put off"]
    assert guard.try_change(lambda: len(done)) == 3

    def fail() -> None:
        outer()
        raise SystemExit

    with pytest.raises(SystemExit):
        guard.change(fail)
    assert done[3:] == ["begun", "ended", "put off"]
