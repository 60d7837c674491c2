"""A real broker that is killed, and started again: children and calls live on."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from brokers import PATIENCE, RealBroker, comes_true

from procbroker import Broker, ChildEvent

FOREVER = ["sleep", "1000"]


def test_a_child_and_a_wait_for_it_outlive_the_broker(own: RealBroker) -> None:
    with ThreadPoolExecutor(2) as threads, Broker(own.socket, connect_timeout=PATIENCE) as broker:
        child = broker.create(FOREVER, name="one")
        waits = [threads.submit(broker.wait, child), threads.submit(broker.wait, "one")]
        # Both waits, beside this connection's own, are with the broker when it dies.
        comes_true(lambda: broker.status().connections >= 3, "three connections")
        own.crash()
        own.start()
        found = broker.create(FOREVER, name="one", if_exists="reuse")
        assert (found, found.outcome, found.pid) == (child, "existing", child.pid)
        child.signal(signal.SIGTERM)
        ended = [wait.result(PATIENCE).exit for wait in waits]
        assert ended[0] == ended[1]
        assert ended[0] is not None
        assert ended[0].signal == "SIGTERM" or ended[0].unknown


def test_a_request_id_is_known_after_a_crash(own: RealBroker) -> None:
    request = "67e55044-10b1-426f-9247-bb680e5fe0c8"
    with Broker(own.socket, connect_timeout=PATIENCE) as broker:
        first = broker.create(FOREVER, request_id=request)
        own.crash()
        own.start()
        assert broker.create(FOREVER, request_id=request) == first
        assert broker.list() == [first]


def test_events_go_on_after_a_crash(own: RealBroker) -> None:
    with Broker(own.socket, connect_timeout=PATIENCE) as broker, broker.events() as events:
        before = broker.create(FOREVER)
        own.crash()
        own.start()
        after = broker.create(FOREVER)
        created = []
        while after not in created:
            event = events.next(timeout=PATIENCE)
            if isinstance(event, ChildEvent) and event.kind == "created":
                created.append(event.child)
        assert created in ([before, after], [after])


def test_a_cleanup_runs_once_though_the_broker_died(own: RealBroker, folder: Path) -> None:
    with Broker(own.socket, connect_timeout=PATIENCE) as broker:
        child = broker.create(FOREVER, cleanup=["sh", "-c", f"echo $PROCBROKER_EXIT_REASON >>{folder}/cleaned"])
        own.crash()
        own.start()
        child.destroy()
        assert (folder / "cleaned").read_text() == "destroyed\n"
        assert child.cleanup is not None
        assert (child.cleanup.ok, child.cleanup.code, child.cleanup.attempts) == (True, 0, 1)
