"""Events, logs that are followed, and being told of a shutdown: against a broker that does what the test says."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Union

import pytest
from brokers import KEEP, PATIENCE, STATUS, FakeBroker, FakeConnection, RealBroker, child, comes_true

from procbroker import (
    Broker,
    BrokerEvent,
    BrokerRestarted,
    BrokerUnavailable,
    Child,
    ChildEvent,
    ClientTimeout,
    ConnectionLost,
    Events,
    Lagged,
    Overloaded,
    ProtocolViolation,
    Unsupported,
)

AT = "2026-11-23T14:52:18.123456Z"
Play = Callable[[FakeConnection], Any]


def event(seq: int, kind: str = "ended", of: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    told = None if kind == "shutting_down" else of or child()
    return {"seq": seq, "at": AT, "kind": kind, "child": told}


def tell(upcoming: int, *events: Dict[str, Any], then: object = None, instance: str = "first") -> Play:
    """Subscribe, tell these, and close; return the request's parameters."""

    def play(connection: FakeConnection) -> Any:
        request = connection.subscribe(upcoming, instance)
        for one in events:
            connection.notify("event", **one)
        return request["params"] if then is None else then

    return play


def seqs(events: List[Any]) -> List[Union[int, str]]:
    return [one.seq if isinstance(one, (ChildEvent, BrokerEvent)) else one.kind for one in events]


def take(events: Any, count: int) -> List[Any]:
    return [events.next(timeout=PATIENCE) for _ in range(count)]


def test_events_are_told_as_they_come(fake: FakeBroker) -> None:
    fake.play(tell(7, event(7, "created"), event(9), event(10, "shutting_down"), then=KEEP))
    with Broker(fake.socket) as broker:
        found = []
        for one in broker.events(labels={"pool": "render"}):
            found.append(one)
            if one.kind == "ended":
                assert one.child.name == "one"
                assert one.at.isoformat() == "2026-11-23T14:52:18.123456+00:00"
            if one.kind == "shutting_down":
                break
        assert seqs(found) == [7, 9, 10]
        assert [type(one) for one in found] == [ChildEvent, ChildEvent, BrokerEvent]


def test_events_go_on_where_they_were_when_the_connection_is_lost(fake: FakeBroker) -> None:
    fake.play(tell(7, event(7), event(8)), tell(12), tell(12, event(9), event(12), then=KEEP))
    with Broker(fake.socket) as broker, broker.events(since=5, labels={"a": "b"}) as events:
        assert events.next_seq == 5
        assert seqs(take(events, 4)) == [7, 8, 9, 12]
        assert events.next_seq == 13
        assert fake.result() == {"since": 5, "labels": {"a": "b"}}
        assert fake.result() == {"since": 9, "labels": {"a": "b"}}


def test_missed_events_are_told_of(fake: FakeBroker) -> None:
    fake.play(tell(7, event(7), {"kind": "lagged", "missed": 300}, event(308)), tell(400, then=KEEP))
    with Broker(fake.socket) as broker, broker.events() as events:
        found = take(events, 3)
        assert seqs(found) == [7, "lagged", 308]
        assert found[1] == Lagged(missed=300)
        assert events.next_seq == 309


def test_a_broker_that_counts_anew_is_told_of(fake: FakeBroker) -> None:
    fake.play(tell(7, event(7)), tell(20, event(1), event(2), instance="second"), tell(20, event(3), instance="second"))
    with Broker(fake.socket) as broker, broker.events() as events:
        found = take(events, 5)
        assert seqs(found) == [7, "broker_restarted", 1, 2, 3]
        assert found[1] == BrokerRestarted()
        assert fake.result() == {"labels": {}}
        assert fake.result()["since"] == 0
        assert fake.result()["since"] == 3
        assert events.next_seq == 4


