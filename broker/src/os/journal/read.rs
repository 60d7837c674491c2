//! Reading what is on record; a row that cannot be what was written is damage.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use procbroker_core::Pid;
use procbroker_protocol::ChildId;
use rusqlite::types::{FromSql, Type};
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::entry::{Host, Position, Row, StoredProgress};
use super::error::JournalError;
use crate::os::process::identity::{Birthmark, BootId, ProcessIdentity};

/// The key of the boot id in the table of the host.
pub(super) const BOOT: &str = "boot";

/// The key of the folder of the cgroups there.
pub(super) const CGROUP_FOLDER: &str = "cgroup_folder";

/// The key that belongs to this file alone, by which its log of intents is told from others.
pub(super) const KEY: &str = "key";

/// Up to which entry everything is in the file.
pub(super) const FOLDED: &str = "folded";

/// How the file and its log of intents go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    pub(super) key: Uuid,
    /// Everything up to here is in the file.
    pub(super) folded: Position,
}

/// Reads that; a file that never had a log gets a key.
pub(super) fn ahead(connection: &Connection, path: &Path) -> Result<Ahead, JournalError> {
    let read = || -> rusqlite::Result<Ahead> {
        let Some(key) = value(connection, KEY)? else {
            return Ok(Ahead { key: Uuid::new_v4(), folded: Position::default() });
        };
        let folded = value(connection, FOLDED)?.map_or(0, u64::from_le_bytes);
        Ok(Ahead { key: Uuid::from_bytes(key), folded: Position(folded) })
    };
    read().map_err(JournalError::database("read", path))
}

/// All children, and where they stand.
pub(super) struct Numbered {
    pub(super) rows: Vec<Row>,
    pub(super) index: HashMap<ChildId, i64>,
    pub(super) next_seq: i64,
}

pub(super) fn rows(connection: &Connection, path: &Path) -> Result<Numbered, JournalError> {
    let refused = || JournalError::database("read", path);
    let mut select = connection
        .prepare(
            "SELECT child.seq, id, intent, text, pid, inode, start_ticks, boot, cgroup
             FROM child LEFT JOIN progress ON progress.seq = child.seq ORDER BY child.seq",
        )
        .map_err(refused())?;
    let mut found = Numbered { rows: Vec::new(), index: HashMap::new(), next_seq: 1 };
    let mut cursor = select.query([]).map_err(refused())?;
    while let Some(sql) = cursor.next().map_err(refused())? {
        let seq = sql.get(0).map_err(refused())?;
        let damaged =
            |what| JournalError::Damaged { path: path.to_owned(), finding: format!("row {seq} {what}") };
        let row = row(sql).map_err(|error| damaged(format!("cannot be read: {error}")))?;
        if found.index.insert(row.child, seq).is_some() {
            return Err(damaged("is a second one for its child".to_owned()));
        }
        let next = seq.checked_add(1);
        found.next_seq = next.ok_or_else(|| damaged("has the last number that there is".to_owned()))?;
        found.rows.push(row);
    }
    Ok(found)
}

fn row(sql: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let child = ChildId::from_uuid(Uuid::from_bytes(sql.get(1)?));
    let intent = sql.get(2)?;
    let progress = match sql.get(3)? {
        Some(text) => Some(StoredProgress { text, process: process(sql)? }),
        None => None,
    };
    Ok(Row { child, intent, progress })
}

fn process(sql: &rusqlite::Row<'_>) -> rusqlite::Result<Option<ProcessIdentity>> {
    let pid: Option<u32> = sql.get(4)?;
    let (inode, ticks): (Option<i64>, Option<i64>) = (sql.get(5)?, sql.get(6)?);
    let boot: Option<[u8; 16]> = sql.get(7)?;
    let cgroup: Option<i64> = sql.get(8)?;
    let birthmark = inode.map(|inode| Birthmark::Inode(inode.cast_unsigned()));
    let birthmark = birthmark.or_else(|| ticks.map(|ticks| Birthmark::StartTicks(ticks.cast_unsigned())));
    match (pid.map(Pid::new), birthmark, boot) {
        (None, None, None) => Ok(None),
        (Some(Some(pid)), Some(birthmark), Some(boot)) => {
            let boot = BootId(Uuid::from_bytes(boot));
            Ok(Some(ProcessIdentity { pid, birthmark, boot, cgroup: cgroup.map(i64::cast_unsigned) }))
        }
        _ => Err(rusqlite::Error::FromSqlConversionFailure(4, Type::Null, "half a process".into())),
    }
}

/// Reads under what they were started.
pub(super) fn host(connection: &Connection, path: &Path) -> Result<Option<Host>, JournalError> {
    let read = || -> rusqlite::Result<Option<Host>> {
        let Some(boot) = value(connection, BOOT)? else { return Ok(None) };
        let folder: Option<Vec<u8>> = value(connection, CGROUP_FOLDER)?;
        let cgroup_folder = folder.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        Ok(Some(Host { boot: BootId(Uuid::from_bytes(boot)), cgroup_folder }))
    };
    read().map_err(JournalError::database("read", path))
}

fn value<T: FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    connection.query_row("SELECT value FROM host WHERE key = ?1", [key], |row| row.get(0)).optional()
}
