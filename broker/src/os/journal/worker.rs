//! The thread that writes what the queue has.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use procbroker_core::{RecordFailure, Run};

use super::delivery::{Deliver, Delivery};
use super::entry::{Host, Position};
use super::error::{JournalError, failure, is_want_of_room};
use super::handle::{Intents, Journal};
use super::intent_log::{FoldMark, Place};
use super::pending::{self, Batch, Content};
use super::queue::{FailedWrite, WriteAttempt, WriteQueue};
use super::shared_memory::SharedMemory;
use super::store::{Beside, Store};
use super::writer::Writer;

/// How long the writer rests after a failure before it tries again by itself, at first.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// And after many, doubling.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The stack of the thread; SQLite needs less than a fifth of it for statements as simple as these.
const STACK_BYTES: usize = 512 << 10;

/// Whether it is on record under what children are started from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    Already,
    /// There was no room for it. No child may be on record before it is, be it in the log of intents: the next broker would
    /// look for it under another host.
    Later(Host),
}

/// Says at the end of the thread, whichever way it ends, that it is over.
struct Presence {
    queue: Arc<WriteQueue>,
    deliver: Deliver,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(up_to) = self.queue.over() {
            (self.deliver)(Delivery::Attempted { up_to });
        }
    }
}

pub(super) fn start(mut store: Store, noted: Noted, deliver: Deliver) -> Result<Journal, JournalError> {
    let (folded, unfolded) = (store.ahead.folded, std::mem::take(&mut store.unfolded));
    let path = store.path.clone();
    let place = store.intents.take();
    let open = |place: &Place| match unfolded.count {
        0 => place.create(folded),
        // Nowhere else is what it has.
        1.. => place.resume(folded).map(Some),
    };
    let usable = place.as_ref().filter(|_| noted == Noted::Already);
    let (log, mark) = match usable.map(open).transpose()?.flatten() {
        Some((log, mark)) => (Some(log), Some(mark)),
        None => (None, None),
    };
    // What is in a log has to be written with how far that is, or it would be written once more by the next broker.
    let folded_so_far = (mark.is_some() || unfolded.count > 0).then_some(folded);
    let queue = Arc::new(WriteQueue::at(folded, unfolded));
    let intents = Mutex::new(Intents { place, log, trouble: false });
    let memory = SharedMemory::of(&path);
    let own_memory = memory.clone();
    let presence = Presence { queue: Arc::clone(&queue), deliver };
    let work = move || {
        let Presence { queue, deliver } = &presence;
        run(store, (noted, mark, folded_so_far), own_memory, queue, deliver);
    };
    let thread = thread::Builder::new().name("journal".to_owned()).stack_size(STACK_BYTES).spawn(work);
    let thread = thread.map_err(|source| JournalError::Thread { path: path.clone(), source })?;
    Ok(Journal { queue, thread: Some(thread), path, memory, intents })
}

fn run(
    store: Store,
    (noted, mark, folded): (Noted, Option<FoldMark>, Option<Position>),
    memory: SharedMemory,
    queue: &WriteQueue,
    deliver: &Deliver,
) {
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
    let mut writer = Writer::new(&connection, index, next_seq, folded);
    match noted {
        Noted::Already => {}
        Noted::Later(host) => writer.note_first(host, ahead),
    }
    let mut committer =
        Committer { writer, mark, memory, queue, deliver, path: &path, pause: None, trouble: Trouble::None };
    while let Some(attempt) = committer.queue.next(committer.pause) {
        let is_last = attempt.is_last;
        committer.memory.mend();
        committer.attempt(attempt);
        committer.memory.note();
        if is_last && committer.pause.is_some() {
            break;
        }
    }
    // It is looked at when the file is closed.
    committer.memory.mend();
    drop(committer);
    if let Err((_, error)) = connection.close() {
        tracing::warn!(path = %path.display(), %error, "cannot close the state file in order; the next start will");
    }
    drop(beside);
}

/// Commits what the queue has, and tells everybody what came of it.
struct Committer<'a> {
    writer: Writer<'a>,
    /// Where it is noted for the log of intents how far it is not needed.
    mark: Option<FoldMark>,
    memory: SharedMemory,
    queue: &'a WriteQueue,
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
    /// Nothing can be written.
    Everything,
}

impl Committer<'_> {
    fn attempt(&mut self, attempt: WriteAttempt) {
        let WriteAttempt { mut batch, number, submitted, mark, is_last: _ } = attempt;
        if mark.is_some() {
            self.mark = mark;
        }
        let unrecorded = self.writer.drop_unrecorded(&mut batch);
        self.answer(unrecorded, &Err(RecordFailure { message: "the child is not on record".to_owned() }));
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
            self.tell(self.queue.failed(FailedWrite { batch, number, submitted, failure }));
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
        self.memory.mend();
        if let Err(error) = self.writer.checkpoint_when_due() {
            tracing::debug!(path = %self.path.display(), %error, "the log of the state file grows on");
        }
    }

    fn settle(&mut self, submitted: Position) {
        self.pause = None;
        if let Some(mark) = &mut self.mark {
            mark.note(submitted);
        }
        self.tell(self.queue.succeeded(submitted));
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
