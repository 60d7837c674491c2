"""The application that the servers run: the client's Flask example as it stands, and what a test of a server needs.

It is imported by its name, with the example and the client in PYTHONPATH.
"""

from __future__ import annotations

import os
from typing import Any

import sums
from app import DATABASE, LEASES, app, broker, shown
from flask import Response

#: A job that needs 5 seconds to come to an end, as one that finishes a file: longer than Apache gives its own daemons.
SLOW = "trap 'sleep 5; echo saved >../saved; exit 3' TERM; echo at work; while :; do sleep 1000 & wait; done"


@app.post("/jobs/<key>/run")
def run(key: str) -> dict[str, Any]:
    """Start the job of a key, and answer when it has ended: a request that takes as long as the job lives."""
    command = [LEASES, "run", DATABASE, key, "sleep", "1000"]
    cleanup = [LEASES, "release", DATABASE, key]
    child = broker.create(command, name=f"job-{key}", labels={"app": "jobs", "key": key}, cleanup=cleanup)
    child.wait()
    return shown(child.refresh())


@app.put("/slow/<key>")
def slow(key: str) -> dict[str, Any]:
    """Start a job that needs 5 seconds for its end."""
    folder = DATABASE.parent / "scratch" / key
    child = broker.create(
        ["sh", "-c", f'mkdir -p "$0" && cd "$0" && {SLOW}', folder],
        name=f"job-{key}",
        labels={"app": "jobs", "key": key},
        stop=[("SIGTERM", 15)],
        cleanup=["sh", "-c", 'rm -r "$0" && echo "code $PROCBROKER_EXIT_CODE" >"$0.released"', folder],
    )
    return shown(child)


@app.post("/sum/<int:a>/<int:b>")
def summed(a: int, b: int) -> dict[str, Any]:
    """Let a process make a sum, and tell what it says beside what this worker would."""
    made = broker.process(sums.add, (a,), {"b": b}).result(timeout=60)
    return {"made": made, "here": sums.add(a, b)}


@app.get("/worker")
def worker() -> dict[str, Any]:
    """Take up a request of a worker, and nothing else."""
    return {}


@app.after_request
def signed(response: Response) -> Response:
    """Tell which process answers."""
    response.headers["X-Worker"] = str(os.getpid())
    return response


application = app
