"""What every test here needs: the client, and a way for the servers' user to the application."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from scene.place import CLIENT, Place, closed_to_servers, own_place

sys.path.insert(0, str(CLIENT))


@pytest.fixture(autouse=True, scope="session")
def _readable() -> None:
    """Skip where the servers' user cannot read the application."""
    closed = closed_to_servers()
    if closed is not None:
        pytest.skip(f"run by root, the servers work as www-data, which {closed} keeps out of this repository")


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a folder of the test's own."""
    with own_place() as place:
        yield place
