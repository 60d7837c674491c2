"""Texts, as the wire and a program can take them: words of a command line, labels, folders, environments."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, Dict, List, Optional

from .kinds import Argument, Path

#: Variables that mean one process, and must not be handed on to another.
_OF_ONE_PROCESS = frozenset({"NOTIFY_SOCKET", "PROCBROKER_SOCKET", "PROCBROKER_CHILD_ID", "PROCBROKER_CHILD_NAME"})


def labels_to_wire(labels: Mapping[str, str], what: str = "labels") -> Dict[str, str]:
    """Return a map of texts to texts."""
    if not isinstance(labels, Mapping):
        raise TypeError(f"{what} is a mapping of texts to texts, not {labels!r}")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"{what} is a mapping of texts to texts, and has {key!r}: {value!r}")
    return {text(key, f"a key of {what}"): text(value, f"a value of {what}") for key, value in labels.items()}


def command_to_wire(command: Sequence[Argument], what: str = "command") -> List[str]:
    """Return the words of a command line."""
    if not isinstance(command, (list, tuple)) and (
        isinstance(command, (str, bytes, bytearray, memoryview, os.PathLike)) or not isinstance(command, Sequence)
    ):
        raise TypeError(
            f"{what} is a list of the program and its arguments, and no shell reads it; "
            f"split a line with shlex.split: {command!r}"
        )
    words: Sequence[Any] = command
    try:
        line = "".join(words)
    except TypeError:
        line = "\0"
    if line.isascii() and "\0" not in line:
        # Plain texts, as most are, of which none has to be looked at by itself.
        return list(words)
    return [word_to_wire(word, f"word {number} of {what}") for number, word in enumerate(words)]


def word_to_wire(value: Any, what: str) -> str:
    """Return a word for a program: a text, a path, bytes of UTF-8, or a number in decimal digits."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return text(value, what)
    if isinstance(value, float):
        return float.__repr__(value)
    # A class has the methods of its objects.
    if isinstance(value, (bool, type)) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} is a text, a path, bytes or a number, not {value!r}: write it as the program reads it")
    return str(int(operator.index(value)))


def text(value: Path, what: str) -> str:
    """Return a text, a path or bytes as a text that can go over the wire and to a program."""
    if type(value) is str and value.isascii() and "\0" not in value:
        return value
    try:
        word = os.fspath(value)
    except TypeError:
        raise TypeError(f"{what} is a text, a path or bytes, not {value!r}") from None
    try:
        word = word.decode() if isinstance(word, bytes) else word
        word.encode()
    except UnicodeError:
        raise ValueError(f"{what} is not UTF-8, which is all that goes over the wire: {word!r}") from None
    if "\0" in word:
        raise ValueError(f"{what} has a NUL character, which no program can be given: {word!r}")
    return word


def folder_to_wire(value: Path) -> str:
    """Return a folder: one that is relative, such as ``"."``, is below this process's own."""
    folder = text(value, "cwd")
    if os.path.isabs(folder) or not folder:
        return folder
    own = text(os.getcwd(), "the folder of this process")
    return own if folder == os.curdir else os.path.join(own, folder)


def env_to_wire(env: Mapping[Any, Any]) -> Dict[str, str]:
    """Return variables of an environment."""
    if not isinstance(env, Mapping):
        raise TypeError(f"env is a mapping of names to values, not {env!r}")
    return {text(name, "a name in env"): word_to_wire(value, f"{name!r} in env") for name, value in env.items()}


def inherited(env: Optional[Mapping[Any, Any]]) -> Dict[str, str]:
    """Return the environment of this process, with others on top, less what belongs to a process of its own."""
    own = {
        name: value
        for name, value in os.environ.items()
        # The kernel lets an environment have a nameless variable (``=x``), which nobody can set.
        if name and name not in _OF_ONE_PROCESS and not name.startswith(("LISTEN_", "WATCHDOG_"))
    }
    for name, value in own.items():
        text(name, "the name of a variable in this process's environment")
        text(value, f"the value of {name} in this process's environment")
    return {**own, **env_to_wire(env or {})}
