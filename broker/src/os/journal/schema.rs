//! How the tables look, and how those of older versions are brought up to it.

use rusqlite::Connection;

/// By what a database of the broker is told from others (`PRAGMA application_id`): the letters `PBRK`.
pub(super) const APPLICATION_ID: i32 = 0x5042_524b;

/// Brings the tables from one version to the next.
pub(super) type Migration = &'static str;

/// All versions there have ever been, less the column that [`signature`](super::signature) adds, with which the broker of
/// version 1 can go on; the first step makes the tables. A step that has been released is never changed.
///
/// Each child has a row number in the order of the intents, under which both its intent, written once and long, and
/// its progress, written often and short, stand. No index maps ids to these: the one process that writes knows them,
/// and each write touches one page less.
pub(super) const STEPS: &[Migration] = &["
    CREATE TABLE host (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE child (seq INTEGER PRIMARY KEY, id BLOB NOT NULL, intent TEXT NOT NULL) STRICT;
    CREATE TABLE progress (
        seq INTEGER PRIMARY KEY,
        text TEXT NOT NULL,
        pid INTEGER,
        inode INTEGER,
        start_ticks INTEGER,
        boot BLOB,
        cgroup INTEGER
    ) STRICT;
"];

/// What a database says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is nothing in it yet.
    Empty,
    /// The broker has made it, in this version.
    Ours(i64),
    /// Another program has made it, and this is its `PRAGMA application_id`.
    Foreign(i32),
}

/// Reads it. Nothing is written.
pub(super) fn look(connection: &Connection) -> rusqlite::Result<Found> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version = number("user_version")?;
    if application == APPLICATION_ID {
        return Ok(Found::Ours(version));
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_empty = application == 0 && version == 0 && tables == 0;
    Ok(if is_empty { Found::Empty } else { Found::Foreign(application) })
}

/// A step failed: to which version it was to lead, and why.
pub(super) type Failed = (usize, rusqlite::Error);

/// Takes the steps that are missing, and signs the file: all of it, or nothing.
pub(super) fn migrate(connection: &Connection, from: usize, steps: &[Migration]) -> Result<(), Failed> {
    let next = from.saturating_add(1);
    let transaction = connection.unchecked_transaction().map_err(|error| (next, error))?;
    for (step, to) in steps.iter().skip(from).zip(next..) {
        transaction.execute_batch(step).map_err(|error| (to, error))?;
    }
    let to = steps.len();
    let sign = || {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(to).unwrap_or(i64::MAX))
    };
    sign().and_then(|()| transaction.commit()).map_err(|error| (to, error))
}
