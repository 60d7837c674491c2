//! Reading what is on record; a row that cannot be what was written is damage.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use procbroker_core::Pid;
use procbroker_protocol::ChildId;
use rusqlite::Connection;
use rusqlite::types::{FromSql, FromSqlError, Type, Value, ValueRef};
use uuid::Uuid;

use super::entry::{Host, Position, Row, StoredProgress};
use super::error::JournalError;
use super::signature::{self, Signature, Signed};
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
    let noted = noted(connection, path)?;
    let Some(key) = noted.value(KEY)? else {
        return Ok(Ahead { key: Uuid::new_v4(), folded: Position::default() });
    };
    let folded = noted.value(FOLDED)?.map_or(0, u64::from_le_bytes);
    Ok(Ahead { key: Uuid::from_bytes(key), folded: Position(folded) })
}

/// All children, and where they stand.
pub(super) struct Numbered {
    pub(super) rows: Vec<Row>,
    pub(super) index: HashMap<ChildId, i64>,
    pub(super) next_seq: i64,
}

pub(super) fn rows(connection: &Connection, path: &Path) -> Result<Numbered, JournalError> {
    let refused = || JournalError::database("read", path);
    let signed = signature::look(connection).map_err(refused())?;
    let query = format!(
        "SELECT child.seq, id, intent, text, pid, inode, start_ticks, boot, cgroup, progress.seq, {}, {}
         FROM child LEFT JOIN progress ON progress.seq = child.seq ORDER BY child.seq",
        signed.column("child"),
        signed.column("progress")
    );
    let mut select = connection.prepare(&query).map_err(refused())?;
    let mut progresses = 0_i64;
    let mut found = Numbered { rows: Vec::new(), index: HashMap::new(), next_seq: 1 };
    let mut cursor = select.query([]).map_err(refused())?;
    while let Some(sql) = cursor.next().map_err(refused())? {
        let seq = sql.get(0).map_err(refused())?;
        let damaged =
            |what| JournalError::Damaged { path: path.to_owned(), finding: format!("row {seq} {what}") };
        if let Some(table) = changed(sql, signed).map_err(refused())? {
            return Err(JournalError::ChangedRow { path: path.to_owned(), table, seq });
        }
        let row = row(sql).map_err(|error| damaged(format!("cannot be read: {error}")))?;
        if found.index.insert(row.child, seq).is_some() {
            return Err(damaged("is a second one for its child".to_owned()));
        }
        let next = seq.checked_add(1);
        found.next_seq = next.ok_or_else(|| damaged("has the last number that there is".to_owned()))?;
        progresses = progresses.saturating_add(i64::from(row.progress.is_some()));
        found.rows.push(row);
    }
    match (signed, lone_progress(connection, progresses).map_err(refused())?) {
        (Signed::Throughout, Some(seq)) => {
            Err(JournalError::ChangedRow { path: path.to_owned(), table: "progress", seq })
        }
        (Signed::Throughout | Signed::Partly | Signed::Nowhere, _) => Ok(found),
    }
}

/// The table in which a row is not what was written there, of the two that are read together.
fn changed(sql: &rusqlite::Row<'_>, signed: Signed) -> rusqlite::Result<Option<&'static str>> {
    let values = |columns: &[usize]| {
        columns.iter().map(|column| sql.get_ref(*column)).collect::<rusqlite::Result<Vec<ValueRef<'_>>>>()
    };
    if !signed.is_whole(sql.get(10)?, Signature::of("child", values(&[0, 1, 2])?)) {
        return Ok(Some("child"));
    }
    let has_progress = sql.get_ref(9)? != ValueRef::Null;
    let own = Signature::of("progress", values(&[9, 3, 4, 5, 6, 7, 8])?);
    Ok((has_progress && !signed.is_whole(sql.get(11)?, own)).then_some("progress"))
}

/// A progress without a child, where there are more than there should be: its number was changed.
fn lone_progress(connection: &Connection, expected: i64) -> rusqlite::Result<Option<i64>> {
    let count: i64 = connection.query_row("SELECT count(*) FROM progress", [], |row| row.get(0))?;
    if count == expected {
        return Ok(None);
    }
    let lone = "SELECT min(seq) FROM progress WHERE seq NOT IN (SELECT seq FROM child)";
    connection.query_row(lone, [], |row| row.get(0))
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
    let noted = noted(connection, path)?;
    let Some(boot) = noted.value(BOOT)? else { return Ok(None) };
    let folder: Option<Vec<u8>> = noted.value(CGROUP_FOLDER)?;
    let cgroup_folder = folder.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
    Ok(Some(Host { boot: BootId(Uuid::from_bytes(boot)), cgroup_folder }))
}

/// What is in the table of the host.
struct HostTable<'p> {
    path: &'p Path,
    values: BTreeMap<String, Value>,
}

impl HostTable<'_> {
    /// What stands under a key.
    fn value<T: FromSql>(&self, key: &str) -> Result<Option<T>, JournalError> {
        let value = self.values.get(key).map(|value| T::column_result(value.into()));
        value.transpose().map_err(|error: FromSqlError| JournalError::Damaged {
            path: self.path.to_owned(),
            finding: format!("what it says of {key} cannot be read: {error}"),
        })
    }
}

/// Reads all of the table of the host: under a key that was changed, something would be missing in silence.
fn noted<'p>(connection: &Connection, path: &'p Path) -> Result<HostTable<'p>, JournalError> {
    let refused = || JournalError::database("read", path);
    let signed = signature::look(connection).map_err(refused())?;
    let query = format!("SELECT key, value, {} FROM host", signed.column("host"));
    let mut select = connection.prepare(&query).map_err(refused())?;
    let mut cursor = select.query([]).map_err(refused())?;
    let mut values = BTreeMap::new();
    while let Some(row) = cursor.next().map_err(refused())? {
        let (key, value) = (row.get_ref(0).map_err(refused())?, row.get_ref(1).map_err(refused())?);
        let own = Signature::of("host", [key, value]);
        if !signed.is_whole(row.get(2).map_err(refused())?, own) {
            let key = String::from_utf8_lossy(key.as_bytes().unwrap_or_default());
            let finding = format!("the row {key:?} of its table host is not what was written there");
            return Err(JournalError::Damaged { path: path.to_owned(), finding });
        }
        values.insert(row.get(0).map_err(refused())?, row.get(1).map_err(refused())?);
    }
    Ok(HostTable { path, values })
}

/// The children, where everything else can be read too.
pub(super) fn all(connection: &Connection, path: &Path) -> Result<Vec<Row>, JournalError> {
    drop((ahead(connection, path)?, host(connection, path)?));
    rows(connection, path).map(|found| found.rows)
}
