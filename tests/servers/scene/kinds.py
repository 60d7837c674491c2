"""The web servers: how each is started, and what it says."""

from __future__ import annotations

import re
import signal
import string
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .place import ACCOUNT, APPLICATION, AXUM, PYTHONPATH, SERVERS, VENV, Place, is_root
from .web import Port, Web

CONFIGURATIONS = SERVERS / "configurations"
MODULES = Path("/usr/lib/apache2/modules")


@dataclass(frozen=True)
class Settings:
    """What a test wants of a server."""

    #: The application.
    module: str = "jobs"
    #: After how many requests a worker ends; 0 for never.
    requests: int = 0
    #: How many seconds it may take to finish the requests in flight.
    failsafe_s: int = 20

    def environment(self) -> dict[str, str]:
        """Return them as the configurations read them."""
        numbers = {"SERVER_REQUESTS": str(self.requests), "SERVER_FAILSAFE": str(self.failsafe_s)}
        return {"SERVER_MODULE": self.module, **numbers}


#: The application of the tests, in workers that live on.
DEFAULT = Settings()


@dataclass(frozen=True)
class Command:
    """How a server is started, and where it answers then."""

    words: Sequence[str | Path]
    web: Web
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A web server."""

    name: str
    #: Writes what it takes into a folder, and returns how to start it.
    prepare: Callable[[Place, Settings, ExitStack], Command]
    #: What it says, and how often, when it takes requests, and again after a graceful restart.
    ready: str
    ready_count: int
    #: What asks it to finish the requests in flight and to end.
    graceful: str
    #: What it says when it has been asked to.
    stopping: str
    #: What ends it at once, and its exit status when it has to be used because a request hangs.
    failsafe: str
    failsafe_status: int
    #: Whether it has a failsafe of its own, and is to be left alone till then.
    own_failsafe: bool = False
    #: The signal of a graceful restart, where it has one.
    restart: signal.Signals | None = None
    #: Whether its workers end after a number of requests.
    recycles: bool = True
    #: Whether it runs the Python application.
    python: bool = True

    def __str__(self) -> str:
        """Return its name, for the names of tests."""
        return self.name


def _apache(place: Place, settings: Settings, stack: ExitStack) -> Command:
    port = Port()
    stack.callback(port.close)
    template = string.Template((CONFIGURATIONS / "apache.conf").read_text())
    configuration = place.folder / "apache.conf"
    configuration.write_text(
        template.substitute(
            folder=place.folder,
            port=port.number,
            user=f"User {ACCOUNT}\nGroup {ACCOUNT}" if is_root() else "",
            modules=MODULES,
            requests=settings.requests,
            module=settings.module,
            venv=VENV,
            path=PYTHONPATH,
            application=APPLICATION,
        )
    )
    return Command(["apache2", "-f", configuration, "-D", "FOREGROUND"], Web(port.number))


def _gunicorn(worker_class: str) -> Callable[[Place, Settings, ExitStack], Command]:
    def prepare(place: Place, settings: Settings, _: ExitStack) -> Command:
        socket = place.folder / "server"
        environment = {"SERVER_SOCKET": str(socket), "WORKER_CLASS": worker_class, **settings.environment()}
        configuration = CONFIGURATIONS / "gunicorn.conf.py"
        words = [VENV / "bin/python", "-m", "gunicorn", "--config", configuration, f"{settings.module}:application"]
        return Command(words, Web(socket), environment)

    return prepare


def _uwsgi(place: Place, settings: Settings, _: ExitStack) -> Command:
    socket = place.folder / "server"
    environment = {"SERVER_SOCKET": str(socket), "SERVER_VENV": str(VENV), **settings.environment()}
    if is_root():
        environment["SERVER_USER"] = ACCOUNT
    return Command(["uwsgi", "--ini", CONFIGURATIONS / "uwsgi.ini"], Web(socket), environment)


def _axum(place: Place, _: Settings, stack: ExitStack) -> Command:
    port = Port()
    stack.callback(port.close)
    return Command([AXUM, f"127.0.0.1:{port.number}", place.scratch], Web(port.number))


def _uwsgi_failsafe_status() -> int:
    """Return how uWSGI ends when a request hangs: since 2.0.28 it waits for it without end, and has to be killed."""
    said = subprocess.run(["uwsgi", "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(number) for number in re.findall(r"\d+", said)[:3])
    return 137 if version >= (2, 0, 28) else 0


APACHE = Kind(
    name="apache",
    prepare=_apache,
    ready="resuming normal operations",
    ready_count=1,
    graceful="SIGWINCH",
    stopping="caught SIGWINCH",
    failsafe="SIGTERM",
    failsafe_status=0,
    restart=signal.SIGUSR1,
)
GUNICORN_THREADS = Kind(
    name="gunicorn-threads",
    prepare=_gunicorn("gthread"),
    ready="a worker is ready",
    ready_count=3,
    graceful="SIGTERM",
    stopping="Handling signal: term",
    failsafe="SIGQUIT",
    failsafe_status=0,
    restart=signal.SIGHUP,
)
GUNICORN_GEVENT = Kind(
    name="gunicorn-gevent",
    prepare=_gunicorn("gevent"),
    ready="a worker is ready",
    ready_count=3,
    graceful="SIGTERM",
    stopping="Handling signal: term",
    failsafe="SIGQUIT",
    failsafe_status=0,
    restart=signal.SIGHUP,
)
UWSGI = Kind(
    name="uwsgi",
    prepare=_uwsgi,
    ready="running .*master-start",
    ready_count=1,
    graceful="SIGTERM",
    stopping="graceful shutdown triggered",
    failsafe="SIGQUIT",
    failsafe_status=_uwsgi_failsafe_status(),
    own_failsafe=True,
    restart=signal.SIGHUP,
)
AXUM_EXAMPLE = Kind(
    name="axum",
    prepare=_axum,
    ready="listening at",
    ready_count=1,
    graceful="SIGTERM",
    stopping="stopping gracefully",
    failsafe="SIGKILL",
    failsafe_status=137,
    recycles=False,
    python=False,
)
#: All of them.
KINDS = [APACHE, GUNICORN_THREADS, GUNICORN_GEVENT, UWSGI, AXUM_EXAMPLE]
