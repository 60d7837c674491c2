"""The places where web applications run: gevent, and the sub-interpreters of mod_wsgi."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from brokers import KEEP, PATIENCE, STATUS, FakeBroker, FakeConnection

from procbroker import Broker

GEVENT = """
    {first}
    {second}
    import sys, gevent
    broker = procbroker.Broker(sys.argv[1])
    child = broker.create(["sleep", "1000"], name="green")
    waits = [gevent.spawn(broker.wait, child) for _ in range(10)]
    # All the waits block here, and the hub goes on.
    asked = [gevent.spawn(broker.get, "green") for _ in range(50)]
    gevent.joinall(asked, timeout=30, raise_error=True)
    assert all(one.value == child for one in asked)
    assert not any(one.ready() for one in waits)
    try:
        with gevent.Timeout(0.05):
            child.wait()
    except gevent.Timeout:
        pass
    else:
        raise AssertionError("the wait was not given up")
    waits.pop().kill()
    child.signal("KILL")
    gevent.joinall(waits, timeout=30, raise_error=True)
    assert [one.value.returncode for one in waits] == [-9] * 9
    try:
        child.refresh().wait(timeout=0)
        broker.create(["sleep", "1000"], name="other").wait(timeout=0.05)
    except procbroker.TimedOut:
        print("green")
"""

PATCH = "from gevent import monkey; monkey.patch_all()"


@pytest.mark.parametrize(
    ("first", "second"), [(PATCH, "import procbroker"), ("import procbroker", PATCH)], ids=["before", "after"]
)
def test_under_gevent_patched_before_and_after_the_import(broker: Broker, first: str, second: str) -> None:
    pytest.importorskip("gevent")
    script = textwrap.dedent(GEVENT).format(first=first, second=second)
    done = subprocess.run(
        [sys.executable, "-c", script, broker.socket], capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )
    assert (done.stdout, done.stderr) == ("green\n", "")


WORK = """
    import sys
    sys.path[:] = {path!r}
    import procbroker
    broker = procbroker.Broker({socket!r})
    child = broker.create(["sleep", "1000"], name="sub", if_exists="reuse")
    assert broker.get("sub") == child
    try:
        child.wait(timeout=0.01)
    except procbroker.TimedOut:
        pass
    try:
        broker.create(["no-such-program"])
    except procbroker.SpawnFailed:
        pass
    child.destroy()
    assert child.returncode == -15
    with open({mark!r}, "a") as file:
        file.write("done ")
"""

WATCH = """
    import sys, threading
    sys.path[:] = {path!r}
    import procbroker
    broker = procbroker.Broker({socket!r})
    try:
        broker.on_shutdown(lambda: None)
        word = "watched "
    except RuntimeError as error:
        # Python 3.11 and older start no threads at all in an isolated interpreter.
        word = "refused "
    # What mod_wsgi does before it ends an interpreter: wait for its threads.
    threading._shutdown()
    # Python 3.12 fails when the interpreter calls it a second time.
    threading._shutdown = lambda: None
    with open({mark!r}, "a") as file:
        file.write(word)
"""


NOT_ISOLATED_IN_3_12 = pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="`import datetime` alone breaks isolated interpreters of Python 3.12"
)


def in_sub_interpreters(script: str, isolated: bool, **values: object) -> None:
    """Run a script in two sub-interpreters of another process, one after the other."""
    if sys.version_info >= (3, 13):
        module, arguments = "_interpreters", repr("isolated" if isolated else "legacy")
    else:
        module, arguments = "_xxsubinterpreters", f"isolated={isolated}"
    host = f"""
        import {module} as module
        for _ in range(2):
            interpreter = module.create({arguments})
            failure = module.run_string(interpreter, {textwrap.dedent(script).format(path=sys.path, **values)!r})
            assert failure is None, failure
            module.destroy(interpreter)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(host)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("isolated", [pytest.param(True, marks=NOT_ISOLATED_IN_3_12), False])
def test_in_a_sub_interpreter(broker: Broker, folder: Path, isolated: bool) -> None:
    in_sub_interpreters(WORK, isolated, socket=broker.socket, mark=str(folder / "mark"))
    assert (folder / "mark").read_text() == "done done "


@pytest.mark.parametrize("isolated", [pytest.param(True, marks=NOT_ISOLATED_IN_3_12), False])
def test_a_sub_interpreter_ends_that_waits_for_a_shutdown(fake: FakeBroker, folder: Path, isolated: bool) -> None:
    fake.play(*[watched] * 4)
    in_sub_interpreters(WATCH, isolated, socket=fake.socket, mark=str(folder / "mark"))
    refused = isolated and sys.version_info < (3, 12)
    assert (folder / "mark").read_text() == ("refused refused " if refused else "watched watched ")


@pytest.mark.parametrize("first", ["", PATCH])
def test_a_process_ends_that_waits_for_a_shutdown(fake: FakeBroker, first: str) -> None:
    fake.play(*[watched] * 2)
    script = f"{first}\nimport procbroker\nprocbroker.Broker({fake.socket!r}).on_shutdown(print)\nprint('over')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("over\n", "", 0)


def watched(connection: FakeConnection) -> object:
    """Answer questions for the status, up to a subscription."""
    while connection.answer({**STATUS, "subscription": 1, "next": 1})["method"] != "events":
        pass
    return KEEP
