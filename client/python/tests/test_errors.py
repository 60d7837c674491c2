"""Every failure is a class of its own, that a person and a program can act on."""

from __future__ import annotations

import errno
import grp
import os
import pickle
import pwd
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, List, Type

import pytest
from brokers import PATIENCE, FakeBroker, RealBroker

import procbroker
from procbroker import Broker, BrokerError, BrokerUnavailable, ProcbrokerError, SocketPathTooLong, access

KINDS = {
    "name_taken": procbroker.NameTaken,
    "not_found": procbroker.NotFound,
    "permission_denied": procbroker.PermissionDenied,
    "limit_exceeded": procbroker.LimitExceeded,
    "spawn_failed": procbroker.SpawnFailed,
    "start_failed": procbroker.StartFailed,
    "shutting_down": procbroker.ShuttingDown,
    "timeout": procbroker.TimedOut,
    "overloaded": procbroker.Overloaded,
    "unsupported": procbroker.Unsupported,
    "invalid_params": procbroker.InvalidParams,
    "internal": procbroker.InternalError,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_the_wire_is_its_own_class(fake: FakeBroker, kind: str) -> None:
    fake.play(lambda connection: connection.refuse(kind, more=1))
    with Broker(fake.socket) as broker, pytest.raises(BrokerError) as caught:
        broker.status()
    error = caught.value
    assert type(error) is KINDS[kind]
    assert isinstance(error, ProcbrokerError)
    assert (error.kind, error.message, str(error)) == (kind, f"that is {kind}", f"that is {kind}")
    assert error.data == {"kind": kind, "more": 1}


def test_a_kind_of_a_newer_broker_is_still_a_broker_error(fake: FakeBroker) -> None:
    fake.play(lambda connection: connection.refuse("out_of_ink"))
    with Broker(fake.socket) as broker, pytest.raises(BrokerError) as caught:
        broker.status()
    assert (type(caught.value), caught.value.kind) == (BrokerError, "out_of_ink")


def test_start_failed_tells_the_exit_and_what_was_written(fake: FakeBroker) -> None:
    ended = {"code": 3, "reason": "start_failed", "forced": False, "steps": [], "at": "2026-11-23T14:53:17.123456Z"}
    fake.play(lambda connection: connection.refuse("start_failed", exit=ended, log_tail="no such file\n"))
    with Broker(fake.socket) as broker, pytest.raises(procbroker.StartFailed) as caught:
        broker.create(["x"])
    assert caught.value.exit is not None
    assert (caught.value.exit.code, caught.value.exit.returncode) == (3, 3)
    assert caught.value.log_tail == "no such file\n"
    assert str(caught.value) == "that is start_failed; its last line: no such file"


@pytest.mark.parametrize(
    ("log_tail", "end"),
    [
        ("Traceback:\n  File\nImportError: no module\n\n", "; its last line: ImportError: no module"),
        ("", "it ended"),
        (" \n\n", "it ended"),
        ("x" * 1000, f"; its last line: {'x' * 299}…"),
        ("é \x1b]0;title\x07\x9b2J\t\u202egone", "; its last line: é \\x1b]0;title\\x07\\x9b2J\\t\\u202egone"),
    ],
)
def test_start_failed_ends_with_the_last_line_that_the_child_wrote(log_tail: str, end: str) -> None:
    error = procbroker.StartFailed("start_failed", "it ended", {"log_tail": log_tail})
    assert str(error).startswith("it ended")
    assert str(error).endswith(end)


def test_a_child_that_is_not_ready_in_time_tells_what_its_command_said(broker: Broker) -> None:
    ready = procbroker.ready.command(["no-such-program"])
    with pytest.raises(procbroker.TimedOut, match="no-such-program") as caught:
        broker.create(["sleep", "1000"], ready=ready, ready_timeout=0.2)
    assert caught.value.probe == {"errno": errno.ENOENT, "errno_name": "ENOENT", "step": "exec"}
    child = broker.create(["sleep", "1000"])
    with pytest.raises(procbroker.TimedOut) as caught:
        child.wait(timeout=0)
    assert caught.value.probe is None


def test_spawn_failed_tells_the_step_and_the_errno(broker: Broker) -> None:
    with pytest.raises(procbroker.SpawnFailed, match="no-such-program") as caught:
        broker.create(["no-such-program"], env={"PATH": "/usr/bin:/bin"})
    assert (caught.value.errno, caught.value.errno_name, caught.value.step) == (errno.ENOENT, "ENOENT", "exec")
    with pytest.raises(procbroker.SpawnFailed) as caught:
        broker.create(["true"], cwd="/no/such/folder")
    assert caught.value.step == "cwd"


def test_the_brokers_own_refusals(broker: Broker) -> None:
    broker.create(["sleep", "1000"], name="one", limit=("key", 1))
    with pytest.raises(procbroker.NameTaken):
        broker.create(["sleep", "1000"], name="one")
    with pytest.raises(procbroker.LimitExceeded):
        broker.create(["sleep", "1000"], limit={"key": "key", "max": 1})
    with pytest.raises(procbroker.InvalidParams, match="a name"):
        broker.create(["true"], name="a name")
    with pytest.raises(ValueError, match="SIGNOPE"):
        broker.signal("one", "SIGNOPE")
    with pytest.raises(LookupError):
        broker.get("nobody")
    with pytest.raises(procbroker.TimedOut):
        broker.wait("one", timeout=0)


AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user to be refused as")
NOBODY = pwd.getpwnam("nobody")
#: A group that nobody is in.
GROUP = grp.getgrnam("daemon")


def refused_as(user: int, socket: str, groups: Sequence[int] = ()) -> str:
    """Return with which error another user is refused, and its words."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(NOBODY.pw_gid, NOBODY.pw_gid, NOBODY.pw_gid)
            os.setresuid(user, user, user)
            Broker(socket).status()
        except PermissionError as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as words:
        return words.read().decode()


@AS_ROOT
def test_who_may_not_connect_is_told_so(own: RealBroker) -> None:
    # The folder and the socket let everybody in here; the broker does not.
    own.folder.chmod(0o755)
    os.chmod(own.socket, 0o666)
    assert refused_as(NOBODY.pw_uid, own.socket).startswith("PermissionDenied: ")


@AS_ROOT
def test_a_folder_that_may_not_be_entered_is_named(own: RealBroker) -> None:
    assert refused_as(NOBODY.pw_uid, own.socket) == (
        f"PermissionDenied: user nobody may not use the socket {own.socket}: the folder {own.folder} keeps other users "
        "out; open it to them, or have the broker listen elsewhere (--socket)"
    )


@AS_ROOT
@pytest.mark.parametrize(
    ("user", "gid", "mode", "groups", "facts", "way"),
    [
        (
            NOBODY.pw_uid,
            0,
            0o600,
            [],
            "user root and group root, and has mode 600",
            "; --socket-mode, --socket-group and, for the broker to let them in, --allow-user or --allow-group of",
        ),
        (
            NOBODY.pw_uid,
            GROUP.gr_gid,
            0o600,
            [],
            "user root and group daemon, and has mode 600",
            "; --socket-mode, --socket-group",
        ),
        (
            NOBODY.pw_uid,
            GROUP.gr_gid,
            0o660,
            [],
            "user root and group daemon, and has mode 660",
            "; 'usermod -aG daemon nobody' lets it in, once its session or service is started again",
        ),
        # By its membership it would own what is root's.
        (NOBODY.pw_uid, 0, 0o660, [], "user root and group root, and has mode 660", "; --socket-mode, --socket-group"),
        # The group lets nobody in who is not in it by a name.
        (
            64_321,
            GROUP.gr_gid,
            0o660,
            [],
            "user root and group daemon, and has mode 660",
            "; --socket-mode, --socket-group",
        ),
        (
            NOBODY.pw_uid,
            64_321,
            0o660,
            [],
            "user root and group 64321, and has mode 660",
            "; --socket-mode, --socket-group",
        ),
        # It is in the group, which may not write.
        (NOBODY.pw_uid, GROUP.gr_gid, 0o640, [GROUP.gr_gid], "and has mode 640", "; --socket-mode, --socket-group"),
    ],
)
def test_a_socket_that_may_not_be_used_is_told_of_with_its_owner_group_and_mode(
    own: RealBroker, user: int, gid: int, mode: int, groups: List[int], facts: str, way: str
) -> None:
    own.folder.chmod(0o755)
    os.chown(own.socket, 0, gid)
    os.chmod(own.socket, mode)
    said = refused_as(user, own.socket, groups)
    name = "nobody" if user == NOBODY.pw_uid else str(user)
    assert said.startswith(f"PermissionDenied: user {name} may not use the socket {own.socket}: it belongs to ")
    assert facts + way in said


def test_who_became_a_member_later_is_told_to_begin_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.getpwuid(os.getuid())
    members = grp.struct_group((GROUP.gr_name, "x", GROUP.gr_gid, [account.pw_name]))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "sock"))
        found = list(os.stat(folder / "sock"))
        found[0], found[4], found[5] = 0o140660, os.getuid() + 1, GROUP.gr_gid
        monkeypatch.setattr(os, "stat", lambda path: os.stat_result(found))
        monkeypatch.setattr(os, "getgroups", list)
        monkeypatch.setattr(grp, "getgrnam", lambda name: members)
        said = access.refusal(str(folder / "sock"))
    assert said.endswith(
        f"; {account.pw_name} is a member of daemon by now, but was none when its session or service was started"
    )


def test_nobody_there_says_where_and_what_to_do(folder: Path) -> None:
    path = folder / "nobody"
    with pytest.raises(BrokerUnavailable) as caught:
        Broker(path).status()
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.socket == str(path)
    assert f"cannot reach a broker at {path}: No such file or directory" in str(caught.value)
    assert f"procbroker serve --socket {path}" in str(caught.value)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(BrokerUnavailable, match="Connection refused"):
        Broker(path).status()


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_what_is_no_socket_is_told_so_at_once(folder: Path, kind: str) -> None:
    path = folder / "other"
    if kind == "a file":
        path.touch()
    else:
        path.mkdir()
    with pytest.raises(procbroker.NotASocket) as caught:
        Broker(path, wait_for_broker=True, connect_timeout=PATIENCE).status()
    assert str(caught.value).startswith(f"no broker can be at {path}: there is {kind}, and no socket; ")
    assert "procbroker serve" not in str(caught.value)


@pytest.mark.parametrize("given", [True, False])
def test_a_path_that_no_socket_can_have_says_its_length_and_the_bound(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    path = f"{folder}/{'ä' * 60}"
    if not given:
        monkeypatch.setenv("PROCBROKER_SOCKET", path)
    with pytest.raises(SocketPathTooLong) as caught:
        Broker(*[path] * given, wait_for_broker=True, connect_timeout=PATIENCE).status()
    assert (caught.value.length, caught.value.longest) == (len(os.fsencode(path)), 107)
    assert f"the path has {len(os.fsencode(path))} bytes, and that of a socket has at most 107" in str(caught.value)
    assert "procbroker serve" not in str(caught.value)
    # The longest that there can be is tried.
    longest = f"{folder}/{'x' * (106 - len(str(folder)))}"
    with pytest.raises(BrokerUnavailable, match="No such file"):
        Broker(os.fsencode(longest)).status()


@pytest.mark.parametrize("path", ["", "\0abstract", "/a\0b", b""])
def test_a_path_that_is_none_is_a_value_error(path: Any) -> None:
    with pytest.raises(ValueError, match="path in the file system"):
        Broker(path)


@pytest.mark.parametrize(
    "error",
    [
        procbroker.TimedOut("timeout", "later", {"kind": "timeout"}),
        procbroker.PermissionDenied("permission_denied", "no", {"kind": "permission_denied"}),
        procbroker.SpawnFailed("spawn_failed", "no", {"errno": 2}),
        BrokerUnavailable("/sock", "Connection refused"),
        SocketPathTooLong("/sock", 200, 107),
        procbroker.NotASocket("/sock", "a folder"),
        procbroker.ConnectionLost("signal", "/sock"),
        procbroker.ClientTimeout("create x", 1.5, "/sock"),
        procbroker.ClientClosed("/sock"),
        procbroker.ProtocolViolation("/sock", "garbage"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel_between_processes(error: ProcbrokerError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    if isinstance(error, OSError):
        assert error.errno is None


def test_every_kind_has_a_class_that_is_exported() -> None:
    exported = [getattr(procbroker, name) for name in procbroker.__all__]
    classes = [thing for thing in exported if isinstance(thing, type) and issubclass(thing, BrokerError)]
    by_kind = {kind.KIND: kind for kind in classes if kind is not BrokerError}
    assert by_kind == KINDS


def test_use_after_close_is_an_error(broker: Broker) -> None:
    other = Broker(broker.socket)
    other.status()
    other.close()
    with pytest.raises(procbroker.ClientClosed, match="is closed; make another") as caught:
        other.status()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("kind", "base"), [("timeout", TimeoutError), ("not_found", LookupError)])
def test_some_are_the_standard_librarys_too(kind: str, base: Type[BaseException]) -> None:
    assert issubclass(KINDS[kind], base)
