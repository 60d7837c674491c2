//! Passes what children write on to the journal or to syslog, a line at a time, beside keeping it.
//!
//! A thread of its own does so: it may wait a moment for a reader that has no room, so that a burst of lines is not lost,
//! and neither the log thread nor any child ever waits for it. What comes faster than it is taken is dropped, and counted.
//! It is fed with what the log thread has kept by then, so that a crash of the broker loses lines there and never in the files.

mod author;
mod destination;
mod entry;
mod line;
mod outlet;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::amounts::Amounts;
use super::error::LogsError;
use super::stream::StreamId;
use crate::os::process::priority;
pub(super) use author::Author;
pub use destination::{Destination, LineReader};
use entry::Composer;
use line::LineSplitter;
use outlet::Outlet;
use queue::{Item, Piece, Queue};

/// How much memory the thread may use for its calls, in bytes.
const STACK_BYTES: usize = 128 << 10;

/// So many lines of a user are passed on before it is another user's turn.
const LINES_A_TURN: usize = 256;

/// Of a process that is being made, no more than so much waits until its pid is known.
const HELD_BYTES_MAX: usize = 64 << 10;

/// How often the broker's log is told that lines are lost.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The log thread's way to the one that passes on. That one ends when this is dropped.
#[derive(Debug)]
pub(super) struct Forwarder {
    queue: Arc<Queue>,
    amounts: Arc<Amounts>,
    authors: HashMap<ChildId, Known>,
    /// Streams of which the last piece found no room.
    gaps: HashSet<StreamId>,
}

/// A child that has an output.
#[derive(Debug)]
struct Known {
    author: Arc<Author>,
    run: Run,
}

/// Whether it is known which process writes.
#[derive(Debug)]
enum Run {
    /// As far as it will ever be.
    Underway,
    /// It is being made: what it says waits until it is. A program may be quicker to write than the broker to go on.
    Starting { said: Vec<(StreamId, Vec<u8>)>, bytes: usize },
}

/// Waits for what is being passed on.
#[derive(Clone, Debug)]
pub(super) struct Passing(Arc<Queue>);

impl Forwarder {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(destination: Destination, amounts: &Arc<Amounts>) -> Result<Self, LogsError> {
        let queue = Arc::new(Queue::new());
        let socket = destination.socket.clone();
        let passer = Passer::new(Arc::clone(&queue), Arc::clone(amounts), destination);
        let builder = thread::Builder::new().name("children-log".to_owned()).stack_size(STACK_BYTES);
        builder
            .spawn(move || {
                priority::let_others_go_first();
                passer.run();
            })
            .map_err(|source| LogsError::new("start a thread for", socket, source))?;
        let (authors, gaps) = (HashMap::new(), HashSet::new());
        Ok(Self { queue, amounts: Arc::clone(amounts), authors, gaps })
    }

    /// What waits for this one.
    pub(super) fn passing(&self) -> Passing {
        Passing(Arc::clone(&self.queue))
    }

    /// A child has an output.
    pub(super) fn know(&mut self, child: ChildId, author: Author) {
        let known = || Known { author: Arc::new(author), run: Run::Underway };
        self.authors.entry(child).or_insert_with(known);
    }

    /// A process of the child is about to be made: what comes from now on is its, and not of the one before.
    pub(super) fn starts(&mut self, child: ChildId) {
        let Some(known) = self.authors.get_mut(&child) else { return };
        if known.author.pid.is_some() {
            for id in StreamId::both(child) {
                self.queue.push(known.author.user, Item::Cut(id));
            }
        }
        known.author = Arc::new(Author { pid: None, ..Author::clone(&known.author) });
        known.run = Run::Starting { said: Vec::new(), bytes: 0 };
    }

    /// It has been made, and has this pid if any.
    pub(super) fn runs(&mut self, child: ChildId, pid: Option<Pid>) {
        if let Some(known) = self.authors.get_mut(&child) {
            known.author = Arc::new(Author { pid, ..Author::clone(&known.author) });
            self.release(child);
        }
    }

    /// Passes on what has been written, unless too much waits already.
    pub(super) fn pass(&mut self, id: StreamId, bytes: Vec<u8>) {
        let Some(known) = self.authors.get_mut(&id.child) else { return };
        match &mut known.run {
            Run::Starting { said, bytes: held } if *held < HELD_BYTES_MAX => {
                *held = held.saturating_add(bytes.len());
                said.push((id, bytes));
            }
            Run::Starting { .. } | Run::Underway => {
                self.release(id.child);
                self.offer(id, bytes);
            }
        }
    }

    /// Passes on what a process has said before it was known who it is.
    fn release(&mut self, child: ChildId) {
        let Some(known) = self.authors.get_mut(&child) else { return };
        match std::mem::replace(&mut known.run, Run::Underway) {
            Run::Starting { said, .. } => {
                for (id, bytes) in said {
                    self.offer(id, bytes);
                }
            }
            Run::Underway => {}
        }
    }

