//! The thread that writes, and the desk at which it is given what to write.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use procbroker_core::{RecordFailure, Run};

use super::Intents;
use super::error::{failure, is_want_of_room};
use super::intent_log::FoldMark;
use super::pending::{self, Batch, Content};
use super::store::Beside;
use super::writer::Writer;
use super::{Deliver, Delivery, Entry, Journal, JournalError, Pace, Position, Store};

/// How long what is in the log of intents may wait for more, before it is written to the state file.
const FOLD_AFTER: Duration = Duration::from_millis(500);

/// How long the writer rests after a failure before it tries again by itself, at first.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// And after many, doubling.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The stack of the thread; SQLite needs less than a fifth of it for statements as simple as these.
const STACK_BYTES: usize = 512 << 10;

/// What the thread and those who submit share.
#[derive(Default)]
pub(super) struct Desk {
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

/// One attempt.
struct Attempt {
    batch: Batch,
    number: u64,
    /// How far it goes.
    submitted: Position,
    is_last: bool,
}

impl Desk {
    /// A desk at which everything up to here is written.
    pub(super) fn at(position: Position) -> Self {
        let state = State {
            submitted: position,
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
    fn next(&self, pause: Option<Duration>) -> Option<Attempt> {
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
                return Some(Attempt { batch, number, submitted, is_last });
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
    fn succeeded(&self, submitted: Position) -> Option<Position> {
        let mut state = self.lock();
        state.settled = submitted;
        let told = state.attempted_up_to(submitted);
        drop(state);
        self.done.notify_all();
        told
    }

    /// The same of one that has failed.
    fn failed(&self, failed: Failed) -> Option<Position> {
        let Failed { batch, number, submitted, failure } = failed;
        let mut state = self.lock();
        pending::put_back(&mut state.due, batch);
        state.failed = Some((number, failure));
        let told = state.attempted_up_to(submitted);
        drop(state);
        self.done.notify_all();
        told
    }

    /// No attempt follows any more. Says whether somebody waits for one.
    fn over(&self) -> Option<Position> {
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

impl fmt::Debug for Desk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// An attempt that has failed, and what is left of it to be tried again.
struct Failed {
    batch: Batch,
    number: u64,
    submitted: Position,
    failure: RecordFailure,
}

/// Says at the end of the thread, whichever way it ends, that it is over.
struct Presence {
    desk: Arc<Desk>,
    deliver: Deliver,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(up_to) = self.desk.over() {
            (self.deliver)(Delivery::Attempted { up_to });
        }
    }
}

/// Starts the thread.
pub(super) fn start(mut store: Store, deliver: Deliver) -> Result<Journal, JournalError> {
    let (desk, path) = (Arc::new(Desk::at(store.ahead.folded)), store.path.clone());
    let place = store.intents.take();
    let (log, mark) =
        match place.as_ref().map(|place| place.create(store.ahead.folded)).transpose()?.flatten() {
            Some((log, mark)) => (Some(log), Some(mark)),
            None => (None, None),
        };
    let intents = Intents { place, log, trouble: false };
    let presence = Presence { desk: Arc::clone(&desk), deliver };
    let work = move || {
        let Presence { desk, deliver } = &presence;
        run(store, mark, desk, deliver);
    };
    let thread = thread::Builder::new().name("journal".to_owned()).stack_size(STACK_BYTES).spawn(work);
    let thread = thread.map_err(|source| JournalError::Thread { path: path.clone(), source })?;
    Ok(Journal { desk, thread: Some(thread), path, intents })
}

fn run(store: Store, mark: Option<FoldMark>, desk: &Desk, deliver: &Deliver) {
    let Store { connection, path, index, next_seq, ahead, beside, .. } = store;
    // Before anything is promised. The folder is synced with the first sync of the log.
    match &beside {
        Beside::Unsynced(file) => {
            if let Err(error) = file.sync_all() {
                tracing::warn!(path = %path.display(), %error, "the new state file may not survive a power failure");
            }
        }
        Beside::Synced { .. } | Beside::Nothing => {}
    }
    let folded = mark.as_ref().map(|_| ahead.folded);
    let writer = Writer::new(&connection, index, next_seq, folded);
    let mut clerk = Clerk { writer, mark, desk, deliver, path: &path, pause: None, trouble: Trouble::None };
    while let Some(attempt) = clerk.desk.next(clerk.pause) {
        let is_last = attempt.is_last;
        clerk.attempt(attempt);
        if is_last && clerk.pause.is_some() {
            tracing::error!(path = %path.display(), "the last records could not be written and are lost");
            break;
        }
    }
    drop(clerk);
    if let Err((_, error)) = connection.close() {
        tracing::warn!(path = %path.display(), %error, "cannot close the state file in order; the next start will");
    }
    drop(beside);
}

/// Writes what the desk has, and tells everybody what came of it.
struct Clerk<'a> {
    writer: Writer<'a>,
    /// Where it is noted for the log of intents how far it is not needed.
    mark: Option<FoldMark>,
    desk: &'a Desk,
    deliver: &'a Deliver,
    path: &'a PathBuf,
    /// How long to rest now, if there is something that could not be written.
    pause: Option<Duration>,
    trouble: Trouble,
}

/// What is known not to work, and was said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Intents are refused; other changes may be smaller, and find room.
    Intents,
    /// Nothing is written.
    Everything,
}

impl Clerk<'_> {
    fn attempt(&mut self, attempt: Attempt) {
        let Attempt { mut batch, number, submitted, is_last: _ } = attempt;
        let strangers = self.writer.drop_strangers(&mut batch);
        self.answer(strangers, &Err(RecordFailure { message: "the child is not on record".to_owned() }));
        let Err(error) = self.write(&batch, submitted) else {
            self.succeeded(batch, submitted);
            return;
        };
        let failure = failure(self.path, &error);
        let refused = pending::refuse(&mut batch);
        self.complain(&failure, refused.intents);
        self.answer(refused.receipts, &Err(failure.clone()));
        let is_rest_written = refused.intents > 0 && self.writer.write(&batch, submitted).is_ok();
        if is_rest_written {
            self.settle(submitted);
        } else {
            self.pause = Some(self.pause.map_or(PAUSE_FIRST, |pause| pause.saturating_mul(2).min(PAUSE_MAX)));
            self.tell(self.desk.failed(Failed { batch, number, submitted, failure }));
        }
    }

    /// Writes all of a batch. Where there is no room for it, the log may have some: what is in it is copied to where it
    /// belongs, so that it starts anew with what is written next, and the whole batch is tried again.
    fn write(&mut self, batch: &Batch, up_to: Position) -> rusqlite::Result<()> {
        let Err(error) = self.writer.write(batch, up_to) else { return Ok(()) };
        if !is_want_of_room(&error) || self.writer.checkpoint().is_err() {
            return Err(error);
        }
        self.writer.write(batch, up_to)
    }

    fn succeeded(&mut self, batch: Batch, submitted: Position) {
        let has_intents = batch.values().any(|due| matches!(due.content, Content::New { .. }));
        let works = match self.trouble {
            Trouble::None => false,
            Trouble::Intents => has_intents,
            Trouble::Everything => true,
        };
        if works {
            self.trouble = Trouble::None;
            tracing::info!(path = %self.path.display(), "the records are written again");
        }
        self.settle(submitted);
        self.answer(batch.into_values().flat_map(|due| due.receipts), &Ok(()));
        if let Err(error) = self.writer.checkpoint_when_due() {
            tracing::debug!(path = %self.path.display(), %error, "the log of the state file grows on");
        }
    }

    fn settle(&mut self, submitted: Position) {
        self.pause = None;
        if let Some(mark) = &mut self.mark {
            mark.note(submitted);
        }
        self.tell(self.desk.succeeded(submitted));
    }

    /// Tells whoever waits for it that an attempt has ended.
    fn tell(&self, attempted: Option<Position>) {
        if let Some(up_to) = attempted {
            (self.deliver)(Delivery::Attempted { up_to });
        }
    }

    fn complain(&mut self, failure: &RecordFailure, intents: usize) {
        if self.trouble == Trouble::None {
            tracing::error!(
                "{}; creates fail until then, and the other records are tried again",
                failure.message
            );
        }
        let found = if intents > 0 { Trouble::Intents } else { Trouble::Everything };
        self.trouble = if self.trouble == Trouble::Intents { Trouble::Intents } else { found };
    }

    fn answer(&self, receipts: impl IntoIterator<Item = Run>, result: &Result<(), RecordFailure>) {
        for run in receipts {
            (self.deliver)(Delivery::Receipt { run, result: result.clone() });
        }
    }
}
