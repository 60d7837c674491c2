//! The file: making it, checking it, and reading all that is in it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use procbroker_protocol::ChildId;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::abandoned::Abandoned;
use super::entry::{Position, Row, Stored};
use super::error::{JournalError, is_want_of_room};
use super::intent_log::Place;
use super::pending::Unfolded;
use super::read::{self, Ahead, Numbered};
use super::schema::{self, Found, Migration, STEPS};
use super::signature::{self, Signed};
use super::unread::Unread;
use super::wal::{self, beside};
use super::writer::Writer;
use crate::os::host::own_folder::OwnFolder;
use crate::os::process::identity::BootId;

/// How many children are named that nothing is known of.
const NAMED_MAX: usize = 20;

/// How long another process may hold the file, such as somebody's sqlite3 program, before that is an error.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// The page cache of SQLite, in KiB. Each write goes to the end of a table or to a page that was written not long ago.
const CACHE_KIB: i64 = 256;

/// What is kept of the write-ahead log when it starts anew, in bytes; it grows beyond that in a storm only.
const LOG_BYTES_KEPT: i64 = 16 << 20;

/// The file of a journal that is open and checked.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// The row of each child.
    pub(super) index: HashMap<ChildId, i64>,
    /// The first row number that was never used.
    pub(super) next_seq: i64,
    /// How far it has everything that was submitted.
    pub(super) ahead: Ahead,
    /// What is in its log of intents and found no room in it.
    pub(super) unfolded: Unfolded,
    /// Where its log of intents is, if it has one.
    pub(super) intents: Option<Place>,
    /// The file, as this process has it open beside SQLite.
    pub(super) beside: Beside,
    pub(super) log: Log,
}

/// The file, as it may be open beside SQLite. It stays so for as long as the connection: whoever closes any descriptor
/// of a file loses all of the process's locks on it (`fcntl_locking(2)`), SQLite's among them.
#[derive(Debug)]
pub(super) enum Beside {
    /// It is new, and may not be on the disk yet. The thread has it put there before it writes anything.
    Unsynced(File),
    /// It was there, with a log that was to be synced with it.
    Synced { file: File },
    /// Nothing is open beside SQLite.
    Nothing,
}

/// What there was of a write-ahead log when the file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// None: the file is new, or was closed in order. SQLite then copies the log to where it belongs, syncs that, and
    /// removes the log.
    New,
    /// A program has left it that was killed, or replaced.
    Left,
}

/// What the program before this one made sure of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// Nothing: it may have been killed between writing and syncing.
    Unknown,
    /// It has waited until everything was written as safely as it was to be.
    HandedOver,
}

/// Opens the file, and makes it where it is missing. All of it is checked, brought up to this version, and read, after what
/// an earlier broker has left in the log of intents in the runtime folder. What was read is safe against a loss of power,
/// unless there is no room for it in the file: what is in the log then stays there, and is written as soon as it can be.
///
/// # Errors
/// When it cannot be used as it is. It is then as it was.
pub fn open(path: &Path, runtime: &OwnFolder) -> Result<(Store, Stored), JournalError> {
    open_with(path, STEPS, Former::Unknown, Some(runtime))
}

/// Like [`open`], after a program that has flushed its journal and was replaced by this one.
///
/// # Errors
/// As [`open`].
pub fn go_on(path: &Path, runtime: &OwnFolder) -> Result<(Store, Stored), JournalError> {
    open_with(path, STEPS, Former::HandedOver, Some(runtime))
}

/// Opens the file for tests in which everything waits for it: there is no log of intents.
#[cfg(test)]
pub(crate) fn open_alone(path: &Path) -> Result<(Store, Stored), JournalError> {
    open_with(path, STEPS, Former::Unknown, None)
}

/// What the tests of other modules open, which hold the file for a while: however long that takes on a busy machine, it is
/// taken for no refusal.
#[cfg(test)]
impl Store {
    pub(crate) fn waiting_for(self, patience: Duration) -> Self {
        self.connection.busy_timeout(patience).unwrap();
        self
    }
}

