#!/usr/bin/env python3
"""Background jobs without a queue server: submitted by any worker, looked at by any other.

In this folder, where procbroker's client is installed:

procbroker serve --socket /tmp/jobs.sock --state-dir /tmp/jobs.state & export PROCBROKER_SOCKET=/tmp/jobs.sock
python3 app.py submit letters count_letters "as many as these"; python3 app.py look letters
"""

from __future__ import annotations

import json
import sys
from typing import Any, Callable, Dict

import tasks

import procbroker

broker = procbroker.Broker()
#: How many jobs run at a time, in all workers together. What is over it is told so, and may come again.
AT_ONCE = 4


def submit(key: str, task: Callable[..., Any], *args: Any) -> Dict[str, Any]:
    """Start a job; the one of that key, if it still runs. Raises LimitExceeded when there are enough."""
    child = broker.process(
        task, args, name=f"job-{key}", if_exists="reuse", labels={"app": "jobs"}, limit=("jobs", AT_ONCE)
    )
    return {"key": key, "id": child.id, "is_new": child.outcome == "created"}


def look(key: str) -> Dict[str, Any]:
    """Tell how a job is, and what it has returned or raised. The broker remembers it for an hour."""
    try:
        child = broker.get(f"job-{key}")
    except procbroker.NotFound:
        return {"key": key, "state": "unknown"}
    if not child.ended:
        return {"key": key, "state": child.state, "log": child.logs(tail=1).text}
    try:
        return {"key": key, "state": "done", "result": child.result()}
    except procbroker.NoResult as error:
        return {"key": key, "state": "ended", "error": error.reason}
    except Exception as error:  # whatever the task has raised
        return {"key": key, "state": "failed", "error": f"{type(error).__name__}: {error}"}


def cancel(key: str) -> Dict[str, Any]:
    """End a job."""
    broker.destroy(f"job-{key}")
    return look(key)


if __name__ == "__main__":
    what, name, *words = sys.argv[1:]
    if what == "submit":
        print(json.dumps(submit(name, getattr(tasks, words[0]), *words[1:])))
    else:
        print(json.dumps({"look": look, "cancel": cancel}[what](name)))
