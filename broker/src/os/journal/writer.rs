//! Writes a batch in one transaction, as safely as it asks for.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use procbroker_core::{Run, Safety};
use procbroker_protocol::ChildId;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, Statement};
use uuid::Uuid;

use super::entry::{Host, Position, StoredProgress};
use super::pending::{self, Batch, Content};
use super::read::{self, Ahead, FOLDED};
use super::signature::{self, PUT_HOST};
use crate::os::process::identity::Birthmark;

/// Above so many pages in the write-ahead log they are copied to where they belong: 8 MiB, which a start after a crash
/// reads in a few milliseconds.
const CHECKPOINT_PAGES: i32 = 2_000;

/// The key in the table of the host under which something else is written each time.
const OVERWRITTEN: &str = "overwritten";

/// The one that writes.
pub(super) struct Writer<'c> {
    connection: &'c Connection,
    statements: Option<Statements<'c>>,
    index: HashMap<ChildId, i64>,
    next_seq: i64,
    /// How far the file says that it has everything, if there is a log of intents to which that matters.
    folded: Option<Position>,
    /// What has to be in the file before anything else is.
    due_note: Option<(Host, Ahead)>,
    /// What SQLite is set to.
    safety: Safety,
    /// A transaction has failed and none has been written since.
    is_unclean: bool,
}

struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    put_child: Statement<'c>,
    put_progress: Statement<'c>,
    remove_child: Statement<'c>,
    remove_progress: Statement<'c>,
    put_host: Statement<'c>,
}

