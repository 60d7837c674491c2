"""Children that live as long as somebody holds them: who holds, who lets go, and what becomes of it in a crash."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List

import pytest
from brokers import KEEP, PATIENCE, STATUS, FakeBroker, FakeConnection, RealBroker, child, comes_true

import procbroker
from procbroker import AsyncBroker, Broker, Child, ClientTimeout, Overloaded, ShuttingDown

FOREVER = ["sleep", "1000"]
HELD = child(lifetime="connection")


def answered_with(connection: FakeConnection, one: Dict[str, Any], outcome: str = "existing") -> Dict[str, Any]:
    """Answer a create, and return its parameters."""
    request = connection.answer({"outcome": outcome, "child": one})
    assert request["method"] == "create"
    params: Dict[str, Any] = request["params"]
    return params


class Holding:
    """A broker's side of children that are held: which connections are open, by the children's ids."""

    def __init__(self, fake: FakeBroker, count: int) -> None:
        self.gone = {number: threading.Event() for number in range(count)}
        self.creates: List[Dict[str, Any]] = []
        fake.play(*[self.serve] * count)

    def serve(self, connection: FakeConnection) -> None:
        number = len(self.creates)
        while True:
            line = connection._lines.readline()
            if not line:
                break
            request = json.loads(line)
            if request["method"] == "status":
                connection.send({"jsonrpc": "2.0", "id": request["id"], "result": STATUS})
                continue
            self.creates.append(request["params"])
            one = child(request["params"]["name"], id=f"id of {request['params']['name']}", lifetime="connection")
            connection.send({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": "created", "child": one}})
        self.gone[number].set()


def test_a_block_lets_go_of_its_child_and_of_no_other(fake: FakeBroker) -> None:
    holding = Holding(fake, 3)
    with Broker(fake.socket) as broker:
        with broker.create(["a"], name="one", lifetime="connection") as one:
            other = broker.create(["a"], name="two", lifetime="connection")
            assert (one.name, other.name) == ("one", "two")
        assert holding.gone[0].wait(PATIENCE)
        assert not holding.gone[1].is_set()
        one.release()
        other.release()
        assert holding.gone[1].wait(PATIENCE)
    assert not holding.gone[2].is_set()


def test_a_child_that_is_held_twice_is_let_go_of_twice(fake: FakeBroker) -> None:
    holding = Holding(fake, 2)
    with Broker(fake.socket) as broker:
        with broker.create(["a"], name="one", lifetime="connection"):
            with broker.create(["a"], name="one", if_exists="reuse", lifetime="connection"):
                # One connection is enough to hold it.
                assert holding.gone[1].wait(PATIENCE)
            assert not holding.gone[0].is_set()
        assert holding.gone[0].wait(PATIENCE)


@pytest.mark.parametrize(
    "learn",
    [
        lambda broker, one: one.refresh(),
        lambda broker, one: broker.get(one.id),
        lambda broker, one: broker.list(all=True),
        lambda broker, one: broker.events().next(PATIENCE),
    ],
)
def test_a_child_that_has_ended_needs_no_connection(fake: FakeBroker, learn: Callable[[Broker, Child], Any]) -> None:
    gone = threading.Event()
    ended = {**HELD, "state": "ended", "pid": None}

    def hold(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        assert connection.gone()
        gone.set()

    def tell(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        result = {"child": ended, "children": [ended], "subscription": 1, "next": 1}
        if connection.answer(result)["method"] == "events":
            connection.notify("event", kind="ended", seq=1, at=ended["created_at"], child=ended)
        return KEEP

    fake.play(hold, tell)
    with Broker(fake.socket) as broker:
        one = broker.create(["a"], lifetime="connection")
        learn(broker, one)
        assert gone.wait(PATIENCE)
        one.release()


def test_a_child_that_is_being_restarted_is_taken_again_when_it_runs(fake: FakeBroker) -> None:
    lost, held = threading.Event(), threading.Event()

    def crash(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        assert lost.wait(PATIENCE)

    def listed(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        connection.answer({"children": []})
        connection.answer({"children": []})
        return KEEP

    def stopping(connection: FakeConnection) -> object:
        connection.answer({"child": {**HELD, "state": "stopping"}})
        # A create would start another one, if it is to end.
        assert connection.gone()
        return KEEP

    def running(connection: FakeConnection) -> bool:
        connection.answer({"child": HELD})
        answered_with(connection, HELD)
        held.set()
        return connection.gone()

    fake.play(crash, listed, stopping, running)
    with Broker(fake.socket) as broker:
        one = broker.create(["a"], name="one", lifetime="connection")
        lost.set()
        fake.result()
        assert broker.list() == []
        assert broker.list() == []
        assert held.wait(PATIENCE)
        one.release()
        assert fake.result() is True


def test_however_many_children_are_held_there_are_few_connections(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procbroker.holds._HOLDING_MAX", 2)
    holding = Holding(fake, 2)
    with Broker(fake.socket) as broker:
        children = [broker.create(["a"], name=f"n{number}", lifetime="connection") for number in range(6)]
        for one in children[:3]:
            one.release()
        assert len(holding.creates) == 6
        for one in children[3:]:
            one.release()
        assert all(gone.wait(PATIENCE) for gone in holding.gone.values())


def test_a_hold_outlives_the_loss_of_its_connection(fake: FakeBroker) -> None:
    lost, gone = threading.Event(), threading.Event()
    held, over = child(lifetime="connection"), child("two", id="another", lifetime="connection", state="stopping")

    def crash(connection: FakeConnection, one: Dict[str, Any]) -> Dict[str, Any]:
        request = connection.answer({"outcome": "created", "child": one})
        assert lost.wait(PATIENCE)
        return request

    def hold(connection: FakeConnection) -> List[Dict[str, Any]]:
        requests = [connection.answer({"child": held}), connection.answer({"outcome": "created", "child": held})]
        assert connection.gone()
        gone.set()
        return requests

    fake.play(
        lambda connection: crash(connection, held),
        lambda connection: [connection.answer(STATUS), crash(connection, over)][1],
        lambda connection: [connection.answer(STATUS), connection.answer({"children": []})][1],
        hold,
        lambda connection: [connection.answer({"child": over}), connection.gone()],
    )
    with Broker(fake.socket) as broker:
        with broker.create(["a"], name="one", if_exists="reuse", lifetime="connection", linger=5):
            broker.create(["a"], name="two", lifetime="connection")
            lost.set()
            first, _ = fake.result(), fake.result()
            assert broker.list() == []
            assert not gone.is_set()
        assert gone.wait(PATIENCE)
    assert fake.result()["method"] == "list"
    results = [fake.result(), fake.result()]
    asked, again = results[0]
    assert (asked["method"], asked["params"]) == ("get", {"target": held["id"]})
    assert (again["method"], again["params"]) == ("create", {**first["params"], "no_wait": True})
    # One that is being stopped is not created anew.
    assert results[1][1] is True


def test_a_create_that_fails_holds_nothing(fake: FakeBroker) -> None:
    gone = threading.Event()

    def play(connection: FakeConnection) -> None:
        connection.refuse("limit_exceeded")
        assert connection.gone()
        gone.set()

    fake.play(play)
    with Broker(fake.socket) as broker:
        with pytest.raises(procbroker.LimitExceeded):
            broker.create(["a"], lifetime="connection")
        assert gone.wait(PATIENCE)


def test_an_asynchronous_block_lets_go_too(fake: FakeBroker) -> None:
    holding = Holding(fake, 1)

    async def main() -> None:
        async with AsyncBroker(fake.socket) as client:
            async with await client.create(["a"], name="one", lifetime="connection"):
                assert not holding.gone[0].is_set()
            wait = functools.partial(holding.gone[0].wait, PATIENCE)
            assert await asyncio.get_running_loop().run_in_executor(None, wait)

    asyncio.run(main())


def test_a_child_that_is_reused_without_its_lifetime_is_held_and_let_go_of(broker: Broker) -> None:
    with Broker(broker.socket) as first, Broker(broker.socket) as second:
        first.create(FOREVER, name="one", lifetime="connection")
        with second.create(FOREVER, name="one", if_exists="reuse") as reused:
            assert (reused.outcome, reused.lifetime) == ("existing", "connection")
            first.close()
            # Neither that one's end nor other calls of this one take the hold away.
            assert [second.get(reused).state for _ in range(20)] == ["running"] * 20
        ended = broker.wait(reused, timeout=PATIENCE).exit
        assert ended is not None
        assert ended.reason == "owner_gone"


def test_a_task_holds_and_lets_go_of_a_child_that_it_reuses_without_its_lifetime(broker: Broker) -> None:
    async def main() -> None:
        async with AsyncBroker(broker.socket) as first, AsyncBroker(broker.socket) as second:
            await first.create(FOREVER, name="one", lifetime="connection")
            reused = await second.create(FOREVER, name="one", if_exists="reuse")
            await first.close()
            assert [(await second.get(reused)).state for _ in range(20)] == ["running"] * 20
            reused.release()
            ended = (await second.wait(reused, timeout=PATIENCE)).exit
            assert ended is not None
            assert ended.reason == "owner_gone"

    asyncio.run(main())


def test_a_child_of_another_lifetime_takes_no_connection_though_it_is_reused_as_a_held_one(fake: FakeBroker) -> None:
    fake.play(lambda connection: [answered_with(connection, child()), connection.gone()][1])
    with Broker(fake.socket) as broker:
        broker.create(["a"], name="one", if_exists="reuse", lifetime="connection")
        assert fake.result() is True


@pytest.mark.parametrize("named", [True, False])
def test_a_hold_is_taken_again_by_a_reuse_that_ends_nothing(fake: FakeBroker, named: bool) -> None:
    lost = threading.Event()

    def crash(connection: FakeConnection) -> Dict[str, Any]:
        params = answered_with(connection, HELD, "replaced")
        assert lost.wait(PATIENCE)
        return params

    def again(connection: FakeConnection) -> Dict[str, Any]:
        assert connection.answer({"child": HELD})["params"] == {"target": HELD["id"]}
        return answered_with(connection, HELD)

    fake.play(crash, lambda connection: [connection.answer(STATUS), connection.answer({"children": []})], again)
    with Broker(fake.socket) as broker:
        if named:
            broker.create(["a"], name="one", if_exists="replace")
        else:
            broker.create(["a"], lifetime="connection")
        lost.set()
        before = fake.result()
        broker.list()
        fake.result()
        after = fake.result()
    # The broker may have forgotten the request, and would replace the child by another one.
    changes = {"if_exists": "reuse"} if named else {}
    assert after == {**before, **changes, "lifetime": "connection", "no_wait": True}


def test_what_a_new_connection_is_answered_by_decides_whether_holds_are_lost(fake: FakeBroker) -> None:
    """It waits in the listener's queue while the program that holds a child is replaced by another one."""
    ends, held = threading.Event(), threading.Event()

    def old(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        assert ends.wait(PATIENCE)

    def new(connection: FakeConnection) -> str:
        # The old program's connections end before the new one answers anybody.
        ends.set()
        assert fake.result() is None
        assert connection.answer(STATUS)["method"] == "status"
        request = connection.answer({"child": child(state="ended")})
        assert held.is_set(), "a wait that takes long is not sent before the hold is taken again"
        return str(request["method"])

    def again(connection: FakeConnection) -> object:
        connection.answer({"child": HELD})
        request = connection.request()
        held.set()
        connection.send({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": "existing", "child": HELD}})
        return KEEP

    fake.play(old, new, again)
    with Broker(fake.socket) as broker:
        broker.create(["a"], name="one", lifetime="connection")
        assert broker.wait(HELD["id"]).ended
        assert fake.result() == "wait"


def test_holds_that_a_call_is_given_up_over_are_left_to_the_next_one(fake: FakeBroker) -> None:
    lost, asked = threading.Event(), threading.Event()

    def crash(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        assert lost.wait(PATIENCE)

    def given_up(connection: FakeConnection) -> bool:
        connection.answer(STATUS)
        return connection.gone()

    def slow(connection: FakeConnection) -> object:
        # It stays open, as it can be what holds the child by now.
        connection.request()
        asked.set()
        return KEEP

    def listed(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        connection.answer({"children": []})
        return KEEP

    def hold(connection: FakeConnection) -> bool:
        connection.answer({"child": HELD})
        answered_with(connection, HELD)
        return connection.gone()

    async def main() -> None:
        waits = asyncio.get_running_loop().run_in_executor
        async with AsyncBroker(fake.socket) as broker:
            one = await broker.create(["a"], name="one", lifetime="connection")
            lost.set()
            await waits(None, fake.result)
            listing = asyncio.ensure_future(broker.list())
            assert await waits(None, asked.wait, PATIENCE)
            listing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listing
            assert await waits(None, fake.result) is True
            assert await broker.list() == []
            one.release()
            assert await waits(None, fake.result) is True

    fake.play(crash, given_up, slow, listed, hold)
    asyncio.run(main())


@pytest.mark.parametrize("kind", ["overloaded", "limit_exceeded"])
def test_a_hold_that_the_broker_has_no_place_for_is_tried_again_by_the_next_call(fake: FakeBroker, kind: str) -> None:
    lost, refused, held, gone = (threading.Event() for _ in range(4))

    def crash(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        assert lost.wait(PATIENCE)

    def listed(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        connection.answer({"children": []})
        connection.answer({"children": []})
        return KEEP

    def refuse(connection: FakeConnection) -> None:
        connection.answer({"child": HELD})
        connection.refuse(kind)
        assert connection.gone()
        refused.set()

    def hold(connection: FakeConnection) -> None:
        connection.answer({"child": HELD})
        answered_with(connection, HELD)
        held.set()
        assert connection.gone()
        gone.set()

    fake.play(crash, listed, refuse, hold)
    with Broker(fake.socket) as broker:
        one = broker.create(["a"], name="one", lifetime="connection")
        lost.set()
        fake.result()
        assert broker.list() == []
        assert refused.wait(PATIENCE)
        assert broker.list() == []
        assert held.wait(PATIENCE)
        one.release()
        assert gone.wait(PATIENCE)


def test_a_hold_that_ends_every_connection_is_given_up(fake: FakeBroker) -> None:
    lost = threading.Event()
    asked: List[str] = []

    def crash(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        assert lost.wait(PATIENCE)

    def listed(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        for _ in range(7):
            connection.answer({"children": []})
        return KEEP

    fake.play(crash, listed, *[lambda connection: asked.append(connection.request()["method"])] * 6)
    with Broker(fake.socket) as broker:
        broker.create(["a"], name="one", lifetime="connection")
        lost.set()
        fake.result()
        for _ in range(6):
            assert broker.list() == []
        assert asked == ["get"] * 6
        # Nothing is asked for it any more: the fake broker takes no further connection.
        assert broker.list() == []


def test_a_child_that_is_released_while_it_is_taken_again_is_let_go_of(fake: FakeBroker) -> None:
    lost, released = threading.Event(), threading.Event()

    def crash(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        assert lost.wait(PATIENCE)

    def listed(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        connection.answer({"children": []})
        return KEEP

    def again(connection: FakeConnection) -> bool:
        connection.answer({"child": HELD})
        request = connection.request()
        asked.set()
        assert released.wait(PATIENCE)
        connection.send({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": "existing", "child": HELD}})
        return connection.gone()

    asked = threading.Event()
    fake.play(crash, listed, again)
    with Broker(fake.socket) as broker, ThreadPoolExecutor(1) as threads:
        one = broker.create(["a"], name="one", lifetime="connection")
        lost.set()
        fake.result()
        listing = threads.submit(broker.list)
        assert asked.wait(PATIENCE)
        one.release()
        released.set()
        assert listing.result(PATIENCE) == []
        assert fake.result() is True


@pytest.mark.parametrize("found", ["in the middle of a create", "before it"])
def test_what_a_shared_connection_held_is_taken_again_when_a_create_finds_it_lost(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr("procbroker.holds._HOLDING_MAX", 1)
    first, second = child("one", id="first", lifetime="connection"), child("two", id="second", lifetime="connection")

    def crash(connection: FakeConnection) -> None:
        answered_with(connection, first, "created")
        if found != "before it":
            assert connection.request()["method"] == "create"

    def new(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        answered_with(connection, second, "created")
        return KEEP

    def again(connection: FakeConnection) -> bool:
        connection.answer({"child": first})
        answered_with(connection, first)
        return connection.gone()

    fake.play(crash, new, again)
    with Broker(fake.socket) as broker:
        one = broker.create(["a"], name="one", lifetime="connection")
        if found == "before it":
            fake.result()
        broker.create(["a"], name="two", lifetime="connection")
        if found != "before it":
            fake.result()
        one.release()
        assert fake.result() is True


def test_what_a_connection_held_is_taken_again_though_a_late_answer_is_still_to_come_over_it(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procbroker.holds._HOLDING_MAX", 1)
    lost = threading.Event()
    two = child("two", id="second", lifetime="connection")

    def crash(connection: FakeConnection) -> None:
        answered_with(connection, HELD, "created")
        late = connection.request()
        assert lost.wait(PATIENCE)
        connection.send({"jsonrpc": "2.0", "id": late["id"], "result": {"outcome": "created", "child": two}})

    def listed(connection: FakeConnection) -> object:
        connection.answer(STATUS)
        connection.answer({"children": []})
        return KEEP

    def again(connection: FakeConnection) -> bool:
        for held in (HELD, two):
            connection.answer({"child": held})
            answered_with(connection, held)
        return connection.gone()

    fake.play(crash, listed, again)
    with Broker(fake.socket) as broker:
        broker.create(["a"], name="one", lifetime="connection")
        with pytest.raises(ClientTimeout):
            broker.create(["a"], name="two", lifetime="connection", timeout=0.05)
        lost.set()
        fake.result()
        assert broker.list() == []
    assert fake.result() is True


def test_however_many_children_are_reused_there_are_few_connections(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procbroker.holds._HOLDING_MAX", 2)
    holding = Holding(fake, 2)
    with Broker(fake.socket) as broker:
        children = [broker.create(["a"], name=f"n{number}", if_exists="reuse") for number in range(6)]
        assert len(holding.creates) == 6
        for one in children:
            one.release()
        assert all(gone.wait(PATIENCE) for gone in holding.gone.values())


class Holder:
    """A thread that makes one call, which takes as long as it takes."""

    def __init__(self, broker: Broker, call: Callable[[], Any]) -> None:
        self._broker = broker
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        with contextlib.suppress(procbroker.ProcbrokerError):
            call()

    def end(self) -> None:
        self._broker.close()
        self._thread.join(PATIENCE)


@pytest.mark.parametrize("how", ["upgrade", "crash"])
def test_who_talks_to_the_broker_holds_through_its_absence_and_who_does_not_holds_nothing(
    own: RealBroker, how: str
) -> None:
    """A hold that is lost ends after ten seconds. The child that nobody holds again tells when those are over."""
    clients = {
        name: Broker(own.socket, connect_timeout=PATIENCE)
        for name in ("caller", "reuser", "waiter", "listener", "watcher", "silent")
    }
    creator = Broker(own.socket)
    creator.create(FOREVER, name="reuser", lifetime="connection")
    children = {
        name: client.create(FOREVER, name=name, if_exists="reuse", lifetime="connection")
        for name, client in clients.items()
        if name != "reuser"
    }
    children["reuser"] = clients["reuser"].create(FOREVER, name="reuser", if_exists="reuse")
    creator.close()
    told = threading.Event()
    clients["watcher"].on_shutdown(told.set)
    events = clients["listener"].events()
    other = Broker(own.socket, connect_timeout=PATIENCE)
    idle = other.status().connections
    threads = [
        Holder(clients["waiter"], lambda: clients["waiter"].wait(children["waiter"])),
        Holder(clients["listener"], lambda: [event for event in events if event.kind == "lagged"]),
    ]
    comes_true(lambda: other.status().connections > idle, "a connection of the wait")
    try:
        if how == "upgrade":
            # It makes no other call.
            clients["caller"].upgrade()
        else:
            own.crash()
            own.start()
            clients["caller"].status()
        clients["reuser"].status()
        ended = other.wait("silent", timeout=PATIENCE).exit
        assert ended is not None
        assert ended.reason == "owner_gone"
        states = {one.name: one.state for one in other.list(all=True)}
        assert states == {**dict.fromkeys(clients, "running"), "silent": "ended"}
        assert not told.is_set()
        for name, one in children.items():
            if name not in ("waiter", "silent"):
                one.release()
                assert other.wait(name, timeout=PATIENCE).ended
    finally:
        for thread in threads:
            thread.end()
        for client in (*clients.values(), other):
            client.close()


def test_a_task_that_upgrades_the_broker_holds_on(own: RealBroker) -> None:
    def connections() -> None:
        with Broker(own.socket) as other:
            # What holds the child, and this one's. The broker may not have seen yet that another one was closed.
            comes_true(lambda: other.status().connections == 2, "the child is held again")

    async def main() -> None:
        async with AsyncBroker(own.socket) as holder:
            await holder.create(FOREVER, name="one", lifetime="connection")
            await holder.upgrade()
            await asyncio.get_running_loop().run_in_executor(None, connections)

    asyncio.run(asyncio.wait_for(main(), PATIENCE * 2))


def test_a_task_that_is_to_be_told_of_a_shutdown_holds_through_an_upgrade_of_somebody_else(own: RealBroker) -> None:
    def upgrade() -> None:
        with Broker(own.socket) as other:
            other.upgrade()
            # Its subscription, what holds the child, and this one's.
            comes_true(lambda: other.status().connections == 3, "the child is held again")

    async def main() -> None:
        async with AsyncBroker(own.socket) as holder:
            one = await holder.create(FOREVER, lifetime="connection")
            await holder.on_shutdown(lambda: pytest.fail("it was upgraded, not shut down"))
            await asyncio.get_running_loop().run_in_executor(None, upgrade)
            one.release()
            assert await holder.wait(one, timeout=PATIENCE)

    asyncio.run(asyncio.wait_for(main(), PATIENCE * 2))


def test_creates_that_fail_after_they_were_given_up_leave_no_connection_behind(broker: Broker) -> None:
    before = broker.status().connections
    for _ in range(5):
        with pytest.raises(ClientTimeout):
            broker.create(FOREVER, lifetime="connection", ready={"log": "never"}, ready_timeout=0.2, timeout=0.01)
    comes_true(lambda: not broker.list(), "the children have ended")
    comes_true(lambda: broker.status().connections == before, "their connections are closed")


def given_up(broker: Broker, name: str = "one") -> Child:
    """Give up the create of a child that then becomes ready, and is held since the next call."""
    script = 'while [ "$(cat)" ]; do :; done; sleep 0.1; echo up; exec sleep 1000'
    with pytest.raises(ClientTimeout):
        broker.create(["sh", "-c", script], name=name, lifetime="connection", ready={"log": "up"}, timeout=0.01)
    return broker.wait(name, until="ready")


def test_a_child_whose_create_was_given_up_lives_on_and_ends_with_the_client(broker: Broker) -> None:
    with Broker(broker.socket) as other:
        one = given_up(other)
        comes_true(lambda: other.get("one").state == "running" and not other._requests.pool._own.holds.retired, "held")
        assert [hold.child for hold in other._requests.pool._own.holds.by_child.values()] == [one.id]
    comes_true(lambda: broker.get(one.id).ended, "nobody holds it any more")


def test_a_child_whose_create_was_given_up_is_let_go_of_by_whoever_creates_it_again(broker: Broker) -> None:
    with Broker(broker.socket) as other:
        given_up(other)
        again = other.create(FOREVER, name="one", if_exists="reuse", lifetime="connection")
        assert again.outcome == "existing"
        again.release()
        comes_true(lambda: broker.get(again.id).ended, "nobody holds it any more")


def test_a_child_whose_create_was_given_up_is_held_again_after_a_crash(own: RealBroker) -> None:
    with Broker(own.socket) as broker, Broker(own.socket) as other:
        one = given_up(broker)
        comes_true(lambda: [broker.list(), broker._requests.pool._own.holds.by_child][1] != {}, "it is held")
        own.crash()
        own.start()
        connections = other.status().connections
        broker.list()
        comes_true(lambda: other.status().connections == connections + 2, "one to hold it, and one for the list")
        assert not other.get(one.id).ended


def test_a_create_that_was_never_sent_leaves_no_connection_behind(fake: FakeBroker) -> None:
    def leaves(connection: FakeConnection) -> object:
        connection.refuse("shutting_down")
        return KEEP

    fake.play(leaves, lambda connection: [connection.refuse("overloaded")["method"], connection.gone()])
    with Broker(fake.socket) as broker:
        with pytest.raises(ShuttingDown):
            broker.create(["a"])
        with pytest.raises(Overloaded):
            broker.create(["a"], lifetime="connection")
        assert fake.result() == ["status", True]


@pytest.mark.parametrize(
    "late",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m","data":{"kind":"start_failed"}}}\n',
        b'{"jsonrpc":"2.0","id":1,"result":{"outcome":"created","child":{"id":"x","lifetime":"broker"}}}\n',
        b'{"jsonrpc":"2.0","id":1,"result":{"outcome":"created","child":7}}\n',
        b"what is this\n",
    ],
)
def test_a_late_answer_without_a_child_to_hold_closes_its_connection(fake: FakeBroker, late: bytes) -> None:
    go = threading.Event()

    def answer_late(connection: FakeConnection) -> bool:
        connection.request()
        assert go.wait(PATIENCE)
        connection.sock.sendall(late)
        return connection.gone()

    def lists(connection: FakeConnection) -> object:
        connection.answer({"children": []})
        go.set()
        while True:
            connection.answer({"children": []})

    fake.play(answer_late, lists)
    with Broker(fake.socket) as broker:
        with pytest.raises(ClientTimeout):
            broker.create(["a"], lifetime="connection", timeout=0.01)
        broker.list()
        comes_true(lambda: [broker.list(), broker._requests.pool._own.holds.retired][1] == [], "it is read")
        assert fake.result() is True
