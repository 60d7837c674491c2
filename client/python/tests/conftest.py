"""The real broker of a test module, and what every test is held to."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from brokers import FakeBroker, RealBroker

from procbroker import Broker


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pb-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def real() -> Iterator[RealBroker]:
    """A broker of the module's own."""
    with tempfile.TemporaryDirectory(prefix="pb-") as path:
        broker = RealBroker(Path(path))
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()


@pytest.fixture
def own(folder: Path) -> Iterator[RealBroker]:
    """A broker of the test's own, to be killed."""
    broker = RealBroker(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def broker(real: RealBroker) -> Iterator[Broker]:
    """A client of the module's broker, which is left without a child."""
    with Broker(real.socket) as client:
        yield client
        client.destroy(all=True, stop=[])


@pytest.fixture
def fake(folder: Path) -> Iterator[FakeBroker]:
    """A broker that does what the test says."""
    with FakeBroker(folder / "sock") as server:
        yield server


@pytest.fixture
def own_broker(own: RealBroker) -> Iterator[Broker]:
    """A client of the test's own broker."""
    with Broker(own.socket) as client:
        yield client