def test_a_restart_is_told_of_also_when_the_first_wait_for_it_fails(fake: FakeBroker) -> None:
    def refuse(connection: FakeConnection) -> object:
        connection.answer({**STATUS, "instance": "second"})
        connection.refuse("overloaded")
        return None

    fake.play(tell(7, event(7)), refuse, tell(20, event(1), instance="second", then=KEEP))
    with Broker(fake.socket) as broker, broker.events() as events:
        assert seqs(take(events, 1)) == [7]
        with pytest.raises(Overloaded):
            take(events, 1)
        assert seqs(take(events, 2)) == ["broker_restarted", 1]


def test_no_event_in_time_loses_nothing(fake: FakeBroker) -> None:
    go = threading.Event()

    def play(connection: FakeConnection) -> object:
        connection.subscribe(1)
        connection.sock.sendall(b'{"jsonrpc":"2.0","method":"event","params":{"subscription":1,')
        assert go.wait(PATIENCE)
        connection.sock.sendall(b'"seq":1,"at":"2026-11-23T14:52:18Z","kind":"shutting_down","child":null}}\n')
        return KEEP

    fake.play(play)
    with Broker(fake.socket) as broker, broker.events() as events:
        with pytest.raises(ClientTimeout, match="the next event"):
            events.next(timeout=0.01)
        go.set()
        assert seqs(take(events, 1)) == [1]


def test_closing_from_another_thread_ends_the_loop(fake: FakeBroker) -> None:
    fake.play(tell(1, event(1), then=KEEP))
    with ThreadPoolExecutor(1) as threads, Broker(fake.socket) as broker:
        events = broker.events()
        begun = threading.Event()

        def read() -> List[Any]:
            found = []
            for one in events:
                found.append(one)
                begun.set()
            return found

        found = threads.submit(read)
        assert begun.wait(PATIENCE)
        events.close()
        assert seqs(found.result(PATIENCE)) == [1]
        assert events.next() is None


