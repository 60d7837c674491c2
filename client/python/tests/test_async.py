"""The asynchronous client, with the real broker and with one that does what the test says."""

from __future__ import annotations

import asyncio
import inspect
import signal
import socket
import threading
from typing import Any, Awaitable, Callable, List, TypeVar

import pytest
from brokers import KEEP, PATIENCE, STATUS, FakeBroker, FakeConnection, RealBroker, child
from test_events import event, seqs, tell

import procbroker
from procbroker import AsyncBroker, AsyncChild, Broker, Child, ClientTimeout, NameTaken, TimedOut
from procbroker.async_waiting import run_async
from procbroker.waiting import Deadline, Readable, Steps

T = TypeVar("T")
FOREVER = ["sleep", "1000"]


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function to its end, in time."""

    async def limited() -> T:
        return await asyncio.wait_for(main(), PATIENCE * 2)

    return asyncio.run(limited(), debug=True)


def test_a_childs_life(broker: Broker) -> None:
    async def main() -> None:
        async with AsyncBroker(broker.socket) as client:
            child = await client.create(FOREVER, name="one", stop=[("SIGHUP", 10)], labels={"a": "b"})
            assert isinstance(child, AsyncChild)
            assert (child.outcome, child.state) == ("created", "running")
            again = await client.create(FOREVER, name="one", if_exists="reuse", stop=[("SIGHUP", 10)])
            assert (again.outcome, again.same_spec, again) == ("existing", False, child)
            with pytest.raises(NameTaken):
                await client.create(FOREVER, name="one")
            with pytest.raises(TimedOut):
                await child.wait(timeout=0.01)
            assert await child.poll() is None
            assert await client.list(labels={"a": "b"}) == [child] == await client.list()
            assert (await client.get("one")).pid == (await child.wait_ready()).pid == (await child.refresh()).pid
            assert (await client.status()).children["running"] == 1
            await child.destroy()
            assert child.returncode == -signal.SIGHUP
            assert await child.wait() == -signal.SIGHUP
            async with await client.create(FOREVER) as other:
                await other.signal("KILL")
                assert (await client.wait(other)).returncode == -signal.SIGKILL
            assert await client.destroy(all=True) == []

    run(main)


def test_many_tasks_race_and_one_child_of_a_name_comes_of_it(broker: Broker) -> None:
    async def main() -> None:
        async with AsyncBroker(broker.socket) as client:
            calls = [client.create(FOREVER, name=f"n{i % 20}", if_exists="reuse", stop=[]) for i in range(400)]
            children = await asyncio.gather(*calls)
            assert len(set(children)) == 20
            assert sum(child.outcome == "created" for child in children) == 20
            waits = [asyncio.ensure_future(child.wait()) for child in children[:20]]
            assert len(await client.list()) == 20
            await client.destroy(all=True)
            assert await asyncio.gather(*waits) == [-9] * 20

    run(main)


def test_a_cancelled_call_ends_its_connection_and_no_other(fake: FakeBroker) -> None:
    heard = threading.Event()

    def play(connection: FakeConnection) -> bool:
        connection.request()
        heard.set()
        return connection.gone()

    fake.play(play, lambda connection: connection.answer({"children": []}))

    async def main() -> None:
        async with AsyncBroker(fake.socket) as client:
            wait = asyncio.ensure_future(client.wait("one"))
            await asyncio.get_running_loop().run_in_executor(None, heard.wait, PATIENCE)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
            assert fake.result() is True
            assert await client.list() == []

    run(main)


def test_no_answer_in_time(fake: FakeBroker) -> None:
    fake.play(lambda connection: [connection.request(), connection.gone()])

    async def main() -> None:
        async with AsyncBroker(fake.socket, timeout=0.02) as client:
            with pytest.raises(ClientTimeout, match="list"):
                await client.list()

    run(main)


def test_one_client_serves_one_loop_after_another(broker: Broker) -> None:
    client = AsyncBroker(broker.socket)

    async def main() -> str:
        return (await client.status()).instance

    assert run(main) == run(main)
    run(client.close)


def test_a_lost_connection_is_made_again(own: RealBroker) -> None:
    async def main() -> None:
        async with AsyncBroker(own.socket, connect_timeout=PATIENCE) as client:
            before = await client.status()
            own.kill()
            asked = asyncio.ensure_future(client.status())
            await asyncio.get_running_loop().run_in_executor(None, own.start)
            assert (await asked).instance != before.instance

    run(main)


def test_events_are_iterated_over(fake: FakeBroker) -> None:
    fake.play(tell(7, event(7), event(8)), tell(9, event(9, "shutting_down"), then=KEEP))

    async def main() -> List[Any]:
        found = []
        async with AsyncBroker(fake.socket) as client, client.events(since=7) as events:
            assert fake.result()["since"] == 7
            async for one in events:
                found.append(one)
                if one.kind == "ended":
                    assert isinstance(one.child, AsyncChild)
                if one.kind == "shutting_down":
                    break
            with pytest.raises(ClientTimeout):
                await events.next(timeout=0.01)
            events.close()
            assert await events.next() is None
        return found

    assert seqs(run(main)) == [7, 8, 9]


def test_a_cancelled_reader_loses_no_event(fake: FakeBroker) -> None:
    go = threading.Event()

    def play(connection: FakeConnection) -> object:
        connection.subscribe(1)
        assert go.wait(PATIENCE)
        connection.notify("event", **event(1))
        return KEEP

    fake.play(play)

    async def main() -> None:
        async with AsyncBroker(fake.socket) as client, client.events() as events:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(events.next(), 0.01)
            go.set()
            assert seqs([await events.next(timeout=PATIENCE)]) == [1]

    run(main)


def test_a_log_is_followed(fake: FakeBroker) -> None:
    def play(connection: FakeConnection) -> None:
        connection.answer({"child": child()})

    def log(connection: FakeConnection) -> None:
        connection.answer({"text": "one\n", "truncated": False, "subscription": 1})
        connection.notify("log", stream="stdout", text="two\n", ended=True)

    fake.play(play, log)

    async def main() -> List[str]:
        async with AsyncBroker(fake.socket) as client:
            return [piece async for piece in (await client.get("one")).follow()]

    assert run(main) == ["one\n", "two\n"]


@pytest.mark.parametrize("already", [False, True])
def test_a_worker_is_told_of_a_shutdown(fake: FakeBroker, already: bool) -> None:
    def play(connection: FakeConnection) -> object:
        connection.subscribe(1)
        if already:
            connection.answer({**STATUS, "shutting_down": True})
        else:
            connection.notify("event", **event(1))
            connection.answer(STATUS)
            connection.notify("event", **event(2, "shutting_down"))
        return KEEP

    fake.play(play)

    async def main() -> None:
        over = asyncio.Event()

        async def callback() -> None:
            over.set()

        async with AsyncBroker(fake.socket) as client:
            await client.on_shutdown(callback)
            await over.wait()

    run(main)


def test_a_cancelled_watch_ends_its_subscription(fake: FakeBroker) -> None:
    fake.play(lambda connection: [connection.subscribe(1), connection.request(), connection.gone()][2])

    async def main() -> None:
        async with AsyncBroker(fake.socket) as client:
            watch = await client.on_shutdown(lambda: pytest.fail("it was told"))
            watch.cancel()
            assert await asyncio.get_running_loop().run_in_executor(None, fake.result) is True

    run(main)


@pytest.mark.parametrize(("blocking", "asynchronous"), [(Broker, AsyncBroker), (Child, AsyncChild)])
def test_both_clients_offer_the_same(blocking: type, asynchronous: type) -> None:
    def methods(kind: type) -> Any:
        return {
            name: list(inspect.signature(member).parameters.values())
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    def plain(parameters: Any) -> Any:
        return {
            name: [(one.name, one.kind, one.default, str(one.annotation).replace("Async", "")) for one in several]
            for name, several in parameters.items()
        }

    assert plain(methods(blocking)) == plain(methods(asynchronous))


def test_everything_public_has_a_docstring() -> None:
    for name in procbroker.__all__:
        thing = getattr(procbroker, name)
        if isinstance(thing, type):
            assert thing.__doc__, name
            for member, value in inspect.getmembers(
                thing, lambda one: inspect.isfunction(one) or isinstance(one, property)
            ):
                if not member.startswith("_"):
                    assert value.__doc__, f"{name}.{member}"


def test_closing_while_a_lost_subscription_is_made_again_ends_the_loop(fake: FakeBroker) -> None:
    lost = threading.Event()

    def never_answer(connection: FakeConnection) -> bool:
        connection.request()
        lost.set()
        return connection.gone()

    fake.play(tell(1), never_answer, never_answer)

    async def main() -> None:
        async with AsyncBroker(fake.socket, timeout=PATIENCE * 4) as client:
            async with client.events() as events:
                reading = asyncio.ensure_future(events.next())
                await asyncio.get_running_loop().run_in_executor(None, lost.wait, PATIENCE)
                events.close()
                assert await reading is None
            # One that is closed before it was ever open ends, too.
            never_open = client.events()
            never_open.close()
            assert [event async for event in never_open] == []

    run(main)


def test_what_is_there_already_takes_no_turn_of_the_event_loop() -> None:
    ours, theirs = socket.socketpair()

    def steps(times: int) -> Steps[str]:
        for _ in range(times):
            yield Readable(ours, Deadline(PATIENCE))
        return "read"

    async def main() -> None:
        turns: List[str] = []
        asyncio.get_running_loop().call_soon(turns.append, "turn")
        theirs.send(b"{")
        assert await run_async(steps(3)) == "read"
        assert turns == []
        ours.recv(1)
        waiting = asyncio.ensure_future(run_async(steps(1)))
        await asyncio.sleep(0)
        assert turns == ["turn"]
        assert not waiting.done()
        theirs.close()
        assert await waiting == "read"

    run(main)
    ours.close()


def test_an_announced_shutdown_makes_calls_fail_at_once(own: RealBroker) -> None:
    async def main() -> None:
        async with AsyncBroker(own.socket, connect_timeout=PATIENCE * 4) as client:
            told = asyncio.Event()
            await client.on_shutdown(told.set)
            await asyncio.get_running_loop().run_in_executor(None, own.stop)
            await told.wait()
            with pytest.raises(procbroker.BrokerUnavailable, match="as it had announced"):
                await client.list()
            await asyncio.get_running_loop().run_in_executor(None, own.start)
            assert await client.list() == []

    run(main)
