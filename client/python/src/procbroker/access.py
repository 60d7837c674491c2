"""Why a socket does not let this user in: what is true for this socket, and what would change it."""

from __future__ import annotations

import os
import stat
from typing import Optional

#: What opens a socket to others.
_WAY = (
    "--socket-mode, --socket-group and, for the broker to let them in, --allow-user or --allow-group of 'procbroker "
    "serve' open it to others, SocketMode= and SocketGroup= in place of the first two where systemd made it"
)


def refusal(socket: str) -> str:
    """Return a line about the socket, or about the folder on the way to it, that keeps this user out."""
    uid = os.geteuid()
    user = _user_name(uid)
    begin = f"user {user or uid} may not use the socket {socket}:"
    try:
        found = os.stat(socket)
    except PermissionError:
        return (
            f"{begin} the folder {_closed_folder(socket)} keeps other users out; open it to them, or have the broker "
            "listen elsewhere (--socket)"
        )
    except OSError as error:
        return f"{begin} {error.strerror}"
    group = _group_name(found.st_gid)
    facts = (
        f"{begin} it belongs to user {_user_name(found.st_uid) or found.st_uid} and group {group or found.st_gid}, and "
        f"has mode {stat.S_IMODE(found.st_mode):03o}"
    )
    # unix(7) asks for the permission to write. Who becomes a member of group 0 gets at more than a socket.
    group_lets_in = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid(), *os.getgroups())
    if not group_lets_in or user is None or group is None or uid == found.st_uid:
        return f"{facts}; {_WAY}"
    if _is_member(user, group):
        return f"{facts}; {user} is a member of {group} by now, but was none when its session or service was started"
    return f"{facts}; 'usermod -aG {group} {user}' lets it in, once its session or service is started again"


def _closed_folder(socket: str) -> str:
    """Return the first folder on the way to the socket that this user may not enter."""
    parts = os.path.dirname(os.path.abspath(socket)).split(os.sep)
    for number in range(1, len(parts)):
        folder = os.sep.join(parts[: number + 1])
        try:
            # Whether something can be looked up in it is what counts, not whether it can be listed.
            os.stat(os.path.join(folder, os.curdir))
        except PermissionError:
            return folder
        except OSError:
            break
    return os.path.dirname(socket)


def _user_name(uid: int) -> Optional[str]:
    import pwd  # noqa: PLC0415 - nobody needs it who is let in

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _group_name(gid: int) -> Optional[str]:
    import grp  # noqa: PLC0415 - nobody needs it who is let in

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def _is_member(user: str, group: str) -> bool:
    import grp  # noqa: PLC0415 - nobody needs it who is let in
    import pwd  # noqa: PLC0415

    found = grp.getgrnam(group)
    return user in found.gr_mem or pwd.getpwnam(user).pw_gid == found.gr_gid
