"""From Python to the wire, and back: against the golden messages of the protocol where there are some."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple, Union, cast

import pytest
from brokers import REPOSITORY, FakeBroker, child

from procbroker import (
    AsyncBroker,
    Broker,
    BrokerError,
    ChildView,
    CreateOptions,
    Exit,
    Status,
    Step,
    default_socket,
    lifetime,
)
from procbroker.address import _is_ours_alone
from procbroker.arguments import create_params
from procbroker.errors import error_from_wire
from procbroker.event import event_from_wire
from procbroker.values import signal_number, time_from_wire

GOLDEN = REPOSITORY / "protocol/tests/golden"


def golden(name: str) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Return the messages of a file, each with its title."""
    title = ""
    for line in (GOLDEN / name).read_text().splitlines():
        if line.startswith("# "):
            title = line[2:]
        elif line:
            yield title, json.loads(line)


def children_of(message: Any) -> Iterator[Dict[str, Any]]:
    """Return every child in a message."""
    if isinstance(message, dict):
        # A specification has an order, too, and is no child.
        if "stop_order" in message and "id" in message:
            yield message
        for value in message.values():
            yield from children_of(value)
    if isinstance(message, list):
        for value in message:
            yield from children_of(value)


def test_every_golden_child_is_read() -> None:
    messages = [message for _, message in [*golden("answers.jsonl"), *golden("notifications.jsonl")]]
    views = [ChildView(one) for one in children_of(messages)]
    assert len(views) > 10
    properties = [name for name, member in vars(ChildView).items() if isinstance(member, property)]
    for view in views:
        for name in properties:
            getattr(view, name)
        assert (view.exit is None) == (not view.ended)
    codes = {view.returncode for view in views if view.ended}
    assert {0, -9, None, -1, 255} <= codes
    lost = [view.exit for view in views if view.exit and view.exit.unknown]
    assert {one.reason for one in lost} == {"broker_lost"}
    cleanups = [view.cleanup for view in views if view.cleanup]
    assert {(one.ok, one.returncode) for one in cleanups} == {(True, 0), (False, -9), (False, None)}


def test_every_golden_error_is_a_class() -> None:
    errors = [error_from_wire(message["error"]) for _, message in golden("answers.jsonl") if "error" in message]
    unknown = {error.kind for error in errors if type(error) is BrokerError}
    # What only a client that does not speak the protocol can be told.
    assert unknown == {"parse_error", "invalid_request", "method_not_found"}


def test_every_golden_event_is_read() -> None:
    told = [message["params"] for _, message in golden("notifications.jsonl") if message["method"] == "event"]
    events = [event_from_wire(params, ChildView) for params in told]
    assert [one.kind for one in events] == [params["kind"] for params in told]


def test_the_golden_status_is_read() -> None:
    message = dict(golden("answers.jsonl"))["status"]
    status = Status.from_wire(message["result"])
    assert (status.pid, status.connections, status.children["backoff"]) == (1, 7, 6)
    assert status.protocol == (1, 1)


def test_a_create_with_every_parameter_is_the_golden_one() -> None:
    golden_params = dict(golden("requests.jsonl"))["create, every parameter"]["params"]
    params = create_params(
        ["python3", "render.py", 'ä "\n'],
        {
            "name": "render-42",
            "if_exists": "reuse",
            "request_id": "67e55044-10b1-426f-9247-bb680e5fe0c8",
            "labels": {"pool": "render", "tier": ""},
            "cwd": Path("/srv/app"),
            "env": {"LANG": "C.UTF-8"},
            "env_clear": True,
            "umask": 0o077,
            "user": "www-data",
            "groups": ("video", 1000),
            "stdout": "inherit",
            "stderr": "log",
            "stop": [("SIGHUP", 0.25), Step("SIGRTMIN+3", datetime.timedelta(minutes=5))],
            "stop_order": -7,
            "ready": "notify",
            "ready_timeout": datetime.timedelta(seconds=90),
            "no_wait": True,
            "restart": {
                "policy": "on-failure",
                "max": 3,
                "window": datetime.timedelta(hours=1),
                "backoff": 0.5,
                "backoff_max": 60,
            },
            "lifetime": {"ttl": datetime.timedelta(days=1)},
            "linger": 1.5,
            "cleanup": {"command": ["rm", "-rf", Path("/srv/scratch")], "timeout": 9},
            "limit": ("render", 4),
            "rlimits": {"core": "unlimited", "nofile": 1024},
            "resources": {"memory_max": 1 << 30, "cpu_weight": 100, "cpu_max": "50000 100000", "pids_max": None},
        },
    )
    assert given({"stdin": "null", **params}) == given(golden_params)


