"""What becomes of a call whose connection is lost, and of one that is not answered."""

from __future__ import annotations

import json
import select
import socket
import threading
import unittest.mock
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

import pytest
from brokers import KEEP, PATIENCE, FakeBroker, FakeConnection, RealBroker, child, comes_true

from procbroker import (
    Broker,
    BrokerUnavailable,
    ClientClosed,
    ClientTimeout,
    ConnectionLost,
    LimitExceeded,
    NotFound,
    ProtocolViolation,
)
from procbroker.connection import Connection, connect
from procbroker.waiting import Deadline, Steps

NEVER_TWICE: List[Callable[[Broker], Any]] = [
    lambda broker: broker.signal("one", "HUP"),
    lambda broker: broker.shutdown(),
]


#: What is asked of those who can have been meant by a call that is sent again.
FIELDS = ["name", "state", "created_at", "started_at", "exit"]


def say(connection: FakeConnection, words: bytes) -> None:
    """Take a request, say this, and stay until the client goes."""
    connection.request()
    connection.sock.sendall(words)
    assert connection.gone()


def relay(connection: FakeConnection, path: str) -> None:
    """Let a real broker answer, until the client goes."""
    with socket.socket(socket.AF_UNIX) as to, to.makefile("rb") as answers:
        to.settimeout(PATIENCE)
        to.connect(path)
        while line := connection._lines.readline():
            to.sendall(line)
            connection.sock.sendall(answers.readline())


def hear(connection: FakeConnection) -> Dict[str, Any]:
    """Take a request, and end the connection without an answer."""
    return connection.request()


def test_a_broker_that_was_restarted_is_found_again(own: RealBroker) -> None:
    with Broker(own.socket, connect_timeout=PATIENCE) as broker:
        before = broker.status()
        own.kill()
        own.start()
        assert broker.status().instance != before.instance
        with ThreadPoolExecutor(10) as threads:
            list(threads.map(lambda _: broker.status(), range(20)))
        own.kill()
        own.start()
        # No connection is left of those that the pool has kept.
        assert broker.signal(None, "HUP", all=True) == []


def test_a_broker_that_is_away_is_waited_for(own: RealBroker) -> None:
    with ThreadPoolExecutor(1) as threads, Broker(own.socket, connect_timeout=PATIENCE) as broker:
        before = broker.status().instance
        own.kill()
        status = threads.submit(broker.status)
        own.start()
        assert status.result(PATIENCE).instance != before


def test_a_broker_that_does_not_come_back_is_given_up(own: RealBroker) -> None:
    with Broker(own.socket, connect_timeout=1) as broker:
        broker.status()
        own.kill()
        with pytest.raises(BrokerUnavailable, match="Connection refused"):
            broker.status()
        own.start()
        broker.status()


def test_the_first_connection_is_waited_for_if_asked(own: RealBroker) -> None:
    own.kill()
    with pytest.raises(BrokerUnavailable):
        Broker(own.socket, connect_timeout=PATIENCE).status()
    patient = Broker(own.socket, connect_timeout=PATIENCE, wait_for_broker=True)
    with ThreadPoolExecutor(1) as threads:
        status = threads.submit(patient.status)
        own.start()
        assert status.result(PATIENCE).pid == own.pid
    patient.close()


def test_a_create_is_sent_again_with_the_same_request_id(fake: FakeBroker) -> None:
    fake.play(hear, hear, lambda connection: connection.answer({"outcome": "created", "child": child()}))
    with Broker(fake.socket) as broker:
        assert broker.create(["sleep", "60"], name="one").outcome == "created"
    requests = [fake.result() for _ in range(3)]
    ids = {request["params"]["request_id"] for request in requests}
    assert len(ids) == 1
    assert None not in ids
    assert [request["params"] for request in requests] == [requests[0]["params"]] * 3


def test_each_create_has_a_request_id_of_its_own(fake: FakeBroker) -> None:
    def twice(connection: FakeConnection) -> List[Any]:
        return [connection.answer({"outcome": "created", "child": child()})["params"]["request_id"] for _ in range(2)]

    fake.play(twice)
    with Broker(fake.socket) as broker:
        broker.create(["a"])
        broker.create(["a"])
        ids = fake.result()
    assert len(set(ids)) == 2
    for one in map(uuid.UUID, ids):
        assert (one.version, one.variant) == (4, uuid.RFC_4122)


