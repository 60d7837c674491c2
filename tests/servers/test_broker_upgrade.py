"""The broker replaces its own program while requests come in: nobody who uses the server notices."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from scene.kinds import KINDS, Kind
from scene.place import BROKER, PATIENCE
from scene.stage import Stage, under_the_broker
from scene.traffic import AT_ONCE, ROUNDS, Traffic, in_flight, is_the_only_one

#: Requests that wait for the end of a job all the while.
WAITING = [f"waits-{number}" for number in range(4)]


def upgrade(stage: Stage) -> None:
    """Replace the program of the broker, as one does by hand."""
    before = stage.broker.status()
    words = [BROKER, "--socket", stage.socket, "upgrade"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    after = stage.broker.status()
    assert (before.pid, before.instance) != (after.pid, after.instance), "another program has taken over"
    assert before.pid == after.pid, "it is the same process"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_request_succeeds_and_no_child_is_lost_or_started_twice(kind: Kind) -> None:
    with under_the_broker(kind) as stage, ThreadPoolExecutor(AT_ONCE + len(WAITING)) as threads:
        waiting = in_flight(stage, threads, WAITING)
        traffic = Traffic(stage, threads)
        for turn in range(ROUNDS):
            traffic.wait_for_round(turn)
            upgrade(stage)
        answers = traffic.answers()
        for key, told in answers.items():
            statuses = [answer.status for answer in told]
            assert (statuses.count(201), statuses.count(200)) == (1, len(told) - 1), statuses
            (pid,) = {answer.body["pid"] for answer in told}
            is_the_only_one(stage, key, pid)
        assert stage.children().keys() == {f"job-{key}" for key in (*answers, *waiting)}
        for key, answer in waiting.items():
            stage.broker.destroy(f"job-{key}")
            finished = answer.result(PATIENCE)
            assert (finished.status, finished.body["exit"], finished.body["cleaned_up"]) == (200, "destroyed", True)