impl<'c> Writer<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        index: HashMap<ChildId, i64>,
        next_seq: i64,
        folded: Option<Position>,
    ) -> Self {
        let safety = Safety::Process;
        let due_note = None;
        Self { connection, statements: None, index, next_seq, folded, due_note, safety, is_unclean: false }
    }

    /// Has it written together with whatever is written first under what children are started.
    pub(super) fn note_first(&mut self, host: Host, ahead: Ahead) {
        self.due_note = Some((host, ahead));
    }

    /// Takes what became of children that are not on record out of a batch, and returns who waits for it.
    pub(super) fn drop_unrecorded(&self, batch: &mut Batch) -> Vec<Run> {
        let mut receipts = Vec::new();
        batch.retain(|child, due| {
            let is_known = match due.content {
                Content::Progress(_) => self.index.contains_key(child),
                Content::New { .. } | Content::Gone => true,
            };
            if !is_known {
                receipts.append(&mut due.receipts);
            }
            is_known
        });
        receipts
    }

    /// Writes all of it, or nothing, and with it that everything up to a position is there: what is in the log of
    /// intents up to there is not needed any more, and not looked at.
    pub(super) fn write(&mut self, batch: &Batch, up_to: Position) -> rusqlite::Result<()> {
        let folded = self.folded.map(|_| up_to);
        if batch.is_empty() && !self.is_unclean && folded == self.folded {
            return Ok(());
        }
        let result = self.set_safety(pending::safety(batch)).and_then(|()| self.transact(batch, folded));
        self.is_unclean = result.is_err();
        match result {
            Ok(next_seq) => {
                self.folded = folded;
                self.due_note = None;
                self.take_note(batch, next_seq);
            }
            Err(_) if !self.connection.is_autocommit() => self.connection.execute_batch("ROLLBACK")?,
            Err(_) => {}
        }
        result.map(drop)
    }

    /// <https://sqlite.org/pragma.html#pragma_synchronous>: in WAL mode with NORMAL a commit is durable across crashes
    /// of the application, as it is in the page cache of the kernel, and may be lost with the power; with FULL the log
    /// is synced after each commit, and all that was committed before with it. The folder is synced with the first
    /// sync of a log that SQLite has made (`unixSync` in its `os_unix.c`), which is that of the log's header.
    fn set_safety(&mut self, safety: Safety) -> rusqlite::Result<()> {
        if self.safety != safety {
            let level = match safety {
                Safety::Process => "NORMAL",
                Safety::Power => "FULL",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.safety = safety;
        }
        Ok(())
    }

    fn transact(&mut self, batch: &Batch, folded: Option<Position>) -> rusqlite::Result<i64> {
        let statements = match &mut self.statements {
            Some(statements) => statements,
            absent @ None => {
                // Where there was no room for that at the start.
                let transaction = self.connection.unchecked_transaction()?;
                signature::complete(&transaction)?;
                transaction.commit()?;
                absent.insert(Statements::prepare(self.connection)?)
            }
        };
        statements.begin.execute([])?;
        if let Some((host, ahead)) = &self.due_note {
            put_host(self.connection, host, *ahead)?;
        }
        if self.is_unclean {
            // What a failed transaction left in the log is whole, if it was the sync that failed: a crash would bring
            // an intent back that was refused. Any page that is written takes its place.
            // A value that is the same as before would not be written.
            statements.put_host.execute((OVERWRITTEN, Uuid::new_v4().as_bytes()))?;
        }
        let mut next_seq = self.next_seq;
        for (child, due) in batch {
            let seq = self.index.get(child).copied();
            match (&due.content, seq) {
                (Content::New { intent, progress }, seq) => {
                    let seq = seq.unwrap_or(next_seq);
                    next_seq = next_seq.max(seq.saturating_add(1));
                    statements.put_child.execute((seq, child.as_uuid().as_bytes(), &intent.text))?;
                    match progress {
                        Some(progress) => statements.put_progress(seq, progress)?,
                        None => drop(statements.remove_progress.execute([seq])?),
                    }
                }
                (Content::Progress(progress), Some(seq)) => statements.put_progress(seq, progress)?,
                (Content::Gone, Some(seq)) => {
                    statements.remove_child.execute([seq])?;
                    statements.remove_progress.execute([seq])?;
                }
                (Content::Progress(_) | Content::Gone, None) => {}
            }
        }
        if let Some(Position(up_to)) = folded {
            statements.put_host.execute((FOLDED, up_to.to_le_bytes()))?;
        }
        statements.commit.execute([])?;
        Ok(next_seq)
    }

    /// The rows are numbered here as they were in the transaction.
    fn take_note(&mut self, batch: &Batch, next_seq: i64) {
        let mut seq = self.next_seq;
        for (child, due) in batch {
            match due.content {
                Content::New { .. } => {
                    if !self.index.contains_key(child) {
                        self.index.insert(*child, seq);
                        seq = seq.saturating_add(1);
                    }
                }
                Content::Gone => drop(self.index.remove(child)),
                Content::Progress(_) => {}
            }
        }
        self.next_seq = next_seq;
    }

    /// Copies a long log to where its pages belong, so that it starts anew with the next write. A reader does not
    /// hinder this: it is then done in part, and the rest the next time.
    pub(super) fn checkpoint_when_due(&self) -> rusqlite::Result<()> {
        let (pages, copied) = self.connection.wal_checkpoint_v2(Some(c"main"), CheckpointMode::NOOP)?;
        if pages.saturating_sub(copied) < CHECKPOINT_PAGES { Ok(()) } else { self.checkpoint() }
    }

    /// The same, however short it is: the next write then needs no room on the disk.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.wal_checkpoint_v2(Some(c"main"), CheckpointMode::PASSIVE).map(drop)
    }
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            put_child: connection.prepare(
                "REPLACE INTO child (seq, id, intent, signature)
                 VALUES (?1, ?2, ?3, row_signature('child', ?1, ?2, ?3))",
            )?,
            put_progress: connection.prepare(
                "REPLACE INTO progress (seq, text, pid, inode, start_ticks, boot, cgroup, signature)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, row_signature('progress', ?1, ?2, ?3, ?4, ?5, ?6, ?7))",
            )?,
            remove_child: connection.prepare("DELETE FROM child WHERE seq = ?1")?,
            remove_progress: connection.prepare("DELETE FROM progress WHERE seq = ?1")?,
            put_host: connection.prepare(PUT_HOST)?,
        })
    }

    fn put_progress(&mut self, seq: i64, progress: &StoredProgress) -> rusqlite::Result<()> {
        let process = progress.process.as_ref();
        let (inode, start_ticks) = match process.map(|process| process.birthmark) {
            Some(Birthmark::Inode(inode)) => (Some(inode.cast_signed()), None),
            Some(Birthmark::StartTicks(ticks)) => (None, Some(ticks.cast_signed())),
            None => (None, None),
        };
        self.put_progress.execute((
            seq,
            &progress.text,
            process.map(|process| process.pid.get()),
            inode,
            start_ticks,
            process.map(|process| process.boot.0.as_bytes()),
            process.and_then(|process| process.cgroup).map(u64::cast_signed),
        ))?;
        Ok(())
    }
}

/// Writes that as a part of a transaction.
pub(super) fn put_host(connection: &Connection, host: &Host, ahead: Ahead) -> rusqlite::Result<()> {
    signature::complete(connection)?;
    connection.execute("DELETE FROM host", [])?;
    let mut insert = connection.prepare(PUT_HOST)?;
    insert.execute((signature::MARK, signature::MARK_VALUE))?;
    insert.execute((read::BOOT, host.boot.0.as_bytes()))?;
    insert.execute((read::KEY, ahead.key.as_bytes()))?;
    insert.execute((read::FOLDED, ahead.folded.0.to_le_bytes()))?;
    if let Some(folder) = &host.cgroup_folder {
        insert.execute((read::CGROUP_FOLDER, folder.as_os_str().as_bytes()))?;
    }
    Ok(())
}
