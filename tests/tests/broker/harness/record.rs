//! The record of a broker that does not run, as another program sees and changes it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::TestBroker;

/// Opens a database, carries out a statement, and prints its rows as JSON; bytes as hexadecimal digits.
const SQL: &str = "
import json, sqlite3, struct, sys, zlib
def row_signature(*values):
    signed = b''
    for value in values:
        if value is None:
            signed += b'n'
            continue
        kind, value = {int: (b'i', value), str: (b't', value), bytes: (b'b', value)}[type(value)]
        value = struct.pack('<q', value) if kind == b'i' else value.encode() if kind == b't' else value
        signed += kind + struct.pack('<Q', len(value)) + value
    return zlib.crc32(signed)
database = sqlite3.connect(sys.argv[1])
database.create_function('row_signature', -1, row_signature)
rows = database.execute(sys.argv[2]).fetchall()
database.commit()
database.close()
print(json.dumps([[part.hex() if isinstance(part, bytes) else part for part in row] for row in rows]))
";

/// Repeats a question until there are no rows to answer it, or for so many seconds.
const AWAIT_NONE: &str = "
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1])
began = time.monotonic()
while database.execute(sys.argv[2]).fetchone():
    if time.monotonic() - began > 60:
        sys.exit('there still are such rows')
print('[]')
";

/// Locks a database until standard input is closed.
const HOLD: &str = "
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
";

/// A program that has locked the database.
#[derive(Debug)]
pub(crate) struct Hold(Child);

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The database of a broker.
#[derive(Debug)]
pub(crate) struct Record(PathBuf);

impl Record {
    pub(crate) fn of(broker: &TestBroker) -> Self {
        Self::at(&broker.state_dir())
    }

    /// That in this state folder.
    pub(crate) fn at(state_dir: &Path) -> Self {
        Self(state_dir.join("state.db"))
    }

    /// Carries out a statement, and returns its rows.
    pub(crate) fn sql(&self, statement: &str) -> Vec<Vec<Value>> {
        self.python(SQL, statement)
    }

    /// Signs all rows, as if a broker had written them as they are.
    pub(crate) fn sign(&self) {
        for (table, columns) in [
            ("host", "key, value"),
            ("child", "seq, id, intent"),
            ("progress", "seq, text, pid, inode, start_ticks, boot, cgroup"),
        ] {
            self.sql(&format!("UPDATE {table} SET signature = row_signature('{table}', {columns})"));
        }
    }

    /// Keeps the broker from writing to it, for as long as what is returned lives.
    pub(crate) fn hold(&self) -> Hold {
        let mut python = Command::new("python3");
        python.args(["-c", HOLD]).arg(&self.0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = python.spawn().expect("python3");
        let mut said = [0; 5];
        holder.stdout.take().expect("a pipe").read_exact(&mut said).expect("a locked database");
        Hold(holder)
    }

    /// Waits until a query has no rows; a broker may write meanwhile.
    pub(crate) fn await_none(&self, query: &str) {
        self.python(AWAIT_NONE, query);
    }

    fn python(&self, program: &str, statement: &str) -> Vec<Vec<Value>> {
        let mut python = Command::new("python3");
        let output = python.args(["-c", program]).arg(&self.0).arg(statement).output().expect("python3");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {complaints}");
        serde_json::from_slice(&output.stdout).expect("rows in JSON")
    }

    /// Changes what is recorded of the process of a child, such as `pid = 1`, as if a broker had written it.
    pub(crate) fn change_progress(&self, child: &Value, change: &str) {
        let id = child["id"].as_str().expect("an id").replace('-', "");
        let changed = self.sql(&format!(
            "UPDATE progress SET {change} WHERE seq IN (SELECT seq FROM child WHERE id = x'{id}') RETURNING seq"
        ));
        assert_eq!(changed.len(), 1, "the progress of {child}");
        self.sign();
    }
}
