"""Jobs of a Flask application: started, listed and stopped by requests, in any number of workers.

In this folder, where procbroker's client and Flask are installed:

procbroker serve --socket /tmp/jobs.sock --state-dir /tmp/jobs.state &
PROCBROKER_SOCKET=/tmp/jobs.sock JOBS=/tmp/jobs flask --app app run
curl -X PUT localhost:5000/jobs/a; curl localhost:5000/jobs; curl -X DELETE localhost:5000/jobs/a
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Tuple

import leases
from flask import Flask

import procbroker

#: A program by itself: within a web server sys.executable need not be Python. In uWSGI it is uWSGI.
LEASES = Path(__file__).resolve().parent / "leases.py"
DATABASE = Path(os.environ.get("JOBS", "/tmp/jobs")).resolve() / "jobs.db"
#: What a job does is not the matter here: it works in its folder until it is told to stop.
WORK = ["sh", "-c", 'echo "at work in $PWD"; exec sleep 1000']

DATABASE.parent.mkdir(parents=True, exist_ok=True)
app = Flask(__name__)
# One for the whole process. It may be made before the server forks its workers.
broker = procbroker.Broker()


@app.put("/jobs/<key>")
def start(key: str) -> Tuple[Dict[str, Any], int]:
    """Start the job of a key, unless it runs: however many workers are asked at once, there is one."""
    child = broker.create(
        [LEASES, "run", DATABASE, key, *WORK],
        name=f"job-{key}",
        if_exists="reuse",
        labels={"app": "jobs", "key": key},
        stop=[("SIGHUP", 10), ("SIGTERM", 5)],
        # Runs when the job and all that it has started are gone: by itself, by a crash, or with the broker.
        cleanup=[LEASES, "release", DATABASE, key],
    )
    return shown(child), 201 if child.outcome == "created" else 200


@app.get("/jobs")
def jobs() -> Dict[str, Any]:
    """List the jobs that run, and the resources that are held."""
    return {
        "jobs": [shown(child) for child in broker.list(labels={"app": "jobs"})],
        "leases": leases.held(DATABASE),
    }


@app.delete("/jobs/<key>")
def stop(key: str) -> Dict[str, Any]:
    """Stop the job of a key; its resource is released when this answers."""
    (child,) = broker.destroy(f"job-{key}")
    return shown(child)


@app.errorhandler(procbroker.NotFound)
def not_found(error: procbroker.NotFound) -> Tuple[Dict[str, Any], int]:
    """Answer that there is no such job."""
    return {"error": str(error)}, 404


@app.errorhandler(procbroker.ShuttingDown)
@app.errorhandler(procbroker.BrokerUnavailable)
def unavailable(error: procbroker.ProcbrokerError) -> Tuple[Dict[str, Any], int]:
    """Answer that no job can be started for now."""
    return {"error": str(error)}, 503


def shown(child: procbroker.Child) -> Dict[str, Any]:
    """Return what a user of this application is told of a job."""
    return {
        "key": child.labels["key"],
        "state": child.state,
        "pid": child.pid,
        "outcome": child.outcome,
        "exit": child.exit.reason if child.exit else None,
        "cleaned_up": child.cleanup.ok if child.cleanup else None,
    }
