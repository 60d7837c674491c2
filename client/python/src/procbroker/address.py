"""Where the broker's socket is."""

from __future__ import annotations

import os
import stat
from typing import Optional, Union

from .errors import SocketPathTooLong

#: The variable that names the socket.
SOCKET_VARIABLE = "PROCBROKER_SOCKET"
#: The socket of the machine's broker, which runs as root.
SYSTEM_SOCKET = "/run/procbroker/procbroker.sock"
#: The longest path of a socket, in bytes: sockaddr_un has 108, the last of them a NUL (unix(7)).
PATH_BYTES_MAX = 107


def default_socket() -> str:
    """Return the path that a client connects to when it is not told another one.

    That is ``$PROCBROKER_SOCKET``, else the one of the user's own broker if it exists, else the system's.
    """
    named = os.environ.get(SOCKET_VARIABLE)
    if named:
        return named
    uid = os.geteuid()
    if uid == 0:
        return SYSTEM_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # The XDG base directory specification asks for a relative path to be ignored.
    if os.path.isabs(runtime):
        own = os.path.join(runtime, "procbroker", "procbroker.sock")
        return own if os.path.exists(own) else SYSTEM_SOCKET
    folder = f"/tmp/procbroker-{uid}"  # noqa: S108 - checked below, as anybody could have made it first
    own = os.path.join(folder, "procbroker.sock")
    return own if _is_ours_alone(folder, uid) and os.path.exists(own) else SYSTEM_SOCKET


def checked(path: Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]) -> str:
    """Return a path that a socket can have, as a text.

    Raises TypeError for what is no path, ValueError for one that is empty or has a NUL in it, SocketPathTooLong.
    """
    name = os.fsdecode(path)
    if not name or "\0" in name:
        raise ValueError(f"the path of a broker's socket is a path in the file system, not {name!r}")
    if len(os.fsencode(name)) > PATH_BYTES_MAX:
        raise SocketPathTooLong(name, len(os.fsencode(name)), PATH_BYTES_MAX)
    return name


def other_than_socket(path: str) -> Optional[str]:
    """Return what is at a path that is no socket, such as ``"a folder"``; None where there is one, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    if stat.S_ISSOCK(mode):
        return None
    return "a folder" if stat.S_ISDIR(mode) else "a file"


def _is_ours_alone(folder: str, uid: int) -> bool:
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077
