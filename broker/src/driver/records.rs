//! What the core wants on record, in the words of the journal.

use std::time::Duration;

use procbroker_core::{Receipt, Record, RecordFailure, Run, Safety};
use procbroker_protocol::ChildId;

use crate::os::identity::ProcessIdentity;
use crate::os::journal::{Change, Entry, Journal, JournalError, Progress};

/// The record of all children.
#[derive(Debug)]
pub struct Records {
    journal: Journal,
}

impl Records {
    /// A record that this journal keeps.
    #[must_use]
    pub fn new(journal: Journal) -> Self {
        Self { journal }
    }

    /// Has one thing written. `process` is what the child's present process is known by, if it has one.
    ///
    /// # Errors
    /// When it has no written form, which none of the core's has been seen to lack.
    pub fn submit(
        &self,
        run: Run,
        record: &Record,
        safety: Safety,
        receipt: Receipt,
        process: Option<ProcessIdentity>,
    ) -> Result<(), RecordFailure> {
        let unwritable = |error: serde_json::Error| RecordFailure {
            message: format!("the record of the child {} has no written form: {error}", run.child),
        };
        let change = match record {
            Record::Intent(intent) => Change::Intent(serde_json::to_string(&**intent).map_err(unwritable)?),
            Record::Progress(progress) => {
                let text = serde_json::to_string(progress).map_err(unwritable)?;
                Change::Progress(Progress { text, process })
            }
        };
        let receipt = match receipt {
            Receipt::Wanted => Some(run),
            Receipt::NotWanted => None,
        };
        self.journal.submit(Entry { child: run.child, change, safety, receipt });
        Ok(())
    }

    /// Has what is on record of a child removed.
    pub fn forget(&self, child: ChildId) {
        self.journal.submit(Entry { child, change: Change::Remove, safety: Safety::Process, receipt: None });
    }

    /// Waits until everything is written that was submitted so far.
    ///
    /// # Errors
    /// When the disk refuses, or takes longer than that.
    pub fn flush(&self, patience: Duration) -> Result<(), JournalError> {
        self.journal.flush(patience)
    }
}