def given(params: Dict[str, Any]) -> Dict[str, Any]:
    """Return parameters without those that are not given: absent and null mean the same."""
    inner = {name: given(value) if isinstance(value, dict) else value for name, value in params.items()}
    return {name: value for name, value in inner.items() if value is not None}


def test_a_create_with_nothing_but_a_command_sends_little() -> None:
    seen: List[Dict[str, Any]] = []
    options = {"name": None, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cleanup": ["rm", "x"]}
    seen.append(create_params(["a", Path("b")], options))
    assert seen == [{"command": ["a", "b"], "stdout": "null", "stderr": "stdout", "cleanup": {"command": ["rm", "x"]}}]


@pytest.mark.parametrize("client", [Broker, AsyncBroker])
def test_a_default_is_not_sent_and_what_only_equals_it_is(client: Any) -> None:
    defaults = {name: one.default for name, one in inspect.signature(client.create).parameters.items()}
    options = {name: defaults[name] for name in CreateOptions.__annotations__}
    assert create_params(["a"], options) == {"command": ["a"]}
    # The broker is to judge it, which takes no number for a truth value.
    odd = {"env_clear": 0, "no_wait": 0, "stop_order": False}
    assert create_params(["a"], {**options, **odd}) == {"command": ["a"], **odd}


def test_every_parameter_of_a_create_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: object() for name in CreateOptions.__annotations__}
    passed: List[Any] = []

    class Passed(Exception):
        pass

    def create(_self: object, *arguments: Any) -> None:
        passed.append(arguments)
        raise Passed

    monkeypatch.setattr("procbroker.requests.Requests.create", create)
    with pytest.raises(Passed):
        cast(Any, Broker("/path")).create(["a"], **given, timeout=7)
    with pytest.raises(Passed):
        asyncio.run(cast(Any, AsyncBroker("/path")).create(["a"], **given, timeout=7))
    assert passed == [(["a"], given, 7)] * 2


def test_words_of_a_command_are_texts_paths_bytes_and_numbers() -> None:
    class Number:
        def __index__(self) -> int:
            return 7

    class BytesPath:
        def __fspath__(self) -> bytes:
            return "/ä".encode()

    words: List[Any] = ["a", Path("/b"), b"c \xc3\xa4", BytesPath(), 60, -1, 0.25, 1e300, signal.SIGHUP, Number()]
    params = create_params(words, {"env": {b"PORT": 8080, "SHARE": 0.5, "HOME": Path("/h")}})
    assert params["command"] == ["a", "/b", "c ä", "/ä", "60", "-1", "0.25", "1e+300", "1", "7"]
    assert params["env"] == {"PORT": "8080", "SHARE": "0.5", "HOME": "/h"}


def test_a_relative_folder_is_below_this_process_s_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    own = os.getcwd()
    found = [create_params(["a"], {"cwd": cwd})["cwd"] for cwd in (".", "sub", b"sub", Path(".."), "/abs")]
    assert found == [own, f"{own}/sub", f"{own}/sub", f"{own}/..", "/abs"]


def test_the_environment_of_this_process_is_sent_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"PATH": "/bin", "WORD": "ä", "NOTIFY_SOCKET": "/n", "LISTEN_PID": "7", "WATCHDOG_USEC": "7"}
    monkeypatch.setattr(os, "environ", {**own, "PROCBROKER_CHILD_NAME": "me", "": "nameless"})
    params = create_params(["a"], {"inherit_env": True, "env": {"WORD": "mine", "MORE": 1}})
    assert params == {"command": ["a"], "env": {"PATH": "/bin", "WORD": "mine", "MORE": "1"}, "env_clear": True}
    assert create_params(["a"], {"inherit_env": False, "env_clear": False}) == {"command": ["a"]}
    monkeypatch.setattr(os, "environ", {"WORD": "\udcff"})
    with pytest.raises(ValueError, match=r"value of WORD .* not UTF-8"):
        create_params(["a"], {"inherit_env": True})
    monkeypatch.setattr(os, "environ", {"\udcff": "word"})
    with pytest.raises(ValueError, match=r"name of a variable .* not UTF-8"):
        create_params(["a"], {"inherit_env": True})


