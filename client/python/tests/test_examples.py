"""The example applications, with a real broker."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from brokers import PATIENCE, RealBroker

import procbroker

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str, own: RealBroker, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an application with its settings in the environment."""
    monkeypatch.setenv("PROCBROKER_SOCKET", own.socket)
    monkeypatch.setenv("JOBS", str(own.folder / "jobs"))
    monkeypatch.syspath_prepend(str(EXAMPLES / name))
    monkeypatch.setenv("PROCBROKER_HANDOVER", str(own.folder))
    for module_name in ("leases", "tasks"):
        monkeypatch.delitem(sys.modules, module_name, raising=False)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / name / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_flask_application(own: RealBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = load("flask_app", own, monkeypatch)
    with module.broker, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: module.app.test_client().put("/jobs/a"), range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
        assert len({answer.json["pid"] for answer in answers}) == 1
        assert "at work" in (module.broker.follow("job-a").next(PATIENCE) or "")
        client = module.app.test_client()
        listed = client.get("/jobs").json
        assert [job["key"] for job in listed["jobs"]] == ["a"]
        folder = Path(listed["leases"]["a"])
        assert folder.is_dir()
        stopped = client.delete("/jobs/a").json
        assert (stopped["state"], stopped["exit"], stopped["cleaned_up"]) == ("ended", "destroyed", True)
        assert client.get("/jobs").json == {"jobs": [], "leases": {}}
        assert not folder.exists()
        assert client.delete("/jobs/nobody").status_code == 404
        client.put("/jobs/b")
        assert "at work" in (module.broker.follow("job-b").next(PATIENCE) or "")
        own.stop()
        assert module.leases.held(module.DATABASE) == {}


def first_line(broker: procbroker.Broker, name: str) -> str:
    """Wait for the first whole line that a child writes."""
    text = ""
    with broker.follow(name) as follow:
        while not text.endswith("\n"):
            text += follow.next(PATIENCE) or ""
    return text


@pytest.mark.parametrize("name", ["django_app", "background_jobs"])
def test_a_recipe_is_short(name: str) -> None:
    files = list((EXAMPLES / name).rglob("*.py"))
    assert 0 < sum(len(file.read_text().splitlines()) for file in files) <= 80


def run(name: str, *arguments: str) -> str:
    """Run an example as a program, as its first lines say."""
    done = subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=EXAMPLES / name,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_django_project(own: RealBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    testing = pytest.importorskip("django.test")
    module: Any = load("django_app", own, monkeypatch)
    assert callable(module.application)
    client = testing.Client()
    with procbroker.Broker() as broker:
        first, again = client.put("/jobs/a"), client.put("/jobs/a")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["pid"] == again.json()["pid"]
        assert first_line(broker, "job-a") == "at work on a\n"
        assert [job["name"] for job in client.get("/jobs").json()["jobs"]] == ["job-a"]
        assert client.delete("/jobs/a").json()["state"] == "ended"
        assert client.get("/jobs").json() == {"jobs": []}
        assert client.delete("/jobs/nobody").status_code == 404
        started = client.put("/jobs/b").json()
        client.put("/jobs/c")
        assert run("django_app", "jobs", "--stop", "c") == f"job-b running {started['pid']}\n"
        own.stop()
        assert client.put("/jobs/b").status_code == 503
    sys.modules["jobs.views"].broker.close()


def test_background_jobs_without_a_queue_server(own: RealBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = load("background_jobs", own, monkeypatch)
    with module.broker:
        # Submitted by one process, looked at by another.
        told = json.loads(run("background_jobs", "submit", "letters", "count_letters", "as many as these"))
        assert told["is_new"] is True
        module.broker.wait("job-letters", timeout=PATIENCE)
        assert module.look("letters") == {"key": "letters", "state": "done", "result": 13}
        assert module.look("nobody") == {"key": "nobody", "state": "unknown"}
        module.submit("broken", module.tasks.count_letters, 7)
        module.broker.wait("job-broken", timeout=PATIENCE)
        failed = module.look("broken")
        assert failed["state"] == "failed"
        assert failed["error"].startswith("AttributeError")
        jobs = [module.submit(f"long-{number}", module.tasks.wait_for_ever) for number in range(module.AT_ONCE)]
        assert module.submit("long-0", module.tasks.wait_for_ever) == {**jobs[0], "is_new": False}
        with pytest.raises(procbroker.LimitExceeded):
            module.submit("one-more", module.tasks.wait_for_ever)
        assert first_line(module.broker, "job-long-0") == "waiting\n"
        assert module.look("long-0") == {"key": "long-0", "state": "running", "log": "waiting\n"}
        assert json.loads(run("background_jobs", "cancel", "long-0"))["state"] == "ended"
        assert module.submit("one-more", module.tasks.wait_for_ever)["is_new"]


def test_the_starlette_application(own: RealBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    testing = pytest.importorskip("starlette.testclient")
    module: Any = load("starlette_app", own, monkeypatch)
    told = threading.Event()
    shuts_down = module.broker_shuts_down

    def tell() -> None:
        shuts_down()
        told.set()

    monkeypatch.setattr(module, "broker_shuts_down", tell)
    with testing.TestClient(module.app) as client, procbroker.Broker() as broker:
        first = client.put("/jobs/a")
        again = client.put("/jobs/a")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["pid"] == again.json()["pid"]
        assert "at work" in (broker.follow("job-a").next(PATIENCE) or "")
        listed = client.get("/jobs").json()
        assert ([job["key"] for job in listed["jobs"]], listed["leases"], listed["accepting"]) == (["a"], ["a"], True)
        stopped = client.delete("/jobs/a").json()
        assert (stopped["state"], stopped["exit"], stopped["cleaned_up"]) == ("ended", "destroyed", True)
        listed = client.get("/jobs").json()
        assert (listed["jobs"], listed["leases"]) == ([], [])
        assert client.delete("/jobs/nobody").status_code == 404
        client.put("/jobs/b")
        assert "at work" in (broker.follow("job-b").next(PATIENCE) or "")
        assert (own.folder / "jobs/b/lease.json").exists()
        own.stop()
        assert not (own.folder / "jobs/b").exists()
        assert told.wait(PATIENCE)
        assert module.accepting is False
