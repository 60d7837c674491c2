"""Functions as children: what is handed over, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pickle
import pwd
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
import targets
from brokers import PATIENCE, RealBroker, comes_true

import procbroker
from procbroker import (
    AsyncBroker,
    Broker,
    ClientTimeout,
    NameTaken,
    NoResult,
    ProcessFailed,
    RemoteTraceback,
    TimedOut,
    Unsupported,
    handover,
    restart,
)
from procbroker.process import Process
from procbroker.target import name_of, resolve


@pytest.fixture(autouse=True)
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the handed-over calls, in which no call is left behind."""
    here = folder / "handover"
    here.mkdir()
    monkeypatch.setenv(handover.PLACE_VARIABLE, str(here))
    yield here
    assert [path for path in here.glob("*/*") if path.name != "result"] == []


def test_a_function_runs_with_its_arguments_and_returns(broker: Broker) -> None:
    child = broker.process(target=targets.add, args=(40,), kwargs={"b": 2}, name="add", labels={"a": "b"})
    assert (child.outcome, child.name, child.labels) == ("created", "add", {"a": "b"})
    assert child.result(PATIENCE) == 42
    assert child.result() == 42
    assert child.returncode == 0
    assert broker.get(child.id).result() == 42
    moved = broker.process(targets.Point.moved, [targets.Point(1)], {"by": 2}).result(PATIENCE)
    assert isinstance(moved, targets.Point)
    assert moved.x == 3
    assert broker.process("targets:nothing").result(PATIENCE) is None


def test_nothing_of_the_arguments_is_in_the_command_line_the_environment_or_what_is_listed(broker: Broker) -> None:
    secret = "the secret word"
    child = broker.process(targets.add, ([secret], [targets.surroundings.__name__]), name="add")
    assert secret.encode() not in pickle.dumps(child.raw)
    assert secret in child.result(PATIENCE)
    found = broker.process(targets.surroundings, env={"WORD": "ä"}).result(PATIENCE)
    assert found["environ"]["WORD"] == "ä"
    assert b"surroundings" in found["cmdline"]


