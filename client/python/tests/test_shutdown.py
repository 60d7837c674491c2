"""A broker that has announced its shutdown is not waited for, until another one is met."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest
from brokers import PATIENCE, STATUS, FakeBroker, FakeConnection, RealBroker
from test_events import event

from procbroker import (
    AsyncBroker,
    AsyncChild,
    AsyncEvents,
    Broker,
    BrokerEvent,
    BrokerUnavailable,
    Child,
    Events,
    ShuttingDown,
)
from procbroker.waiting import Pause

ANNOUNCED = "it has shut down, as it had announced"


def hear_an_event(broker: Broker, own: RealBroker) -> None:
    with broker.events() as events:
        own.stop()
        while not isinstance(events.next(PATIENCE), BrokerEvent):
            pass


def be_called_back(broker: Broker, own: RealBroker) -> None:
    told = threading.Event()
    broker.on_shutdown(told.set)
    own.stop()
    assert told.wait(PATIENCE)


def ask_for_it(broker: Broker, own: RealBroker) -> None:
    broker.shutdown()
    own.stop()


@pytest.mark.parametrize("learn", [hear_an_event, be_called_back, ask_for_it])
def test_an_announced_shutdown_makes_calls_fail_at_once(
    own: RealBroker, learn: Callable[[Broker, RealBroker], None]
) -> None:
    with Broker(own.socket, connect_timeout=PATIENCE * 4, timeout=PATIENCE * 4) as broker:
        learn(broker, own)
        for _ in range(3):
            with pytest.raises(BrokerUnavailable, match=ANNOUNCED) as caught:
                broker.list()
        assert "procbroker serve" in str(caught.value)
        # As soon as there is another one, it is used; and waited for when it crashes.
        own.start()
        assert broker.list() == []
        own.crash()
        with ThreadPoolExecutor(1) as threads:
            listed = threads.submit(broker.list)
            own.start()
            assert listed.result(PATIENCE) == []


def refuse_a_create(connection: FakeConnection) -> object:
    connection.refuse("shutting_down")
    return None


def test_who_is_refused_a_create_has_been_told(folder: Path) -> None:
    with FakeBroker(folder / "fake") as fake:
        fake.play(refuse_a_create)
        broker = Broker(fake.socket, connect_timeout=PATIENCE * 4)
        with pytest.raises(ShuttingDown):
            broker.create(["true"])
    with broker, pytest.raises(BrokerUnavailable, match=ANNOUNCED):
        broker.status()


def test_a_call_to_a_broker_that_is_still_shutting_down_is_answered(fake: FakeBroker) -> None:
    def answer(connection: FakeConnection) -> List[Dict[str, Any]]:
        return [connection.answer({**STATUS, "shutting_down": True}), connection.answer({"children": []})]

    fake.play(refuse_a_create, answer)
    with Broker(fake.socket) as broker:
        with pytest.raises(ShuttingDown):
            broker.create(["true"])
        assert broker.list() == []
        assert broker._requests.pool.outlook.leaving


def test_a_subscriber_is_told_of_the_end_after_the_announcement(folder: Path) -> None:
    def play(connection: FakeConnection) -> None:
        connection.subscribe(1)
        connection.notify("event", **event(1, "shutting_down"))

    with FakeBroker(folder / "fake") as fake:
        fake.play(play)
        broker = Broker(fake.socket, connect_timeout=PATIENCE * 4)
        events = broker.events()
        assert isinstance(events.next(PATIENCE), BrokerEvent)
        fake.result()
    with broker, pytest.raises(BrokerUnavailable, match=ANNOUNCED):
        events.next(PATIENCE)


def test_the_time_for_a_broker_to_come_back_is_waited_once_and_not_by_each_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeBroker(folder / "fake") as fake:
        fake.play(lambda connection: connection.answer(STATUS))
        broker = Broker(fake.socket, connect_timeout=0.5)
        broker.status()
        fake.result()
    pauses: List[float] = []

    def counted(seconds: float) -> Any:
        pauses.append(seconds)
        return Pause(seconds)

    monkeypatch.setattr("procbroker.pool.Pause", counted)
    counts = []
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            broker.status()
        counts.append(len(pauses))
    assert 0 < counts[0] == counts[1] == counts[2]
    broker.close()


def test_what_is_repeated_and_made_again_is_logged(own: RealBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "procbroker")
    with Broker(own.socket, connect_timeout=PATIENCE) as broker, ThreadPoolExecutor(2) as threads:
        child = broker.create(["sleep", "1000"], name="one")
        waiting = threads.submit(broker.wait, "one")
        own.crash()
        again = threads.submit(broker.get, "one")
        own.start()
        assert again.result(PATIENCE) == child
        child.destroy()
        assert waiting.result(PATIENCE).ended
        broker.on_shutdown(lambda: None)
    said = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert {name for name, _, _ in said} == {"procbroker"}
    assert any(level == "INFO" and f"a broker is at {own.socket} again" in text for _, level, text in said), said


def test_a_lost_request_is_logged_and_an_application_without_logging_hears_nothing(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.play(lambda connection: connection.request(), lambda connection: connection.answer({"children": []}))
    with Broker(fake.socket) as broker:
        broker.list()
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("WARNING", f"the connection to {fake.socket} was lost; sending list again")
    ]
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("procbroker").handlers)


#: It says so when it is stopped.
PARTING = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.write(1, b"hi\\n")
signal.sigwait([signal.SIGTERM])
os.write(1, b"bye\\n")
"""
CHATTY = [sys.executable, "-Sc", PARTING]
END = ["shutting_down", "stopping", "exited", "cleaning", "ended"]