@pytest.mark.parametrize(
    ("stop", "wire"),
    [
        ([], []),
        (["SIGTERM"], [{"signal": "SIGTERM"}]),
        ([signal.SIGTERM, ("HUP", 0)], [{"signal": 15}, {"signal": "HUP", "grace": 0}]),
        ((Step(1, 2.5), Step("INT")), [{"signal": 1, "grace": 2.5}, {"signal": "INT"}]),
    ],
)
def test_steps_of_a_stop(stop: Any, wire: List[Dict[str, Any]]) -> None:
    assert create_params(["a"], {"stop": stop})["stop"] == wire


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("90", 90.0),
        (" 0.5 ", 0.5),
        ("250ms", 0.25),
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h 30min", 5400.0),
        ("1.5 hours", 5400.0),
        ("2d", 172800.0),
        ("1month", 2630016.0),
    ],
)
def test_a_duration_is_a_text_as_on_the_wire(duration: str, seconds: float) -> None:
    sent = create_params(["a"], {"linger": duration, "lifetime": lifetime.ttl(duration), "stop": [("HUP", duration)]})
    assert sent["linger"] == pytest.approx(seconds)
    assert sent["lifetime"] == {"ttl": pytest.approx(seconds)}
    assert sent["stop"][0]["grace"] == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("command", "options", "complaint"),
    [
        ("sleep 60", {}, "no shell"),
        (b"sleep", {}, "no shell"),
        (bytearray(b"sleep"), {}, "no shell"),
        (Path("sleep"), {}, "no shell"),
        (["sleep", None], {}, "word 1 of command is a text, a path, bytes or a number, not None"),
        (["sleep", True], {}, "not True"),
        (["sleep", ["60"]], {}, r"word 1 of command is a text, a path, bytes or a number, not \['60'\]"),
        (["sleep", int], {}, "word 1 of command is a text, a path, bytes or a number, not <class"),
        (["sleep", 1j], {}, "word 1 of command is a text, a path, bytes or a number, not 1j"),
        (["a"], {"env": {"A": []}}, r"'A' in env is a text, a path, bytes or a number, not \[\]"),
        (["a"], {"env": {7: "A"}}, "a name in env is a text, a path or bytes, not 7"),
        (["a"], {"cleanup": ["rm", None]}, "word 1 of cleanup"),
        (["a"], {"cwd": 7}, "cwd is a text, a path or bytes, not 7"),
        (["a"], {"env": {"A": False}}, "not False"),
        (["a"], {"env": {"A": None}}, "not None"),
        (["a"], {"env": ["A=1"]}, "env"),
        (["a"], {"inherit_env": True, "env_clear": True}, "one of them"),
        (["a"], {"stop": "SIGTERM"}, "list of steps"),
        (["a"], {"stop": ("SIGHUP", 10)}, "pair such as"),
        (["a"], {"stop": [("SIGHUP", [10])]}, "grace"),
        (["a"], {"stop": [("SIGHUP", True)]}, "grace"),
        (["a"], {"stop": [(None, 1)]}, "a signal is"),
        (["a"], {"labels": [("a", "b")]}, "labels"),
        (["a"], {"limit": "render"}, "limit"),
        (["a"], {"lifetime": 60}, "lifetime"),
        (["a"], {"restart": 3}, "restart"),
        (["a"], {"linger": ["1s"]}, 'linger is a number of seconds, a timedelta or a text such as "10m"'),
    ],
)
def test_a_wrong_type_is_a_type_error(command: Any, options: Dict[str, Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        create_params(command, options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"linger": -1}, "out of range"),
        ({"linger": "-1"}, "linger is a duration such as"),
        ({"linger": "soon"}, "linger is a duration such as .*, not 'soon'"),
        ({"linger": ""}, "linger is a duration such as"),
        ({"linger": "5 parsecs"}, "linger is a duration such as"),
        ({"linger": "1h 10M"}, "has M, which is a month; '1h 10m' is minutes"),
        ({"stop": [("SIGHUP", "SIGTERM")]}, "the grace of a stop's step is a duration such as"),
        ({"ready_timeout": float("nan")}, "out of range"),
        ({"lifetime": {"ttl": float("inf")}}, "out of range"),
        ({"stdout": subprocess.PIPE}, "follow"),
        ({"stdout": subprocess.STDOUT}, "stdout is"),
        ({"cwd": os.fsdecode(b"/\xff")}, "not UTF-8"),
        ({"cwd": b"/\xff"}, "not UTF-8"),
        ({"cwd": "/a\0b"}, "NUL"),
        ({"env": {"A": b"\xff"}}, "not UTF-8"),
        ({"cleanup": [b"\xff"]}, "word 0 of cleanup is not UTF-8"),
    ],
)
def test_a_wrong_value_is_a_value_error(options: Dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        create_params(["a"], options)


WRONG_USES: List[Callable[[Broker], Any]] = [
    lambda broker: broker.create(["true"], nmae="one"),  # type: ignore[call-arg]
    lambda broker: broker.create(["true"], "one"),  # type: ignore[call-arg,misc,unused-ignore]
    lambda broker: broker.create(),  # type: ignore[call-arg]
    lambda broker: broker.destroy(),
    lambda broker: broker.destroy("one", all=True),
    lambda broker: broker.destroy("one", labels={"a": "b"}),
    lambda broker: broker.get(None),  # type: ignore[arg-type]
    lambda broker: broker.get(4711),  # type: ignore[arg-type]
    lambda broker: broker.signal("one", None),  # type: ignore[arg-type]
    lambda broker: broker.list(timeout=[1]),  # type: ignore[arg-type]
    lambda broker: broker.wait("one", timeout=True, until=None, more=1),  # type: ignore[call-arg, arg-type]
]


@pytest.mark.parametrize("use", WRONG_USES)
def test_wrong_use_is_a_type_error_and_nothing_is_sent(folder: Path, use: Callable[[Broker], Any]) -> None:
    # There is no broker: what is tried there would be BrokerUnavailable.
    with pytest.raises(TypeError):
        use(Broker(folder / "none"))


def test_text_that_is_not_utf_8_is_refused_wherever_it_is(folder: Path) -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        Broker(folder / "none").create(["true"], labels={"a": "\udcff"})


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGKILL", 9), ("SIGRTMIN+3", 37), ("SIGRTMAX", 64), ("SIGNOPE", None), ("SIG_DFL", None), ("", None)],
)
def test_numbers_of_signals(name: str, number: Union[int, None]) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize(
    ("text", "micros"), [("18Z", 0), ("18.5Z", 500_000), ("18.123456Z", 123_456), ("18.123456789Z", 123_456)]
)
def test_times_of_any_precision(text: str, micros: int) -> None:
    expected = datetime.datetime(2026, 11, 23, 14, 52, 18, micros, datetime.timezone.utc)
    assert time_from_wire(f"2026-11-23T14:52:{text}") == expected


