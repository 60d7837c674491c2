"""Children and clients that travel between processes, and what cannot."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
from brokers import KEEP, PATIENCE, FakeBroker
from test_events import tell

from procbroker import AsyncBroker, Broker, Child


def test_a_child_travels_to_another_process_by_its_id(broker: Broker) -> None:
    child = broker.create(["sleep", "1000"], name="one", if_exists="reuse")
    script = (
        "import pickle, sys; child = pickle.load(sys.stdin.buffer); "
        "print(child.outcome, child.name, child.refresh().pid, child.destroy().returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(child), capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.stdout, done.stderr) == (f"created one {child.pid} -15\n".encode(), b"")
    assert child.refresh().ended


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda child: pickle.loads(pickle.dumps(child))])
def test_a_copy_of_a_child_is_the_same_child_as_another_snapshot(broker: Broker, duplicate: Any) -> None:
    child = broker.create(["sleep", "1000"], name="one", if_exists="reuse")
    child = broker.create(["sleep", "1000"], name="one", if_exists="reuse")
    other: Child = duplicate(child)
    other_client = other._broker
    assert other is not child
    assert other == child
    assert (other.raw, other.outcome, other.same_spec) == (child.raw, "existing", True)
    child.destroy()
    assert not other.ended
    assert other.refresh().ended
    if other_client is not broker:
        other_client.close()


def test_a_copy_of_a_child_keeps_its_client_and_a_pickled_one_finds_its_broker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCBROKER_SOCKET", broker.socket)
    with Broker(timeout=7) as client:
        child = client.create(["sleep", "1000"])
        assert copy.copy(child)._broker is client
        assert copy.deepcopy([child, child])[1]._broker is client
        words = pickle.dumps(child)
        monkeypatch.setenv("PROCBROKER_SOCKET", "/elsewhere")
        loaded = pickle.loads(words)
        assert loaded._broker.socket == broker.socket
        assert loaded.refresh() == child
        loaded._broker.close()


def test_a_copy_of_a_client_has_its_settings_and_connections_of_its_own(broker: Broker) -> None:
    client = Broker(broker.socket, timeout=7)
    client.status()
    for other in (pickle.loads(pickle.dumps(client)), copy.copy(client), copy.deepcopy(client)):
        assert (other.socket, other._settings) == (client.socket, client._settings)
        other.status()
        other.close()
    assert client.list() == []
    client.close()


def test_an_asynchronous_child_travels_too(broker: Broker) -> None:
    async def main() -> None:
        async with AsyncBroker(broker.socket) as client:
            child = await client.create(["sleep", "1000"])
            for other in (copy.copy(child), copy.deepcopy(child), pickle.loads(pickle.dumps(child))):
                assert (await other.refresh()) == child
            await other._broker.close()
            assert copy.copy(client).socket == client.socket

    asyncio.run(main())


def test_values_and_events_travel(broker: Broker) -> None:
    with broker.events() as events:
        child = broker.create(["true"])
        event = events.next(timeout=PATIENCE)
        child.wait()
        for value in (event, child.exit, broker.status()):
            assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)


def test_what_belongs_to_a_process_says_that_it_cannot_travel(fake: FakeBroker) -> None:
    fake.play(*[tell(1, then=KEEP)] * 2)
    with Broker(fake.socket) as broker, broker.events() as events:
        watch = broker.on_shutdown(lambda: None)
        for thing in (events, watch, AsyncBroker(fake.socket).events()):
            with pytest.raises(TypeError, match=r"of this process|belongs to this process"):
                pickle.dumps(thing)
            with pytest.raises(TypeError, match=r"of this process|belongs to this process"):
                copy.copy(thing)
