//! What can be wrong with a journal, each with the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procbroker_core::{Pid, RecordFailure};
use procbroker_protocol::ChildId;
use rusqlite::ErrorCode;
use thiserror::Error;

use crate::os::host::own_folder::OwnError;
use crate::os::process::identity::BootIdError;

/// A process that is, or may be, of a child that nobody knows any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The number of the process.
    pub pid: Pid,
    /// Of which child, where that is known.
    pub child: Option<ChildId>,
}

/// What a start without the file costs.
const PRICE: &str =
    "at the price that the children on record are unknown from then on, and that their cleanups do not run";

/// The children cannot be put on record, or not be read from it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The system refuses something about the file.
    #[error(
        "cannot {attempt} the state file {path}: {source}; the broker needs to write to its state folder"
    )]
    File {
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refuses something about it.
    #[error("cannot {attempt} the state file {path}: {source}; {}", way_out(source))]
    Database {
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// The state file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is gone, and what was to be added to it is not.
    #[error(
        "the state file {path} is missing while {log}, which belongs to it, is there; put it back, or move that one away as well, {PRICE}"
    )]
    Missing {
        /// The state file.
        path: PathBuf,
        /// The write-ahead log that is there without it.
        log: PathBuf,
    },
    /// It is no database, or not a whole one any more.
    #[error(
        "the state file {path} is damaged: {finding}; put back a good copy, or move it and the files beside it that begin with its name away, {PRICE}"
    )]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// One row of it was changed, and by no broker.
    #[error(
        "the state file {path} is damaged: row {seq} of its table {table} is not what was written there; put back a good copy, or move it and the files beside it that begin with its name away, {PRICE}, or remove that row alone, at this price for its child alone: sqlite3 {path} 'DELETE FROM child WHERE seq = {seq}; DELETE FROM progress WHERE seq = {seq}'"
    )]
    ChangedRow {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// The row of the child there.
        seq: i64,
    },
    /// The log of intents and the file do not go together any more.
    #[error(
        "the log of intents {path} is damaged, or belongs to a newer copy of the state file: {finding}; put back good copies of both, or move the log away, at the price that what was last recorded is unknown from then on: children that were created and cleanups that were run in the last moments before the end of the broker"
    )]
    Log {
        /// The log of intents.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// The log of intents tells of children that were on record in another file, and of which some live.
    #[error(
        "the state file {path} is not the one to which the log of intents {log} belongs, and knows nothing of the children that a broker has started since the machine did, of which some live, such as process {}: that one, or {path}-wal beside it, was removed or replaced; put the state folder back as it was, or, if it was removed on purpose, end the children that are left and remove {log}, {PRICE}", survivor.pid
    )]
    OtherState {
        /// The file that is there, or is about to be made.
        path: PathBuf,
        /// The log of intents.
        log: PathBuf,
        /// What may be of one of those children.
        survivor: Survivor,
    },
    /// Something that belongs to it is not the broker's own.
    #[error(transparent)]
    NotOwn(#[from] OwnError),
    /// One run of the kernel cannot be told from another.
    #[error(transparent)]
    Boot(#[from] BootIdError),
    /// It is the database of another program.
    #[error(
        "the state file {path} belongs to another program (its application id is {application:#010x}); give the broker another place with --state-dir"
    )]
    Foreign {
        /// The state file.
        path: PathBuf,
        /// Whose it is, as programs sign their databases.
        application: i32,
    },
    /// A later version of the broker has written it.
    #[error(
        "the state file {path} has schema version {version}, and this broker knows those up to {known}; use the version of the broker that wrote it, or move the file away, {PRICE}"
    )]
    Newer {
        /// The state file.
        path: PathBuf,
        /// The version of its tables.
        version: i64,
        /// The highest that is known here.
        known: usize,
    },
    /// It could not be brought up to this version.
    #[error(
        "cannot bring the state file {path} from schema version {from} to {to}: {source}; it is as it was, and the version of the broker that wrote it can use it"
    )]
    Migration {
        /// The state file.
        path: PathBuf,
        /// The version of its tables.
        from: usize,
        /// That of the step which failed.
        to: usize,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The thread that writes could not be started.
    #[error(
        "cannot start the thread that writes the state file {path}: {source}; see the limits on processes and memory"
    )]
    Thread {
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Some of what was submitted is not written.
    #[error("the records are not all written: {}", failure.message)]
    Unwritten {
        /// What kept the last attempt from being written.
        failure: RecordFailure,
    },
    /// The disk takes longer than it was given.
    #[error("the records are not all written to {path} within {patience:?}; see whether its disk answers")]
    Slow {
        /// The state file.
        path: PathBuf,
        /// How long it had.
        patience: Duration,
    },
}

impl JournalError {
    /// What a refusal of SQLite means for the file.
    pub(super) fn database(attempt: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            if is_damage(&source) {
                Self::Damaged { path, finding: source.to_string() }
            } else {
                Self::Database { attempt, path, source }
            }
        }
    }

    /// What a refusal of the system means for it.
    pub(super) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { attempt, path: path.to_owned(), source }
    }
}

/// What those who wait for a record that cannot be written are told.
pub(super) fn failure(path: &Path, error: &rusqlite::Error) -> RecordFailure {
    let message = format!("cannot write {}: {error}; {}", path.display(), way_out(error));
    RecordFailure { message }
}

/// Whether an error speaks of the content of the file.
fn is_damage(error: &rusqlite::Error) -> bool {
    let is_content = matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    );
    is_content
        || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch)
        )
}

/// Whether an error may mean that there is no room for more. A quota or a limit on the size of files is an error of
/// its own to SQLite.
pub(super) fn is_want_of_room(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

fn way_out(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room there",
        Some(ErrorCode::ReadOnly) => "the broker needs to write to the file and to its folder",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "see that the broker's user may read and write it, and make files beside it"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            "see which other process uses it, and end that one"
        }
        Some(ErrorCode::SystemIoFailure) => "see that its disk is in order and has room",
        Some(ErrorCode::OutOfMemory) => "see that the machine has memory left",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "stop the broker and put back a good copy"
        }
        Some(_) | None => "see that it is in order with the sqlite3 program",
    }
}
