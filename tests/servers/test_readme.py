"""The README's commands, as they are typed from top to bottom."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from scene.place import BROKER, PATIENCE, REPOSITORY, VENV, Place
from scene.stage import serving

#: What is not typed here, by a part of it, and where it is done instead.
ELSEWHERE = {
    "client/examples/tour": "the test of the tour runs it, with the broker that is built already",
    "tests/run": "is what runs this",
    "cargo install --locked --path": "takes minutes; the broker here has folders of the test's own",
    "pip install": "client/python/test builds and installs the wheel",
    "procbroker run -- gunicorn": "test_stop.py runs the servers below the broker",
    "docker build": "tests/servers/container builds and runs the images",
    "dpkg -i": "tests/package/run installs the package",
    "systemctl enable": "tests/tests/broker boots a systemd with the units",
    "SocketGroup=www-data": "the same systemd has it, in the scenario activation",
}


@dataclass(frozen=True)
class Block:
    """One block of code."""

    language: str
    text: str


def blocks() -> list[Block]:
    """Return all blocks of the README, in order."""
    text = (REPOSITORY / "README.md").read_text()
    return [Block(*found) for found in re.findall(r"^```([\w,]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def shell_blocks() -> list[str]:
    """Return those of a shell that are typed here."""
    texts = [block.text for block in blocks() if block.language == "sh"]
    return [text for text in texts if not any(part in text for part in ELSEWHERE)]


def commands(text: str) -> list[tuple[str, int]]:
    """Return the commands of a block, each with the exit status that its comment promises."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    promised = [re.search(r"# exit status (\d+)", line) for line in lines]
    return [(line, int(found[1]) if found else 0) for line, found in zip(lines, promised, strict=True) if line]


@dataclass
class Shell:
    """Somebody who types."""

    place: Place
    port: int
    web_port: int

    def environment(self) -> dict[str, str]:
        """Return what they have: the programs that are installed above, and a broker of their own."""
        environment = self.place.environment()
        path = [str(self.place.folder / "bin"), str(VENV / "bin"), environment["PATH"]]
        return {**environment, "PATH": ":".join(path), "FLASK_RUN_PORT": str(self.port)}

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Type one line and wait for its end."""
        command = command.replace("/tmp/released", str(self.place.jobs / "released"))
        command = command.replace("localhost:5000", f"localhost:{self.port}")
        command = command.replace("8321", str(self.web_port))
        command = command.replace("procbroker serve", f"procbroker serve --state-dir {self.place.state}")
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.place.jobs,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def paste(self, text: str) -> subprocess.CompletedProcess[str]:
        """Paste lines that start a program in the background, all at one go, and end that when they are through."""
        return self.type(f"trap 'kill $!; wait' EXIT\n{text}")


@pytest.fixture
def shell(place: Place) -> Shell:
    """Give somebody who types, with the program installed."""
    programs = place.folder / "bin"
    programs.mkdir()
    (programs / "procbroker").symlink_to(BROKER)
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        return Shell(place, free.getsockname()[1], other.getsockname()[1])


def test_every_block_is_typed_or_named_with_the_place_where_it_is() -> None:
    texts = [block.text for block in blocks()]
    for part in ELSEWHERE:
        assert any(part in text for text in texts), f"{part!r} is in no block any more"
    assert len(shell_blocks()) >= 4
    assert {block.language for block in blocks()} <= {"sh", "python", "rust,no_run"}


def test_the_shell_commands_do_what_the_readme_says(shell: Shell) -> None:
    texts = [text for text in shell_blocks() if " &\n" not in text]
    with serving(shell.place):
        for text in texts:
            for command, promised in commands(text):
                done = shell.type(command)
                assert done.returncode == promised, f"{command}\n{done.stdout}{done.stderr}"
                is_quiet = "destroy" in command or "signal" in command
                assert is_quiet or done.stdout + done.stderr, f"{command} says nothing"
    assert (shell.place.jobs / "released").exists()


def test_a_broker_is_there_for_what_is_pasted_together_with_its_start(shell: Shell) -> None:
    start, tour = shell_blocks()[:2]
    assert start.startswith("procbroker serve &\n")
    done = shell.paste(start + tour)
    assert done.returncode == 0, done.stderr
    assert uuid.UUID(done.stdout.splitlines()[0])
    assert "is still running" in done.stderr
    assert "no broker is there" not in done.stderr


def test_the_tour_shows_what_it_promises(tmp_path: Path) -> None:
    done = subprocess.run(
        [REPOSITORY / "client/examples/tour"],
        env={"PATH": os.environ["PATH"], "PROCBROKER_BIN": str(BROKER), "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert shown[2].startswith("$ procbroker create --name render-43")
    assert '-- sh -c \'trap "" TERM; ' in shown[2]
    # The last child ignores SIGTERM, and the broker is asked to stop: it goes by force, and so does its daemon.
    assert "did not end by itself and was killed child=render-43" in done.stdout
    assert "shut down: 1 child ended, 1 of them killed" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_flask_application_answers_as_the_readme_says(shell: Shell) -> None:
    [application] = [block.text for block in blocks() if block.language == "python"]
    (shell.place.jobs / "app.py").write_text(application)
    [text] = [text for text in shell_blocks() if "flask run" in text]
    no_name = "curl -X POST localhost:5000/render/a%20b --write-out '%{http_code}'\n"
    with serving(shell.place):
        done = shell.paste(text + no_name)
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if not line.startswith(" * ")]
    created, listed, destroyed, refused, status = answers
    assert '"outcome":"created"' in created
    assert listed == '["render-42"]'
    assert destroyed == '{"reason":"destroyed"}'
    assert "name" in refused
    assert status == "400"