def test_it_has_the_applications_path_folder_and_virtual_environment(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend("relative")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    found = broker.process(targets.surroundings).result(PATIENCE)
    assert found["path"][0] == os.path.join(os.getcwd(), "relative")
    assert found["path"][1:] == [os.path.abspath(entry) for entry in sys.path[1:]]
    assert (found["cwd"], found["argv"], found["prefix"]) == (os.getcwd(), ["targets:surroundings"], sys.prefix)
    assert not {"PYTHONPATH", "PYTHONSAFEPATH"} & set(found["environ"])
    found = broker.process(targets.surroundings, cwd="/", env={"PYTHONPATH": "/other"}).result(PATIENCE)
    assert (found["cwd"], found["environ"]["PYTHONPATH"]) == ("/", "/other")
    found = broker.process(targets.surroundings, inherit_env=True, python=sys.executable).result(PATIENCE)
    assert found["environ"]["PYTHONPATH"] == "/mine"


def test_an_installed_package_is_found_without_a_variable(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    # As if the package were in the site-packages of this interpreter, which it is by a link there in fact.
    root = str(Path(procbroker.__file__).parents[1])
    monkeypatch.setattr("site.getsitepackages", lambda: [root])
    options = Process(targets.add, (1,), {}, None, {})
    options.hand_over(0)
    assert options.options["env"] == {"PYTHONSAFEPATH": "1"}
    options.withdraw()
    monkeypatch.setattr("site.getsitepackages", list)
    options = Process(targets.add, (1,), {}, None, {})
    options.hand_over(0)
    assert options.options["env"] == {"PYTHONPATH": root, "PYTHONSAFEPATH": "1"}
    options.withdraw()


def test_a_repeated_request_is_answered_with_the_first_process(broker: Broker, place: Path) -> None:
    request = "67e55044-10b1-426f-9247-bb680e5fe0c9"
    first = broker.process(targets.stay, request_id=request)
    assert broker.process(targets.stay, request_id=request) == first
    assert [path.name for path in place.iterdir()] == [Path(first.command[4]).name]


def test_a_want_of_space_names_the_file_and_leaves_nothing(broker: Broker, place: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=rf"cannot hand over .* bytes: File too large: '{place}/.*/call'"):
            broker.process(targets.add, ("x" * 100_000,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(place.iterdir()) == []


def test_what_it_raises_is_raised_here_with_its_traceback(broker: Broker) -> None:
    child = broker.process(targets.fail, ("no paper",))
    with pytest.raises(ValueError, match="no paper") as caught:
        child.result(PATIENCE)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in fail" in "".join(traceback.format_exception(None, caught.value, None))
    assert child.returncode == 1
    assert "ValueError: no paper" in child.logs().text


def test_an_async_def_is_run_to_its_end(broker: Broker) -> None:
    assert broker.process(targets.add_later, (1, 2)).result(PATIENCE) == 3
    assert broker.process("targets:add_later", kwargs={"a": 3, "b": 4}).result(PATIENCE) == 7
    with pytest.raises(ValueError, match="no paper"):
        broker.process(targets.fail_later, ("no paper",)).result(PATIENCE)


def test_what_cannot_travel_is_told_as_a_text(broker: Broker) -> None:
    with pytest.raises(ProcessFailed, match=r"fail_badly.* raised Broken: ab") as caught:
        broker.process(targets.fail_badly).result(PATIENCE)
    assert "in fail_badly" in caught.value.traceback
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.error, again.reason, str(again)) == ("Broken: ab", caught.value.reason, str(caught.value))
    why = r"it cannot be unpickled \(TypeError: .*__init__\(\) missing .*\); .* super\(\).__init__, or has a __reduce__"
    assert re.fullmatch(why, again.reason)
    assert f" (the exception itself cannot be brought here: {again.reason})\n" in str(again)
    with pytest.raises(ProcessFailed, match=r"raised ValueError: holds a lock") as caught:
        broker.process(targets.fail_unpicklably).result(PATIENCE)
    assert re.fullmatch(r"it cannot be pickled \(TypeError: .*lock.*\)", caught.value.reason)
    with pytest.raises(ModuleNotFoundError):
        broker.process("no_such_module:function").result(PATIENCE)
    with pytest.raises(AttributeError):
        broker.process("targets:no_such_function").result(PATIENCE)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            targets.give_lambda,
            r"what it returned cannot be pickled \(.*lambda.*\); return what pickle takes, or write it",
        ),
        (
            targets.give_much,
            r"what it returned has 178\d{5} bytes when pickled, and may have 16777216; write it to a file",
        ),
    ],
)
def test_a_result_that_cannot_travel_is_a_failure_that_says_so(
    broker: Broker, function: Callable[[], Any], reason: str
) -> None:
    child = broker.process(function)
    with pytest.raises(
        ProcessFailed, match=rf"{function.__name__}.* has returned, but .* brought here: {reason}"
    ) as caught:
        child.result(PATIENCE)
    assert (caught.value.traceback, child.returncode) == ("", 1)
    assert re.search(reason, child.logs().text)
    # Whoever asks later is told the same.
    again = broker.get(child)
    with pytest.raises(ProcessFailed, match=reason):
        again.result(PATIENCE)


def test_one_that_is_ended_has_no_result(broker: Broker, place: Path) -> None:
    child = broker.process(targets.stay, name="stay")
    with pytest.raises(TimedOut):
        child.result(timeout=0)
    with pytest.raises(NameTaken):
        broker.process(targets.stay, name="stay")
    assert len(list(place.iterdir())) == 1
    child.destroy()
    with pytest.raises(NoResult, match=r"stay \(targets:stay\) has no result: SIGTERM ended it \(destroyed\)"):
        child.result()
    assert list(place.iterdir()) == []
    with pytest.raises(NoResult, match=r"exited with code 3 \(exited\) without a result; its log may tell more$"):
        broker.process(targets.leave, (3,)).result(PATIENCE)
    with pytest.raises(NoResult, match=r"exited with code 1 .*; the last line of its log is: the queue is empty$"):
        broker.process(targets.leave, ("looked\nthe queue is empty",)).result(PATIENCE)
    with pytest.raises(NoResult, match=r"the last line of its log is: up \\x1b\[2J\\u202edown$"):
        broker.process(targets.leave, ("up \x1b[2J\u202edown",)).result(PATIENCE)
    with pytest.raises(TypeError, match=r"Broker.process"):
        broker.create(["true"]).result(PATIENCE)


def test_a_result_that_was_removed_is_told_of(broker: Broker) -> None:
    child = broker.process(targets.add, (1,))
    child.wait()
    handover.remove(child.command[4])
    with pytest.raises(NoResult, match="not kept any more"):
        child.result()


