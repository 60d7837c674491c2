//! Opens the journal at a start: the state file, and what the log of intents has beyond it, read and safe.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use procbroker_protocol::ChildId;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::entry::{Position, Stored};
use super::error::{JournalError, is_want_of_room};
use super::file::{bring_up, close_to_others, configure, connect, examine, make, sign, use_log};
use super::fold::{Origin, fold, place, tell_of, unread};
use super::intent_log::Place;
use super::pending::Unfolded;
use super::read::{self, Ahead, Numbered};
use super::schema::{Migration, STEPS};
use super::unread::Unread;
use super::wal::{self, beside};
use crate::os::host::own_folder::OwnFolder;

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

/// Opens the file, and makes it where it is missing. All of it is checked, brought up to this version, and read, with what an
/// earlier broker has left in the log of intents in the runtime folder. What was read is safe against a loss of power. What
/// the file has no room for stays in the log, and is written as soon as there is room.
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

/// For tests of other modules, which hold the file for a while: on a busy machine that takes long, and is no refusal.
#[cfg(test)]
impl Store {
    pub(crate) fn waiting_for(self, patience: std::time::Duration) -> Self {
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

/// Looks for a write-ahead log. Where it cannot be told whether there is one, opening the file says why.
fn find_log(path: &Path) -> Log {
    match fs::metadata(beside(path, "-wal")) {
        Ok(log) if log.len() > 0 => Log::Left,
        Ok(_) | Err(_) => Log::New,
    }
}

/// Puts on the disk what a broker wrote that was killed. The next one reads it from the kernel, whether it is on the disk or
/// not, and acts on it at once, with cleanups and with answers. A loss of power after that must not take it back, or a third
/// broker would do a cleanup again. The folder is synced as well, since the broker that made the files may not have come to
/// that.
pub(super) fn make_safe(path: &Path, file: &File) -> Result<(), JournalError> {
    let sync = |path: &Path| {
        File::open(path).and_then(|file| file.sync_all()).map_err(JournalError::file("sync", path))
    };
    sync(&beside(path, "-wal"))?;
    file.sync_data().map_err(JournalError::file("sync", path))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}
