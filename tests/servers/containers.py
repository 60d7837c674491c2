"""The images of client/python/examples/docker, started, used and stopped as containers; run by ./container."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from scene.place import PATIENCE
from scene.program import Program

#: The words of docker or podman, and those that start a container.
TOOL = os.environ["CONTAINER_COMMAND"].split()
RUN = os.environ["CONTAINER_RUN"].split()
#: What the Dockerfiles tell people to give `docker stop`, in seconds.
STOP_TIMEOUT_S = 70
#: A request from within the container, which has no network but its own.
ASK = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
connection.request(*sys.argv[2:])
answer = connection.getresponse()
print(json.dumps([answer.status, json.load(answer)]))
"""


@dataclass(frozen=True)
class Image:
    """One of the two images."""

    kind: str
    port: int
    #: Who handlers and children work as.
    user: str
    #: What the server says, and how often, when it takes requests.
    ready: str
    ready_count: int

    def __str__(self) -> str:
        """Return its name, for the names of tests."""
        return self.kind


IMAGES = [
    Image("apache", 80, "www-data", "resuming normal operations", 1),
    Image("gunicorn", 8000, "jobs", "Booting worker", 3),
]


def tool(*words: str) -> str:
    """Run docker or podman, and return what it prints."""
    done = subprocess.run([*TOOL, *words], capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Container:
    """A container that a test has started, with volumes of its own."""

    image: Image
    name: str

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Send a request, and return the status and the body."""
        status, body = json.loads(self.run("python3", "-c", ASK, str(self.image.port), method, path))
        return status, body

    def run(self, *words: str) -> str:
        """Run a program in it, and return what it prints."""
        return tool("exec", self.name, *words)

    def log(self) -> Program:
        """Return its log, which is followed up to its end, from its first start on."""
        return Program([*TOOL, "logs", "--follow", self.name], os.environ)

    def is_ready(self, start: int = 1) -> None:
        """Wait until the server takes requests, at its so-manieth start."""
        with self.log() as log:
            log.says(self.image.ready, count=self.image.ready_count * start)

    def says(self, pattern: str) -> None:
        """Wait for a line of its log."""
        with self.log() as log:
            log.says(pattern)


@pytest.fixture(params=IMAGES, ids=str)
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    """Give a container whose server takes requests."""
    image = request.param
    started = Container(image, f"procbroker-test-{uuid.uuid4().hex[:12]}")
    volumes = [f"{started.name}-{what}" for what in ("jobs", "broker")]
    places = ["/var/lib/jobs", "/var/lib/procbroker"]
    flags = ["--detach", "--name", started.name, "--network", "none", "--stop-timeout", str(STOP_TIMEOUT_S)]
    for volume, place in zip(volumes, places, strict=True):
        flags += ["--volume", f"{volume}:{place}"]
    tool(*RUN, *flags, f"procbroker-test-{image.kind}")
    try:
        started.is_ready()
        yield started
    finally:
        tool("rm", "--force", "--volumes", started.name)
        tool("volume", "rm", "--force", *volumes)


def test_the_broker_is_its_first_process_and_there_is_one_child_of_a_name(container: Container) -> None:
    assert container.run("cat", "/proc/1/comm") == "procbroker"
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: container.ask("PUT", "/jobs/a"), range(8)))
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    (pid,) = {body["pid"] for _, body in answers}
    assert container.run("stat", "-c", "%U", f"/proc/{pid}") == container.image.user
    status, stopped = container.ask("DELETE", "/jobs/a")
    assert (status, stopped["exit"], stopped["cleaned_up"]) == (200, "destroyed", True)
    assert container.ask("GET", "/jobs") == (200, {"jobs": [], "leases": {}})


def test_docker_stop_ends_it_in_order(container: Container) -> None:
    assert container.ask("PUT", "/jobs/a")[0] == 201
    tool("stop", container.name)
    assert tool("wait", container.name) == "0"
    container.says("ended child=job-a status=SIGHUP reason=shutdown")
    container.says("shut down: 1 child ended, 0 of them killed")


def test_cleanups_of_a_container_that_was_killed_run_at_its_next_start(container: Container) -> None:
    assert container.ask("PUT", "/jobs/a")[0] == 201
    with container.log() as log:
        log.says("started child=job-a")
    tool("kill", "--signal", "KILL", container.name)
    assert tool("wait", container.name) == "137"
    tool("start", container.name)
    container.is_ready(start=2)
    container.says("ended child=job-a")
    assert container.ask("GET", "/jobs") == (200, {"jobs": [], "leases": {}})
    assert container.ask("PUT", "/jobs/a")[0] == 201
