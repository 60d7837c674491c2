"""Many threads, one client."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import List, Set, Tuple

from brokers import comes_true

from procbroker import Broker

NAMES = 20


def test_however_many_threads_race_there_is_one_child_of_a_name(broker: Broker) -> None:
    start = threading.Barrier(32)

    def race(thread: int) -> List[Tuple[str, str]]:
        start.wait()
        found = []
        for turn in range(50):
            name = f"racer-{(thread + turn) % NAMES}"
            child = broker.create(["sleep", "1000"], name=name, if_exists="reuse", stop=[])
            assert child.name == name
            assert child.outcome is not None
            found.append((child.id, child.outcome))
        return found

    with ThreadPoolExecutor(32) as threads:
        found = [pair for pairs in threads.map(race, range(32)) for pair in pairs]
    assert len(found) == 32 * 50
    created: Set[str] = {child for child, outcome in found if outcome == "created"}
    assert len(created) == NAMES
    assert sum(outcome == "created" for _, outcome in found) == NAMES
    assert {child for child, _ in found} == created == {child.id for child in broker.list()}


def test_a_long_wait_of_one_thread_holds_up_no_other(broker: Broker) -> None:
    child = broker.create(["sleep", "1000"])
    with ThreadPoolExecutor(20) as threads:
        waits = [threads.submit(broker.wait, child) for _ in range(20)]
        comes_true(lambda: broker.status().connections >= 20 + 1, "a connection for each wait and this one")
        assert broker.list() == [child]
        child.signal("KILL")
        assert {wait.result(30).returncode for wait in waits} == {-9}


def test_few_connections_are_kept(broker: Broker) -> None:
    start = threading.Barrier(30)

    def ask(_: int) -> None:
        start.wait()
        broker.status()

    with ThreadPoolExecutor(30) as threads:
        list(threads.map(ask, range(30)))
    # The others are closed: the broker comes to see that in its own time.
    comes_true(lambda: broker.status().connections <= 8, "eight connections")
