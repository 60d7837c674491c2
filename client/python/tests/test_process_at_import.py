"""Calls that stand at the top level of a module which a process imports: each process would start the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List

import pytest
import targets
from brokers import PATIENCE

import procbroker
from procbroker import Broker, NoResult, handover

#: A module that notes each run of itself, and stops at the sixth, so that a test that fails ends all the same.
RUNS = """
import asyncio, os, sys, threading, procbroker
with open(os.environ["RUNS"], "a+") as runs:
    runs.write("run\\n")
    runs.seek(0)
    assert len(runs.readlines()) < 6, "it replicates"
def render(n): return n
socket, env = os.environ["PROCBROKER_SOCKET"], {"RUNS": os.environ["RUNS"]}
broker, async_broker = procbroker.Broker(socket), procbroker.AsyncBroker(socket)
def started(child): print(child.id)
"""
PROCESS = "started(broker.process(target=render, args=(1,), env=env))\n"
CREATE = 'broker.create(["sleep", "1000"])'
#: What a child meets while it imports the module; the program that imports it first calls ``process`` there.
CALLS = {
    "process": ("broker.process(render, (1,), env=env)", "process app:render"),
    "create": (CREATE, "create sleep 1000"),
    "async process": ("asyncio.run(async_broker.process(render, (1,), env=env))", "process app:render"),
    "async create": ('asyncio.run(async_broker.create(["sleep", "1000"]))', "create sleep 1000"),
}


@pytest.fixture(autouse=True)
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the handed-over calls, in which nothing is left behind."""
    here = folder / "handover"
    here.mkdir()
    monkeypatch.setenv(handover.PLACE_VARIABLE, str(here))
    yield here
    assert list(here.iterdir()) == []


def run(folder: Path, broker: Broker, text: str, *how: str) -> List[procbroker.Child]:
    """Run a module ``app``, and return the children that it says it has started."""
    (folder / "app.py").write_text(text)
    done = subprocess.run(
        [sys.executable, *how],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)]),
            "RUNS": str(folder / "runs"),
            "PROCBROKER_SOCKET": broker.socket,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [broker.get(line) for line in done.stdout.split()]


def all_end(broker: Broker) -> List[procbroker.Child]:
    """Wait until no child lives any more, and return all that have been."""
    while True:
        living = broker.list()
        if not living:
            return broker.list(all=True)
        for child in living:
            child.wait(PATIENCE)


@pytest.mark.parametrize("how", [("-c", "import app"), ("-m", "app")], ids=["imported", "as a module"])
def test_a_process_at_the_top_level_of_its_module_starts_no_more_of_them(
    own_broker: Broker, folder: Path, how: List[str]
) -> None:
    [child] = run(folder, own_broker, RUNS + PROCESS, *how)
    assert all_end(own_broker) == [child]
    assert (folder / "runs").read_text() == "run\n" * 2
    # Whoever asks for no result leaves nothing, and whoever does is told.
    assert list(Path(os.environ[handover.PLACE_VARIABLE]).iterdir()) == []
    with pytest.raises(NoResult) as caught:
        child.result(PATIENCE)
    assert str(caught.value) == (
        f"{child.id} (app:render) has no result: it exited with code 1 (exited) without a result; the last line of its "
        "log is: procbroker.outset.Refused: cannot process app:render here: this is a child that still imports what it "
        "needs to run app:render, and each child that does so comes by here and would start another one; put the call "
        "below 'if __name__ == \"__main__\":', or into a function, or take up the child that is there "
        "(if_exists='reuse')"
    )
    assert "/app.py" in child.logs().text


@pytest.mark.parametrize("call", CALLS)
def test_each_way_to_start_a_child_is_refused_while_a_module_is_imported(
    own_broker: Broker, folder: Path, call: str
) -> None:
    code, attempt = CALLS[call]
    text = f'if os.environ.get("PROCBROKER_CHILD_ID"): {code}\nelse: {PROCESS}'
    [child] = run(folder, own_broker, RUNS + text, "-c", "import app")
    with pytest.raises(NoResult, match=f"cannot {attempt} here: .*__main__"):
        child.result(PATIENCE)
    assert all_end(own_broker) == [child]


def test_what_takes_up_the_child_that_is_there_may_stand_at_the_top_level(own_broker: Broker, folder: Path) -> None:
    text = """
broker.create(["sleep", "1000"], name="helper", if_exists="reuse")
if not os.environ.get("PROCBROKER_CHILD_ID"): """
    [child] = run(folder, own_broker, RUNS + text + PROCESS, "-c", "import app")
    assert child.result(PATIENCE, keep=False) == 1
    assert [found.name for found in own_broker.list()] == ["helper"]


def test_a_thread_of_a_module_that_is_imported_is_refused_too(own_broker: Broker, folder: Path) -> None:
    text = """
refused = []
def call():
    try:
        broker.create(["sleep", "1000"])
    except RuntimeError as error:
        refused.append(str(error))
if os.environ.get("PROCBROKER_CHILD_ID"):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
def render(n): return refused
"""
    [child] = run(folder, own_broker, RUNS + text + PROCESS.replace("started", "if not refused: started"), "-m", "app")
    [reason] = child.result(PATIENCE, keep=False)
    assert reason.startswith("cannot create sleep 1000 here")
    assert all_end(own_broker) == [child]


def test_what_an_argument_is_unpickled_with_starts_no_child(broker: Broker, folder: Path) -> None:
    (folder / "shapes.py").write_text(
        "import os, procbroker\n"
        "class Shape: pass\n"
        'if os.environ.get("PROCBROKER_CHILD_ID"): procbroker.Broker().create(["sleep", "1000"])\n'
    )
    text = PROCESS.replace("render, args=(1,)", '"operator:truth", args=(shapes.Shape(),)')
    [child] = run(folder, broker, f"{RUNS}import shapes\n{text}", "-c", "import app")
    with pytest.raises(NoResult, match="cannot create sleep 1000 here"):
        child.result(PATIENCE)


def test_a_function_starts_children_once_it_is_called(broker: Broker) -> None:
    child = broker.process(targets.start_another, (broker.socket,))
    assert child.result(PATIENCE, keep=False) == ("created", 42)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import os; os._exit(4)", 4),
        ("import os, signal; os.kill(os.getpid(), 9)", None),
    ],
)
def test_a_child_that_ends_while_it_imports_leaves_nothing(
    broker: Broker, folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int
) -> None:
    (folder / "ends_early.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    child = broker.process("ends_early:function")
    with pytest.raises(NoResult):
        child.result(PATIENCE)
    assert child.exit is not None
    assert child.exit.code == code
    assert list(place.iterdir()) == []


def test_an_interpreter_that_does_not_get_as_far_as_the_call_leaves_nothing(broker: Broker, place: Path) -> None:
    child = broker.process(targets.nothing, env={"PYTHONHOME": "/nowhere"})
    with pytest.raises(NoResult, match="exited with code 1"):
        child.result(PATIENCE)
    assert list(place.iterdir()) == []
