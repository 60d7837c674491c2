"""What every test here needs: the client, and a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from scene.place import CLIENT, Place, own_place

sys.path.insert(0, str(CLIENT))


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a folder of the test's own."""
    with own_place() as place:
        yield place
