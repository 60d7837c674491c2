"""The example applications, with a real broker."""

from __future__ import annotations

import importlib.util
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
    monkeypatch.delitem(sys.modules, "leases", raising=False)
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
