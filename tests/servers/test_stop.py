"""The end of a server under `procbroker run`: in order, in time, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import RemoteDisconnected
from pathlib import Path

import pytest

from scene.kinds import APACHE, GUNICORN_THREADS, KINDS, UWSGI, Kind, Settings
from scene.place import BROKER, PATIENCE, Place, is_root
from scene.program import Program, processes
from scene.stage import KILLED_AFTER_S, PLAIN, Stage, Way, broker_flags, under_the_broker
from scene.traffic import in_flight

#: How long a graceful stop may take here.
FAILSAFE_S = 4
#: How long the slow job needs for its end.
SLOW_S = 5
#: What a busy machine may add to that.
SLACK_S = 12
#: A pid namespace of its own, whose first process the broker is.
AS_PID_1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
if not is_root():
    AS_PID_1 += ["--user", "--map-current-user"]
#: A shell that waits for the server, as Debian's apachectl does.
LIKE_APACHECTL = ["sh", "-c", '"$@"; exit $?', "apachectl"]


def held_leases(stage: Stage) -> list[str]:
    """Return the jobs whose resource is not released."""
    with closing(sqlite3.connect(stage.place.jobs / "jobs.db")) as database:
        return [key for (key,) in database.execute("SELECT key FROM lease")]


def everything_is_released(stage: Stage, kind: Kind) -> None:
    """Hold that no process is left and no resource held, and that the slow job had its time."""
    assert processes(stage.socket) == []
    if kind.python:
        assert held_leases(stage) == []
        assert (stage.place.scratch / "saved").read_text() == "saved\n"
        assert (stage.place.scratch / "slow.released").read_text() == "code 3\n"
    assert [path.name for path in stage.place.scratch.iterdir() if path.is_dir()] == []
    stage.program.says("0 of them killed")


def broker_pid(stage: Stage, way: Way) -> int:
    """Return the process of the broker, as it is seen from here."""
    pid = stage.program.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]) if way.before_broker else pid


def the_server_ends_in_order(kind: Kind, way: Way = PLAIN, failsafe_status: int | None = None) -> None:
    """Stop a server with requests in flight, one of which hangs, and with jobs, one of which needs long for its end."""
    settings = Settings(failsafe_s=FAILSAFE_S)
    with ThreadPoolExecutor() as threads, under_the_broker(kind, settings, way=way) as stage:
        jobs = ["/jobs/a", "/jobs/b", *(["/slow/slow"] if kind.python else [])]
        for path in jobs:
            assert stage.web.ask("PUT", path).status in (200, 201)
            stage.works(f"job-{path.split('/')[-1]}")
        finishing = in_flight(stage, threads, [f"finishes-{number}" for number in range(5)])
        hanging = in_flight(stage, threads, ["hangs"])["hangs"]

        mark, began = stage.program.mark(), time.monotonic()
        os.kill(broker_pid(stage, way), signal.SIGTERM)
        stage.program.says(kind.stopping, mark)
        for key, answer in finishing.items():
            stage.broker.destroy(f"job-{key}")
            finished = answer.result(PATIENCE)
            assert (finished.status, finished.body["exit"], finished.body["cleaned_up"]) == (200, "destroyed", True)

        status = stage.program.ended()
        took = time.monotonic() - began
        expected = kind.failsafe_status if failsafe_status is None else failsafe_status
        assert status == expected, stage.program.output
        assert FAILSAFE_S <= took <= FAILSAFE_S + KILLED_AFTER_S + SLOW_S + SLACK_S
        everything_is_released(stage, kind)
        # Its job has ended before it was answered, or nobody was there to answer it.
        with suppress(RemoteDisconnected, ConnectionError):
            assert hanging.result(PATIENCE).status >= 500


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_requests_are_finished_and_children_stopped_in_order(kind: Kind) -> None:
    the_server_ends_in_order(kind)


@pytest.mark.parametrize("kind", [APACHE, GUNICORN_THREADS, UWSGI], ids=str)
def test_the_same_as_the_first_process_of_a_container(kind: Kind) -> None:
    possible = subprocess.run([*AS_PID_1, "true"], capture_output=True, text=True, check=False)
    if possible.returncode != 0:
        pytest.skip(f"no pid namespace can be made here: {possible.stderr.strip()}")
    the_server_ends_in_order(kind, Way(before_broker=AS_PID_1))


def test_the_same_behind_a_script_that_stays_in_front_of_the_server() -> None:
    # The status is that of the script, which the failsafe's SIGTERM has ended.
    way = Way(before_server=LIKE_APACHECTL, stop_scope="group")
    the_server_ends_in_order(APACHE, way, failsafe_status=128 + signal.SIGTERM)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_without_a_request_that_hangs_the_failsafe_is_not_needed(kind: Kind) -> None:
    with ThreadPoolExecutor() as threads, under_the_broker(kind) as stage:
        answer = in_flight(stage, threads, ["finishes"])["finishes"]
        mark = stage.program.mark()
        stage.program.signal(signal.SIGTERM)
        stage.program.says(kind.stopping, mark)
        stage.broker.destroy("job-finishes")
        assert answer.result(PATIENCE).status == 200
        assert stage.program.ended() == 0
        assert "SIGTERM reason=shutdown" not in stage.program.output


def test_when_the_server_dies_its_status_is_told_and_the_children_end() -> None:
    with under_the_broker(APACHE, Settings(failsafe_s=1)) as stage:
        stage.web.ask("PUT", "/slow/slow")
        stage.works("job-slow")
        os.kill(stage.main_pid, signal.SIGKILL)
        assert stage.program.ended() == 128 + signal.SIGKILL
        assert processes(stage.socket) == []
        assert (stage.place.scratch / "slow.released").read_text() == "code 3\n"


def test_the_status_of_a_server_that_does_not_start_is_told(place: Place) -> None:
    missing = place.folder / "missing.conf"
    words = [BROKER, "run", *broker_flags(place), "--", "apache2", "-f", missing, "-D", "FOREGROUND"]
    with Program(words, place.environment()) as program:
        assert program.ended() == 1
        program.says("Could not open configuration file")
        assert processes(place.broker_socket) == []
