//! Signs each row of the state file, so that one that was changed behind the broker's back is found: SQLite sees to it that
//! its pages hang together, and takes whatever is in their rows.
//!
//! The signature is a checksum, against damage and careless hands, of the row with its table and its key, so that a row in
//! the place of another is found too. It stands in a column that a broker which knows of none leaves empty: such a one can
//! read and write the file as ever, be it that it is older or that an upgrade has failed. As it starts it clears the table
//! of the host, and with it the mark that says that all rows are signed. The next broker that knows of signatures then
//! signs what is not.

use crc32fast::Hasher;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

/// The key in the table of the host that says that every row is signed.
pub(super) const MARK: &str = "signed";

/// What stands under [`MARK`] where every row is signed.
pub(super) const MARK_VALUE: &[u8] = &[1];

/// Which rows of a file are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// None: it was made by a broker that knows of no signatures, and has no column for them.
    Nowhere,
    /// Some: such a broker has written to it since.
    Partly,
    /// All. A row without a signature was not written by a broker.
    Throughout,
}

impl Signed {
    /// The column of a table, as it is selected.
    pub(super) fn column(self, table: &str) -> String {
        match self {
            Self::Nowhere => "NULL".to_owned(),
            Self::Partly | Self::Throughout => format!("{table}.signature"),
        }
    }

    /// Whether a row is what was written.
    pub(super) fn is_whole(self, stored: Option<i64>, own: i64) -> bool {
        match (stored, self) {
            (Some(stored), Self::Nowhere | Self::Partly | Self::Throughout) => stored == own,
            (None, Self::Nowhere | Self::Partly) => true,
            (None, Self::Throughout) => false,
        }
    }
}

/// Makes the columns.
const ADD_COLUMNS: &str = "
    ALTER TABLE host ADD COLUMN signature INTEGER;
    ALTER TABLE child ADD COLUMN signature INTEGER;
    ALTER TABLE progress ADD COLUMN signature INTEGER;
";

/// Signs what is not, and says so. What is signed already may be damaged, and stays so.
const SIGN: &str = "
    UPDATE host SET signature = row_signature('host', key, value) WHERE signature IS NULL;
    UPDATE child SET signature = row_signature('child', seq, id, intent) WHERE signature IS NULL;
    UPDATE progress SET signature = row_signature('progress', seq, text, pid, inode, start_ticks, boot, cgroup)
        WHERE signature IS NULL;
";

/// Teaches SQLite to sign: `row_signature(TABLE, KEY, VALUE...)`.
pub(super) fn teach(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(c"row_signature", -1, flags, |call: &mut Context<'_>| {
        let mut signature = Signature::default();
        (0..call.len()).for_each(|index| signature.add(call.get_raw(index)));
        Ok(signature.value())
    })
}

/// Which rows of a file are signed, by what it says.
pub(super) fn look(connection: &Connection) -> rusqlite::Result<Signed> {
    let columns = "SELECT count(*) FROM pragma_table_info('progress') WHERE name = 'signature'";
    if connection.query_row(columns, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(Signed::Nowhere);
    }
    let mark = connection
        .query_row("SELECT 1 FROM host WHERE key = ?1", [MARK], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(if mark.is_some() { Signed::Throughout } else { Signed::Partly })
}

/// Signs every row that is not signed, as a part of a transaction.
pub(super) fn complete(connection: &Connection) -> rusqlite::Result<()> {
    match look(connection)? {
        Signed::Throughout => return Ok(()),
        Signed::Partly => {}
        Signed::Nowhere => connection.execute_batch(ADD_COLUMNS)?,
    }
    connection.execute_batch(SIGN)?;
    connection.execute(PUT_HOST, (MARK, MARK_VALUE)).map(drop)
}

/// Writes a row of the table of the host: its key, and its value.
pub(super) const PUT_HOST: &str =
    "REPLACE INTO host (key, value, signature) VALUES (?1, ?2, row_signature('host', ?1, ?2))";

/// The signature of one row, to which its table, its key and its values are added in this order.
#[derive(Debug, Default)]
pub(super) struct Signature(Hasher);

impl Signature {
    /// That of all of it.
    pub(super) fn of<'v>(table: &str, values: impl IntoIterator<Item = ValueRef<'v>>) -> i64 {
        let mut signature = Self::default();
        signature.add(ValueRef::Text(table.as_bytes()));
        values.into_iter().for_each(|value| signature.add(value));
        signature.value()
    }

    /// Each with its kind and its length: no two rows have the same bytes.
    fn add(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.0.update(b"n"),
            ValueRef::Integer(number) => self.add_bytes(b"i", &number.to_le_bytes()),
            ValueRef::Real(number) => self.add_bytes(b"r", &number.to_le_bytes()),
            ValueRef::Text(text) => self.add_bytes(b"t", text),
            ValueRef::Blob(bytes) => self.add_bytes(b"b", bytes),
        }
    }

    fn add_bytes(&mut self, kind: &[u8], bytes: &[u8]) {
        self.0.update(kind);
        self.0.update(&bytes.len().to_le_bytes());
        self.0.update(bytes);
    }

    fn value(self) -> i64 {
        i64::from(self.0.finalize())
    }
}
