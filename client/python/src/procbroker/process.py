"""A function as a child: what is handed over to it, the command that runs it, and what becomes of its result."""

from __future__ import annotations

import os
import pickle
import pickletools
import pwd
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Dict, List, Optional, Union

from . import arguments, handover, outset, target
from .errors import NoResult, ProcessFailed, RemoteTraceback, Unsupported, harmless
from .view import ChildView

#: What every command of a process has in common, after its interpreter.
_MODULE = ["-m", "procbroker.child"]
#: The shell of a process's cleanup, and what that does before its own one: the call is there for as long as the child
#: is, through its restarts. Both are found whatever the child's PATH is.
_SHELL = "/bin/sh"
_FORGET = 'command -p rm -f -- "$0/call" "$0/result.new"; command -p rmdir -- "$0" 2>/dev/null; '


class Process:
    """A call that is handed over, and how a child takes it."""

    def __init__(
        self,
        function: Union[Callable[..., Any], str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        python: Optional[arguments.Path],
        options: Mapping[str, Any],
    ) -> None:
        """Take the call.

        Raises TypeError and ValueError for what cannot be called in another interpreter, RuntimeError in one that has
        not come to its own call yet.
        """
        name = target.name_of(function)
        outset.refuse("process", name, options)
        given = {key: value for key, value in options.items() if value is not None}
        call: Dict[str, Any] = {
            "path": [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)],
            "environ": {},
            "unset": [],
            "arguments": _packed(name, args, kwargs),
        }
        env = dict(arguments.env_to_wire(given.get("env") or {}))
        own = os.environ if given.get("inherit_env") else {}
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if python is not None or here not in _found_by_itself():
            _set_at_first("PYTHONPATH", here, env, own, call)
        # ``python -m`` would look for modules in the folder that it is in before all others.
        _set_at_first("PYTHONSAFEPATH", "1", env, own, call)
        given.setdefault("cwd", os.curdir)
        if python is None and sys.version_info < (3, 11):
            _refuse_a_folder_of_everybody(given["cwd"], call["path"])
        self._interpreter = _interpreter() if python is None else arguments.text(python, "python")
        #: The function's.
        self.name = name
        self._words = handover.packed(call)
        self.options: Dict[str, Any] = {**given, "env": env}

    @property
    def runs_as_its_broker_says(self) -> bool:
        """Whether it is the broker's user that tells who the child will be."""
        return self.options.get("user") is None

    def hand_over(self, brokers: int) -> None:
        """Write the call down for the child of a broker of this user. Raises Unsupported when that cannot read it."""
        uid = _runs_as(self.options.get("user"), brokers)
        self._folder = handover.make(uid)
        try:
            handover.give(self._folder, self._words, uid)
            self.command = [self._interpreter, *_MODULE, self.name, self._folder]
            self.options["cleanup"] = self._cleanup(self.options.get("cleanup"))
        except BaseException:
            self.withdraw()
            raise

    def withdraw(self) -> None:
        """Take the call back: no child has it."""
        handover.remove(self._folder)

    def settle(self, child: ChildView) -> None:
        """Take note of the child that came of it. One that was there already has a call of its own."""
        if folder_of(child.command) == self._folder:
            return
        if child.outcome == "existing":
            child._same_spec = self._is_that_of(child.command)
        self.withdraw()

    def _is_that_of(self, command: List[str]) -> bool:
        folder = folder_of(command)
        if folder is None or command[:-1] != self.command[:-1]:
            return False
        try:
            return handover.words_of_call(folder) == self._words
        except (OSError, handover.Disbelieved):
            return False

    def _cleanup(self, own: Any) -> Dict[str, Any]:
        if own is None:
            return {"command": [_SHELL, "-c", _FORGET + "exit 0", self._folder]}
        wire = arguments.cleanup_to_wire(own)
        return {**wire, "command": [_SHELL, "-c", _FORGET + 'exec "$@"', self._folder, *wire["command"]]}


def folder_of(command: List[str]) -> Optional[str]:
    """Return the folder of the call that a child's command names; None for a child that is no such process."""
    return command[4] if len(command) == 5 and command[1:3] == _MODULE else None


def leaves_it_to_its_log(child: ChildView) -> bool:
    """Return whether an ended child has failed without a result, and nothing but its log may tell why."""
    folder, ended = folder_of(child.command), child.exit
    return bool(folder and ended and ended.code) and not handover.has_result(str(folder))


