"""What is given to people: the import, the version, the licences, the README."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import socket
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Dict, List

import pytest
from brokers import REPOSITORY

import procbroker
from procbroker import Broker, handover

PACKAGE = Path(__file__).resolve().parents[1]


def test_who_blocks_does_not_wait_for_what_takes_long_to_import() -> None:
    script = (
        "import sys, procbroker; procbroker.Broker; "
        "late = ('asyncio', 'logging', 'pickle', 'dataclasses', 'inspect', 'uuid', 'subprocess'); "
        "print(*[name for name in late if name in sys.modules]); "
        "assert 'AsyncBroker' in dir(procbroker); procbroker.AsyncBroker; print('asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\nTrue\n", "")


def test_every_name_is_there_and_no_other() -> None:
    for name in procbroker.__all__:
        assert getattr(procbroker, name) is not None
    assert list(procbroker.__all__) == sorted(procbroker.__all__)
    with pytest.raises(AttributeError, match="'procbroker' has no attribute 'AsyncBrokr'"):
        procbroker.AsyncBrokr  # noqa: B018


def test_the_version_is_one() -> None:
    assert procbroker.__version__ == importlib.metadata.version("procbroker")
    found = re.search(r'^version = "(.*)"', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)
    assert found is not None
    assert procbroker.__version__ == found[1]


def test_commands_in_messages_are_quoted_as_those_of_the_broker_and_its_command_line_are() -> None:
    found = []
    for path in Path(procbroker.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        # Documentation is marked up, and what is told to people is not.
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation]
        found += [f"{path.name}:{node.lineno}" for node in texts if isinstance(node.value, str) and "`" in node.value]
    assert found == []


@pytest.mark.parametrize("name", ["LICENSE-APACHE", "LICENSE-MIT"])
def test_the_licences_are_those_of_the_repository(name: str) -> None:
    assert (PACKAGE / name).read_bytes() == (REPOSITORY / name).read_bytes()


def test_the_readme_has_no_link_that_breaks_outside_of_the_repository() -> None:
    links = re.findall(r"\]\(([^)]*)\)", (PACKAGE / "README.md").read_text())
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def readme_blocks() -> List[str]:
    """Return what the README has in Python."""
    return re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)


def test_the_first_example_of_the_readme_runs(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROCBROKER_SOCKET", broker.socket)
    # Five seconds of patience would not be the reader's own.
    monkeypatch.setattr(procbroker.Child, "wait", functools.partialmethod(procbroker.Child.wait, timeout=0.01))
    names: Dict[str, Any] = {}
    exec(readme_blocks()[0].replace("timeout=5", ""), names)
    said = capsys.readouterr().out.split()
    assert said == ["created", said[1], "running", "SIGHUP", "destroyed", "False"]
    names["broker"].close()


#: The server that the README starts, as a reader may have one.
SERVER = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_the_other_examples_of_the_readme_run(
    broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, life, bounded, function = readme_blocks()
    monkeypatch.chdir(folder)
    (folder / "server.py").write_text(SERVER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        life = life.replace("8080", str(free.getsockname()[1]))
    exec(life, {"broker": broker})
    server = broker.get("server-42")
    assert (server.state, server.lifetime) == ("running", {"ttl": 300})

    # Where there are no control groups for what children use, it says so.
    (folder / "render.py").write_text("")
    exec(bounded, {"broker": broker, "procbroker": procbroker})
    said = capsys.readouterr().out
    assert said == "" or "resources" in said

    (folder / "app").mkdir()
    (folder / "app/jobs.py").write_text("def render(job):\n    return f'rendered {job}'\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv(handover.PLACE_VARIABLE, str(folder))
    exec(function, {"broker": broker})
    assert capsys.readouterr().out == "rendered 42\n"


@pytest.mark.parametrize("kind", [procbroker.Broker, procbroker.AsyncBroker, procbroker.Child, procbroker.AsyncChild])
def test_every_public_method_has_types_that_can_be_read(kind: type) -> None:
    names = {**vars(sys.modules["procbroker.broker"]), **vars(sys.modules["procbroker.async_broker"])}
    for name, method in vars(kind).items():
        if not name.startswith("_") and callable(method):
            assert "return" in typing.get_type_hints(method, {**vars(sys.modules[kind.__module__]), **names}), name
