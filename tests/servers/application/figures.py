"""What a request handler pays for a child and for a list of many, told by the handler itself."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import procbroker
from flask import Flask

SLEEP = ["/bin/sleep", "1000"]
TURNS = 21

app = application = Flask(__name__)
broker = procbroker.Broker()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long it took, in milliseconds, and what came of it."""
    began = time.perf_counter()
    made = work()
    return (time.perf_counter() - began) * 1000, made


@app.post("/pair")
def pair() -> dict[str, float]:
    """Start a child in both ways, and tell what each took; neither outlives the request."""
    popen, process = timed(lambda: subprocess.Popen(SLEEP, start_new_session=True))
    process.kill()
    process.wait()
    create, child = timed(lambda: broker.create(SLEEP))
    child.destroy(stop=[])
    return {"popen": popen, "create": create}


@app.post("/fill/<int:count>")
def fill(count: int) -> dict[str, int]:
    """Start so many children."""
    for _ in range(count):
        broker.create(SLEEP)
    return {"children": len(broker.list())}


@app.get("/list")
def listed() -> dict[str, Any]:
    """Ask for the list of all children, and look after each by oneself, a number of times; tell the medians."""
    pids = [child.pid for child in broker.list()]

    def looked_after() -> list[bytes]:
        return [Path(f"/proc/{pid}/stat").read_bytes() for pid in pids]

    turns = [(timed(broker.list)[0], timed(looked_after)[0]) for _ in range(TURNS)]
    asked, looked = (statistics.median(times) for times in zip(*turns, strict=True))
    return {"list": asked, "look": looked, "children": len(pids)}