def result_of(child: ChildView, keep: bool, last_line: str = "") -> Any:
    """Return what the function of an ended child returned, or raise what it raised; and remove that unless it is kept.

    Raises NoResult when it did neither, which tells of the last line of its log, and TypeError for a child that runs no
    function.
    """
    folder = folder_of(child.command)
    if folder is None:
        raise TypeError(f"only a child that Broker.process has made has a result, not {child!r}")
    try:
        found = handover.result_in(folder)
    except FileNotFoundError:
        raise NoResult(_shown(child), _end_of(child, last_line.strip()[:2048])) from None
    except (OSError, handover.Disbelieved) as error:
        raise NoResult(_shown(child), str(error)) from error
    except Exception as error:
        raise NoResult(
            _shown(child), f"its result cannot be unpickled here: {type(error).__name__}: {error}"
        ) from error
    if not keep:
        handover.remove(folder)
    what, value, words, *why = found
    if what == "returned":
        return value
    if isinstance(value, BaseException):
        raise value from RemoteTraceback(words)
    raise ProcessFailed(_shown(child), str(value), words, *why)


def _packed(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    if isinstance(args, (str, bytes)) or not isinstance(kwargs, Mapping):
        raise TypeError(f"args is a tuple and kwargs a mapping, not {args!r} and {kwargs!r}")
    try:
        args = tuple(args)
    except TypeError as error:
        raise TypeError(f"args is a tuple, which for one argument has a comma, args=(x,): {error}") from None
    try:
        # This protocol names each class in one opcode.
        words = pickle.dumps((args, dict(kwargs)), protocol=3)
    except Exception as error:
        raise TypeError(f"the arguments of {name} cannot be pickled: {error}") from error
    if b"__main__" in words:
        for code, what, _ in pickletools.genops(words):
            if code.name == "GLOBAL" and str(what).startswith("__main__ "):
                raise ValueError(
                    f"an argument of {name} is a {str(what).partition(' ')[2]} of the program itself (__main__), which "
                    "another interpreter cannot import; move that class to a module"
                )
    return words


def _found_by_itself() -> List[str]:
    """Return where an interpreter finds packages that are installed, behind its standard library."""
    import site  # noqa: PLC0415 - mod_wsgi can run without it

    return [*site.getsitepackages(), site.getusersitepackages()]


def _set_at_first(name: str, value: str, env: Dict[str, str], own: Mapping[str, str], call: Dict[str, Any]) -> None:
    """Set a variable for the interpreter's start; when the function runs, it is as it would have been."""
    before = env.get(name, own.get(name))
    env[name] = value
    if before is None:
        call["unset"].append(name)
    else:
        call["environ"][name] = before


def _refuse_a_folder_of_everybody(folder: arguments.Path, path: Sequence[str]) -> None:
    """Raise ValueError for a folder in which anybody may put a module, unless modules are looked for there anyway.

    Python before 3.11 begins with it, whatever PYTHONSAFEPATH says.
    """
    place = os.path.abspath(arguments.text(folder, "cwd"))
    try:
        mode = os.stat(place).st_mode
    except OSError:  # which the create is to tell of
        return
    if mode & 0o002 and place not in path:
        raise ValueError(
            f"everybody may write to {place}, where this Python would look for modules; name another folder as cwd, "
            "or use Python 3.11 or newer"
        )


def _runs_as(user: Union[str, int, None], brokers: int) -> int:
    """Return who the child will be. Raises Unsupported when what this user writes is closed to it."""
    own = os.geteuid()
    if user is None:
        # A broker that is not root's runs children as its own user.
        uid = own if brokers == 0 else brokers
    else:
        uid = int(user) if isinstance(user, int) or user.isdigit() else pwd.getpwnam(user).pw_uid
    if own not in (uid, 0):
        raise Unsupported(
            Unsupported.KIND,
            f"the child would run as user {uid}, to whom user {own} cannot hand over arguments that are closed to "
            f"others; call process as user {uid} or as root",
            {"kind": Unsupported.KIND},
        )
    return uid


def _interpreter() -> str:
    """Return the Python of this application. Within a web server, sys.executable can be the server."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = [sys.executable] if os.path.basename(sys.executable or "").startswith(("python", "pypy")) else []
    for prefix in (sys.prefix, sys.base_prefix):
        found += [os.path.join(prefix, "bin", name) for name in (version, "python3")]
    for path in found:
        if os.access(path, os.X_OK):
            return path
    raise ValueError(
        f"there is no Python in {sys.prefix} or {sys.base_prefix}; name the application's own as python=..."
    )


def _shown(child: ChildView) -> str:
    return f"{child.name or child.id} ({child.command[3]})"


def _end_of(child: ChildView, last_line: str) -> str:
    ended = child.exit
    if ended is None or ended.unknown:
        return "how it ended is not known, and it has left no result"
    how = f"it exited with code {ended.code}" if ended.signal is None else f"{ended.signal} ended it"
    if ended.code == 0:
        return f"{how}, and its result is not kept any more, or it called sys.exit"
    more = f"the last line of its log is: {harmless(last_line)}" if last_line else "its log may tell more"
    return f"{how} ({ended.reason}) without a result; {more}"