@pytest.mark.parametrize("call", NEVER_TWICE)
def test_what_must_not_happen_twice_is_not_sent_again(fake: FakeBroker, call: Callable[[Broker], Any]) -> None:
    fake.play(hear)
    with Broker(fake.socket) as broker, pytest.raises(ConnectionLost) as caught:
        call(broker)
    assert fake.result()["method"] == caught.value.method
    assert "whether that was carried out is not known" in str(caught.value)


@pytest.mark.parametrize("call", [*NEVER_TWICE[:1], lambda broker: broker.restart("one")])
def test_a_connection_that_ended_while_idle_costs_nothing(fake: FakeBroker, call: Callable[[Broker], Any]) -> None:
    fake.play(
        lambda connection: connection.answer({"children": []}),
        lambda connection: connection.answer({"children": [child()]}),
    )
    with Broker(fake.socket) as broker:
        broker.list()
        fake.result()
        assert [one.name for one in call(broker)] == ["one"]


def test_of_the_connections_that_a_broker_closes_one_after_the_other_a_call_tries_one(fake: FakeBroker) -> None:
    together = threading.Barrier(8)

    def closed_at_the_next_request(connection: FakeConnection) -> None:
        request = connection.request()
        together.wait(PATIENCE)
        connection.send({"jsonrpc": "2.0", "id": request["id"], "result": {"children": []}})
        connection.request()

    fake.play(*[closed_at_the_next_request] * 8, lambda connection: connection.answer({"children": [child()]}))
    with Broker(fake.socket) as broker, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: broker.list(), range(8)))
        assert [one.name for one in broker.list()] == ["one"]


def test_a_connection_with_words_that_nobody_asked_for_is_not_used_again(fake: FakeBroker) -> None:
    def chatty(connection: FakeConnection) -> bool:
        connection.answer({"children": []})
        connection.send({"jsonrpc": "2.0", "id": 2, "result": {"children": [child("stale")]}})
        said.set()
        return connection.gone()

    said = threading.Event()
    fake.play(chatty, lambda connection: connection.answer({"children": [child("fresh")]}))
    with Broker(fake.socket) as broker:
        assert broker.list() == []
        assert said.wait(PATIENCE)
        assert [one.name for one in broker.list()] == ["fresh"]
        assert fake.result() is True


def test_white_space_around_an_answer_is_nothing(fake: FakeBroker) -> None:
    def answer(connection: FakeConnection) -> None:
        connection.request()
        connection.sock.sendall(b' \t{"jsonrpc":"2.0","id":1,"result":{"children":[]}} \r\n')

    fake.play(answer)
    with Broker(fake.socket) as broker:
        assert broker.list() == []


def test_what_comes_with_an_answer_is_no_answer_to_the_next_request(fake: FakeBroker) -> None:
    def chatty(connection: FakeConnection) -> bool:
        answer = {"jsonrpc": "2.0", "id": connection.request()["id"], "result": {"children": []}}
        connection.sock.sendall(json.dumps(answer).encode() + b"\n" + json.dumps({**answer, "id": 2}).encode() + b"\n")
        return connection.gone()

    fake.play(chatty, lambda connection: connection.answer({"children": [child("fresh")]}))
    with Broker(fake.socket) as broker:
        assert broker.list() == []
        assert [one.name for one in broker.list()] == ["fresh"]
        assert fake.result() is True


