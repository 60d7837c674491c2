"""A child's life through the blocking client, with the real broker."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from procbroker import Broker, Child, NameTaken, NotFound, Step, TimedOut, Unsupported, lifetime, ready

FOREVER = ["sleep", "1000"]


def test_a_child_is_what_was_asked_for(broker: Broker) -> None:
    child = broker.create(FOREVER, name="render-42", labels={"pool": "render"}, stop_order=-3)
    assert child.outcome == "created"
    assert child.same_spec is None
    assert (child.name, child.labels, child.command, child.args) == ("render-42", {"pool": "render"}, FOREVER, FOREVER)
    assert (child.state, child.ended, child.restarts, child.stop_order) == ("running", False, 0, -3)
    assert (child.owner.uid, child.owner.gid) == (os.getuid(), os.getgid())
    assert child.lifetime == "broker"
    assert child.containment in ("cgroup", "subreaper")
    assert (child.exit, child.cleanup, child.returncode) == (None, None, None)
    assert child.pid is not None
    assert os.readlink(f"/proc/{child.pid}/exe") == os.path.realpath(shutil.which("sleep") or "")
    age = datetime.datetime.now(datetime.timezone.utc) - child.created_at
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)
    assert child.started_at is not None
    assert child.started_at >= child.created_at
    assert repr(child) == f"<Child render-42 id={child.id} running pid={child.pid}>"


def test_reuse_returns_the_child_that_is_there(broker: Broker) -> None:
    first = broker.create(FOREVER, name="one", if_exists="reuse")
    same = broker.create(FOREVER, name="one", if_exists="reuse")
    other = broker.create(["sleep", "2000"], name="one", if_exists="reuse")
    assert first == same == other
    assert len({first, same, other}) == 1
    assert (same.outcome, same.same_spec) == ("existing", True)
    assert (other.outcome, other.same_spec) == ("existing", False)
    with pytest.raises(NameTaken, match="one") as taken:
        broker.create(FOREVER, name="one")
    assert (taken.value.holder, taken.value.holder_state) == (first.id, "running")
    new = broker.create(FOREVER, name="one", if_exists="replace")
    assert new.outcome == "replaced"
    assert new != first
    ended = first.refresh().exit
    assert ended is not None
    assert ended.reason == "replaced"


def test_wait_returns_the_exit_code(broker: Broker) -> None:
    child = broker.create(["sh", "-c", "exit 7"])
    assert child.wait() == 7
    assert child.ended
    assert child.pid is None
    assert child.exit is not None
    assert (child.exit.code, child.exit.signal, child.exit.unknown) == (7, None, False)
    assert (child.exit.reason, child.exit.forced, child.exit.steps) == ("exited", False, ())
    assert child.exit.at >= child.created_at
    assert "returncode=7" in repr(child)


def test_wait_gives_up_in_time_and_leaves_the_child_alone(broker: Broker) -> None:
    child = broker.create(FOREVER)
    with pytest.raises(TimedOut) as caught:
        child.wait(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert child.poll() is None
    with pytest.raises(TimedOut):
        broker.wait(child, timeout=datetime.timedelta(milliseconds=1))
    assert child.wait_ready(timeout=30).state == "running"
    child.signal(signal.SIGKILL)
    assert child.wait(timeout=30) == -signal.SIGKILL
    assert child.poll() == -signal.SIGKILL


@pytest.mark.parametrize("word", [signal.SIGTERM, "SIGTERM", "TERM", 15])
def test_a_signal_by_any_of_its_names(broker: Broker, word: object) -> None:
    child = broker.create(FOREVER)
    child.signal(word)  # type: ignore[arg-type]
    assert child.wait(timeout=30) == -15
    assert child.exit is not None
    assert child.exit.signal == "SIGTERM"
    assert child.exit.returncode == -15
    with pytest.raises(NotFound):
        child.signal("TERM")


def test_destroy_goes_by_the_childs_steps(broker: Broker) -> None:
    child = broker.create(FOREVER, stop=[("SIGHUP", 10), signal.SIGTERM])
    assert child.destroy() is child
    assert child.returncode == -signal.SIGHUP
    assert child.exit is not None
    assert child.exit.reason == "destroyed"
    assert [step.signal for step in child.exit.steps] == ["SIGHUP"]
    assert child.exit.steps[0].at <= child.exit.at
    assert child.destroy().returncode == -signal.SIGHUP
    assert broker.destroy(child) == [child]


def test_destroy_with_other_steps_and_force(broker: Broker, folder: Path) -> None:
    os.mkfifo(folder / "deaf")
    child = broker.create(["sh", "-c", f"trap '' TERM; echo >{folder}/deaf; exec sleep 1000"], stop=[("SIGHUP", 1000)])
    (folder / "deaf").read_text()
    ended = child.destroy(stop=[Step("TERM", 0.01)]).exit
    assert ended is not None
    assert ended.forced
    assert ended.signal == "SIGKILL"
    assert [step.signal for step in ended.steps] == ["SIGTERM", "SIGKILL"]
    assert child.returncode == -signal.SIGKILL


def test_destroy_without_waiting_goes_on_by_itself(broker: Broker) -> None:
    child = broker.create(FOREVER, stop=["SIGTERM"])
    child.destroy(no_wait=True)
    assert child.wait(timeout=30) == -signal.SIGTERM


def test_a_block_destroys_its_child(broker: Broker) -> None:
    with broker.create(FOREVER) as child:
        assert not child.ended
    assert child.ended
    assert child.exit is not None
    assert child.exit.reason == "destroyed"


def test_children_are_selected_by_labels(broker: Broker) -> None:
    a = broker.create(FOREVER, labels={"pool": "render", "tier": "1"})
    b = broker.create(FOREVER, labels={"pool": "render"})
    c = broker.create(FOREVER)
    assert broker.list() == [a, b, c]
    assert broker.list(labels={"pool": "render"}) == [a, b]
    assert broker.list(labels={"pool": "render", "tier": "1"}) == [a]
    assert broker.signal(None, "KILL", labels={"tier": "1"}) == [a]
    a.wait(timeout=30)
    assert broker.destroy(labels={"pool": "render"}) == [b]
    assert broker.list() == [c]
    assert set(broker.list(all=True)) >= {a, b, c}
    assert broker.destroy(all=True) == [c]
    assert broker.list() == []


def test_the_environment_and_the_folder_are_the_childs(broker: Broker, folder: Path) -> None:
    script = 'printf "%s %s %s %s" "$WORD" "$PWD" "$(umask)" "${HOME-none}" >out'
    child = broker.create(
        ["sh", "-c", script], cwd=folder, env={"WORD": "ä b"}, env_clear=True, umask=0o027, stderr=subprocess.STDOUT
    )
    assert child.wait() == 0
    assert (folder / "out").read_text() == f"ä b {folder} 0027 none"


def test_a_request_id_names_one_child(broker: Broker) -> None:
    request = "67e55044-10b1-426f-9247-bb680e5fe0c8"
    first = broker.create(FOREVER, request_id=request)
    assert broker.create(FOREVER, request_id=request) == first
    assert broker.create(FOREVER) != first


def test_get_by_name_and_by_id(broker: Broker) -> None:
    child = broker.create(FOREVER, name="named")
    assert broker.get("named") == broker.get(child.id) == broker.get(child) == child
    with pytest.raises(NotFound, match="nobody"):
        broker.get("nobody")
    assert isinstance(broker.wait("named", "ready"), Child)


def test_get_and_refresh_tell_what_a_child_uses_and_how_it_was_specified(broker: Broker) -> None:
    child = broker.create(FOREVER, env={"A": "1"})
    assert (child.usage, child.spec) == (None, None)
    spec = child.refresh().spec
    assert spec is not None
    assert spec["env"] == {"A": "1"}
    usage = child.usage
    assert usage is not None
    assert usage.processes == 1
    assert usage.memory is not None
    listed = next(one for one in broker.list(fields=["usage"]) if one == child)
    assert listed.usage is not None


def test_status_tells_of_the_broker(broker: Broker) -> None:
    broker.create(FOREVER)
    status = broker.status()
    assert status.children["running"] == 1
    assert Path(f"/proc/{status.pid}/exe").exists()
    assert not status.shutting_down
    assert status.connections >= 1
    assert status.limits["max_children"] > 0
    assert status.facilities["state_dir"]
    assert status.raw["instance"] == status.instance
    assert status.raw["version"] == status.version


def test_a_child_of_a_connection_ends_when_the_client_is_closed(broker: Broker) -> None:
    with Broker(broker.socket) as other:
        try:
            child = other.create(FOREVER, lifetime="connection")
        except Unsupported as error:
            pytest.skip(str(error))
        # Other calls, and their connections, come and go.
        assert [other.get(child.id) for _ in range(20)] == [child] * 20
    assert broker.wait(child.id, timeout=30).ended


def test_a_child_is_ready_when_a_command_says_so(broker: Broker, folder: Path) -> None:
    asked = ready.command(["test", "-e", folder / "up"])
    child = broker.create(FOREVER, ready=asked, no_wait=True)
    assert child.refresh().state == "starting"
    (folder / "up").touch()
    assert child.wait_ready(timeout=30).state == "running"


def test_a_child_ends_with_the_process_that_it_is_bound_to(broker: Broker) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as owner:
        child = broker.create(FOREVER, lifetime=lifetime.pid(owner.pid))
        assert child.lifetime == {"pid": owner.pid}
        assert not child.refresh().ended
    ended = broker.wait(child.id, timeout=30).exit
    assert ended
    assert ended.reason == "owner_gone"
    with pytest.raises(NotFound):
        broker.create(FOREVER, lifetime=lifetime.pid(2**31 - 1))


def test_logs_and_following_them(broker: Broker, folder: Path) -> None:
    child = broker.create(["sh", "-c", "echo one; echo two; echo three >&2"], stderr="log")
    child.wait()
    try:
        assert child.logs().text == "one\ntwo\n"
    except Unsupported as error:
        pytest.skip(str(error))
    assert str(broker.logs(child, tail=1)) == "two\n"
    assert str(child.logs("stderr")) == "three\n"
    assert "".join(child.follow()) == "one\ntwo\n"
    os.mkfifo(folder / "go")
    live = broker.create(["sh", "-c", f"echo begun; read line <{folder}/go; echo $line"])
    with live.follow() as follow:
        assert follow.next(timeout=30) == "begun\n"
        (folder / "go").write_text("over\n")
        assert "".join(follow) == "over\n"


def test_shutdown_reports_what_it_ended(own_broker: Broker) -> None:
    child = own_broker.create(FOREVER)
    report = own_broker.shutdown(timeout=20)
    assert report.children == [child]
    assert report.forced == 0
    assert 0 <= report.took < 20
    ended = report.children[0].exit
    assert ended is not None
    assert ended.reason == "shutdown"
