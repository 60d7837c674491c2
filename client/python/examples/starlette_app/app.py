"""The jobs of the Flask example as a Starlette application, with the asynchronous client.

In this folder, where procbroker's client, Starlette and uvicorn are installed:

procbroker serve --socket /tmp/jobs.sock --state-dir /tmp/jobs.state &
PROCBROKER_SOCKET=/tmp/jobs.sock JOBS=/tmp/jobs uvicorn --app-dir . app:app
curl -X PUT localhost:8000/jobs/a; curl localhost:8000/jobs; curl -X DELETE localhost:8000/jobs/a
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Dict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import procbroker

JOBS = Path(os.environ.get("JOBS", "/tmp/jobs")).resolve()
#: What a job does is not the matter here: it makes its folder, and works there until it is told to stop. It makes it,
#: and not the request: that could come while an earlier job of the same key is still being cleaned up.
WORK = ["sh", "-c", 'mkdir -p "$0" && cd "$0" && echo "{}" >lease.json && echo "at work in $PWD" && exec sleep 1000']
#: For a browser or a load balancer: whether new jobs are taken.
accepting = True

# Nothing is connected before the first call, and no event loop is needed yet.
broker = procbroker.AsyncBroker()


async def start(request: Request) -> JSONResponse:
    """Start the job of a key, unless it runs: however many workers are asked at once, there is one."""
    key = request.path_params["key"]
    folder = JOBS / key
    child = await broker.create(
        [*WORK, folder],
        name=f"job-{key}",
        if_exists="reuse",
        labels={"app": "jobs", "key": key},
        stop=[("SIGHUP", 10), ("SIGTERM", 5)],
        # Runs when the job and all that it has started are gone: by itself, by a crash, or with the broker.
        cleanup=["rm", "-rf", folder],
    )
    return JSONResponse(shown(child), 201 if child.outcome == "created" else 200)


async def jobs(_: Request) -> JSONResponse:
    """List the jobs that run, and the resources that are held."""
    children = await broker.list(labels={"app": "jobs"})
    leases = sorted(path.parent.name for path in JOBS.glob("*/lease.json"))
    return JSONResponse({"jobs": [shown(child) for child in children], "leases": leases, "accepting": accepting})


async def stop(request: Request) -> JSONResponse:
    """Stop the job of a key; its resource is released when this answers."""
    (child,) = await broker.destroy(f"job-{request.path_params['key']}")
    return JSONResponse(shown(child))


async def not_found(_: Request, error: Exception) -> JSONResponse:
    """Answer that there is no such job."""
    return JSONResponse({"error": str(error)}, 404)


async def unavailable(_: Request, error: Exception) -> JSONResponse:
    """Answer that no job can be started for now."""
    return JSONResponse({"error": str(error)}, 503)


def shown(child: procbroker.AsyncChild) -> Dict[str, Any]:
    """Return what a user of this application is told of a job."""
    return {
        "key": child.labels["key"],
        "state": child.state,
        "pid": child.pid,
        "outcome": child.outcome,
        "exit": child.exit.reason if child.exit else None,
        "cleaned_up": child.cleanup.ok if child.cleanup else None,
    }


def broker_shuts_down() -> None:
    """Take no new jobs: those that run are being stopped."""
    global accepting
    accepting = False


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Hear of the broker's shutdown for as long as the application runs."""
    async with broker:
        await broker.on_shutdown(broker_shuts_down)
        yield


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/jobs/{key}", start, methods=["PUT"]),
        Route("/jobs", jobs),
        Route("/jobs/{key}", stop, methods=["DELETE"]),
    ],
    exception_handlers={
        procbroker.NotFound: not_found,
        procbroker.ShuttingDown: unavailable,
        procbroker.BrokerUnavailable: unavailable,
    },
)
