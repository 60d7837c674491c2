"""Requests that are under way while something happens to the broker or the server."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from procbroker import ChildEvent

from .place import PATIENCE
from .program import named
from .stage import Stage
from .web import Answer

#: How many requests are under way at a time.
AT_ONCE = 30
#: Requests come in rounds, each for names of its own, of which there are so many.
ROUNDS, REQUESTS, NAMES = 3, 100, 15
#: After how many answers of a round something happens: while the first children of it are being started.
FIRST_ANSWERS = 3


class Traffic:
    """Requests for jobs, a number of them at a time, whose answers are counted."""

    def __init__(self, stage: Stage, threads: ThreadPoolExecutor) -> None:
        """Begin to send them."""
        self._changed = threading.Condition()
        self._count = 0
        self._keys = [f"{turn}-{number % NAMES}" for turn in range(ROUNDS) for number in range(REQUESTS)]
        self._futures = [threads.submit(stage.web.ask, "PUT", f"/jobs/{key}") for key in self._keys]
        for future in self._futures:
            future.add_done_callback(self._done)

    def _done(self, _: Future[Answer]) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for_round(self, turn: int) -> None:
        """Wait until the first requests of a round are answered."""
        count = turn * REQUESTS + FIRST_ANSWERS
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, PATIENCE), f"{self._count} answers"

    def answers(self) -> dict[str, list[Answer]]:
        """Wait for all answers, and return those of each job."""
        answers: defaultdict[str, list[Answer]] = defaultdict(list)
        for key, future in zip(self._keys, self._futures, strict=True):
            answers[key].append(future.result(PATIENCE))
        return answers


def in_flight(stage: Stage, threads: ThreadPoolExecutor, keys: Iterable[str]) -> dict[str, Future[Answer]]:
    """Send requests that take as long as a job lives, and return when all these jobs run."""
    with stage.broker.events() as events:
        answers = {key: threads.submit(stage.web.ask, "POST", f"/jobs/{key}/run") for key in keys}
        awaited = {f"job-{key}" for key in keys}
        while awaited:
            event = events.next(PATIENCE)
            assert isinstance(event, ChildEvent), f"none of {awaited} is ready, but {event}"
            if event.kind == "ready":
                awaited.discard(str(event.child.name))
        return answers


def is_the_only_one(stage: Stage, key: str, pid: int) -> None:
    """Hold that the job of a key runs, and that it was started once: nobody else ever was, or is, of its name."""
    stage.works(f"job-{key}")
    assert named(stage.socket, f"job-{key}") == [pid], f"job-{key} was started once"
