//! Looks at the state file beside the broker that writes it: whether this version could take it over, and whether it is the one
//! that was written to.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::OpenFlags;
use uuid::Uuid;

use super::entry::{Position, Row};
use super::error::JournalError;
use super::file::{Scratch, bring_up, connect, examine};
use super::read::{self, Ahead};
use super::schema::{Migration, STEPS};
use super::wal::beside;

/// Tells whether this version could take the file over, and what it would find there. It changes nothing, and the broker that
/// the file belongs to may go on writing.
///
/// # Errors
/// As [`open`](super::open), and when the file is missing.
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
        return read::all(&connection, path);
    }
    // An older one is brought up in a copy.
    let copy = Scratch::new(beside(path, ".check"))?;
    let name = copy.path().as_os_str().as_bytes();
    connection
        .execute("VACUUM INTO CAST(?1 AS TEXT)", [name])
        .map_err(JournalError::database("copy", path))?;
    let connection = connect(copy.path(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    bring_up(&connection, path, version, steps)?;
    read::all(&connection, path)
}