@pytest.mark.parametrize("host", ["plain", "gevent", "eventlet"])
def test_a_connection_is_quiet_while_it_is_open_with_nothing_to_read(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    if host == "gevent":
        monkeypatch.setattr(select, "poll", unittest.mock.Mock(side_effect=AssertionError))
    if host == "eventlet":
        monkeypatch.delattr(select, "poll")
    ends = [socket.socketpair() for _ in range(3)]
    connections = []
    for sock, _ in ends:
        sock.setblocking(False)
        connections.append(Connection(sock, "/path"))
    talking, ended, closed = connections
    assert [one.is_quiet() for one in connections] == [True] * 3
    ends[0][1].send(b"{")
    ends[1][1].close()
    closed.close()
    assert [one.is_quiet() for one in connections] == [False] * 3
    # What was read, and is not a whole line, is no less in the way.
    assert talking._read_line() is None
    assert not talking.is_quiet()
    for one in (talking, ended):
        one.close()
    for _, other in ends:
        other.close()


def test_a_request_that_ends_every_connection_is_given_up(fake: FakeBroker) -> None:
    fake.play(*[hear] * 6)
    with Broker(fake.socket) as broker, pytest.raises(ConnectionLost):
        broker.list()
    assert [fake.result()["method"] for _ in range(6)] == ["list"] * 6


def test_a_destroy_by_name_is_bound_to_the_child_before_it_is_sent_again(fake: FakeBroker) -> None:
    successor = "01935b2c-7d00-7abc-8def-ffffffffffff"

    def again(connection: FakeConnection) -> Dict[str, Any]:
        listed = [child(created_at="2999-01-01T00:00:00Z", id=successor), child(), child("other")]
        assert connection.answer({"children": listed})["params"] == {"all": True, "fields": FIELDS}
        return connection.answer({"children": [child(state="ended", pid=None)]})

    fake.play(hear, again)
    with Broker(fake.socket) as broker:
        assert [one.ended for one in broker.destroy("one")] == [True]
    assert fake.result()["params"]["target"] == "one"
    assert fake.result()["params"]["target"] == child()["id"]


@pytest.mark.parametrize(
    "name",
    [
        "0123456789abcdef-0123456789abcdef",
        "01935b2c7d00-7abc-8def-0123456789ab",
        "0-1935b2c7d007abc8def0123456789ab",
        "urn:uuid:01935b2c7d007abc8def0123456789ab",
    ],
)
def test_a_name_that_looks_like_an_id_is_bound_as_every_name_is(own: RealBroker, name: str) -> None:
    with Broker(own.socket) as broker:
        before = broker.create(["sleep", "1000"], name=name)

        def lost_and_taken(connection: FakeConnection) -> None:
            hear(connection)
            broker.destroy(before, stop=[])
            broker.create(["sleep", "1000"], name=name)

        with FakeBroker(own.folder / "fake") as fake, Broker(fake.socket) as client:
            fake.play(lost_and_taken, lambda connection: relay(connection, own.socket))
            destroyed = client.destroy(name)
        assert [one.id for one in destroyed] == [before.id]
        assert not broker.get(name).ended
        broker.destroy(all=True, stop=[])


@pytest.mark.parametrize(
    "target",
    [
        "01935b2c-7d00-7abc-8def-0123456789ab",
        "01935B2C7D007ABC8DEF0123456789AB",
        "{01935b2c-7d00-7abc-8def-0123456789ab}",
        "URN:uuid:01935b2c-7d00-7abc-8def-0123456789ab",
    ],
)
def test_an_id_is_sent_again_as_it_is_in_every_form_of_the_broker(fake: FakeBroker, target: str) -> None:
    fake.play(hear, lambda connection: connection.answer({"children": [child()]}))
    with Broker(fake.socket) as broker:
        broker.destroy(target)
    assert [fake.result()["params"]["target"] for _ in range(2)] == [target] * 2


@pytest.mark.parametrize(
    ("which", "labels"), [({"labels": {"pool": "x"}}, {"pool": "x"}), ({"all": True}, {})], ids=["labels", "all"]
)
def test_a_destroy_of_many_that_is_sent_again_spares_those_created_since(
    fake: FakeBroker, which: Dict[str, Any], labels: Dict[str, str]
) -> None:
    def row(number: int, **changes: Any) -> Dict[str, Any]:
        return {**child(id=f"id {number}"), **changes}

    def ended(at: str) -> Dict[str, Any]:
        return {"state": "ended", "exit": {"code": 0, "reason": "destroyed", "at": at}}

    def again(connection: FakeConnection) -> List[Any]:
        listed = [
            row(1),
            row(2, **ended("2999-01-01T00:00:00Z")),
            row(3, **ended("2026-11-23T14:52:19Z")),
            row(4),
            row(5, created_at="2999-01-01T00:00:00Z"),
        ]
        question = connection.answer({"children": listed})
        assert question["params"] == {"all": True, "labels": labels, "fields": FIELDS}
        asked = [connection.answer({"children": [child(id=f"id {number}")]}) for number in (1, 2, 4)]
        asked += [connection.answer({"children": [child(id=f"id {number}", state="ended")]}) for number in (1, 2)]
        return [*asked, connection.refuse("not_found")]

    fake.play(hear, again)
    with Broker(fake.socket) as broker:
        assert [(one.id, one.state) for one in broker.destroy(**which)] == [("id 1", "ended"), ("id 2", "ended")]
    fake.result()
    # Every stop is begun before the first is waited for.
    asked = [(request["params"]["target"], request["params"].get("no_wait", False)) for request in fake.result()]
    assert asked == [(f"id {number}", no_wait) for no_wait in (True, False) for number in (1, 2, 4)]


def test_a_destroy_of_many_that_loses_another_connection_goes_on_with_the_same(fake: FakeBroker) -> None:
    listed = {"children": [child(id="id 1")]}
    fake.play(
        hear,
        lambda connection: [connection.answer(listed), connection.request()],
        lambda connection: [connection.answer(listed), connection.answer({"children": [child(id="id 1")]})],
    )
    with Broker(fake.socket) as broker:
        assert [one.id for one in broker.destroy(all=True, no_wait=True)] == ["id 1"]


def test_a_renewal_of_many_that_is_sent_again_is_of_those_who_live_and_were_there(fake: FakeBroker) -> None:
    def again(connection: FakeConnection) -> Dict[str, Any]:
        there = child()
        ended = {"code": 0, "reason": "exited", "at": "2999-01-01T00:00:00Z"}
        listed = [
            {**there, "id": "id 1", "state": "ended", "exit": ended},
            {**there, "id": "id 2"},
            {**there, "id": "id 3", "created_at": "2999-01-01T00:00:00Z"},
        ]
        connection.answer({"children": listed})
        return connection.answer({"children": [child(id="id 2")]})

    fake.play(hear, again)
    with Broker(fake.socket) as broker:
        assert [one.id for one in broker.renew(labels={"pool": "x"})] == ["id 2"]
    fake.result()
    assert fake.result()["params"] == {"target": "id 2"}


LATER = "2999-01-01T00:00:00Z"


@pytest.mark.parametrize("target", ["one", child()["id"], "{01935B2C-7d00-7abc-8def-0123456789ab}"])
@pytest.mark.parametrize(
    ("changes", "method", "params"),
    [
        ({"state": "running"}, "restart", {}),
        ({"state": "stopping"}, "wait", {"until": "ready"}),
        ({"state": "backoff", "started_at": None}, "wait", {"until": "ready"}),
        ({"state": "starting", "started_at": LATER}, "wait", {"until": "ready"}),
        ({"state": "running", "started_at": LATER}, "wait", {"until": "ready"}),
    ],
)
def test_a_restart_that_is_lost_is_waited_for_if_it_has_begun_and_not_made_twice(
    fake: FakeBroker, target: str, changes: Dict[str, Any], method: str, params: Dict[str, Any]
) -> None:
    def again(connection: FakeConnection) -> Dict[str, Any]:
        listed = [child(**changes), child("other", id="other"), child(created_at=LATER, id="successor")]
        connection.answer({"children": listed})
        return connection.answer(
            {"child" if method == "wait" else "children": child() if method == "wait" else [child()]}
        )

    fake.play(hear, again)
    with Broker(fake.socket) as broker:
        assert [one.id for one in broker.restart(target)] == [child()["id"]]
    fake.result()
    request = fake.result()
    assert (request["method"], request["params"]) == (method, {"target": child()["id"], **params})


def test_a_restart_of_one_that_has_ended_meanwhile_is_told_so(fake: FakeBroker) -> None:
    ended = child(state="ended", exit={"code": 0, "reason": "exited", "at": LATER})
    fake.play(hear, lambda connection: [connection.answer({"children": [ended]}), connection.refuse("not_found")])
    with Broker(fake.socket) as broker, pytest.raises(NotFound):
        broker.restart("one")


def test_a_restart_of_many_that_is_lost_is_of_those_who_live_and_were_there(fake: FakeBroker) -> None:
    def again(connection: FakeConnection) -> List[Any]:
        ended = child(id="1", state="ended", exit={"code": 0, "reason": "exited", "at": LATER})
        listed = [ended, child(id="2"), child(id="3", started_at=LATER), child(id="4"), child(id="5", created_at=LATER)]
        connection.answer({"children": listed})
        asked = [
            connection.answer({"children": [child(id="2")]}),
            connection.answer({"child": child(id="3")}),
            connection.refuse("not_found"),
        ]
        return [(request["method"], request["params"]["target"]) for request in asked]

    fake.play(hear, again)
    with Broker(fake.socket) as broker:
        assert [one.id for one in broker.restart(labels={"pool": "x"})] == ["2", "3"]
    fake.result()
    assert fake.result() == [("restart", "2"), ("wait", "3"), ("restart", "4")]


def test_a_destroyed_child_that_the_broker_has_forgotten_since_is_no_error(fake: FakeBroker) -> None:
    fake.play(
        lambda connection: [connection.answer({"child": child()}), connection.request()],
        lambda connection: [connection.refuse("not_found"), connection.refuse("not_found")],
    )
    with Broker(fake.socket) as broker:
        one = broker.get("one")
        assert one.destroy().ended
        assert (one.pid, one.exit, one.returncode) == (None, None, None)
        with pytest.raises(NotFound):
            broker.destroy(one)


def test_a_wait_goes_on_over_another_connection_with_the_time_that_is_left(fake: FakeBroker) -> None:
    ended = child(state="ended", pid=None)
    fake.play(hear, lambda connection: connection.answer({"child": ended}))
    with Broker(fake.socket) as broker:
        assert broker.wait(child()["id"], timeout=50).ended
    first, second = fake.result()["params"]["timeout"], fake.result()["params"]["timeout"]
    assert 0 < second < first <= 50


def test_a_create_waits_for_a_place_over_another_connection_with_the_time_that_is_left(fake: FakeBroker) -> None:
    created = {"outcome": "created", "child": child()}
    fake.play(hear, lambda connection: connection.answer(created))
    limit = {"key": "render", "max": 4, "wait": 50}
    with Broker(fake.socket) as broker:
        assert broker.create(["true"], limit=limit).outcome == "created"
    first, second = fake.result()["params"], fake.result()["params"]
    assert first["request_id"] == second["request_id"]
    assert 0 < second["limit"]["wait"] < first["limit"]["wait"] <= 50
    assert second["limit"] == {**limit, "wait": second["limit"]["wait"]}
    assert limit["wait"] == 50


def test_a_broker_that_never_answers_is_given_up_in_time(fake: FakeBroker) -> None:
    fake.play(lambda connection: [connection.request(), connection.gone()][1])
    with Broker(fake.socket, timeout=0.05) as broker, pytest.raises(ClientTimeout) as caught:
        broker.create(["sleep", "60"], name="one")
    assert isinstance(caught.value, TimeoutError)
    assert str(caught.value).startswith(f"gave up on create one after 0.05 s without an answer from {fake.socket}")
    # The connection with the answer that nobody waits for is not used again.
    assert fake.result() is True


def test_the_time_of_a_call_is_its_own(fake: FakeBroker) -> None:
    fake.play(*[lambda connection: [connection.request(), connection.gone()]] * 3)
    with Broker(fake.socket, timeout=None) as broker:
        with pytest.raises(ClientTimeout):
            broker.list(timeout=0.01)
        with pytest.raises(ClientTimeout):
            broker.get("one", timeout=0.01)
        with pytest.raises(ClientTimeout, match="destroy one"):
            broker.destroy("one", timeout=0.01)


def test_a_broker_that_accepts_nobody_is_given_up_in_time(fake: FakeBroker) -> None:
    # Nobody takes these connections: the queue of the listener, and then the socket's buffer, are all there is.
    with Broker(fake.socket, timeout=0.05) as broker:
        for _ in range(200):
            with pytest.raises(ClientTimeout):
                broker.list(timeout=0.001)
        with pytest.raises(ClientTimeout):
            broker.create(["true"], labels={"a": "b" * 5_000_000}, timeout=0.01)


def test_a_connection_that_holds_a_child_is_kept_when_its_answer_is_late(fake: FakeBroker) -> None:
    gone = threading.Event()

    def late(connection: FakeConnection) -> None:
        connection.request()
        assert connection.gone()
        gone.set()

    fake.play(late, lambda connection: connection.answer({"children": []}))
    with Broker(fake.socket) as broker:
        with pytest.raises(ClientTimeout):
            broker.create(["true"], lifetime="connection", timeout=0.01)
        broker.list()
        assert not gone.is_set()
    assert gone.wait(PATIENCE)


@pytest.mark.parametrize(
    ("garbage", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no JSON object"),
        (b"[]\n", "no JSON object"),
        (b"{\n", "no JSON object"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"children":[]}} 1\n', "no JSON object"),
        (b'{"jsonrpc":"2.0","id":1}\n', "neither a result nor an error"),
        (b'{"jsonrpc":"2.0","id":77,"result":{}}\n', "another request"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}\n', "KeyError"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"children":7}}\n', "TypeError"),
        (b"\xff\xfe\n", "no JSON object"),
        (b"[" * 100_000 + b"\n", "no JSON object"),
    ],
)
def test_what_is_no_broker_is_found_out(fake: FakeBroker, garbage: bytes, complaint: str) -> None:
    fake.play(lambda connection: say(connection, garbage))
    with Broker(fake.socket) as broker, pytest.raises(ProtocolViolation, match=complaint):
        broker.list()