def test_workers_that_race_for_a_name_have_one_process_and_its_result(broker: Broker, place: Path) -> None:
    start = threading.Barrier(8)
    found: List[Any] = []

    def race(b: int) -> None:
        start.wait()
        found.append(broker.process(targets.stay, name="one", if_exists="reuse", kwargs={"path": ""}))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len({child.id for child in found}) == 1
    assert sorted(str(child.same_spec) for child in found) == ["None"] + ["True"] * 7
    other = broker.process(targets.stay, name="one", if_exists="reuse", kwargs={"path": "/other"})
    assert (other.outcome, other.same_spec) == ("existing", False)
    broker.create(["sleep", "1000"], name="plain")
    assert broker.process(targets.stay, name="plain", if_exists="reuse").same_spec is False
    assert len(list(place.iterdir())) == 1
    new = broker.process(targets.add, (1, 2), name="one", if_exists="replace")
    assert (new.outcome, new.result(PATIENCE)) == ("replaced", 3)


def test_its_arguments_are_there_as_long_as_it_is_and_its_own_cleanup_runs(broker: Broker, folder: Path) -> None:
    there, done = folder / "there", folder / "done"
    cleanup = {"command": ["sh", "-c", 'echo "$PROCBROKER_EXIT_REASON $1" >"$2"', "x", "a b", done], "timeout": 9}
    child = broker.process(targets.stay, (str(there),), cleanup=cleanup)  # type: ignore[arg-type]
    comes_true(there.exists, "it runs")
    call = Path(child.command[4]) / "call"
    assert call.stat().st_mode & 0o777 == 0o400
    assert call.parent.stat().st_mode & 0o777 == 0o700
    child.destroy()
    assert not call.exists()
    assert done.read_text() == "destroyed a b\n"


def test_a_process_that_is_restarted_has_its_arguments_again(broker: Broker, folder: Path) -> None:
    try:
        child = broker.process(targets.once_more, (str(folder / "runs"),), restart=restart.on_failure(backoff=0.01))
    except Unsupported as error:
        pytest.skip(str(error))
    assert child.result(PATIENCE) == ["run", "run"]


def test_what_an_earlier_run_has_raised_is_no_result_of_a_later_one(broker: Broker, folder: Path) -> None:
    runs = folder / "runs"
    child = broker.process(targets.fail_once, (str(runs),), restart=restart.on_failure(max=1, backoff=0.01))
    comes_true(lambda: runs.exists() and runs.read_text() == "run\nrun\n", "it runs again")
    child.signal("KILL")
    with pytest.raises(NoResult, match=r"SIGKILL ended it"):
        child.result(PATIENCE)


def test_a_result_that_is_not_kept_is_gone_when_it_is_read(broker: Broker, place: Path) -> None:
    child = broker.process(targets.add, (40, 2))
    assert child.result(PATIENCE, keep=False) == 42
    assert list(place.iterdir()) == []
    with pytest.raises(NoResult, match="not kept any more"):
        child.result()
    failing = broker.process(targets.fail, ("no paper",))
    with pytest.raises(ValueError, match="no paper"):
        failing.result(PATIENCE, keep=False)
    assert list(place.iterdir()) == []


