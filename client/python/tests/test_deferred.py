"""Data classes that are made with their first use are as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Generic, List, Literal, TypeVar, get_type_hints

import pytest
from brokers import PATIENCE

from procbroker import deferred, event, values

if TYPE_CHECKING:
    from dataclasses import dataclass, field
else:
    from procbroker.deferred import dataclass, field

T = TypeVar("T")


def fresh() -> Any:
    """Return a class that nobody has used yet."""

    @dataclass(frozen=True)
    class Point(Generic[T]):
        """A point."""

        x: T
        y: int = 0
        hidden: Dict[str, Any] = field(repr=False, default_factory=dict)
        kind: ClassVar[Literal["point"]] = "point"

    return Point


def test_one_is_what_it_is_with_the_standard_library() -> None:
    kind = fresh()
    one = kind(1, y=2)
    assert (one.x, one.y, one.hidden, one.kind) == (1, 2, {}, "point")
    assert repr(one).endswith("Point(x=1, y=2)")
    assert one == kind(1, 2) != kind(1, 3)
    assert kind[int](1, 2) == one
    assert dataclasses.replace(one, y=5).y == 5
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "hidden": {}}
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.x = 3
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        kind()
    assert copy.deepcopy(one) == one is not copy.copy(one)


@pytest.mark.parametrize("look", [dataclasses.fields, lambda kind: dataclasses.fields(kind[int].__origin__)])
def test_its_fields_are_there_before_one_of_it(look: Any) -> None:
    kind = fresh()
    assert [one.name for one in look(kind)] == ["x", "y", "hidden"]
    assert kind(1).y == 0
    assert dataclasses.is_dataclass(fresh())


def test_a_class_that_derives_from_it_makes_it() -> None:
    base = fresh()

    class Derived(base):  # type: ignore[misc, valid-type]
        def double(self) -> int:
            return int(self.x * 2)

    assert Derived(4).double() == 8

    other = fresh()

    @dataclasses.dataclass(frozen=True)
    class Longer(other):  # type: ignore[misc, valid-type]
        z: int = 3

    assert (Longer(1).x, Longer(1).z) == (1, 3)


def test_of_many_threads_that_use_it_first_none_finds_half_a_class() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(30):
                kind, together = fresh(), threading.Barrier(8)

                def make(number: int, kind: Any = kind, together: threading.Barrier = together) -> int:
                    together.wait(PATIENCE)
                    return int(kind(number).x)

                assert list(threads.map(make, range(8))) == list(range(8))
    finally:
        sys.setswitchinterval(before)


def test_every_class_of_the_package_is_one_that_can_travel() -> None:
    kinds: List[Any] = [
        kind
        for module in (values, event)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    ]
    assert len(kinds) == 13
    for kind in kinds:
        fields = dataclasses.fields(kind)
        one = kind(*(object.__name__ for _ in fields))
        assert pickle.loads(pickle.dumps(one)) == one
        assert get_type_hints(kind)
    assert not deferred._unmade & set(kinds)
