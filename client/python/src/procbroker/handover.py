"""The private folder by which a call goes to its process, and the result comes back.

Neither the arguments nor the result are ever in a command line, in an environment or in a log. They are pickled, and
to read a pickle is to run what it says: so a folder and its files are believed only when they belong to the very user
who reads, and are closed to everybody else.

Who removes them: a call that no child has come of, whoever has written it; one that a child has taken, the cleanup of
that child, however child and caller end; the result, whoever reads it without keeping it. What is left goes with a
later call of that user: a result that nobody took, and what a caller leaves that is killed before the broker hears of
the call.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import stat
import time
from typing import Any, Dict, Iterator, Tuple

#: The variable that names another folder for these folders: one that the application and the broker both see.
PLACE_VARIABLE = "PROCBROKER_HANDOVER"
#: The longest call and the longest result, pickled, in bytes.
BYTES_MAX = 16 << 20
#: How long a result is kept at least, in seconds: as long as a broker remembers the child, unless told otherwise.
_RESULT_KEPT = 3600.0
#: After how long a call that no process has taken is given up, in seconds.
_CALL_KEPT = 86400.0
#: How often the old ones are looked for, in seconds.
_SWEPT_EVERY = 300.0
_swept_at = float("-inf")
#: What a folder is called.
_FOLDER = re.compile(r"procbroker-\d+-[0-9a-f]{32}")
#: The mode of a call that nobody has taken yet, and of one that a process has taken.
_GIVEN, _TAKEN = 0o600, 0o400


class Disbelieved(Exception):
    """A folder or a file is not the reader's own, or open to others, or not what it is to be."""


def place() -> str:
    """Return the folder that these folders are made in.

    ``/dev/shm`` is in memory, and in common to services that have a /tmp of their own (PrivateTmp= of systemd).
    """
    named = os.environ.get(PLACE_VARIABLE)
    if named:
        return named
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else os.environ.get("TMPDIR") or "/tmp"  # noqa: S108


def make(uid: int) -> str:
    """Return a new folder that only this user has access to, and that is to become another one's."""
    _sweep()
    folder = os.path.join(os.path.abspath(place()), f"procbroker-{uid}-{os.urandom(16).hex()}")
    os.mkdir(folder, 0o700)
    return folder


def packed(call: Dict[str, Any]) -> bytes:
    """Return a call as it is to be written. Raises ValueError for one that is too long."""
    words = pickle.dumps(call, protocol=3)
    if len(words) > BYTES_MAX:
        raise ValueError(
            f"the arguments have {len(words)} bytes when pickled, and may have {BYTES_MAX}; "
            "put them into a file, and give its path"
        )
    return words


def give(folder: str, words: bytes, uid: int) -> None:
    """Put a call into a folder, and give both to the user who is to have them."""
    path = os.path.join(folder, "call")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _GIVEN)
    try:
        with open(descriptor, "wb") as file:
            if uid != os.geteuid():
                os.fchown(descriptor, uid, -1)
            file.write(words)
    except OSError as error:  # such as a full file system, which does not name the file
        raise OSError(error.errno, f"cannot hand over {len(words)} bytes: {error.strerror}", path) from error
    if uid != os.geteuid():
        os.chown(folder, uid, -1, follow_symlinks=False)


def take(folder: str) -> Dict[str, Any]:
    """Return the call that is in a folder, for a run of a process that begins. Raises OSError, Disbelieved.

    From now on only the cleanup of that process may remove it: it can be started again at any time. What an earlier
    run has returned is no result of this one.
    """
    with _opened(folder) as inside, open(_open_file(inside, folder, "call"), "rb") as file:
        os.fchmod(file.fileno(), _TAKEN)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("result", dir_fd=inside)
        call: Dict[str, Any] = pickle.load(file)  # noqa: S301 - see above
        return call


def words_of_call(folder: str) -> bytes:
    """Return a call as it was written. Raises OSError, Disbelieved."""
    return _read(folder, "call")


def put_result(folder: str, words: bytes) -> None:
    """Put a result into a folder: whole, or not at all."""
    with _opened(folder) as inside:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open("result.new", flags, 0o600, dir_fd=inside), "wb") as file:
            file.write(words)
        os.rename("result.new", "result", src_dir_fd=inside, dst_dir_fd=inside)


def has_result(folder: str) -> bool:
    """Return whether there is a result in a folder."""
    return os.path.lexists(os.path.join(folder, "result"))


def result_in(folder: str) -> Tuple[Any, ...]:
    """Return the result that is in a folder. Raises OSError, Disbelieved, and what unpickling raises."""
    found: Tuple[Any, ...] = pickle.loads(_read(folder, "result"))  # noqa: S301 - see above
    return found


def remove(folder: str) -> None:
    """Remove a folder with what is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _read(folder: str, name: str) -> bytes:
    with _opened(folder) as inside, open(_open_file(inside, folder, name), "rb") as file:
        return file.read(BYTES_MAX + 1)


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(os.fstat(inside), folder)
        yield inside
    finally:
        os.close(inside)


def _open_file(inside: int, folder: str, name: str) -> int:
    # NONBLOCK: a FIFO in its place is refused, and not waited for.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=inside)
    try:
        found, path = os.fstat(descriptor), os.path.join(folder, name)
        _check(found, path)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size > BYTES_MAX:
            raise Disbelieved(f"{path} is no plain file of at most {BYTES_MAX} bytes with one name")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result, path: str) -> None:
    if found.st_uid != os.geteuid():
        raise Disbelieved(f"{path} belongs to user {found.st_uid}, and user {os.geteuid()} believes only its own")
    if found.st_mode & 0o077:
        raise Disbelieved(f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})")


def _sweep() -> None:
    """Remove this user's results that nobody has asked for in time, and calls that no process has taken."""
    global _swept_at  # noqa: PLW0603 - the clock is the process's
    if time.monotonic() - _swept_at < _SWEPT_EVERY:
        return
    _swept_at = time.monotonic()
    with contextlib.suppress(OSError), os.scandir(place()) as entries:
        for entry in entries:
            if _FOLDER.fullmatch(entry.name):
                with contextlib.suppress(OSError, Disbelieved):
                    if _is_old(entry.path):
                        remove(entry.path)


def _is_old(folder: str) -> bool:
    with _opened(folder) as inside:
        try:
            descriptor = _open_file(inside, folder, "call")
        except FileNotFoundError:
            return time.time() - os.fstat(inside).st_mtime > _RESULT_KEPT
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return stat.S_IMODE(found.st_mode) != _TAKEN and time.time() - found.st_mtime > _CALL_KEPT