CALLER = """
import os, signal, sys, procbroker
child = procbroker.Broker(sys.argv[1]).process("targets:stay", (sys.argv[2],), name="one", cwd="/")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_when_caller_broker_and_child_are_killed(own: RealBroker, place: Path, folder: Path) -> None:
    there = folder / "there"
    command = [sys.executable, "-c", CALLER, own.socket, str(there)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    comes_true(there.exists, "it runs")
    assert len(list(place.iterdir())) == 1
    own.crash()
    own.start()
    with Broker(own.socket) as broker:
        child = broker.get("one")
        child.signal("KILL")
        child.wait(PATIENCE)
        assert (child.cleanup is not None and child.cleanup.ok, list(place.iterdir())) == (True, [])
        with pytest.raises(NoResult):
            child.result()


def test_its_call_is_removed_whatever_its_path_of_programs_is(broker: Broker, folder: Path, place: Path) -> None:
    done = folder / "done"
    child = broker.process(targets.stay, env={"PATH": "/nowhere"}, cleanup=["/usr/bin/touch", done])
    child.destroy()
    assert (child.cleanup is not None, done.exists(), list(place.iterdir())) == (True, True, [])
    child = broker.process(targets.leave, (1,), env={"PATH": "/nowhere"}, env_clear=True)
    child.wait(PATIENCE)
    assert (child.cleanup is not None and child.cleanup.ok, list(place.iterdir())) == (True, [])


def test_what_it_prints_is_in_its_log_at_once(broker: Broker) -> None:
    child = broker.process(targets.speak, ("no need to flush",), env={"PYTHONUNBUFFERED": ""})
    with child.follow() as follow:
        assert follow.next(PATIENCE) == "no need to flush\n"


def test_no_module_is_taken_from_the_folder_that_it_runs_in(broker: Broker, folder: Path) -> None:
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    for name in ("runpy", "pickle", "procbroker"):
        (shared / f"{name}.py").write_text("raise SystemExit('taken in by a stranger')")
    if sys.version_info >= (3, 11):
        child = broker.process(targets.surroundings, cwd=shared)
        found = child.result(PATIENCE)
        assert (found["cwd"], "PYTHONSAFEPATH" in found["environ"]) == (str(shared), False)
        assert str(shared) not in found["path"]
    else:
        with pytest.raises(ValueError, match=f"everybody may write to {shared}"):
            broker.process(targets.surroundings, cwd=shared)
        for name in ("runpy", "pickle", "procbroker"):
            (shared / f"{name}.py").unlink()
        with pytest.MonkeyPatch.context() as patch:
            # The application looks for modules there itself.
            patch.syspath_prepend(str(shared))
            assert broker.process(targets.surroundings, cwd=shared).result(PATIENCE)["cwd"] == str(shared)


def test_a_create_that_fails_leaves_nothing(broker: Broker, place: Path, folder: Path) -> None:
    for options, kind in (
        ({"cwd": "/no/such/folder"}, Exception),
        ({"name": "no name"}, ValueError),
        ({"stop": "TERM"}, TypeError),
        ({"nmae": "one"}, TypeError),
    ):
        with pytest.raises(kind):
            broker.process(targets.nothing, **options)  # type: ignore[arg-type]
    with pytest.raises(ConnectionError):
        Broker(folder / "nobody").process(targets.nothing)
    assert list(place.iterdir()) == []


def local() -> Any:
    def inner() -> None:
        pass

    return inner


anonymous = lambda: None  # noqa: E731


@pytest.mark.parametrize(
    ("target", "kind", "complaint"),
    [
        (anonymous, ValueError, "lambda"),
        (local(), ValueError, "within a call"),
        (functools.partial(targets.add, 1), TypeError, "args and kwargs"),
        (targets.Point(1).method, ValueError, "bound to an object"),
        (7, TypeError, "function of a module"),
        (None, TypeError, "function of a module"),
        ("targets.add", ValueError, "app.jobs:render"),
        ("targets:add()", ValueError, "app.jobs:render"),
        (":add", ValueError, "app.jobs:render"),
    ],
)
def test_what_another_interpreter_does_not_find_is_refused(
    folder: Path, target: Any, kind: Any, complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        Broker(folder / "none").process(target)


@pytest.mark.parametrize("target", [targets.add, targets.Point.moved, os.getpid, targets.Point])
def test_a_target_is_found_again_by_its_name(target: Any) -> None:
    assert resolve(name_of(target)) == target


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "complaint"),
    [
        ((lambda: 0,), {}, TypeError, "cannot be pickled"),
        ((threading.Lock(),), {}, TypeError, "cannot be pickled"),
        ("abc", {}, TypeError, "args is a tuple"),
        (42, {}, TypeError, r"args is a tuple, which for one argument has a comma, args=\(x,\)"),
        ((), [1], TypeError, "kwargs a mapping"),
        ((b"x" * (17 << 20),), {}, ValueError, "put them into a file"),
    ],
)
def test_arguments_that_cannot_travel_are_refused(
    folder: Path, place: Path, args: Any, kwargs: Any, kind: Any, complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        Broker(folder / "none").process(targets.add, args, kwargs)
    assert list(place.iterdir()) == []


MAIN = """
import sys, procbroker
class Mine: pass
def work(*args): return 7
if __name__ == "__main__":
    broker = procbroker.Broker(sys.argv[1])
    for target, args in ((work, ()), ("targets:add", (Mine(), 1)), ("targets:add", ("__main__ ", "b"))):
        try:
            print(broker.process(target, args).result(30))
        except ValueError as error:
            print(error)
