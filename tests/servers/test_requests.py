"""Children of requests: one for a name, and no worker's own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scene.kinds import KINDS, Kind, Settings
from scene.place import PATIENCE
from scene.program import named
from scene.stage import Stage, under_the_broker

NAMES = 20
REQUESTS = 200
#: After how many requests a worker is recycled.
RECYCLED_AFTER = 20


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_200_parallel_requests_for_20_names_leave_20_children(kind: Kind) -> None:
    with under_the_broker(kind) as stage:
        keys = [str(number % NAMES) for number in range(REQUESTS)]
        answers = stage.web.ask_at_once("PUT", [f"/jobs/{key}" for key in keys])
        statuses = [answer.status for answer in answers]
        assert (statuses.count(201), statuses.count(200)) == (NAMES, REQUESTS - NAMES), set(statuses)
        if kind.recycles:
            assert len({answer.worker for answer in answers}) > 1, "one worker alone proves nothing"
        children = stage.children()
        assert {(f"job-{key}", answer.body["pid"]) for key, answer in zip(keys, answers, strict=True)} == set(
            children.items()
        )
        for name, pid in children.items():
            stage.works(name)
            assert named(stage.socket, name) == [pid]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.recycles], ids=str)
def test_a_function_of_the_application_runs_in_an_interpreter_of_its_own(kind: Kind) -> None:
    with under_the_broker(kind) as stage:
        answer = stage.web.ask("POST", "/sum/40/2")
        assert answer.status == 200
        made, here = answer.body["made"], answer.body["here"]
        assert (made["sum"], made["uid"], made["prefix"]) == (42, here["uid"], here["prefix"])
        assert [os.path.abspath(entry) for entry in made["path"]] == made["path"]
        assert len(made["path"]) == len(here["path"])
        assert here["pid"] == answer.worker
        assert made["pid"] != answer.worker


def create(stage: Stage) -> tuple[int, int]:
    """Start a job, and return its process and the worker's that was asked for it."""
    answer = stage.web.ask("PUT", "/jobs/kept")
    assert answer.status == 201
    assert answer.worker is not None
    stage.works("job-kept")
    return answer.body["pid"], answer.worker


def is_kept(stage: Stage, pid: int) -> None:
    """Hold that the job runs on, and that it is the one that is got when it is asked for again."""
    again = stage.web.ask("PUT", "/jobs/kept")
    assert (again.status, again.body["pid"], again.body["state"]) == (200, pid, "running")
    assert stage.children() == {"job-kept": pid}
    assert named(stage.socket, "job-kept") == [pid]
    assert os.path.isdir(stage.place.scratch / "kept")


def asked_until_gone(stage: Stage, worker: int) -> None:
    """Send requests until a worker has ended: each is answered, by that one or another."""
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{worker}").exists():
        assert stage.web.ask("GET", "/worker").status == 200
        assert time.monotonic() < deadline, f"worker {worker} is still there:\n{stage.program.output}"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.recycles], ids=str)
def test_a_child_outlives_its_request_and_a_recycled_worker(kind: Kind) -> None:
    with under_the_broker(kind, Settings(requests=RECYCLED_AFTER)) as stage:
        pid, worker = create(stage)
        asked_until_gone(stage, worker)
        is_kept(stage, pid)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.restart], ids=str)
def test_a_child_outlives_a_graceful_restart_of_the_server(kind: Kind) -> None:
    assert kind.restart is not None
    with under_the_broker(kind) as stage:
        pid, worker = create(stage)
        mark = stage.program.mark()
        os.kill(stage.main_pid, kind.restart)
        stage.program.says(kind.ready, mark, kind.ready_count)
        is_kept(stage, pid)
        asked_until_gone(stage, worker)
        is_kept(stage, pid)
