"""Processes that are forked with a client in hand, as by a server that loads the application first."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from typing import Any, Callable, Iterator

import pytest
from brokers import KEEP, PATIENCE, STATUS, FakeBroker, FakeConnection

from procbroker import Broker, Child, Unsupported, deferred


@pytest.fixture(autouse=True)
def _forks_among_threads() -> Iterator[None]:
    # Python 3.12 and later warn of just what is tested here.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        yield


def in_a_fork(work: Callable[[], object]) -> None:
    """Do some work in a forked process, and fail if that fails."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_fork_has_connections_of_its_own(broker: Broker) -> None:
    child = broker.create(["sleep", "1000"], name="shared")

    def work() -> None:
        for _ in range(50):
            assert broker.get("shared") == child
            assert child.refresh().pid == child.pid
        broker.create(["sleep", "1000"], name="forked").destroy()

    for _ in range(3):
        in_a_fork(work)
        assert broker.get("shared") == child


def test_parent_and_forks_at_once_get_their_own_answers(broker: Broker) -> None:
    children = [broker.create(["sleep", "1000"], name=f"at-once-{number}") for number in range(4)]
    pids = []
    for child in children:
        pid = os.fork()
        if pid == 0:
            right = False
            try:
                right = all(broker.get(child).name == child.name for _ in range(200))
            finally:
                os._exit(0 if right else 1)
        pids.append(pid)
    for _ in range(100):
        for child in children:
            assert broker.get(child).name == child.name
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4


def test_a_fork_in_the_middle_of_other_threads_calls_does_not_hang(broker: Broker) -> None:
    child = broker.create(["sleep", "1000"])
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            broker.get(child)

    threads = [threading.Thread(target=work) for _ in range(8)]
    threads.append(threading.Thread(target=child.wait))
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            in_a_fork(lambda: broker.get(child))
    finally:
        over.set()
        broker.destroy(child)
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_a_lock_that_was_held_at_the_fork_holds_up_nobody(broker: Broker) -> None:
    held, over = threading.Event(), threading.Event()

    def change() -> None:
        held.set()
        over.wait(PATIENCE)

    thread = threading.Thread(target=broker._requests.pool._state.guard.change, args=(change,))
    thread.start()
    assert held.wait(PATIENCE)
    try:
        in_a_fork(lambda: broker.create(["true"], lifetime="connection"))
    finally:
        over.set()
        thread.join(PATIENCE)


def test_a_fork_waits_for_a_class_that_is_being_made() -> None:
    inside, forking = threading.Event(), threading.Event()

    def make() -> None:
        with deferred._lock:
            inside.set()
            assert forking.wait(PATIENCE)

    thread = threading.Thread(target=make)
    thread.start()
    assert inside.wait(PATIENCE)
    # What is registered last is called first.
    os.register_at_fork(before=forking.set)
    in_a_fork(lambda: deferred._lock.acquire(timeout=PATIENCE) or pytest.fail("nobody is left to release the lock"))
    thread.join(PATIENCE)


def test_a_fork_keeps_no_copy_of_its_parents_connections(fake: FakeBroker) -> None:
    fake.play(lambda connection: [connection.answer({"children": []}), connection.gone()][1])
    go, going = os.pipe()
    with Broker(fake.socket) as broker:
        assert broker.list() == []
        pid = os.fork()
        if pid == 0:
            os.close(going)
            os.read(go, 1)
            os._exit(0)
    # Closed by the parent, while the forked process lives on without a call: the broker sees it end.
    assert fake.result() is True
    os.close(going)
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0


def _create(broker: Broker, name: str, results: Any) -> None:
    child = broker.create(["sleep", "1000"], name=name, if_exists="reuse")
    results.put((child.id, child.outcome))


def test_multiprocessing_workers_share_no_connection(broker: Broker) -> None:
    broker.status()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    workers = [context.Process(target=_create, args=(broker, "worker", results)) for _ in range(6)]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join(PATIENCE)
        assert worker.exitcode == 0
    assert len({child for child, _ in found}) == 1
    assert sorted(outcome for _, outcome in found) == ["created"] + ["existing"] * 5


def test_events_go_on_in_a_fork_over_a_connection_of_its_own(fake: FakeBroker) -> None:
    requests = []

    def parent(connection: FakeConnection) -> object:
        connection.subscribe(5)
        connection.notify("event", seq=5, at="2026-11-23T14:52:18Z", kind="shutting_down", child=None)
        return KEEP

    def forked(connection: FakeConnection) -> object:
        requests.append(connection.subscribe(6))
        connection.notify("event", seq=6, at="2026-11-23T14:52:18Z", kind="shutting_down", child=None)
        return connection.gone()

    fake.play(parent, forked)
    with Broker(fake.socket) as broker, broker.events() as events:
        first = events.next(timeout=PATIENCE)

        def work() -> None:
            event = events.next(timeout=PATIENCE)
            assert event is not None
            assert event.kind == "shutting_down"
            assert event.seq == 6

        in_a_fork(work)
        assert first is not None
        assert fake.result() is True
        assert requests[0]["params"]["since"] == 6


def test_a_callback_of_the_parent_holds_in_a_fork_from_its_first_call_on(fake: FakeBroker) -> None:
    def parent(connection: FakeConnection) -> object:
        connection.subscribe(1)
        return KEEP

    def forked(connection: FakeConnection) -> object:
        while connection.answer({**STATUS, "children": [], "subscription": 1, "next": 1})["method"] != "events":
            pass
        connection.notify("event", seq=1, at="2026-11-23T14:52:18Z", kind="shutting_down", child=None)
        return KEEP

    fake.play(parent, *[forked] * 5)
    told = threading.Event()
    with Broker(fake.socket) as broker:
        broker.on_shutdown(told.set)

        def work() -> None:
            assert not told.is_set()
            broker.list()
            assert told.wait(PATIENCE)

        in_a_fork(work)
        assert not told.is_set()


def test_a_child_that_the_parents_connection_holds_outlives_a_fork(broker: Broker) -> None:
    with Broker(broker.socket) as holder:
        try:
            child: Child = holder.create(["sleep", "1000"], lifetime="connection")
        except Unsupported as error:
            pytest.skip(str(error))
        in_a_fork(lambda: holder.get(child))
        in_a_fork(holder.close)
        assert not broker.get(child).ended
    assert broker.wait(child, timeout=PATIENCE).ended


def test_a_fork_lets_go_of_nothing_that_its_parent_holds(broker: Broker) -> None:
    with Broker(broker.socket) as holder:
        child = holder.create(["sleep", "1000"], lifetime="connection")

        def work() -> None:
            with child:
                # It has made calls of its own, and holds nothing.
                assert holder.get(child) == child
            child.release()

        in_a_fork(work)
        assert not broker.get(child).ended
        child.release()
        ended = broker.wait(child, timeout=PATIENCE).exit
        assert ended is not None
        assert ended.reason == "owner_gone"
