"""The README's commands, as they are typed from top to bottom."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import uuid
from dataclasses import dataclass

import pytest

from scene.place import BROKER, PATIENCE, REPOSITORY, VENV, Place
from scene.program import Program, processes
from scene.stage import serving
from scene.web import Web

#: What is not typed here, by a part of it, and where it is done instead.
ELSEWHERE = {
    "client/examples/tour": "the test of the tour runs it, with the broker that is built already",
    "tests/run": "is what runs this",
    "cargo install --locked --path": "takes minutes; the tests have a program that is built already",
    "pip install": "client/python/test builds and installs the wheel",
    "procbroker run -- gunicorn": "a test has gunicorn; the image in tests/servers/container starts Apache so",
    "docker build": "tests/servers/container builds and runs the images",
    "dpkg -i": "tests/package/run builds and installs the package, and makes www-data a member of its group",
    "systemctl enable": "tests/systemd/activation pastes it into a machine with a systemd",
    "SocketGroup=www-data": "tests/systemd/activation pastes it, too",
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

    def with_own(self, command: str) -> str:
        """Return a command with this one's own folders and ports in place of the README's."""
        for word, own in {
            "/tmp/released": str(self.place.jobs / "released"),
            "localhost:5000": f"localhost:{self.port}",
            "0.0.0.0:8000": f"127.0.0.1:{self.port}",
            "8321": str(self.web_port),
            "procbroker serve": f"procbroker serve --state-dir {self.place.state}",
            "procbroker run": f"procbroker run --state-dir {self.place.state}",
        }.items():
            command = command.replace(word, own)
        return command

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Type one line and wait for its end."""
        return subprocess.run(
            ["bash", "-c", self.with_own(command)],
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
    assert start.startswith("procbroker serve --log warn &\n")
    done = shell.paste(start + tour)
    assert done.returncode == 0, done.stderr
    assert uuid.UUID(done.stdout.splitlines()[0])
    assert "is still running" in done.stderr
    assert "no broker is there" not in done.stderr
    # The first minutes belong to the tour, and not to the broker's log.
    assert "started child=" not in done.stderr


@pytest.mark.parametrize("page", ["README.md", "broker/README.md", "client/python/README.md"])
def test_whoever_starts_a_broker_in_the_background_waits_until_it_answers(page: str) -> None:
    lines = (REPOSITORY / page).read_text().splitlines()
    starts = [place for place, line in enumerate(lines) if re.match(r"procbroker serve\b.* &(\s|$)", line)]
    assert starts != []
    for place in starts:
        assert lines[place + 1].startswith("for i in $(seq 99); do procbroker status >/dev/null 2>&1 && break;")


#: What stands in for cargo, where the broker is built already. It tells how far it is, as cargo does.
CARGO = """#!/bin/sh
case " $* " in *" --quiet "*) ;; *) echo "   Compiling procbroker" >&2 ;; esac
mkdir -p "$CARGO_TARGET_DIR/release" && ln -s "$BROKER" "$CARGO_TARGET_DIR/release/procbroker"
"""


def test_the_tour_shows_what_it_promises_and_how_far_its_build_is(place: Place) -> None:
    scratch, cargo = place.folder / "scratch", place.folder / "bin/cargo"
    for folder in (scratch, cargo.parent):
        folder.mkdir()
    cargo.write_text(CARGO)
    cargo.chmod(0o755)
    done = subprocess.run(
        [REPOSITORY / "client/examples/tour"],
        env={
            "PATH": f"{cargo.parent}:{os.environ['PATH']}",
            "CARGO_TARGET_DIR": str(place.folder / "target"),
            "BROKER": str(BROKER),
            "TMPDIR": str(scratch),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "   Compiling procbroker\n")
    assert "minutes the first time" in done.stdout.splitlines()[0]
    shown = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert shown[2].startswith("$ procbroker create --name render-43")
    assert '-- sh -c \'trap "" TERM; ' in shown[2]
    # The last child ignores SIGTERM, and the broker is asked to stop: it goes by force, and so does its daemon.
    assert "did not end by itself and was killed child=render-43" in done.stdout
    assert "shut down: 1 child ended, 1 of them killed" in done.stdout
    assert list(scratch.iterdir()) == []


def test_gunicorn_below_the_broker_has_the_application_and_its_children_end_with_it(shell: Shell) -> None:
    [application] = [block.text for block in blocks() if block.language == "python"]
    (shell.place.jobs / "app.py").write_text(application)
    typed = [command for block in blocks() for command, _ in commands(block.text)]
    [command] = [command for command in typed if command.startswith("procbroker run -- gunicorn")]
    words = ["bash", "-c", f"cd {shell.place.jobs}; exec {shell.with_own(command)}"]
    with Program(words, shell.environment()) as program:
        program.says("Booting worker", count=3)
        web = Web(shell.port)
        created = web.ask("POST", "/render/42")
        assert (created.status, created.body["outcome"]) == (200, "created")
        assert web.ask("GET", "/render").body == ["render-42"]
        program.signal(signal.SIGTERM)
        assert program.ended() == 0
        program.says("1 child ended, 0 of them killed")
    assert processes(shell.place.broker_socket) == []


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