def test_an_exit_of_an_unknown_signal_has_no_returncode() -> None:
    wire = {"signal": "SIGNEW", "reason": "exited", "forced": False, "steps": [], "at": "2026-11-23T14:53:17Z"}
    assert Exit.from_wire(wire).returncode is None


def test_fields_of_a_newer_broker_are_kept_and_harmless(fake: FakeBroker) -> None:
    fake.play(lambda connection: connection.answer({"child": child(mood="fine"), "more": 1}))
    with Broker(fake.socket) as broker:
        assert broker.get("one").raw["mood"] == "fine"


def test_the_variable_names_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCBROKER_SOCKET", "/somewhere")
    assert default_socket() == "/somewhere"
    assert Broker().socket == "/somewhere"
    assert Broker("/else").socket == "/else"
    assert repr(Broker(Path("/else"))) == "<Broker /else>"


def test_the_users_own_broker_comes_before_the_systems(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    system = "/run/procbroker/procbroker.sock"
    monkeypatch.setenv("PROCBROKER_SOCKET", "")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_socket() == system
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert default_socket() == system
    own = folder / "procbroker/procbroker.sock"
    own.parent.mkdir()
    own.touch()
    assert default_socket() == str(own)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert default_socket() == system


def test_a_folder_in_tmp_that_is_not_ones_own_is_not_believed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert _is_ours_alone(str(folder), os.getuid())
    assert not _is_ours_alone(str(folder), os.getuid() + 1)
    assert not _is_ours_alone(str(folder / "none"), os.getuid())
    folder.chmod(0o777)
    assert not _is_ours_alone(str(folder), os.getuid())
    folder.chmod(0o700)
    (folder / "link").symlink_to(folder)
    assert not _is_ours_alone(str(folder / "link"), os.getuid())
