//! The state file as SQLite has it: made under another name first, opened, examined, and brought up to this version.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OpenFlags};

use super::error::{JournalError, is_want_of_room};
use super::read;
use super::schema::{self, Found, Migration};
use super::signature::{self, Signed};
use super::wal::beside;

/// How long another process may hold the file, such as somebody's sqlite3 program, before that is an error.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// The page cache of SQLite, in KiB. Each write goes to the end of a table or to a page that was written not long ago.
const CACHE_KIB: i64 = 256;

/// What is kept of the write-ahead log when it starts anew, in bytes; it grows beyond that in a storm only.
const LOG_BYTES_KEPT: i64 = 16 << 20;

/// Makes the file under another name first, so that under its own there is never an unfinished one: an empty file
/// there is one that has lost its content.
pub(super) fn make(path: &Path, steps: &[Migration]) -> Result<File, JournalError> {
    let log = beside(path, "-wal");
    if fs::exists(&log).map_err(JournalError::file("find", &log))? {
        // SQLite would take the log for a left-over, and drop it with all that is in it.
        return Err(JournalError::Missing { path: path.to_owned(), log });
    }
    let draft = Scratch::new(beside(path, ".new"))?;
    let file = new_file(&draft.0).map_err(JournalError::file("make", path))?;
    let connection = connect(&draft.0, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Nothing of it matters before it has its name.
    connection.pragma_update(None, "synchronous", "OFF").map_err(JournalError::database("make", path))?;
    use_log(&connection, path)?;
    bring_up(&connection, path, 0, steps)?;
    sign(&connection, path)?;
    connection.close().map_err(|(_, source)| JournalError::database("make", path)(source))?;
    fs::rename(&draft.0, path).map_err(JournalError::file("make", path))?;
    Ok(file)
}

/// Makes a file for its owner alone. SQLite gives the files beside it the same mode (`findCreateFileMode` in its `os_unix.c`).
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn close_to_others(path: &Path) -> Result<(), JournalError> {
    let refused = JournalError::file("close to others", path);
    let set = || match fs::metadata(path)?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(0o600)),
    };
    set().map_err(refused)
}

/// Opens a connection. Without `SQLITE_OPEN_URI` a folder's name is never taken for options. No mutex is needed: one thread
/// has the connection.
pub(super) fn connect(path: &Path, access: OpenFlags) -> Result<Connection, JournalError> {
    let opened = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    let connection = opened.map_err(JournalError::database("open", path))?;
    let settled = connection.busy_timeout(BUSY_PATIENCE).and_then(|()| signature::teach(&connection));
    settled.map_err(JournalError::database("open", path))?;
    Ok(connection)
}

/// Finds out whose the file is, of which version, and whether it is whole. It writes nothing.
pub(super) fn examine(
    connection: &Connection,
    path: &Path,
    steps: &[Migration],
) -> Result<usize, JournalError> {
    let damaged = |finding: String| JournalError::Damaged { path: path.to_owned(), finding };
    let version = match schema::look(connection).map_err(JournalError::database("read", path))? {
        Found::Empty => return Err(damaged("it is empty".to_owned())),
        Found::Foreign(application) => {
            return Err(JournalError::Foreign { path: path.to_owned(), application });
        }
        Found::Ours(version) => version,
    };
    let known = steps.len();
    let version = match usize::try_from(version) {
        Ok(version @ 1..) if version <= known => version,
        Ok(1..) => return Err(JournalError::Newer { path: path.to_owned(), version, known }),
        Ok(0) | Err(_) => return Err(damaged(format!("it says to have schema version {version}"))),
    };
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(JournalError::database("check", path))?;
    if finding == "ok" { Ok(version) } else { Err(damaged(finding)) }
}

pub(super) fn bring_up(
    connection: &Connection,
    path: &Path,
    from: usize,
    steps: &[Migration],
) -> Result<(), JournalError> {
    if from == steps.len() {
        return Ok(());
    }
    schema::migrate(connection, from, steps).map_err(|(to, source)| {
        let path = path.to_owned();
        JournalError::Migration { path, from, to, source }
    })
}

/// Signs the rows that an earlier version of the broker has written. Where there is no room for that, they are as good as
/// before, and are signed with the first row that is written.
pub(super) fn sign(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    if signature::look(connection).map_err(JournalError::database("read", path))? == Signed::Throughout {
        return Ok(());
    }
    // As long as it may be damaged it is left as it is.
    drop(read::all(connection, path)?);
    let complete = || {
        let transaction = connection.unchecked_transaction()?;
        signature::complete(&transaction)?;
        transaction.commit()
    };
    match with_room(connection, complete) {
        Err(error) if !is_want_of_room(&error) => {
            Err(JournalError::database("sign the rows of", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Has SQLite keep a write-ahead log: a commit is one write at its end, and `check` reads beside the writer.
pub(super) fn use_log(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(JournalError::database("set up", path))?;
    if mode == "wal" {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::Unsupported, "its file system has no shared memory");
    Err(JournalError::file("keep a log of writes beside", path)(source))
}

pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?;
    // The writer does it itself, after everybody has been answered.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")
}

/// Writes something, once more where there was no room for it: the write-ahead log may have some, when what is in it is
/// where it belongs.
pub(super) fn with_room(
    connection: &Connection,
    mut write: impl FnMut() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let Err(error) = write() else { return Ok(()) };
    let is_hopeless = !is_want_of_room(&error)
        || connection.wal_checkpoint_v2(Some(c"main"), CheckpointMode::PASSIVE).is_err();
    if is_hopeless { Err(error) } else { write() }
}

/// A database that is gone when this is.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Whatever a crash left of an earlier one is removed.
    pub(super) fn new(path: PathBuf) -> Result<Self, JournalError> {
        let scratch = Self(path);
        scratch.remove().map_err(JournalError::file("remove", &scratch.0))?;
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn remove(&self) -> io::Result<()> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            match fs::remove_file(beside(&self.0, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next one that is made tries again, and says so when it cannot.
        let _ignored = self.remove();
    }
}
