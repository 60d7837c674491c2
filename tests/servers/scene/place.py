"""Where things are, and a folder of a test's own."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
SERVERS = REPOSITORY / "tests/servers"
APPLICATION = SERVERS / "application"
EXAMPLE = REPOSITORY / "client/python/examples/flask_app"
DJANGO = REPOSITORY / "client/python/examples/django_app"
CLIENT = REPOSITORY / "client/python/src"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
VENV = TARGET / "servers/venv"
BROKER = Path(os.environ.get("PROCBROKER_BIN", TARGET / "debug/procbroker"))
AXUM = Path(os.environ.get("AXUM_BIN", TARGET / "debug/examples/axum"))
#: What Python programs of the application are found by.
PYTHONPATH = ":".join(str(path) for path in (APPLICATION, EXAMPLE, CLIENT))
#: How long a test waits for something that has to come, in seconds.
PATIENCE = 60.0
#: Who the web servers work as when they are started by root, as they do everywhere.
ACCOUNT = "www-data"


def is_root() -> bool:
    """Whether the servers can, and so do, give up their rights."""
    return os.getuid() == 0


@dataclass(frozen=True)
class Place:
    """A folder with a path that is short enough for sockets, and what is in it."""

    folder: Path

    @property
    def broker_socket(self) -> Path:
        """Where the broker listens."""
        return self.folder / "broker"

    @property
    def state(self) -> Path:
        """The state folder of the broker."""
        return self.folder / "state"

    @property
    def jobs(self) -> Path:
        """What the application writes into."""
        return self.folder / "jobs"

    @property
    def scratch(self) -> Path:
        """The folders of the jobs."""
        return self.jobs / "scratch"

    def environment(self) -> dict[str, str]:
        """Return what the application finds in its environment."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        own = {"PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1", "JOBS": str(self.jobs)}
        # What is handed over to processes, and back, would outlast the test in /dev/shm.
        broker = {"PROCBROKER_SOCKET": str(self.broker_socket), "PROCBROKER_HANDOVER": str(self.jobs)}
        return {**kept, **own, **broker}


@contextmanager
def own_place() -> Iterator[Place]:
    """Make a folder, which the servers' user may write into as well, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="pb-") as path:
        place = Place(Path(path))
        place.jobs.mkdir()
        if is_root():
            account = pwd.getpwnam(ACCOUNT)
            place.folder.chmod(0o755)
            for folder in (place.folder, place.jobs):
                os.chown(folder, account.pw_uid, account.pw_gid)
        yield place
