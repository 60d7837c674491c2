//! Begins to write: notes under what children are started from now on, and starts the thread.

use rusqlite::Connection;

use super::delivery::Deliver;
use super::entry::Host;
use super::error::{JournalError, is_want_of_room};
use super::file::with_room;
use super::handle::Journal;
use super::read::{self, Ahead};
use super::store::{Log, Store};
use super::worker::{self, Noted};
use super::writer::put_host;

impl Store {
    /// Notes under what children are started from now on, and starts the thread that writes.
    ///
    /// # Errors
    /// When nothing can be written, unless that is for want of room and children are on record; or when there is no thread to
    /// be had.
    pub fn start(self, host: &Host, deliver: Deliver) -> Result<Journal, JournalError> {
        // The log of intents is made after that: nothing is in one that belongs to no file.
        let noted = match with_room(&self.connection, || self.note(host)) {
            Ok(()) => Noted::Already,
            // Without any children nobody is helped by a broker that takes none.
            Err(error) if !is_want_of_room(&error) || (self.index.is_empty() && self.unfolded.count == 0) => {
                return Err(JournalError::database("write", &self.path)(error));
            }
            // It would say what it says already.
            Err(error) if self.has_noted(host)? => {
                tracing::warn!(path = %self.path.display(), %error,
                    "there is no room on the disk of the state file, which has all that it needs for a start: make room there");
                Noted::Already
            }
            // What is on record can be looked after all the same. Whatever is written next is written with it.
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error,
                    "there is no room on the disk of the state file to note that a broker has started: make room there; \
                     creates are refused until then");
                Noted::Later(host.clone())
            }
        };
        worker::start(self, noted, deliver)
    }

    fn has_noted(&self, host: &Host) -> Result<bool, JournalError> {
        let found = read::ahead(&self.connection, &self.path)?;
        let is_same_host = read::host(&self.connection, &self.path)?.as_ref() == Some(host);
        Ok(is_same_host && found == self.ahead)
    }

    /// The first write to a log writes its header too, which SQLite syncs, lest what follows be taken for a part of an
    /// older log (`walWriteFrames` in its `wal.c`). A new one follows no older one, and the start does not wait for
    /// the disk; the next sync covers the header as well.
    fn note(&self, host: &Host) -> rusqlite::Result<()> {
        match self.log {
            Log::Left => return note(&self.connection, host, self.ahead),
            Log::New => {}
        }
        self.connection.pragma_update(None, "synchronous", "OFF")?;
        let noted = note(&self.connection, host, self.ahead);
        self.connection.pragma_update(None, "synchronous", "NORMAL").and(noted)
    }
}

fn note(connection: &Connection, host: &Host, ahead: Ahead) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    put_host(&transaction, host, ahead)?;
    transaction.commit()
}
