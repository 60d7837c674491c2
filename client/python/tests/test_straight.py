"""Calls over a connection that is there already, when they are not as usual after all."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

import pytest
from brokers import PATIENCE, FakeBroker, FakeConnection, child

from procbroker import AsyncBroker, Broker, ClientTimeout, ConnectionLost, LimitExceeded, NotFound, ProtocolViolation

NONE: Dict[str, Any] = {"children": []}
ONE: Dict[str, Any] = {"children": [child()]}

#: What asks for the list and then does something else, over the same connection.
Second = Callable[[str, Callable[[Any], Any]], Any]


def blocking(socket: str, call: Callable[[Any], Any], **settings: Any) -> Any:
    with Broker(socket, **settings) as broker:
        assert broker.list() == []
        return call(broker)


def awaited(socket: str, call: Callable[[Any], Any], **settings: Any) -> Any:
    async def main() -> Any:
        async with AsyncBroker(socket, **settings) as broker:
            assert await broker.list() == []
            return await call(broker)

    return asyncio.run(main())


both = pytest.mark.parametrize("second", [blocking, awaited])


def names(children: Any) -> List[Any]:
    return [one.name for one in children]


def then(*acts: Callable[[FakeConnection], Any]) -> Callable[[FakeConnection], Any]:
    """Answer the first request, and then do these."""

    def play(connection: FakeConnection) -> Any:
        connection.answer(NONE)
        return [act(connection) for act in acts][-1]

    return play


@both
def test_the_second_call_goes_over_the_same_connection(fake: FakeBroker, second: Any) -> None:
    fake.play(then(lambda connection: connection.answer(ONE)))
    assert names(second(fake.socket, lambda broker: broker.list())) == ["one"]
    assert fake.result()["id"] == 2


@both
def test_an_answer_in_pieces_is_put_together(fake: FakeBroker, second: Any) -> None:
    def pieces(connection: FakeConnection) -> None:
        line = json.dumps({"jsonrpc": "2.0", "id": connection.request()["id"], "result": ONE}).encode() + b"\n"
        for byte in line:
            connection.sock.sendall(bytes([byte]))

    fake.play(then(pieces))
    assert names(second(fake.socket, lambda broker: broker.list())) == ["one"]


@both
def test_an_answer_that_is_longer_than_one_read_is_put_together(fake: FakeBroker, second: Any) -> None:
    many = {"children": [child(labels={"long": "x" * 1000})] * 300}
    fake.play(then(lambda connection: connection.answer(many)))
    assert names(second(fake.socket, lambda broker: broker.list())) == ["one"] * 300


@both
def test_a_request_that_is_longer_than_the_socket_takes_at_once_is_sent(fake: FakeBroker, second: Any) -> None:
    words = ["a", "x" * 900_000]
    fake.play(then(lambda connection: connection.answer({"outcome": "created", "child": child()})))
    assert second(fake.socket, lambda broker: broker.create(words)).outcome == "created"
    assert fake.result()["params"]["command"] == words


@both
def test_a_connection_that_is_lost_with_the_request_is_made_again(fake: FakeBroker, second: Any) -> None:
    fake.play(then(FakeConnection.request), lambda connection: connection.answer(ONE))
    assert names(second(fake.socket, lambda broker: broker.list())) == ["one"]


@both
def test_a_connection_that_ends_within_an_answer_is_made_again(fake: FakeBroker, second: Any) -> None:
    def cut(connection: FakeConnection) -> None:
        connection.request()
        connection.sock.sendall(b'{"jsonrpc":"2.0","id":2,"res')

    fake.play(then(cut), lambda connection: connection.answer(ONE))
    assert names(second(fake.socket, lambda broker: broker.list())) == ["one"]


@both
def test_what_must_not_happen_twice_is_not_sent_again(fake: FakeBroker, second: Any) -> None:
    fake.play(then(FakeConnection.request))
    with pytest.raises(ConnectionLost):
        second(fake.socket, lambda broker: broker.signal("one", "HUP"))


@both
def test_the_brokers_errors_are_raised(fake: FakeBroker, second: Any) -> None:
    fake.play(then(lambda connection: connection.refuse("not_found")))
    with pytest.raises(NotFound):
        second(fake.socket, lambda broker: broker.get("one"))


@both
def test_a_refusal_of_the_connection_is_raised(fake: FakeBroker, second: Any) -> None:
    def refuse(connection: FakeConnection) -> None:
        connection.request()
        error = {"code": 4, "message": "too many requests", "data": {"kind": "limit_exceeded"}}
        connection.send({"jsonrpc": "2.0", "id": None, "error": error})

    fake.play(then(refuse))
    with pytest.raises(LimitExceeded, match="too many requests"):
        second(fake.socket, lambda broker: broker.list())


@both
@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [
        (b"no JSON\n", "no JSON object"),
        (b"\n", "no JSON object"),
        (b'{"jsonrpc":"2.0","id":2}\n', "neither a result nor an error"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}\n', "another request"),
        (b'{"jsonrpc":"2.0","id":2,"result":{}}\n', "KeyError"),
    ],
)
def test_what_is_no_answer_is_found_out(fake: FakeBroker, second: Any, garbage: bytes, complaint: str) -> None:
    def say(connection: FakeConnection) -> None:
        connection.request()
        connection.sock.sendall(garbage)
        connection.gone()

    fake.play(then(say))
    with pytest.raises(ProtocolViolation, match=complaint):
        second(fake.socket, lambda broker: broker.list())


@both
def test_a_line_without_end_is_not_kept(fake: FakeBroker, second: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(connection: FakeConnection) -> None:
        connection.request()
        connection.sock.sendall(b"x" * 2000)
        connection.gone()

    monkeypatch.setattr("procbroker.connection.ANSWER_BYTES_MAX", 1000)
    fake.play(then(say))
    with pytest.raises(ProtocolViolation, match="longer than any answer"):
        second(fake.socket, lambda broker: broker.list())


@both
def test_an_answer_that_does_not_come_is_given_up_with_its_connection(fake: FakeBroker, second: Any) -> None:
    fake.play(then(FakeConnection.request, FakeConnection.gone))
    with pytest.raises(ClientTimeout, match=r"0\.05"):
        second(fake.socket, lambda broker: broker.list(timeout=0.05))
    assert fake.result() is True


def test_an_interrupt_gives_up_the_connection(fake: FakeBroker) -> None:
    def interrupt(connection: FakeConnection) -> bool:
        connection.request()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return connection.gone()

    fake.play(then(interrupt), lambda connection: connection.answer(ONE))
    with Broker(fake.socket) as broker:
        assert broker.list() == []
        # Whoever keeps the exception keeps what the call had, too.
        with pytest.raises(KeyboardInterrupt) as caught:
            broker.list()
        assert fake.result() is True
        assert caught.tb is not None
        assert names(broker.list()) == ["one"]


def test_closing_the_client_ends_a_wait(fake: FakeBroker) -> None:
    heard = threading.Event()

    def wait(connection: FakeConnection) -> bool:
        connection.request()
        heard.set()
        return connection.gone()

    fake.play(then(wait))
    with Broker(fake.socket) as broker, ThreadPoolExecutor(1) as threads:
        assert broker.list() == []
        waiting = threads.submit(broker.wait, "one")
        assert heard.wait(PATIENCE)
        broker.close()
        with pytest.raises(Exception, match="closed"):
            waiting.result(PATIENCE)


def test_a_poll_that_is_taken_away_later_is_done_without(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.play(then(lambda connection: connection.answer(ONE), lambda connection: connection.answer(NONE)))
    with Broker(fake.socket) as broker:
        assert broker.list() == []
        monkeypatch.delattr(select, "poll")
        assert names(broker.list()) == ["one"]
        monkeypatch.undo()
        assert broker.list() == []


def test_the_descriptor_of_a_closed_connection_is_not_looked_at(fake: FakeBroker) -> None:
    fake.play(then(FakeConnection.gone))
    with Broker(fake.socket) as broker:
        assert broker.list() == []
        (connection,) = broker._requests.pool._own.idle
        number = connection.sock.fileno()
        reading, writing = os.pipe()
        connection.close()
        os.dup2(reading, number)
        assert not connection.is_quiet()
        for descriptor in (reading, writing, number):
            os.close(descriptor)


def test_connections_and_processes_have_request_ids_of_their_own(fake: FakeBroker) -> None:
    def thrice(connection: FakeConnection) -> List[str]:
        created = {"outcome": "created", "child": child()}
        return [connection.answer(created)["params"]["request_id"] for _ in range(3)]

    fake.play(thrice, thrice)
    for _ in range(2):
        with Broker(fake.socket) as broker:
            for _ in range(3):
                broker.create(["a"])
    ids = [*fake.result(), *fake.result()]
    assert len(set(ids)) == 6
    assert [(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids] == [(4, uuid.RFC_4122)] * 6


def test_what_refers_to_itself_is_refused_before_it_is_sent(fake: FakeBroker) -> None:
    circle: Dict[str, Any] = {}
    circle["circle"] = circle
    fake.play(then(lambda connection: connection.gone(), lambda _: None))
    with Broker(fake.socket) as broker:
        assert broker.list() == []
        with pytest.raises(ValueError, match="Circular reference"):
            broker.create(["a"], resources=circle)  # type: ignore[arg-type]
