"""The client's Django example as it stands: its views in the workers of gunicorn, and its management command."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import replace

from scene.kinds import GUNICORN_THREADS, Command, Settings
from scene.place import CLIENT, DJANGO, PATIENCE, VENV, Place
from scene.stage import under_the_broker

REQUESTS = 30
PATHS = {"PYTHONPATH": f"{DJANGO}:{CLIENT}"}


def _django(place: Place, settings: Settings, stack: ExitStack) -> Command:
    command = GUNICORN_THREADS.prepare(place, settings, stack)
    return replace(command, environment={**command.environment, **PATHS})


def typed(place: Place, *words: str) -> str:
    """Run the management command, and return what it says."""
    done = subprocess.run(
        [VENV / "bin/python", "app.py", "jobs", *words],
        cwd=DJANGO,
        env={**place.environment(), **PATHS},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_django_views_in_many_workers_share_one_job_with_the_management_command() -> None:
    kind = replace(GUNICORN_THREADS, name="django", prepare=_django)
    with under_the_broker(kind, Settings(module="app")) as stage:
        answers = stage.web.ask_at_once("PUT", ["/jobs/a"] * REQUESTS)
        assert sorted(answer.status for answer in answers) == [200] * (REQUESTS - 1) + [201]
        assert stage.web.ask("PUT", "/jobs/b").status == 201
        pids = stage.children()
        assert {answer.body["pid"] for answer in answers} == {pids["job-a"]}
        for name in ("job-a", "job-b"):
            stage.works(name)
        # The calls that came too late for a child of their own have left nothing.
        assert len(list(stage.place.jobs.glob("procbroker-*"))) == 2
        assert typed(stage.place) == f"job-a running {pids['job-a']}\njob-b running {pids['job-b']}\n"
        assert typed(stage.place, "--stop", "b") == f"job-a running {pids['job-a']}\n"
        assert stage.web.ask("GET", "/jobs").body == {
            "jobs": [{"name": "job-a", "state": "running", "pid": pids["job-a"]}]
        }
        assert stage.web.ask("DELETE", "/jobs/a").body["state"] == "ended"
        assert stage.web.ask("DELETE", "/jobs/nobody").status == 404
        assert list(stage.place.jobs.glob("procbroker-*")) == []
