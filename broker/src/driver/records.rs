//! What the core wants on record, in the words of the journal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use procbroker_core::{Answered, Input, Instant, Receipt, Record, RecordFailure, Run, Safety};
use procbroker_protocol::ChildId;
use serde::Serialize;
use serde::ser::Error;
use tokio::sync::mpsc;

use crate::messages::FromThread;
use crate::os::journal::{
    Change, Delivery, Entry, Host, Journal, JournalError, Position, Store, StoredProgress, Submitted,
};
use crate::os::process::identity::ProcessIdentity;

/// The record of all children.
#[derive(Debug)]
pub struct Records {
    journal: Journal,
    /// Children whose intents are waited for.
    intended: BTreeSet<ChildId>,
}

/// How far a child is, as it is written: with when it expires beside, if it has a time to live.
#[derive(Serialize)]
struct OnDisk<'a> {
    #[serde(flatten)]
    progress: &'a procbroker_core::Progress,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Instant>,
}

/// An answer, as it is written: a member of its own tells it from the intent of a child.
#[derive(Serialize)]
struct AnswerOnDisk<'a> {
    answered: &'a Answered,
}

impl Records {
    /// Starts to write to this file, for children that are started under this host. What comes of it goes to `threads`.
    ///
    /// # Errors
    /// When nothing can be written, or there is no thread to be had.
    pub fn start(store: Store, host: &Host, threads: mpsc::Sender<FromThread>) -> Result<Self, JournalError> {
        let deliver = move |delivery| {
            let report = match delivery {
                Delivery::Receipt { run, result } => FromThread::Input(Input::Recorded { run, result }),
                Delivery::Attempted { up_to } => FromThread::Attempted(up_to),
            };
            // A driver that has gone needs no report any more.
            drop(threads.blocking_send(report));
        };
        Ok(Self { journal: store.start(host, Arc::new(deliver))?, intended: BTreeSet::new() })
    }

    /// Has one thing written, with when its child expires, and says whether it is safe already: then no receipt follows. `process` is what the child's
    /// present process is known by, if it has one.
    ///
    /// # Errors
    /// When it has no written form, which none of the core's has been seen to lack.
    pub fn submit(
        &mut self,
        run: Run,
        (record, expires): (&Record, Option<Instant>),
        safety: Safety,
        receipt: Receipt,
        process: Option<ProcessIdentity>,
    ) -> Result<Submitted, RecordFailure> {
        let unwritable = |error: serde_json::Error| RecordFailure {
            message: format!("the record of the child {} has no written form: {error}", run.child),
        };
        let change = match record {
            Record::Intent(intent) => Change::Intent(written(&**intent).map_err(unwritable)?),
            Record::Progress(progress) => {
                let text = progress_text(progress, expires).map_err(unwritable)?;
                Change::Progress(StoredProgress { text, process })
            }
            Record::Answered(answered) => {
                Change::Intent(written(&AnswerOnDisk { answered }).map_err(unwritable)?)
            }
        };
        let receipt = match receipt {
            Receipt::Wanted => Some(run),
            Receipt::NotWanted => None,
        };
        let is_intent = matches!(record, Record::Intent(_));
        let submitted = self.journal.submit(Entry { child: run.child, change, safety, receipt });
        match submitted {
            Submitted::Waits if is_intent => drop(self.intended.insert(run.child)),
            Submitted::Waits | Submitted::Safe => {}
        }
        Ok(submitted)
    }

    /// A receipt has come. An intent that the state file has refused is taken back from the log of intents, where it may be
    /// still.
    pub fn receipt(&mut self, run: Run, result: &Result<(), RecordFailure>) {
        if self.intended.remove(&run.child) && result.is_err() {
            self.forget(run.child);
        }
    }

    /// Has what is on record of a child removed.
    pub fn forget(&mut self, child: ChildId) {
        let entry = Entry { child, change: Change::Remove, safety: Safety::Process, receipt: None };
        // Nobody waits for it.
        let _ = self.journal.submit(entry);
    }

    /// Has what waits written now, though nobody waits for it.
    pub fn hurry(&self) {
        self.journal.hurry();
    }

    /// How far everything was submitted that no attempt to write has covered yet, if there is anything such:
    /// [`FromThread::Attempted`] follows then.
    #[must_use]
    pub fn await_attempt(&self) -> Option<Position> {
        self.journal.await_attempt()
    }

    /// How far everything is written that was submitted, or could not be.
    #[must_use]
    pub fn attempted(&self) -> Position {
        self.journal.attempted()
    }

    /// Waits until everything is written that was submitted so far.
    ///
    /// # Errors
    /// When the disk refuses, or takes longer than that.
    pub fn flush(&self, patience: Duration) -> Result<(), JournalError> {
        self.journal.flush(patience)
    }
}

/// Most records are shorter.
const TEXT_BYTES: usize = 1 << 10;

/// The written form of how far a child is.
fn progress_text(
    progress: &procbroker_core::Progress,
    expires: Option<Instant>,
) -> Result<String, serde_json::Error> {
    match expires {
        // The text is the same, and is made in half the time.
        None => written(progress),
        Some(_) => written(&OnDisk { progress, expires }),
    }
}

/// The written form of a record.
fn written(record: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = Vec::with_capacity(TEXT_BYTES);
    serde_json::to_writer(&mut text, record)?;
    String::from_utf8(text).map_err(serde_json::Error::custom)
}

#[cfg(test)]
mod tests {
    use procbroker_core::{Departure, Progress, Runs};
    use procbroker_protocol::create::StopStep;
    use procbroker_protocol::{ExitReason, Signal, Timestamp};

    use super::*;

    fn any_progress() -> [Progress; 2] {
        let started_at = Timestamp::from_micros(1);
        let (runs, departure) = (Runs::default(), Departure::default());
        let steps = vec![StopStep { signal: Signal::TERM, grace: Duration::from_secs(10) }];
        [
            Progress::Running { started_at, runs, departure },
            Progress::Unwanted { reason: ExitReason::Destroyed, steps },
        ]
    }

    #[test]
    fn the_text_of_one_that_does_not_expire_is_that_of_one_that_may() {
        for progress in any_progress() {
            let beside = written(&OnDisk { progress: &progress, expires: None }).unwrap();
            assert_eq!(progress_text(&progress, None).unwrap(), beside);
            let expires = Some(Instant::from_nanos(7));
            let expiring = progress_text(&progress, expires).unwrap();
            let object: serde_json::Value = serde_json::from_str(&expiring).unwrap();
            assert!(object.get("expires").is_some_and(|moment| !moment.is_null()), "{expiring}");
        }
    }
}
