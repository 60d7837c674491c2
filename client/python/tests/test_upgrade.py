"""A real broker whose program is replaced: the clients notice nothing but another instance."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from brokers import KEEP, PATIENCE, STATUS, FakeBroker, FakeConnection, RealBroker, comes_true

from procbroker import AsyncBroker, Broker, ChildEvent, ClientTimeout, InternalError

FOREVER = ["sleep", "1000"]


def test_children_waits_and_output_outlive_an_upgrade(own: RealBroker) -> None:
    with ThreadPoolExecutor(2) as threads, Broker(own.socket) as broker:
        fifo = own.folder / "fifo"
        os.mkfifo(fifo)
        child = broker.create(["sh", "-c", "echo before; read line <$0; echo after; exec sleep 1000", fifo])
        wait = threads.submit(broker.wait, child)
        with broker.follow(child) as follow:
            assert follow.next(PATIENCE) == "before\n"
        comes_true(lambda: broker.status().connections >= 2, "a connection for the wait and this one")
        upgrade = broker.upgrade()
        assert upgrade.before.pid == upgrade.after.pid
        assert upgrade.before.instance != upgrade.after.instance == broker.status().instance
        fifo.write_text("go on\n")
        text = ""
        with broker.follow(child) as follow:
            while text != "before\nafter\n":
                text += follow.next(PATIENCE) or pytest.fail(f"it ended after {text!r}")
        assert broker.get(child).pid == child.pid
        child.destroy()
        assert wait.result(PATIENCE).exit == child.exit


@pytest.mark.parametrize("which", [{"target": "one"}, {"labels": {"pool": "x"}}])
def test_a_restart_goes_on_through_an_upgrade(own: RealBroker, which: Any) -> None:
    with ThreadPoolExecutor(1) as threads, Broker(own.socket) as broker:
        fifo = own.folder / "fifo"
        os.mkfifo(fifo)
        script = "trap 'read line <$0; exit' TERM; echo up; while :; do sleep 0.05; done"
        child = broker.create(["sh", "-c", script, fifo], name="one", labels={"pool": "x"}, ready={"log": "up"})
        restart = threads.submit(lambda: broker.restart(**which))
        comes_true(lambda: broker.get(child).state == "stopping", "it is stopped")
        broker.upgrade()
        fifo.write_text("go on\n")
        again = restart.result(PATIENCE)
        assert [(one.id, one.restarts, one.state) for one in again] == [(child.id, 1, "running")]
        assert broker.get(child).restarts == 1
        child.destroy(stop=[])


def test_no_call_of_many_threads_fails_while_the_broker_is_upgraded(own: RealBroker) -> None:
    over = threading.Event()

    def work(number: int) -> int:
        count = 0
        while not over.is_set():
            child = broker.create(FOREVER, name=f"{number}-{count}")
            assert child.outcome == "created"
            assert broker.get(child) == child
            child.destroy(stop=[])
            count += 1
        return count

    with ThreadPoolExecutor(4) as threads, Broker(own.socket) as broker:
        works = [threads.submit(work, number) for number in range(4)]
        try:
            with Broker(own.socket) as operator:
                for _ in range(5):
                    operator.upgrade()
        finally:
            over.set()
        counts = [done.result(PATIENCE) for done in works]
        assert min(counts) > 0
        assert broker.list() == []


def test_events_go_on_and_nobody_is_told_of_a_shutdown(own: RealBroker) -> None:
    told = threading.Event()
    with Broker(own.socket) as broker, broker.events() as events:
        broker.on_shutdown(told.set)
        children = [broker.create(FOREVER)]
        broker.upgrade()
        children.append(broker.create(FOREVER))
        created = []
        while children[1] not in created:
            event = events.next(timeout=PATIENCE)
            if isinstance(event, ChildEvent) and event.kind == "created":
                created.append(event.child)
        # What the old program told last can be missing, but nothing is told of what is not.
        assert created in (children, children[1:])
        assert not told.is_set()
        own.stop()
        assert told.wait(PATIENCE)


def test_a_task_waits_through_an_upgrade(own: RealBroker) -> None:
    async def main() -> None:
        async with AsyncBroker(own.socket) as broker:
            child = await broker.create(FOREVER)
            wait = asyncio.ensure_future(child.wait())
            await asyncio.sleep(0)
            await broker.upgrade()
            await broker.signal(child, "KILL")
            assert await wait == -9

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def asked(connection: FakeConnection) -> None:
    """Say who it is, and end with the request for the upgrade."""
    connection.answer(STATUS)
    assert connection.request()["method"] == "upgrade"


def still_there(connection: FakeConnection) -> None:
    """Be the old program yet, and end."""
    assert connection.answer(STATUS)["method"] == "status"


def taken_over(connection: FakeConnection) -> None:
    """Be the other program."""
    assert connection.answer({**STATUS, "instance": "second", "version": "0.2.0"})["method"] == "status"


def test_an_upgrade_is_asked_for_once_and_waited_for(fake: FakeBroker) -> None:
    fake.play(asked, still_there, still_there, taken_over)
    with Broker(fake.socket) as broker:
        upgrade = broker.upgrade()
    assert (upgrade.before.instance, upgrade.after.instance) == ("67e55044-10b1-426f-9247-bb680e5fe0c8", "second")
    assert upgrade.after.version == "0.2.0"


def test_a_broker_that_was_lost_and_started_again_is_no_upgrade(fake: FakeBroker) -> None:
    fake.play(asked, lambda connection: connection.answer({**STATUS, "instance": "second", "pid": 2}))
    with (
        Broker(fake.socket) as broker,
        pytest.raises(InternalError, match=r"lost and started again, as process 2 inst"),
    ):
        broker.upgrade()


def test_the_reason_is_told_where_the_broker_stays_as_it_is(fake: FakeBroker) -> None:
    def refuse(connection: FakeConnection) -> None:
        connection.answer(STATUS)
        connection.refuse("internal")

    fake.play(refuse)
    with Broker(fake.socket) as broker, pytest.raises(InternalError, match="that is internal"):
        broker.upgrade()


def test_a_program_that_fails_late_and_is_undone_is_no_upgrade(fake: FakeBroker) -> None:
    def goes_on(connection: FakeConnection) -> None:
        failed = {"at": "2026-11-23T14:52:17Z", "message": "of another age"}
        connection.answer({**STATUS, "failed_upgrade": failed})

    fake.play(asked, still_there, goes_on)
    with Broker(fake.socket) as broker, pytest.raises(InternalError, match="nothing has changed: of another age"):
        broker.upgrade()


def test_a_program_that_does_not_go_is_given_up_in_time(fake: FakeBroker) -> None:
    def stay(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        return KEEP

    fake.play(asked, stay)
    with Broker(fake.socket) as broker, pytest.raises(ClientTimeout, match="gave up on upgrade"):
        broker.upgrade(timeout=0.2)
