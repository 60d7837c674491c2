"""Which function a process is to run: from the function to its name, and back in another interpreter."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from typing import Any, Callable, Union

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def name_of(target: Union[Callable[..., Any], str]) -> str:
    """Return the name by which another interpreter finds a function, such as ``"app.jobs:render"``.

    Raises TypeError for what is no function, ValueError for one that only this interpreter has.
    """
    if isinstance(target, str):
        if not _NAME.fullmatch(target):
            raise ValueError(
                f'a target that is a text names its module and function, as "app.jobs:render" does, unlike {target!r}'
            )
        return target
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if (
        not callable(target)
        or isinstance(target, functools.partial)
        or not isinstance(module, str)
        or not isinstance(name, str)
    ):
        raise TypeError(
            f"a target is a function of a module, or its name; what it is called with is args and kwargs: {target!r}"
        )
    if "<lambda>" in name:
        raise ValueError(
            f"a lambda of {module} has no name by which another interpreter finds it; write a function with def"
        )
    if "<locals>" in name:
        raise ValueError(f"{name} of {module} exists within a call only; move it to the top level of its module")
    if module == "__main__":
        return f"{_name_of_main(name)}:{name}"
    if _found(sys.modules.get(module), name) != target:
        raise ValueError(
            f"{module}:{name} is not {target!r}, and so another interpreter does not find it there; "
            "give the function itself, not one bound to an object or put in its place"
        )
    return f"{module}:{name}"


def resolve(name: str) -> Callable[..., Any]:
    """Return the function of a name. Raises ImportError, AttributeError or TypeError."""
    module, _, path = name.partition(":")
    found = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    if not callable(found):
        raise TypeError(f"{name} is no function, but {found!r}")
    return found


def _name_of_main(name: str) -> str:
    """Return the name of the module that runs as the program, which it has after ``python -m``."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name:
        raise ValueError(
            f"{name} is of the program itself (__main__), which another interpreter cannot import; "
            "move it to a module, and import it from there"
        )
    return str(spec.name)


def _found(module: Any, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        return None