def test_a_line_without_end_is_not_kept(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procbroker.connection.ANSWER_BYTES_MAX", 1000)
    fake.play(lambda connection: say(connection, b"x" * 2000))
    with Broker(fake.socket) as broker, pytest.raises(ProtocolViolation, match="longer than any answer"):
        broker.list()


def test_a_line_that_ends_in_its_middle_is_a_lost_connection(fake: FakeBroker) -> None:
    def cut(connection: FakeConnection) -> None:
        connection.request()
        connection.sock.sendall(b'{"jsonrpc":"2.0","id":1,"res')

    fake.play(
        cut,
        lambda connection: connection.answer({"children": [child()]}),
    )
    with Broker(fake.socket) as broker:
        assert len(broker.list()) == 1


def test_an_answer_in_pieces_is_put_together(fake: FakeBroker) -> None:
    go = threading.Event()

    def pieces(connection: FakeConnection) -> object:
        connection.request()
        connection.sock.sendall(b'{"jsonrpc":"2.0","id":1,"result":{"chil')
        assert go.wait(PATIENCE)
        connection.sock.sendall(b'dren":[]}}\n')
        return KEEP

    fake.play(pieces)
    with ThreadPoolExecutor(1) as threads, Broker(fake.socket) as broker:
        listed = threads.submit(broker.list)
        go.set()
        assert listed.result(PATIENCE) == []


@pytest.mark.parametrize(
    "pieces",
    [[b"one\n"], [b"o", b"ne\n"], [b"one", b"\n"], [b"one\ntwo\n"], [b"o", b"ne\ntwo\n"], [b"one\nt", b"wo\n"]],
)
@pytest.mark.parametrize("longer", [0, 100_000])
def test_lines_are_read_from_pieces_of_any_size(pieces: List[bytes], longer: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(ours, "/path")
    sent, received = b"".join(pieces).replace(b"o", b"o" * (1 + longer)), []
    to_come = [piece.replace(b"o", b"o" * (1 + longer)) for piece in pieces]
    for _ in range(sent.count(b"\n")):
        steps = connection.receive(Deadline(PATIENCE))
        line = None
        while line is None:
            try:
                next(steps)
            except StopIteration as stop:
                line = stop.value
            else:
                # It waits for more, or has left some for its next look.
                theirs.sendall(to_come.pop(0) if to_come else b"")
        received.append(line)
    assert received == sent.splitlines()
    assert connection.is_quiet()
    connection.close()
    theirs.close()


@pytest.mark.parametrize("after_the_request", [True, False])
def test_a_refused_connection_raises_the_refusal(fake: FakeBroker, after_the_request: bool) -> None:
    def refuse(connection: FakeConnection) -> None:
        if after_the_request:
            connection.request()
        error = {"code": 4, "message": "too many connections", "data": {"kind": "limit_exceeded"}}
        connection.send({"jsonrpc": "2.0", "id": None, "error": error})

    fake.play(refuse)
    with Broker(fake.socket) as broker, pytest.raises(LimitExceeded, match="too many connections"):
        broker.list()


def test_closing_the_client_while_it_connects_leaves_no_call_behind(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.play(lambda connection: connection.gone())
    broker = Broker(fake.socket)

    def connect_and_close(path: str, deadline: Deadline) -> Steps[Connection]:
        connection = yield from connect(path, deadline)
        broker.close()
        return connection

    monkeypatch.setattr("procbroker.pool.connect", connect_and_close)
    with pytest.raises(ClientClosed):
        broker.wait("one")
    assert fake.result() is True


def test_closing_the_client_ends_a_wait_of_another_thread(broker: Broker) -> None:
    other = Broker(broker.socket)
    one = broker.create(["sleep", "1000"])
    idle = broker.status().connections
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(other.wait, one)
        comes_true(lambda: broker.status().connections > idle, "one more connection")
        other.close()
        with pytest.raises(ClientClosed):
            wait.result(PATIENCE)
    assert not broker.get(one).ended