pub(super) fn open_with(
    path: &Path,
    steps: &[Migration],
    former: Former,
    runtime: Option<&OwnFolder>,
) -> Result<(Store, Stored), JournalError> {
    let is_there = fs::exists(path).map_err(JournalError::file("find", path))?;
    let new = if is_there {
        None
    } else {
        if let Some(runtime) = runtime {
            // Before it is made: with children of another one there is to be none.
            drop(place(runtime, path, Uuid::new_v4())?.unread(Position::default())?);
        }
        Some(make(path, steps)?)
    };
    let log = find_log(path);
    wal::check(path)?;
    let beside = match (new, log, former) {
        (Some(file), Log::New | Log::Left, Former::Unknown | Former::HandedOver) => Beside::Unsynced(file),
        (None, Log::Left, Former::Unknown) => {
            Beside::Synced { file: File::open(path).map_err(JournalError::file("open", path))? }
        }
        (None, Log::Left, Former::HandedOver) | (None, Log::New, Former::Unknown | Former::HandedOver) => {
            Beside::Nothing
        }
    };
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let version = examine(&connection, path, steps)?;
    close_to_others(path)?;
    configure(&connection).map_err(JournalError::database("set up", path))?;
    use_log(&connection, path)?;
    bring_up(&connection, path, version, steps)?;
    let mut ahead = read::ahead(&connection, path)?;
    let mut found = read::rows(&connection, path)?;
    let intents = runtime.map(|folder| place(folder, path, ahead.key)).transpose()?;
    let left = intents.as_ref().map(|place| unread(place, ahead.folded, path)).transpose()?;
    sign(&connection, path)?;
    let (left, origin) = match left {
        None => (Vec::new(), Origin::Own),
        Some(Unread::Own(entries)) => (entries, Origin::Own),
        Some(Unread::Abandoned(abandoned)) => {
            tell_of(&abandoned, path);
            (abandoned.entries, Origin::Abandoned)
        }
    };
    let mut unfolded = Unfolded::new(left);
    if unfolded.count > 0 {
        match fold(&connection, &found, &mut unfolded, ahead.folded) {
            Ok(up_to) => {
                (ahead.folded, unfolded) = (up_to, Unfolded::default());
                found = read::rows(&connection, path)?;
            }
            // A running broker that finds no room goes on too. What is on record is whole, in two places instead of one.
            Err(error) if is_want_of_room(&error) && origin == Origin::Own => {
                let log = intents.as_ref().map(Place::path).unwrap_or_default();
                tracing::warn!(path = %path.display(), log = %log.display(), %error,
                    "there is no room to bring the log of intents into the state file, which is tried again: make room \
                     there; until then the records are not safe against a loss of power, nor without the log");
                found.rows = unfolded.over(found.rows);
            }
            Err(error) => return Err(JournalError::database("bring the log of intents into", path)(error)),
        }
    }
    let Numbered { rows, index, next_seq } = found;
    let host = read::host(&connection, path)?;
    connection.release_memory().map_err(JournalError::database("read", path))?;
    match &beside {
        // With no child on record there is nothing to act on.
        Beside::Synced { file } if !rows.is_empty() => make_safe(path, file)?,
        Beside::Synced { .. } | Beside::Unsynced(_) | Beside::Nothing => {}
    }
    let path = path.to_owned();
    let store = Store { connection, path, index, next_seq, ahead, unfolded, intents, beside, log };
    Ok((store, Stored { rows, host }))
}

/// What is in the log of intents alone. What is missing between that and the file may have been in SQLite's log.
fn unread(place: &Place, folded: Position, path: &Path) -> Result<Unread, JournalError> {
    let unread = place.unread(folded);
    match &unread {
        Ok(Unread::Abandoned(_)) | Err(JournalError::Log { .. } | JournalError::OtherState { .. }) => {
            wal::check_frames(path)?;
        }
        Ok(Unread::Own(_)) | Err(_) => {}
    }
    unread
}

/// Whose log of intents was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// That of the state file.
    Own,
    /// That of one which is gone. It cannot be gone on with.
    Abandoned,
}

/// Says what becomes of the children of a state file that is gone.
fn tell_of(abandoned: &Abandoned, path: &Path) {
    let unknown = abandoned.unknown();
    let named: Vec<String> = unknown.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    tracing::warn!(path = %path.display(), log = %abandoned.log().display(),
        "the state file is not the one to which the log of intents belongs, which is gone, and no process was found of the \
         children of a broker with that: those of which the log has all are taken for ended, and their cleanups run; \
         whatever else was on record is unknown, and its cleanups do not run (such as of {} more, {})",
        unknown.len(), if named.is_empty() { "none".to_owned() } else { named.join(" ") });
}

/// Where the log of intents is of the state file with this key.
fn place(runtime: &OwnFolder, path: &Path, key: Uuid) -> Result<Place, JournalError> {
    Place::new(runtime, (path.to_owned(), key), BootId::current()?)
}

