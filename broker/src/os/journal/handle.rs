//! What submits changes to the journal, and waits for its thread at the end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use procbroker_core::Safety;

use super::check::check_is_ours;
use super::entry::{Entry, Pace, Position};
use super::error::JournalError;
use super::intent_log::{Append, IntentLog, Place};
use super::queue::WriteQueue;
use super::shared_memory::SharedMemory;
use crate::os::process::probation;

/// How long the last changes may take to be written when the journal is dropped.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

/// Whether what was submitted is as safe as it was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Submitted {
    /// It is. No receipt follows.
    Safe,
    /// It is not yet, and a receipt follows if one was asked for.
    Waits,
}

/// The thread that writes, and what waits for it. Dropping it writes the rest, within five seconds.
#[derive(Debug)]
pub struct Journal {
    pub(super) queue: Arc<WriteQueue>,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) path: PathBuf,
    pub(super) memory: SharedMemory,
    /// Never waited for: whoever submits has it alone.
    pub(super) intents: Mutex<Intents>,
}

/// The log of intents, if there is one.
#[derive(Debug)]
pub(super) struct Intents {
    pub(super) place: Option<Place>,
    pub(super) log: Option<IntentLog>,
    /// Whether it is known, and was said, that it cannot be written to.
    pub(super) trouble: bool,
}

impl Intents {
    /// Sees to it that another program could go on with both files, now that everything is in the state file: what has become
    /// of them meanwhile is not noticed by who has them open.
    fn make_whole(&mut self, queue: &WriteQueue, path: &Path) -> Result<(), JournalError> {
        let (Some(place), Some(log)) = (&self.place, &self.log) else { return Ok(()) };
        let (_, settled) = queue.next_position();
        check_is_ours(path, place.key(), settled)?;
        if place.has(log, settled)? {
            return Ok(());
        }
        tracing::warn!(path = %place.path().display(),
            "the log of intents is not what was written there, and is made anew; everything is in the state file");
        self.log = match place.create(settled)? {
            Some((log, mark)) => {
                queue.renew(mark);
                Some(log)
            }
            None => None,
        };
        Ok(())
    }

    /// The last records are not in the state file.
    fn tell_what_is_left(&self, path: &Path) {
        match (&self.place, &self.log) {
            (Some(place), Some(log)) if log.has_all() => {
                tracing::warn!(path = %path.display(), log = %place.path().display(),
                    "the last records could not be written; the log of intents has them, and the next start brings them into \
                     the state file: leave the two where they are");
            }
            (Some(_) | None, Some(_) | None) => {
                tracing::error!(path = %path.display(), "the last records could not be written and are lost");
            }
        }
    }
}

impl Journal {
    /// Has a change written: at the latest with whatever is submitted later. One that is in the log of intents, and does
    /// not have to outlive the machine, is safe at once.
    ///
    /// Changes of one child that wait together become one. When the disk refuses, an intent with a receipt is
    /// answered with the reason and forgotten; the receipts of other changes are answered with it too, while the
    /// changes themselves stay and are tried again.
    pub fn submit(&mut self, entry: Entry) -> Submitted {
        let pace = self.log(&entry);
        let (pace, submitted) = match (pace, entry.safety) {
            (Pace::AtOnce, Safety::Process) | (_, Safety::Power) => (Pace::AtOnce, Submitted::Waits),
            (pace @ (Pace::Soon | Pace::Later), Safety::Process) => (pace, Submitted::Safe),
        };
        let receipt = entry.receipt.filter(|_| submitted == Submitted::Waits);
        self.queue.submit(Entry { receipt, ..entry }, pace);
        submitted
    }

    /// Writes a change to the log of intents, and says when it has to be in the database for that.
    fn log(&mut self, entry: &Entry) -> Pace {
        let intents = self.intents.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Intents { place, log: Some(log), trouble } = intents else { return Pace::AtOnce };
        let (position, settled) = self.queue.next_position();
        match log.append(position, entry, settled) {
            Append::Safe => Pace::Later,
            Append::Pressing => Pace::Soon,
            Append::Full => Pace::AtOnce,
            Append::Failed(error) => {
                if !std::mem::replace(trouble, true) {
                    let path = place.as_ref().map(Place::path).unwrap_or_default();
                    tracing::error!(path = %path.display(), %error,
                        "cannot write to the log of intents; creates wait for the state file as long as that lasts");
                }
                Pace::AtOnce
            }
        }
    }

    /// Has what waits written now, though nobody waits for it: for when much has come and more is to come.
    pub fn hurry(&self) {
        self.queue.hurry();
    }

    /// How far everything was submitted that no attempt to write has covered yet; none if there is nothing such. A
    /// [`Delivery::Attempted`](super::Delivery::Attempted) follows when one that covers it has ended, and only then: what
    /// nobody waits for wakes nobody up.
    #[must_use]
    pub fn await_attempt(&self) -> Option<Position> {
        self.queue.await_attempt()
    }

    /// How far everything is written that was submitted, or could not be.
    #[must_use]
    pub fn attempted(&self) -> Position {
        self.queue.attempted()
    }

    /// Waits until everything that was submitted so far is written, in the sense of [`Safety::Process`], and makes sure that
    /// the next program finds it: a log of intents that somebody has damaged is made anew.
    ///
    /// # Errors
    /// When the disk refuses, or the patience has ended; or when the state file is not what was written there.
    pub fn flush(&self, patience: Duration) -> Result<(), JournalError> {
        self.queue.flush(patience, &self.path)?;
        let mut intents = self.intents.lock().unwrap_or_else(PoisonError::into_inner);
        self.memory.mend();
        intents.make_whole(&self.queue, &self.path)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let is_over = self.queue.close(CLOSING_PATIENCE);
        let Some(thread) = self.thread.take() else { return };
        let intents = self.intents.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !is_over {
            // The disk does not answer. The thread ends with the process, as a join would never.
            tracing::error!(path = %self.path.display(), "the last records are not written within {CLOSING_PATIENCE:?}");
        } else if thread.join().is_err() {
            tracing::error!(path = %self.path.display(), "the thread that writes the records has failed");
        } else if !self.queue.is_settled() {
            intents.tell_what_is_left(&self.path);
        } else if let Some(place) = &intents.place
            && !probation::is_on()
        {
            place.remove();
        }
    }
}