    fn offer(&mut self, id: StreamId, bytes: Vec<u8>) {
        let Some(Known { author, .. }) = self.authors.get(&id.child) else { return };
        let piece = Piece::new(id, Arc::clone(author), bytes, self.gaps.contains(&id));
        match self.queue.offer(author.user, piece) {
            Ok(()) => {
                self.gaps.remove(&id);
            }
            Err(lines) => {
                self.gaps.insert(id);
                self.amounts.lose_lines(lines);
            }
        }
    }

    /// Nothing more comes of a stream.
    pub(super) fn end(&mut self, id: StreamId) {
        self.release(id.child);
        self.gaps.remove(&id);
        if let Some(known) = self.authors.get(&id.child) {
            self.queue.push(known.author.user, Item::Cut(id));
        }
    }

    /// Nothing more comes of a child.
    pub(super) fn forget(&mut self, child: ChildId) {
        self.authors.remove(&child);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Passing {
    /// Waits until all of what was said so far has been passed on or dropped, and says whether it came to that in time.
    pub(super) fn settle(&self, patience: Duration) -> bool {
        self.0.drained(patience)
    }

    /// Waits as [`settle`](Self::settle) does, for lines without an end too: whoever reads on knows nothing of their beginnings.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        // Behind everything that waits.
        self.0.drained(patience) && {
            self.0.push(0, Item::CutAll);
            self.0.drained(until.saturating_duration_since(Instant::now()))
        }
    }
}

/// What the thread works with.
struct Passer {
    queue: Arc<Queue>,
    amounts: Arc<Amounts>,
    reader: LineReader,
    lines: LineSplitter,
    composer: Composer,
    outlet: Outlet,
    losses: Losses,
}

/// Lines that were lost since the log was told.
#[derive(Debug, Default)]
struct Losses {
    lines: u64,
    cause: String,
    warned: Option<Instant>,
}

impl Passer {
    fn new(queue: Arc<Queue>, amounts: Arc<Amounts>, destination: Destination) -> Self {
        let reader = destination.reader;
        let lines = LineSplitter::new(entry::line_bytes_max(reader));
        let composer = Composer::new(reader);
        let losses = Losses::default();
        Self { queue, amounts, reader, lines, composer, outlet: Outlet::new(destination), losses }
    }

    /// Works until the queue is closed.
    fn run(mut self) {
        while let Some((user, item)) = self.queue.take() {
            match item {
                Item::Piece(piece) => self.pass_on(user, piece),
                Item::Cut(id) => {
                    if let Some((author, line)) = self.lines.cut(id) {
                        self.send(id, &author, &line);
                    }
                }
                Item::CutAll => {
                    for (id, author, line) in self.lines.cut_all() {
                        self.send(id, &author, &line);
                    }
                }
            }
            let refused = self.queue.refused();
            if refused > 0 {
                self.losses.add(refused, || "they come faster than they are taken".to_owned());
            }
            self.losses.tell(self.reader);
        }
    }

    /// Passes on the lines of a piece, and leaves those that are too many for a turn for the next.
    fn pass_on(&mut self, user: u32, mut piece: Piece) {
        self.composer.begin(piece.id, &piece.author);
        let mut line = Vec::new();
        for _ in 0..LINES_A_TURN {
            if !self.lines.next(user, &mut piece, &mut line) {
                return self.queue.done(user, &piece);
            }
            self.send_composed(&line);
        }
        self.queue.put_back(user, piece);
    }

    fn send(&mut self, id: StreamId, author: &Author, line: &[u8]) {
        self.composer.begin(id, author);
        self.send_composed(line);
    }

    fn send_composed(&mut self, line: &[u8]) {
        let Some(entry) = self.composer.compose(line, SystemTime::now()) else { return };
        if let Err(error) = self.outlet.send(entry) {
            self.amounts.lose_lines(1);
            let outlet = &self.outlet;
            self.losses.add(1, || format!("{}: {error}", outlet.socket().display()));
        }
    }
}

impl Losses {
    fn add(&mut self, lines: u64, cause: impl FnOnce() -> String) {
        if self.lines == 0 {
            self.cause = cause();
        }
        self.lines = self.lines.saturating_add(lines);
    }

    /// Says that lines are lost, and how many since it was said last.
    fn tell(&mut self, reader: LineReader) {
        let now = Instant::now();
        let is_due = self.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= WARN_EVERY);
        if self.lines == 0 || !is_due {
            return;
        }
        self.warned = Some(now);
        let (lines, cause) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.cause));
        let called = reader.called();
        tracing::warn!(lines, "lines of children are lost to {called}, and kept all the same: {cause}");
    }
}