"""


def test_the_program_itself_is_no_module_unless_it_was_started_as_one(broker: Broker, folder: Path) -> None:
    (folder / "program.py").write_text(MAIN)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])}
    said = []
    for how in (["-m", "program"], [str(folder / "program.py")]):
        done = subprocess.run(
            [sys.executable, *how, broker.socket],
            capture_output=True,
            text=True,
            env=env,
            timeout=PATIENCE,
            check=False,
        )
        assert done.stderr == ""
        said.append(done.stdout.splitlines())
    assert said[0][0] == "7"
    assert said[1][0].startswith("work is of the program itself (__main__)")
    for lines in said:
        assert lines[1].startswith("an argument of targets:add is a Mine of the program itself")
        assert lines[2] == "__main__ b"


def test_what_is_not_its_own_is_not_believed(broker: Broker, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = broker.process(targets.add, (1,))
    child.wait()
    folder = Path(child.command[4])
    result = folder / "result"

    def refused(why: str) -> None:
        with pytest.raises(NoResult, match=why):
            child.result()

    result.chmod(0o644)
    refused("open to others")
    result.chmod(0o600)
    folder.chmod(0o711)
    refused("open to others")
    folder.chmod(0o700)
    os.link(result, place / "second")
    refused("one name")
    (place / "second").unlink()
    assert child.result() == 1
    result.rename(place / "moved")
    result.symlink_to(place / "moved")
    refused("Too many levels of symbolic links")
    result.unlink()
    os.mkfifo(result, 0o600)
    refused("no plain file")
    result.unlink()
    (place / "moved").rename(result)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    refused("user 4242 believes only its own")
    monkeypatch.undo()
    folder.rename(place / "elsewhere")
    folder.symlink_to(place / "elsewhere")
    with pytest.raises(NoResult):
        child.result()
    folder.unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="only root lets a child run as another user")
def test_root_hands_over_to_another_user_and_does_not_believe_what_comes_back(
    own: RealBroker, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = pwd.getpwnam("nobody")
    own.folder.chmod(0o711)
    place.chmod(0o711)
    with Broker(own.socket) as broker:
        options: Any = {"user": "nobody", "groups": [], "cwd": "/"}
        # An interpreter that this user may run, with modules that it may read.
        child = broker.process("os:getuid", python="/usr/bin/python3", **options)
        child.wait(PATIENCE)
        if child.returncode != 0:
            pytest.skip(f"user nobody cannot run this package: {child.logs().text}")
        folder = Path(child.command[4])
        assert (folder.stat().st_uid, (folder / "result").stat().st_uid) == (nobody.pw_uid, nobody.pw_uid)
        with pytest.raises(NoResult, match=f"belongs to user {nobody.pw_uid}"):
            child.result()
        handover.remove(str(folder))


PRIVATE_TMP = """
import sys, procbroker
from procbroker import handover
child = procbroker.Broker(sys.argv[1]).process("operator:add", (40, 2), cwd="/")
try:
    print(child.result(30), child.command[4].startswith("/dev/shm/"))
finally:
    handover.remove(child.command[4])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root has mount namespaces of its own")
def test_a_service_with_a_tmp_of_its_own_hands_over_all_the_same() -> None:
    if any(path.startswith("/tmp/") for path in (procbroker.__file__, sys.executable, sys.base_prefix)):
        pytest.skip("this package, or its Python, is in /tmp itself")
    env = {name: value for name, value in os.environ.items() if name != handover.PLACE_VARIABLE}
    command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /tmp && exec "$@"', "sh"]
    with tempfile.TemporaryDirectory(prefix="pb-", dir="/var/tmp") as path:
        own = RealBroker(Path(path))
        own.start()
        try:
            done = subprocess.run(
                [*command, sys.executable, "-c", PRIVATE_TMP, own.socket],
                capture_output=True,
                text=True,
                env=env,
                timeout=PATIENCE,
                check=False,
            )
        finally:
            own.stop()
    if "unshare failed" in done.stderr or "mount: " in done.stderr:
        pytest.skip(done.stderr)
    assert (done.stdout, done.stderr) == ("42 True\n", "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a socket to another user")
