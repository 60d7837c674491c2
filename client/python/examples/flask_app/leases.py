#!/usr/bin/env python3
"""The resource of a job: a scratch folder, and a row that says whose it is.

As a program it is both ends of a job: `leases.py run DATABASE KEY COMMAND...` acquires the resource and becomes the
command, and `leases.py release DATABASE KEY` is the job's cleanup. The job acquires it, and not the request that asks
for the job: that could come while an earlier job of the key is still being cleaned up.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Dict, Union


def acquire(database: Path, key: str) -> Path:
    """Return the folder of a key; make it, and the row, unless they are there."""
    folder = database.parent / "scratch" / key
    with closing(_connect(database)) as connection, connection:
        connection.execute("INSERT OR IGNORE INTO lease VALUES (?, ?)", (key, str(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def held(database: Path) -> Dict[str, str]:
    """Return the folder of each key that has one."""
    with closing(_connect(database)) as connection:
        return dict(connection.execute("SELECT key, folder FROM lease ORDER BY key"))


def release(database: Path, key: str) -> None:
    """Remove the folder and the row of a key. It may run twice: a cleanup runs at least once."""
    with closing(_connect(database)) as connection, connection:
        for (folder,) in connection.execute("SELECT folder FROM lease WHERE key = ?", (key,)).fetchall():
            shutil.rmtree(folder, ignore_errors=True)
        connection.execute("DELETE FROM lease WHERE key = ?", (key,))


def _connect(database: Union[str, Path]) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=30)
    connection.execute("CREATE TABLE IF NOT EXISTS lease (key TEXT PRIMARY KEY, folder TEXT NOT NULL)")
    return connection


if __name__ == "__main__":
    _, what, path, name, *command = sys.argv
    if what == "run" and command:
        os.chdir(acquire(Path(path), name))
        # Python ignores these two, which would outlast the exec: the command gets what every program expects.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execvp(command[0], command)
    elif what == "release":
        release(Path(path), name)
    else:
        sys.exit(f"leases.py cannot {what}; it is run DATABASE KEY COMMAND... or release DATABASE KEY")
