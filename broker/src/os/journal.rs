//! The durable record of the children: what has to be known after a crash of the broker or of the machine.
//!
//! There are two records. The log of intents, in memory as a rule, is written by whoever submits, at once, and is safe
//! against the sudden death of the broker. The database is safe against that of the machine. One thread owns it, and writes
//! all that waits for it in one transaction at a time: within a second, and at once where a change has to outlive the
//! machine, or found no room in the log. Whoever submits is never held up by the disk.

mod abandoned;
mod error;
mod intent_log;
mod pending;
mod queue;
mod read;
mod schema;
mod shared_memory;
mod store;
#[cfg(test)]
mod tests;
mod wal;
mod worker;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use procbroker_core::{RecordFailure, Run, Safety};
use procbroker_protocol::ChildId;

use crate::os::probation;
use crate::os::process::identity::{BootId, ProcessIdentity};

pub(crate) use abandoned::Abandoned;
pub use abandoned::Survivor;
pub use error::JournalError;
pub(crate) use intent_log::read_any as read_any_intents;
use intent_log::{Append, IntentLog, Place};
use queue::WriteQueue;
use shared_memory::SharedMemory;
#[cfg(test)]
pub(crate) use store::open_alone;
pub use store::{Store, check, go_on, open};

/// How long the last changes may take to be written when the journal is dropped.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

/// What is on record of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which child.
    pub child: ChildId,
    /// What was meant to be started, as it was submitted.
    pub intent: String,
    /// What became of it, if that was ever submitted.
    pub progress: Option<Progress>,
}

/// What became of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// As it was submitted.
    pub text: String,
    /// Its present process, if it has one.
    pub process: Option<ProcessIdentity>,
}

/// Under what the children on record were started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The run of the kernel.
    pub boot: BootId,
    /// The folder of their cgroups, where they have any.
    pub cgroup_folder: Option<PathBuf>,
}

/// What an earlier broker left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The children, in the order in which their intents were written.
    pub rows: Vec<Row>,
    /// Under what they were started; absent as long as no broker has started with this file.
    pub host: Option<Host>,
}

/// What is to be written about a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is about to be started.
    Intent(String),
    /// It got on. Replaces the former progress entirely.
    Progress(Progress),
    /// There is nothing to remember of it any more.
    Remove,
}

/// One change, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which child.
    pub child: ChildId,
    /// What to write.
    pub change: Change,
    /// What it has to survive.
    pub safety: Safety,
    /// For whom the result is delivered, if anybody waits for it.
    pub receipt: Option<Run>,
}

/// Whether what was submitted is as safe as it was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Submitted {
    /// It is. No receipt follows.
    Safe,
    /// It is not yet, and a receipt follows if one was asked for.
    Waits,
}

/// When a change is written to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Somebody waits for it.
    AtOnce,
    /// Nobody waits for it, but the log of intents gets full.
    Soon,
    /// With whatever comes within a second.
    Later,
}

/// A place in the sequence of everything that is submitted: so many changes came up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// What the thread of the journal tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// What has become of an entry with a receipt: once for each.
    Receipt {
        /// Who waits for it.
        run: Run,
        /// Whether it is written.
        result: Result<(), RecordFailure>,
    },
    /// An attempt to write has ended that somebody [waits for](Journal::await_attempt).
    Attempted {
        /// Everything up to here is written, as safely as it was asked for, or could not be.
        up_to: Position,
    },
}

/// Where that goes, in the thread of the journal. It may block for a moment.
pub type Deliver = Arc<dyn Fn(Delivery) + Send + Sync>;

/// The thread that writes, and what waits for it. Dropping it writes the rest, within five seconds.
#[derive(Debug)]
pub struct Journal {
    queue: Arc<WriteQueue>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    memory: SharedMemory,
    /// Never waited for: whoever submits has it alone.
    intents: Mutex<Intents>,
}

/// The log of intents, if there is one.
#[derive(Debug)]
struct Intents {
    place: Option<Place>,
    log: Option<IntentLog>,
    /// Whether it is known, and was said, that it cannot be written to.
    trouble: bool,
}

impl Intents {
    /// Sees to it that another program could go on with both files, now that everything is in the state file: what has become
    /// of them meanwhile is not noticed by who has them open.
    fn make_whole(&mut self, queue: &WriteQueue, path: &Path) -> Result<(), JournalError> {
        let (Some(place), Some(log)) = (&self.place, &self.log) else { return Ok(()) };
        let (_, settled) = queue.next_position();
        store::check_is_ours(path, place.key(), settled)?;
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

    /// How far everything was submitted that no attempt to write has covered yet; none if there is nothing such. A
    /// [`Delivery::Attempted`] follows when one that covers it has ended, and only then: what nobody waits for wakes
    /// nobody up.
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

/// The name of a file beside another one: SQLite puts `-wal` and `-shm` there.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