/// Writes what an earlier broker has left in its log of intents, in the order in which it was submitted and as one
/// transaction: a crash in the midst of it leaves everything as it was. It is acted on at once, and has to outlive the
/// machine. Says how far everything is in the file then.
fn fold(
    connection: &Connection,
    found: &Numbered,
    unfolded: &mut Unfolded,
    folded: Position,
) -> rusqlite::Result<Position> {
    let up_to = Position(folded.0.saturating_add(unfolded.count));
    let mut writer = Writer::new(connection, found.index.clone(), found.next_seq, Some(folded));
    // Nobody waits for them any more.
    drop(writer.drop_unrecorded(&mut unfolded.due));
    let written = with_room(connection, || writer.write(&unfolded.due, up_to));
    connection.pragma_update(None, "synchronous", "NORMAL").and(written)?;
    Ok(up_to)
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

/// Whether this version could take the file over, and what it would find there. Nothing of it is changed, and the
/// broker that it belongs to may go on writing.
///
/// # Errors
/// As [`open`], and when the file is missing.
pub fn check(path: &Path) -> Result<Vec<Row>, JournalError> {
    check_with(path, STEPS)
}

/// Whether what is at the path of the file is what has this key, and everything up to a position.
///
/// # Errors
/// When it is not, or cannot be read.
pub(super) fn check_is_ours(path: &Path, key: Uuid, settled: Position) -> Result<(), JournalError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    if read::ahead(&connection, path)? == (Ahead { key, folded: settled }) {
        return Ok(());
    }
    let finding = "what is there has not what was written to it".to_owned();
    Err(JournalError::Damaged { path: path.to_owned(), finding })
}

pub(super) fn check_with(path: &Path, steps: &[Migration]) -> Result<Vec<Row>, JournalError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let version = examine(&connection, path, steps)?;
    if version == steps.len() {
        return read_all(&connection, path);
    }
    // An older one is brought up in a copy.
    let copy = Scratch::new(beside(path, ".check"))?;
    let name = copy.0.as_os_str().as_bytes();
    connection
        .execute("VACUUM INTO CAST(?1 AS TEXT)", [name])
        .map_err(JournalError::database("copy", path))?;
    let connection = connect(&copy.0, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    bring_up(&connection, path, version, steps)?;
    read_all(&connection, path)
}

/// The children, where everything else can be read too.
fn read_all(connection: &Connection, path: &Path) -> Result<Vec<Row>, JournalError> {
    drop((read::ahead(connection, path)?, read::host(connection, path)?));
    read::rows(connection, path).map(|found| found.rows)
}

/// Where it cannot be told, opening it says why.
fn find_log(path: &Path) -> Log {
    match fs::metadata(beside(path, "-wal")) {
        Ok(log) if log.len() > 0 => Log::Left,
        Ok(_) | Err(_) => Log::New,
    }
}

/// What a broker wrote before it was killed is read by the next one, be it on the disk or not: the kernel has it. It
/// is acted on at once, with cleanups and with answers. A loss of power after that must not take it back, or a cleanup
/// that has been done would be done again by a third broker. The folder is synced as well, since the one that made the
/// files may not have come to it.
pub(super) fn make_safe(path: &Path, file: &File) -> Result<(), JournalError> {
    let sync = |path: &Path| {
        File::open(path).and_then(|file| file.sync_all()).map_err(JournalError::file("sync", path))
    };
    sync(&beside(path, "-wal"))?;
    file.sync_data().map_err(JournalError::file("sync", path))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}

/// Makes the file under another name first, so that under its own there is never an unfinished one: an empty file
/// there is one that has lost its content.
fn make(path: &Path, steps: &[Migration]) -> Result<File, JournalError> {
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

/// SQLite gives the files beside it the same mode (`findCreateFileMode` in its `os_unix.c`).
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn close_to_others(path: &Path) -> Result<(), JournalError> {
    let refused = JournalError::file("close to others", path);
    let set = || match fs::metadata(path)?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(0o600)),
    };
    set().map_err(refused)
}

/// No `SQLITE_OPEN_URI`: a folder's name is never taken for options. No mutex: one thread has the connection.
fn connect(path: &Path, access: OpenFlags) -> Result<Connection, JournalError> {
    let opened = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    let connection = opened.map_err(JournalError::database("open", path))?;
    let settled = connection.busy_timeout(BUSY_PATIENCE).and_then(|()| signature::teach(&connection));
    settled.map_err(JournalError::database("open", path))?;
    Ok(connection)
}

/// Whose it is, in which version, and whether it is whole. Nothing is written.
fn examine(connection: &Connection, path: &Path, steps: &[Migration]) -> Result<usize, JournalError> {
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

fn bring_up(
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

/// Signs the rows that an earlier version of the broker has written. Where there is no room for that, they are as good as they
/// were, and signed with the first that is written.
fn sign(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    if signature::look(connection).map_err(JournalError::database("read", path))? == Signed::Throughout {
        return Ok(());
    }
    // As long as it may be damaged it is left as it is.
    drop(read_all(connection, path)?);
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

/// A write-ahead log: a commit is one write at its end, and `check` reads beside the writer.
fn use_log(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(JournalError::database("set up", path))?;
    if mode == "wal" {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::Unsupported, "its file system has no shared memory");
    Err(JournalError::file("keep a log of writes beside", path)(source))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))?;
    // The writer does it itself, after everybody has been answered.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")
}

/// A database that is gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    /// Whatever a crash left of an earlier one is removed.
    fn new(path: PathBuf) -> Result<Self, JournalError> {
        let scratch = Self(path);
        scratch.remove().map_err(JournalError::file("remove", &scratch.0))?;
        Ok(scratch)
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
