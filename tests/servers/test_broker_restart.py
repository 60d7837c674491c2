"""The broker dies and comes back while requests come in."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from scene.kinds import KINDS, Kind
from scene.stage import beside_a_broker, serving
from scene.traffic import AT_ONCE, ROUNDS, Traffic, is_the_only_one
from scene.web import Answer


def started(answer: Answer) -> set[int]:
    """Return the process that an answer is about, if any; it is a success, or an error that says what is the matter."""
    if answer.status == 503:
        assert "broker" in answer.body["error"]
        return set()
    assert answer.status in (200, 201), answer
    assert answer.body["pid"] is not None, f"a success is about a job that runs: {answer}"
    return {answer.body["pid"]}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_handlers_go_on_by_themselves_and_no_child_is_started_twice(kind: Kind) -> None:
    with beside_a_broker(kind) as stage, ThreadPoolExecutor(AT_ONCE) as threads, ExitStack() as stack:
        broker = stack.enter_context(serving(stage.place))
        traffic = Traffic(stage, threads)
        for turn in range(ROUNDS):
            traffic.wait_for_round(turn)
            broker.signal(signal.SIGKILL)
            assert broker.ended() == -signal.SIGKILL
            broker = stack.enter_context(serving(stage.place))
        answers = traffic.answers()
        for key, told in answers.items():
            again = stage.web.ask("PUT", f"/jobs/{key}")
            assert again.status in (200, 201)
            assert set().union(*map(started, told)) <= {again.body["pid"]}
            is_the_only_one(stage, key, again.body["pid"])
        assert stage.children().keys() == {f"job-{key}" for key in answers}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_without_a_broker_handlers_say_so_until_it_is_there(kind: Kind) -> None:
    with beside_a_broker(kind) as stage:
        with serving(stage.place) as broker:
            assert stage.web.ask("PUT", "/jobs/a").status == 201
            broker.signal(signal.SIGTERM)
            assert broker.ended() == 0
        answer = stage.web.ask("PUT", "/jobs/a")
        assert answer.status == 503
        assert str(stage.socket) in answer.body["error"]
        with serving(stage.place):
            assert stage.web.ask("PUT", "/jobs/a").status == 201
