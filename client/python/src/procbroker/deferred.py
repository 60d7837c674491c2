"""Data classes that are made with their first use: what :mod:`dataclasses` brings along takes long to import."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, Set, Type, TypeVar

__all__ = ["dataclass", "field"]

if TYPE_CHECKING:
    from dataclasses import dataclass, field
else:

    def dataclass(*, frozen: bool) -> Callable[[Type[T]], Type[T]]:
        """Return what makes a data class of a class once there is to be one of it, or its fields are looked at."""

        def defer(cls: Type[T]) -> Type[T]:
            def new(kind: Type[T], *_args: object, **_kwargs: object) -> T:
                if cls in _unmade:
                    _make(cls, frozen)
                # The initializer is called next: now there is one.
                return object.__new__(kind)

            cls.__new__ = staticmethod(new)
            cls.__dataclass_fields__ = _Fields(cls, frozen)
            _unmade.add(cls)
            return cls

        return defer

    def field(**options: Any) -> Any:
        """Return what becomes a field with these options."""
        return _Field(options)


T = TypeVar("T")

#: Who makes a class has it. It can be had twice: what makes a class looks at its fields.
_lock = threading.RLock()
_unmade: Set[Type[Any]] = set()


class _Field:
    """A field with options, of a class that is not made yet."""

    def __init__(self, options: Any) -> None:
        self.options = options


class _Fields:
    """The fields of a class that is not made yet."""

    def __init__(self, cls: Type[Any], frozen: bool) -> None:
        self._cls, self._frozen = cls, frozen

    def __get__(self, instance: object, owner: Type[Any]) -> Any:
        """Make the class, and return its fields."""
        _make(self._cls, self._frozen)
        return self._cls.__dict__["__dataclass_fields__"]


def _make(cls: Type[Any], frozen: bool) -> None:
    import dataclasses  # noqa: PLC0415 - see above

    with _lock:
        if cls not in _unmade:
            return
        for name, value in list(vars(cls).items()):
            if isinstance(value, _Field):
                setattr(cls, name, dataclasses.field(**value.options))
        dataclasses.dataclass(frozen=frozen)(cls)
        # Last: until then other threads wait for it.
        _unmade.discard(cls)


_hook: Optional[Callable[..., None]] = getattr(os, "register_at_fork", None)
if _hook is not None:
    # A forked process finds no class half made, and the lock free.
    _hook(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
