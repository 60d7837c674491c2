//! The queue between those who submit changes and the thread that writes them.

use std::fmt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procbroker_core::RecordFailure;

use super::entry::{Entry, Pace, Position};
use super::error::JournalError;
use super::intent_log::FoldMark;
use super::pending::{self, Batch, Unfolded};

/// How long what is in the log of intents may wait for more, before it is written to the state file.
const FOLD_AFTER: Duration = Duration::from_millis(500);

/// The changes that were submitted and not written so far, and who waits for what.
#[derive(Default)]
pub(super) struct WriteQueue {
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// Something has been done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    due: Batch,
    phase: Phase,
    sleep: Sleep,
    /// When what waits is written, though nobody is in a hurry.
    fold_at: Option<Instant>,
    /// Whether something has come, or is asked for, since the last attempt began.
    is_urgent: bool,
    /// How far changes were submitted.
    submitted: Position,
    /// So far they are written, or were refused.
    settled: Position,
    /// The last change of which somebody is told when it is written; of those that are in the log of intents alone, and are
    /// to be nowhere else yet, nobody is.
    needed: Position,
    /// So far they are written, or an attempt has failed.
    attempted: Position,
    /// Of which attempts somebody wants to know.
    awaited: Option<Awaited>,
    /// How many attempts to write have begun.
    attempts: u64,
    /// The last attempt that failed.
    failed: Option<(u64, RecordFailure)>,
    /// Where it is noted from now on how far the log of intents is not needed.
    renewed: Option<FoldMark>,
}

/// Whether the thread has to be woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    /// It wakes by itself when what waits is to be written.
    UntilThen,
    /// There is nothing to do.
    Sound,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Nothing is submitted any more: what is there is tried once.
    Closing,
    /// The thread is over.
    Over,
}

/// The positions that somebody waits for.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    first: Position,
    last: Position,
}

/// What one attempt is to write, and how far that is.
pub(super) struct WriteAttempt {
    pub(super) batch: Batch,
    pub(super) number: u64,
    /// How far it goes.
    pub(super) submitted: Position,
    /// That of a log of intents that was made since the last one.
    pub(super) mark: Option<FoldMark>,
    pub(super) is_last: bool,
}

impl WriteQueue {
    /// One in which everything up to here is written, and the changes after that, which are in the log of intents, wait for
    /// the first attempt. Nobody waits for them.
    pub(super) fn at(position: Position, unfolded: Unfolded) -> Self {
        let Unfolded { due, count } = unfolded;
        let state = State {
            due,
            submitted: Position(position.0.saturating_add(count)),
            settled: position,
            attempted: position,
            needed: position,
            ..State::default()
        };
        Self { state: Mutex::new(state), ..Self::default() }
    }