def test_the_brokers_user_is_who_listens_and_not_who_owns_the_socket(own: RealBroker, place: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(own.socket, nobody, -1)
    with Broker(own.socket) as broker:
        child = broker.process(targets.add, (1, 2))
        assert (child.result(PATIENCE), Path(child.command[4]).stat().st_uid) == (3, 0)
        # The connection over which that was found out serves the create, too.
        assert broker.status().connections == 1


def test_what_a_broker_of_another_user_runs_is_handed_over_to_that_user(
    broker: Broker, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procbroker.connection.Connection.peer_user", lambda _: 4242)
    monkeypatch.setattr(os, "geteuid", lambda: 4243)
    with pytest.raises(Unsupported, match="the child would run as user 4242, to whom user 4243 cannot hand over"):
        broker.process(targets.nothing)
    assert list(place.iterdir()) == []


def test_a_broker_that_accepts_nobody_is_given_up_in_time_by_a_process(folder: Path, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as others:
        full.bind(str(folder / "full"))
        full.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                one = others.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect(str(folder / "full"))
        with Broker(folder / "full") as broker, pytest.raises(ClientTimeout, match="gave up on process"):
            broker.process(targets.nothing, timeout=0.05)
    assert list(place.iterdir()) == []


def test_who_cannot_hand_over_privately_is_told_so(
    broker: Broker, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(Unsupported, match="as user 33 or as root"):
        broker.process(targets.nothing, user=33)
    assert list(place.iterdir()) == []


def test_old_results_and_calls_that_nobody_has_taken_are_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(number: int, file: str, age: float, mode: int = 0o600, name: str = "procbroker-7-{:032x}") -> Path:
        path = place / name.format(number)
        path.mkdir(0o700)
        (path / file).touch(mode)
        for one in (path / file, path):
            os.utime(one, (one.stat().st_mtime - age,) * 2)
        return path

    kept = [
        folder(1, "result", 0),
        folder(2, "call", 4000),
        # It is that of a child, which may be between two runs.
        folder(3, "call", 90_000, mode=0o400),
        # What only begins like one, as the folder of a user's own broker.
        folder(4, "sock", 90_000, name="procbroker-7"),
        folder(5, "result", 90_000, name="procbroker-7-{:031x}"),
    ]
    open_to_others = folder(6, "result", 90_000)
    open_to_others.chmod(0o755)
    gone = [folder(7, "result", 4000), folder(8, "call", 90_000)]
    # What a caller leaves that is killed before it has written anything.
    empty = place / f"procbroker-7-{9:032x}"
    empty.mkdir(0o700)
    os.utime(empty, (0, 0))
    monkeypatch.setattr(handover, "_swept_at", float("-inf"))
    os.rmdir(handover.make(os.geteuid()))
    assert [path.exists() for path in [*kept, open_to_others]] == [True] * 6
    assert [path.exists() for path in [*gone, empty]] == [False] * 3
    for path in [*kept, open_to_others]:
        handover.remove(str(path))


def test_a_call_that_cannot_be_taken_says_so(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "procbroker.child", "targets:add", "/no/such/folder"]
    child = broker.create(command)
    assert child.wait(PATIENCE) == 1
    assert "cannot take the arguments of targets:add" in child.logs().text
    assert handover.PLACE_VARIABLE in child.logs().text


def test_within_a_server_that_is_no_python_the_interpreter_is_found(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/sbin/apache2")
    child = broker.process(targets.surroundings)
    assert child.command[0].startswith(f"{sys.prefix}/bin/python3")
    assert child.result(PATIENCE)["prefix"] == sys.prefix
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    with pytest.raises(ValueError, match="python=") as caught:
        broker.process(targets.nothing)
    assert "/nowhere" in str(caught.value)


def test_asynchronously_it_is_the_same(broker: Broker) -> None:
    async def main() -> None:
        async with AsyncBroker(broker.socket) as client:
            children = [await client.process(targets.add, (number, 1), name=f"n{number}") for number in range(3)]
            assert await asyncio.gather(*[child.result(PATIENCE) for child in children]) == [1, 2, 3]
            failing = await client.process(target=targets.fail, args=("no paper",))
            with pytest.raises(ValueError, match="no paper"):
                await failing.result()
            with pytest.raises(ValueError, match="lambda"):
                await client.process(anonymous)
            leaving = await client.process(targets.leave, ("the queue is empty",))
            with pytest.raises(NoResult, match=r"the last line of its log is: the queue is empty$"):
                await leaving.result()

    asyncio.run(main())
