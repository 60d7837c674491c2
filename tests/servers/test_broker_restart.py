"""The broker dies and comes back while requests come in."""

from __future__ import annotations

import signal
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from scene.kinds import KINDS, Kind
from scene.place import PATIENCE
from scene.program import named
from scene.stage import Stage, beside_a_broker, serving
from scene.web import Answer

AT_ONCE = 30
#: Requests come in rounds, each for names of its own, of which there are so many.
ROUNDS, REQUESTS, NAMES = 3, 100, 15
#: After how many answers of a round the broker is killed: while the first children of it are being started.
KILLED_AFTER = 3


class Answers:
    """Requests for jobs, a number of them at a time, whose answers are counted."""

    def __init__(self, stage: Stage, threads: ThreadPoolExecutor) -> None:
        """Begin to send them."""
        self._changed = threading.Condition()
        self._count = 0
        self.keys = [f"{turn}-{number % NAMES}" for turn in range(ROUNDS) for number in range(REQUESTS)]
        self.futures = [threads.submit(stage.web.ask, "PUT", f"/jobs/{key}") for key in self.keys]
        for future in self.futures:
            future.add_done_callback(self._done)

    def _done(self, _: Future[Answer]) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests are answered."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, PATIENCE), f"{self._count} answers"


def started(answer: Answer) -> set[int]:
    """Return the process that an answer is about, if any; it is a success, or an error that says what is the matter."""
    if answer.status == 503:
        assert "broker" in answer.body["error"]
        return set()
    assert answer.status in (200, 201), answer
    if answer.body["pid"] is None:
        # The broker died right before the child would have executed its program, and the next one says that it ended.
        assert answer.body["exit"] == "exited", answer
        return set()
    return {answer.body["pid"]}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_handlers_go_on_by_themselves_and_no_child_is_started_twice(kind: Kind) -> None:
    with beside_a_broker(kind) as stage, ThreadPoolExecutor(AT_ONCE) as threads, ExitStack() as stack:
        broker = stack.enter_context(serving(stage.place))
        answers = Answers(stage, threads)
        for turn in range(ROUNDS):
            answers.wait_for(turn * REQUESTS + KILLED_AFTER)
            broker.signal(signal.SIGKILL)
            assert broker.ended() == -signal.SIGKILL
            broker = stack.enter_context(serving(stage.place))
        found: defaultdict[str, set[int]] = defaultdict(set)
        for key, future in zip(answers.keys, answers.futures, strict=True):
            found[key] |= started(future.result(PATIENCE))
        for key in sorted(found):
            again = stage.web.ask("PUT", f"/jobs/{key}")
            assert again.status in (200, 201)
            stage.works(f"job-{key}")
            assert found[key] | {again.body["pid"]} == set(named(stage.socket, f"job-{key}")), "started once"
        assert stage.children().keys() == {f"job-{key}" for key in found}


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