    /// Whether everything is written that was submitted, or was refused.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.lock();
        state.settled >= state.submitted
    }

    /// The place of the change that is submitted next, and how far everything is written, or was refused.
    pub(super) fn next_position(&self) -> (Position, Position) {
        let state = self.lock();
        (Position(state.submitted.0.saturating_add(1)), state.settled)
    }

    pub(super) fn submit(&self, entry: Entry, pace: Pace) {
        let mut state = self.lock();
        state.submitted = Position(state.submitted.0.saturating_add(1));
        pending::add(&mut state.due, entry);
        let sleeps = match pace {
            Pace::AtOnce => {
                state.needed = state.submitted;
                state.call()
            }
            Pace::Soon => state.call(),
            Pace::Later => state.note(),
        };
        // A thread that is woken with the lock in the way goes to sleep once more.
        drop(state);
        if sleeps {
            self.work.notify_one();
        }
    }

    /// Has what waits written now, though nobody waits for it.
    pub(super) fn hurry(&self) {
        let mut state = self.lock();
        let sleeps = !state.due.is_empty() && state.call();
        drop(state);
        if sleeps {
            self.work.notify_one();
        }
    }

    /// Whether the thread has nothing to do and sleeps.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.lock().sleep == Sleep::Sound
    }

    /// There is a new log of intents.
    pub(super) fn renew(&self, mark: FoldMark) {
        self.lock().renewed = Some(mark);
    }

    pub(super) fn await_attempt(&self) -> Option<Position> {
        let mut state = self.lock();
        let needed = state.needed;
        if state.attempted >= needed || state.phase == Phase::Over {
            return None;
        }
        let first = state.awaited.map_or(needed, |awaited| awaited.first);
        state.awaited = Some(Awaited { first, last: needed });
        Some(needed)
    }

    pub(super) fn attempted(&self) -> Position {
        self.lock().attempted
    }

    pub(super) fn flush(&self, patience: Duration, path: &Path) -> Result<(), JournalError> {
        let mut state = self.lock();
        let (submitted, attempts) = (state.submitted, state.attempts);
        self.wake(&mut state);
        let failure_since = |state: &State| state.failed.clone().filter(|(number, _)| *number > attempts);
        let (state, _timeout) = self
            .done
            .wait_timeout_while(state, patience, |state| {
                state.settled < submitted && failure_since(state).is_none() && state.phase != Phase::Over
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.settled >= submitted {
            return Ok(());
        }
        Err(match failure_since(&state) {
            Some((_, failure)) => JournalError::Unwritten { failure },
            None => JournalError::Slow { path: path.to_owned(), patience },
        })
    }

    /// Lets the thread write the rest and end, and says whether it has.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        // Whoever closes it waits for the end of it all.
        state.awaited = None;
        self.wake(&mut state);
        let ended = self.done.wait_timeout_while(state, patience, |state| state.phase != Phase::Over);
        ended.unwrap_or_else(PoisonError::into_inner).0.phase == Phase::Over
    }

    /// Waits for the next thing to do; nothing at the end. After a failure, what is left of it is tried again with
    /// what comes next, or after a pause.
    pub(super) fn next(&self, pause: Option<Duration>) -> Option<WriteAttempt> {
        let again = pause.and_then(|pause| Instant::now().checked_add(pause));
        let mut state = self.lock();
        loop {
            let is_last = state.phase != Phase::Open;
            let has_work = !state.due.is_empty() || pause.is_some();
            let due_at = again.or(state.fold_at);
            let is_time = due_at.is_none_or(|due_at| Instant::now() >= due_at);
            if has_work && (is_time || state.is_urgent || is_last) {
                (state.is_urgent, state.fold_at) = (false, None);
                state.attempts = state.attempts.saturating_add(1);
                let batch = std::mem::take(&mut state.due);
                let (number, submitted) = (state.attempts, state.submitted);
                let mark = state.renewed.take();
                return Some(WriteAttempt { batch, number, submitted, mark, is_last });
            }
            if is_last {
                return None;
            }
            state = if let Some(due_at) = due_at.filter(|_| has_work) {
                state.sleep = Sleep::UntilThen;
                let rest = due_at.saturating_duration_since(Instant::now());
                self.work.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0
            } else {
                state.sleep = Sleep::Sound;
                self.work.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
            state.sleep = Sleep::Awake;
        }
    }

    /// An attempt has written what it was to. Says whether somebody waits for that.
    pub(super) fn succeeded(&self, submitted: Position) -> Option<Position> {
        let mut state = self.lock();
        state.settled = submitted;
        let told = state.attempted_up_to(submitted);
        drop(state);
        self.done.notify_all();
        told
    }

    /// An attempt has failed. Says whether somebody waits for that.
    pub(super) fn failed(&self, failed: FailedWrite) -> Option<Position> {
        let FailedWrite { batch, number, submitted, failure } = failed;
        let mut state = self.lock();
        pending::put_back(&mut state.due, batch);
        state.failed = Some((number, failure));
        let told = state.attempted_up_to(submitted);
        drop(state);
        self.done.notify_all();
        told
    }

    /// No attempt follows any more. Says whether somebody waits for one.
    pub(super) fn over(&self) -> Option<Position> {
        let mut state = self.lock();
        state.phase = Phase::Over;
        let submitted = state.submitted;
        let told = state.attempted_up_to(submitted);
        drop(state);
        self.done.notify_all();
        told
    }

    fn wake(&self, state: &mut State) {
        if state.call() {
            self.work.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has left whole entries: nothing is done between two changes of the state that can.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// There is something to do. Says whether the thread has to be woken for it.
    fn call(&mut self) -> bool {
        self.is_urgent = true;
        std::mem::take(&mut self.sleep) != Sleep::Awake
    }

    /// There is something to do, which may wait for more. Says whether the thread has to be woken to take note.
    fn note(&mut self) -> bool {
        if self.fold_at.is_none() {
            self.fold_at = Instant::now().checked_add(FOLD_AFTER);
        }
        let sleeps = self.sleep == Sleep::Sound;
        if sleeps {
            self.sleep = Sleep::Awake;
        }
        sleeps
    }

    /// An attempt has ended. Says so far as somebody waits for it; what is awaited beyond that is told by a later one.
    fn attempted_up_to(&mut self, position: Position) -> Option<Position> {
        self.attempted = position;
        let Awaited { first, last } = self.awaited?;
        if first > position {
            return None;
        }
        // Each attempt takes everything that was submitted before it began: the next one covers all the rest.
        self.awaited = (last > position).then_some(Awaited { first: last, last });
        Some(position)
    }
}

impl fmt::Debug for WriteQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("WriteQueue").finish_non_exhaustive()
    }
}

/// An attempt that has failed, and what is left of it to be tried again.
pub(super) struct FailedWrite {
    pub(super) batch: Batch,
    pub(super) number: u64,
    pub(super) submitted: Position,
    pub(super) failure: RecordFailure,
}

#[cfg(test)]
mod tests {
    use procbroker_core::Safety;
    use procbroker_protocol::ChildId;
    use uuid::Uuid;

    use super::super::entry::Change;
    use super::*;

    #[test]
    fn what_waits_is_written_at_once_when_it_is_hurried() {
        let queue = WriteQueue::default();
        queue.hurry();
        assert!(!queue.lock().is_urgent, "nothing waits");
        let child = ChildId::from_uuid(Uuid::from_u128(1));
        let entry = Entry { child, change: Change::Remove, safety: Safety::Process, receipt: None };
        queue.submit(entry, Pace::Later);
        assert!(!queue.lock().is_urgent, "it may wait for more");
        queue.hurry();
        assert!(queue.lock().is_urgent);
        let attempt = queue.next(None).unwrap();
        assert_eq!(attempt.batch.len(), 1);
        queue.hurry();
        assert!(!queue.lock().is_urgent);
    }
}