@pytest.mark.parametrize("labels", [None, {"pool": "a"}])
def test_a_loop_over_events_is_told_all_of_an_orderly_end_and_goes_on_with_the_next_broker(
    own: RealBroker, labels: Optional[Dict[str, str]]
) -> None:
    kinds: List[str] = []

    def loop(events: Events[Child]) -> None:
        for one in events:
            kinds.append(one.kind)

    # A broker that was only lost would be waited for, longer than this test may take.
    with Broker(own.socket, connect_timeout=PATIENCE * 4) as broker:
        child = broker.create(CHATTY, cleanup=["true"], labels={"pool": "a"})
        with broker.events(labels=labels) as events:
            own.stop()
            with pytest.raises(BrokerUnavailable, match=ANNOUNCED):
                loop(events)
            assert kinds == END
            own.start()
            assert broker.get(child).ended
            following = events.next(PATIENCE)
            assert following is not None
            assert following.kind == "broker_restarted"


def test_a_task_is_told_all_of_an_orderly_end(own: RealBroker) -> None:
    kinds: List[str] = []

    async def loop(events: AsyncEvents[AsyncChild]) -> None:
        async for one in events:
            kinds.append(one.kind)

    async def main() -> str:
        async with AsyncBroker(own.socket, connect_timeout=PATIENCE * 4) as broker:
            child = await broker.create(CHATTY, cleanup=["true"])
            async with broker.events() as events, child.follow() as follow:
                said = await follow.next(PATIENCE) or ""
                await asyncio.get_running_loop().run_in_executor(None, own.stop)
                said += "".join([piece async for piece in follow])
                with pytest.raises(BrokerUnavailable, match=ANNOUNCED):
                    await loop(events)
            return said

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == "hi\nbye\n"
    assert kinds[-len(END) :] == END


def test_a_log_that_is_followed_comes_whole_before_an_orderly_end(own: RealBroker) -> None:
    with Broker(own.socket) as broker, broker.create(CHATTY).follow() as follow:
        assert follow.next(PATIENCE) == "hi\n"
        own.stop()
        assert "".join(follow) == "bye\n"
