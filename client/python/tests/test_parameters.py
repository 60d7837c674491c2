"""The parameters that give a child a life of its own, in the exact form that goes over the wire."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import resource
import threading
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from brokers import PATIENCE, FakeBroker, FakeConnection, child

import procbroker
from procbroker import Broker, ClientTimeout, Limit, Unsupported, Usage, lifetime, ready, restart
from procbroker.arguments import create_params

MINUTE = datetime.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("options", "wire"),
    [
        # What is the default means what is not given.
        ({"ready": ready.spawn()}, {}),
        ({"ready": ready.notify(), "watchdog": 2.5}, {"ready": "notify", "watchdog": 2.5}),
        ({"ready": ready.tcp("127.0.0.1:8080")}, {"ready": {"tcp": "127.0.0.1:8080"}}),
        ({"ready": ready.tcp(8080)}, {"ready": {"tcp": "127.0.0.1:8080"}}),
        ({"ready": ready.tcp("10.0.0.1", 80, interval=0.5)}, {"ready": {"tcp": "10.0.0.1:80", "interval": 0.5}}),
        ({"ready": ready.tcp("::1", 80)}, {"ready": {"tcp": "[::1]:80"}}),
        ({"ready": ready.tcp("[::1]:80")}, {"ready": {"tcp": "[::1]:80"}}),
        ({"ready": ready.unix(Path("/run/app"), interval=MINUTE)}, {"ready": {"unix": "/run/app", "interval": 60.0}}),
        ({"ready": ready.log("listening")}, {"ready": {"log": "listening"}}),
        ({"ready": ready.command(["test", "-e", Path("/x"), 7])}, {"ready": {"command": ["test", "-e", "/x", "7"]}}),
        ({"ready": {"tcp": "a:1", "interval": MINUTE}}, {"ready": {"tcp": "a:1", "interval": 60.0}}),
        ({"ready_timeout": MINUTE, "no_wait": True}, {"ready_timeout": 60.0, "no_wait": True}),
        ({"restart": restart.never()}, {"restart": {"policy": "never"}}),
        ({"restart": restart.always()}, {"restart": {"policy": "always"}}),
        ({"restart": "on-failure"}, {"restart": {"policy": "on-failure"}}),
        (
            {"restart": restart.on_failure(max=3, window=MINUTE, backoff=0.5, backoff_max=8)},
            {"restart": {"policy": "on-failure", "max": 3, "window": 60.0, "backoff": 0.5, "backoff_max": 8}},
        ),
        ({"restart": restart.always(max=0)}, {"restart": {"policy": "always", "max": 0}}),
        ({"lifetime": lifetime.broker()}, {}),
        ({"lifetime": lifetime.connection(), "linger": MINUTE}, {"lifetime": "connection", "linger": 60.0}),
        ({"lifetime": lifetime.pid(4711)}, {"lifetime": {"pid": 4711}}),
        ({"lifetime": lifetime.ttl(MINUTE)}, {"lifetime": {"ttl": 60.0}}),
        ({"limit": Limit("render", 4)}, {"limit": {"key": "render", "max": 4}}),
        ({"limit": Limit("render", 4, wait=MINUTE)}, {"limit": {"key": "render", "max": 4, "wait": 60.0}}),
        ({"limit": ("render", 4, 9)}, {"limit": {"key": "render", "max": 4, "wait": 9}}),
        ({"limit": {"key": "k", "max": 1, "wait": MINUTE}}, {"limit": {"key": "k", "max": 1, "wait": 60.0}}),
        (
            {"rlimits": {"nofile": 1024, "core": resource.RLIM_INFINITY, "cpu": "unlimited"}},
            {"rlimits": {"nofile": 1024, "core": "unlimited", "cpu": "unlimited"}},
        ),
        (
            {"resources": {"memory_max": 1 << 30, "io_weight": 50}},
            {"resources": {"memory_max": 1 << 30, "io_weight": 50}},
        ),
    ],
)
def test_a_parameter_has_this_form_on_the_wire(options: Dict[str, Any], wire: Dict[str, Any]) -> None:
    assert create_params(["a"], options) == {"command": ["a"], **wire}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: ready.tcp("localhost"), ValueError),
        (lambda: ready.tcp("localhost", 0), ValueError),
        (lambda: ready.tcp("localhost", 65536), ValueError),
        (lambda: ready.tcp(8080, 8081), TypeError),
        (lambda: ready.tcp(True), TypeError),
        (lambda: ready.unix(7), TypeError),  # type: ignore[arg-type]
        (lambda: ready.command("test -e /x"), TypeError),
        (lambda: ready.unix("/x", interval=-1), ValueError),
        (lambda: lifetime.pid(0), ValueError),
        (lambda: lifetime.pid("7"), TypeError),  # type: ignore[arg-type]
        (lambda: create_params(["a"], {"ready": ready.notify}), TypeError),
        (lambda: create_params(["a"], {"ready": 7}), TypeError),
        (lambda: create_params(["a"], {"limit": ("render",)}), TypeError),
        (lambda: create_params(["a"], {"limit": Limit("render", 4, wait=-1)}), ValueError),
        (lambda: create_params(["a"], {"rlimits": {"nofile": True}}), TypeError),
        (lambda: create_params(["a"], {"rlimits": 7}), TypeError),
        (lambda: create_params(["a"], {"resources": 7}), TypeError),
        (lambda: create_params(["a"], {"watchdog": ["5s"]}), TypeError),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(make: Callable[[], Any], kind: Any) -> None:
    with pytest.raises(kind):
        make()


@pytest.mark.parametrize(
    ("options", "python"),
    [
        ({"ready": "tcp:127.0.0.1:8080"}, r"procbroker\.ready\.tcp\("),
        ({"ready": "unix:/run/app"}, r"procbroker\.ready\.unix\("),
        ({"ready": "log:listening"}, r"procbroker\.ready\.log\("),
        ({"ready": "command"}, r"procbroker\.ready\.command\("),
        ({"lifetime": "ttl:5s"}, r"procbroker\.lifetime\.ttl\("),
        ({"lifetime": "pid:4711"}, r"procbroker\.lifetime\.pid\("),
    ],
)
def test_who_writes_as_on_the_command_line_is_told_how_python_has_it(options: Dict[str, Any], python: str) -> None:
    with pytest.raises(ValueError, match=python):
        create_params(["a"], options)


@pytest.mark.parametrize("time", [60, 1.5, MINUTE])
def test_a_lifetime_that_is_a_time_alone_is_told_how_that_is_written(time: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"procbroker.lifetime.ttl({time!r})")):
        create_params(["a"], {"lifetime": time})


@pytest.mark.parametrize(
    "options",
    [
        {"ready": ready.notify(), "no_wait": True},
        {"restart": restart.on_failure(max=1)},
        {"lifetime": lifetime.ttl(3600)},
        {"lifetime": lifetime.pid(os.getpid())},
        {"lifetime": "connection", "linger": 1},
        {"resources": {"pids_max": 64}},
    ],
)
def test_the_broker_takes_it_or_says_that_it_does_not_offer_it(broker: Broker, options: Dict[str, Any]) -> None:
    # Anything else, such as InvalidParams, fails.
    with contextlib.suppress(Unsupported):
        broker.create(["sleep", "1000"], **options).destroy()


def test_what_is_unsupported_is_raised_as_that(fake: FakeBroker) -> None:
    fake.play(lambda connection: connection.refuse("unsupported"))
    with Broker(fake.socket) as broker, pytest.raises(procbroker.Unsupported):
        broker.create(["true"], ready=ready.tcp(80))
    assert fake.result()["params"]["ready"] == {"tcp": "127.0.0.1:80"}


@pytest.mark.parametrize(
    "options",
    [{"ready": ready.tcp(80)}, {"ready": ready.notify(), "ready_timeout": 60}, {"limit": Limit("a", 1, wait=60)}],
)
def test_what_the_broker_waits_for_is_added_to_the_clients_own_time(fake: FakeBroker, options: Dict[str, Any]) -> None:
    late = threading.Event()

    def play(connection: FakeConnection) -> object:
        request = connection.request()
        assert late.wait(PATIENCE)
        connection.send({"jsonrpc": "2.0", "id": request["id"], "result": {"outcome": "created", "child": child()}})
        return None

    fake.play(play, lambda connection: [connection.request(), connection.gone()])
    with Broker(fake.socket, timeout=0.05) as broker:
        timer = threading.Timer(0.1, late.set)
        timer.start()
        assert broker.create(["true"], **options).outcome == "created"
        timer.join()
        with pytest.raises(ClientTimeout):
            broker.create(["true"], no_wait=True, ready=ready.tcp(80))


def test_a_list_of_some_fields_tells_those_and_no_others(fake: FakeBroker) -> None:
    some = {"id": child()["id"], "name": "one", "pid": 4711, "usage": {"cpu": 1.5, "processes": 2}}
    fake.play(
        lambda connection: [
            connection.answer({"children": [some, {"id": child()["id"]}]}),
            connection.answer({"children": [child(state="ended")]}),
        ]
    )
    with Broker(fake.socket) as broker:
        told, bare = broker.list(fields=["name", "pid", "usage"])
        assert (told.id, told.name, told.pid) == (child()["id"], "one", 4711)
        assert told.usage == Usage(cpu=1.5, memory=None, memory_peak=None, processes=2)
        assert repr(told) == f"<Child one id={told.id} pid=4711>"
        with pytest.raises(AttributeError, match=r"state of .* was not told"):
            _ = told.state
        assert repr(bare) == f"<Child id={bare.id}>"
        with pytest.raises(TypeError, match="list of names"):
            broker.list(fields="name")  # type: ignore[arg-type]
        assert bare.destroy().state == "ended"
    assert fake.result()[0]["params"] == {"labels": {}, "all": False, "fields": ["name", "pid", "usage"]}


def test_get_tells_the_specification_and_the_usage(fake: FakeBroker) -> None:
    usage = {"cpu": 0.25, "memory": 4096, "memory_peak": 8192, "processes": 1}
    full = child(usage=usage, status_text="at work")
    long = child(command=["python3", "-c"], shortened=["command"])
    fake.play(
        lambda connection: [
            connection.answer({"child": child()}),
            connection.answer({"child": full, "spec": {"cwd": "/srv"}}),
            connection.answer({"child": child(), "spec": None}),
            connection.answer({"children": [long, child()]}),
        ]
    )
    with Broker(fake.socket) as broker:
        one = broker.get("one")
        assert (one.spec, one.usage, one.status_text) == (None, None, None)
        one.refresh()
        assert one.spec == {"cwd": "/srv"}
        assert one.usage == Usage(0.25, 4096, 8192, 1)
        assert one.status_text == "at work"
        assert broker.get("one").spec is None
        assert [one.shortened for one in broker.list()] == [["command"], []]


@pytest.mark.parametrize(
    ("since", "wire"),
    [
        ("5m", "5m"),
        (90, 90),
        (MINUTE, 60.0),
        (
            datetime.datetime(2026, 11, 23, 14, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
            "2026-11-23T13:00:00.000000Z",
        ),
    ],
)
def test_logs_are_asked_for_since_a_time_or_an_age(fake: FakeBroker, since: Any, wire: Any) -> None:
    answer = {"text": "one\n", "truncated": True, "dropped": 7}
    fake.play(
        lambda connection: connection.answer(answer),
        lambda connection: connection.answer({"text": "", "truncated": False}),
    )
    with Broker(fake.socket) as broker:
        logs = broker.logs("one", tail=3, since=since, timestamps=True)
        assert (logs.text, logs.truncated, logs.dropped) == ("one\n", True, 7)
        assert list(broker.follow("one", since=since, timestamps=True)) == []
    wanted = {"target": "one", "stream": "stdout", "since": wire, "timestamps": True}
    assert fake.result()["params"] == {**wanted, "tail": 3}
    assert fake.result()["params"] == {**wanted, "follow": True}


def test_a_time_without_a_zone_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Broker(folder / "none").logs("one", since=datetime.datetime(2026, 11, 23))


def test_an_exit_tells_of_too_many_restarts_and_of_memory() -> None:
    wire = {"signal": "SIGKILL", "reason": "watchdog", "forced": False, "steps": [], "at": "2026-11-23T14:53:17Z"}
    plain, told = procbroker.Exit.from_wire(wire), procbroker.Exit.from_wire({**wire, "gave_up": True, "oom": True})
    assert (plain.gave_up, plain.oom) == (False, False)
    assert (told.gave_up, told.oom) == (True, True)


def test_metrics_are_text(fake: FakeBroker) -> None:
    fake.play(lambda connection: connection.answer({"text": "procbroker_connections 1\n"}))
    with Broker(fake.socket) as broker:
        assert broker.metrics() == "procbroker_connections 1\n"
    assert fake.result()["method"] == "metrics"