def test_closing_in_the_moment_between_two_events_ends_the_loop(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.play(tell(1, then=KEEP))
    with Broker(fake.socket) as broker:
        events = broker.events()
        drop, found = events._feed._drop, []

        def read_while_it_is_closed() -> None:
            found.append(events.next(timeout=PATIENCE))
            drop()

        monkeypatch.setattr(events._feed, "_drop", read_while_it_is_closed)
        events.close()
        assert found == [None]


def close_subscription(events: Events[Child], _: Broker) -> None:
    events.close()


def close_client(_: Events[Child], broker: Broker) -> None:
    broker.close()


@pytest.mark.parametrize("close", [close_subscription, close_client])
@pytest.mark.parametrize("away", [True, False])
def test_closing_while_a_lost_subscription_is_made_again_ends_the_loop(
    folder: Path, close: Callable[[Events[Child], Broker], None], away: bool
) -> None:
    with FakeBroker(folder / "fake") as fake, ThreadPoolExecutor(1) as threads:
        lost = threading.Event()

        def never_answer(connection: FakeConnection) -> bool:
            connection.request()
            lost.set()
            return connection.gone()

        fake.play(tell(1), never_answer)
        broker = Broker(fake.socket, timeout=PATIENCE * 4, connect_timeout=PATIENCE * 4)
        events = broker.events()
        if away:
            fake.result()
            Path(fake.socket).unlink()
        reading = threads.submit(list, events)
        if away:
            comes_true(lambda: broker._requests.pool.outlook._missed_at is not None, "the broker is missed")
        else:
            assert lost.wait(PATIENCE)
        close(events, broker)
        assert reading.result(PATIENCE) == []
        broker.close()


@pytest.mark.parametrize("close", [close_subscription, close_client])
def test_many_loops_that_are_closed_at_any_moment_end_in_order(
    broker: Broker, close: Callable[[Events[Child], Broker], None]
) -> None:
    for turn in range(30):
        client = Broker(broker.socket)
        events = client.events(since=0)
        begun = threading.Event()

        def read(events: Events[Child] = events, begun: threading.Event = begun) -> int:
            count = 0
            for _ in events:
                count += 1
                begun.set()
            return count

        with ThreadPoolExecutor(1) as threads:
            broker.create(["true"])
            reading = threads.submit(read)
            assert begun.wait(PATIENCE)
            if turn % 2:
                broker.create(["true"])
            close(events, client)
            reading.result(PATIENCE)
        client.close()


def test_two_readers_of_one_subscription_are_refused(fake: FakeBroker) -> None:
    fake.play(tell(1, then=KEEP))
    with ThreadPoolExecutor(1) as threads, Broker(fake.socket) as broker:
        events = broker.events()
        reading = threads.submit(events.next)

        def is_reading() -> bool:
            is_free = events._feed._reading.acquire(blocking=False)
            if is_free:
                events._feed._reading.release()
            return not is_free

        comes_true(is_reading, "the other thread reads")
        with pytest.raises(RuntimeError, match="another thread"):
            events.next()
        events.close()
        assert reading.result(PATIENCE) is None


def test_a_broker_that_does_not_come_back_is_told_by_an_error(folder: Path) -> None:
    with FakeBroker(folder / "fake") as fake:
        fake.play(tell(1, event(1)))
        broker = Broker(fake.socket, connect_timeout=1)
        events = broker.events()
        assert seqs(take(events, 1)) == [1]
    with broker, pytest.raises(BrokerUnavailable):
        events.next(timeout=PATIENCE)


def test_a_broker_that_ends_every_subscription_is_given_up(fake: FakeBroker) -> None:
    fake.play(*[tell(1)] * 7)
    with Broker(fake.socket) as broker, broker.events() as events, pytest.raises(ConnectionLost):
        events.next(timeout=PATIENCE)


@pytest.mark.parametrize(
    "message",
    [
        {"method": "log", "params": {"text": "x"}},
        {"method": "event"},
        {"method": "event", "params": {"kind": "ended"}},
        {"result": {}},
        {"method": "event", "params": {"kind": "ended", "seq": 1, "at": "yesterday", "child": None}},
    ],
)
def test_what_is_no_event_is_found_out(fake: FakeBroker, message: Dict[str, Any]) -> None:
    def play(connection: FakeConnection) -> object:
        connection.subscribe(1)
        connection.send(message)
        return KEEP

    fake.play(play)
    with Broker(fake.socket) as broker, broker.events() as events, pytest.raises(ProtocolViolation):
        events.next(timeout=PATIENCE)


def test_a_log_is_followed_to_its_end(fake: FakeBroker) -> None:
    def play(connection: FakeConnection) -> Dict[str, Any]:
        request = connection.answer({"text": "one\n", "truncated": True, "subscription": 1})
        connection.notify("log", stream="stdout", text="two\nthr")
        connection.notify("event", kind="lagged", missed=2)
        connection.notify("log", stream="stdout", text="ee\n")
        connection.notify("log", stream="stdout", text="", ended=True)
        assert connection.gone()
        return request

    fake.play(play)
    with Broker(fake.socket) as broker:
        follow = broker.follow("one", tail=3)
        assert list(follow) == ["one\n", "two\nthr", "ee\n"]
        assert (follow.truncated, follow.missed) == (True, 2)
        assert follow.next() is None
    assert fake.result()["params"] == {"target": "one", "stream": "stdout", "tail": 3, "follow": True}


def test_the_log_of_an_ended_child_is_all_there_is(fake: FakeBroker) -> None:
    fake.play(lambda connection: connection.answer({"text": "all\n", "truncated": False}))
    with Broker(fake.socket) as broker:
        assert list(broker.follow("one", "stderr")) == ["all\n"]


def test_a_followed_log_whose_connection_is_lost_goes_on_where_it_was(fake: FakeBroker) -> None:
    def first(connection: FakeConnection) -> None:
        answer = {"text": "one\n", "truncated": False, "subscription": 1, "position": 4, "id": "the-id"}
        connection.answer(answer)
        connection.notify("log", stream="stdout", text="two\n", position=8)

    def again(connection: FakeConnection) -> Dict[str, Any]:
        answer = {"text": "", "truncated": False, "subscription": 1, "position": 8, "id": "the-id"}
        request = connection.answer(answer)
        connection.notify("log", stream="stdout", text="three\n", ended=True, position=14)
        assert connection.gone()
        return request

    fake.play(first, again)
    with Broker(fake.socket) as broker:
        assert list(broker.follow("one", tail=3, timestamps=True)) == ["one\n", "two\n", "three\n"]
    fake.result()
    assert fake.result()["params"] == {
        "target": "the-id",
        "stream": "stdout",
        "timestamps": True,
        "follow": True,
        "position": 8,
    }


def test_a_followed_log_of_a_broker_that_does_not_say_how_far_it_came_says_so(fake: FakeBroker) -> None:
    fake.play(lambda connection: connection.answer({"text": "one\n", "truncated": False, "subscription": 1}))
    with Broker(fake.socket) as broker, broker.follow("one") as follow:
        assert follow.next(timeout=PATIENCE) == "one\n"
        with pytest.raises(ConnectionLost, match=r"before all of the log had come; ask for it again: .* \(tail=\)"):
            follow.next(timeout=PATIENCE)


def test_a_worker_is_told_of_a_shutdown_once(fake: FakeBroker) -> None:
    told = threading.Semaphore(0)
    ended = threading.Event()

    def play(connection: FakeConnection) -> None:
        connection.subscribe(1)
        connection.notify("event", **event(1))
        connection.answer(STATUS)
        connection.notify("event", **event(2, "shutting_down"))
        assert connection.gone()
        ended.set()

    fake.play(play)
    with Broker(fake.socket) as broker:
        broker.on_shutdown(told.release)
        assert told.acquire(timeout=PATIENCE)
        assert ended.wait(PATIENCE)
    assert not told.acquire(blocking=False)


def test_a_worker_that_comes_after_the_beginning_is_told_at_once(fake: FakeBroker) -> None:
    told = threading.Event()

    def play(connection: FakeConnection) -> object:
        connection.subscribe(1)
        connection.answer({**STATUS, "shutting_down": True})
        return KEEP

    fake.play(play)
    with Broker(fake.socket) as broker:
        broker.on_shutdown(told.set)
        assert told.wait(PATIENCE)


def test_a_lost_connection_is_no_shutdown_and_what_was_told_meanwhile_is_caught_up_with(fake: FakeBroker) -> None:
    told = threading.Event()
    fake.play(tell(1), tell(4, event(3, "shutting_down"), then=KEEP))
    with Broker(fake.socket) as broker:
        broker.on_shutdown(told.set)
        assert told.wait(PATIENCE)
        assert fake.result() == {"labels": {}}


def test_who_cancels_is_not_told(fake: FakeBroker) -> None:
    told = threading.Event()
    ended = threading.Event()

    def play(connection: FakeConnection) -> None:
        connection.subscribe(1)
        connection.request()
        assert connection.gone()
        ended.set()

    fake.play(play)
    with Broker(fake.socket) as broker:
        watch = broker.on_shutdown(told.set)
        watch.cancel()
        assert ended.wait(PATIENCE)
        assert not told.is_set()


def test_a_watch_that_cannot_begin_says_why(fake: FakeBroker) -> None:
    fake.play(lambda connection: [connection.answer(STATUS), connection.refuse("unsupported")])
    with Broker(fake.socket) as broker, pytest.raises(Unsupported):
        broker.on_shutdown(lambda: None)


def test_the_real_broker_tells_what_happens(broker: Broker) -> None:
    try:
        events = broker.events(labels={"told": "yes"})
    except Unsupported as error:
        pytest.skip(str(error))
    with events:
        silent = broker.create(["true"])
        one = broker.create(["true"], labels={"told": "yes"})
        kinds = []
        while "ended" not in kinds:
            told = events.next(timeout=PATIENCE)
            assert isinstance(told, ChildEvent)
            assert told.child == one != silent
            kinds.append(told.kind)
        assert kinds == ["created", "started", "ready", "exited", "ended"]


def test_the_real_broker_tells_of_its_shutdown(own: RealBroker) -> None:
    told = threading.Event()
    with Broker(own.socket) as broker:
        try:
            broker.on_shutdown(told.set)
        except Unsupported as error:
            pytest.skip(str(error))
        own.stop()
        assert told.wait(PATIENCE)
