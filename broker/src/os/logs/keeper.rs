//! The `logs` thread: it moves what children write from their pipes to files. Neither the driver nor any child waits for it.
//!
//! It sleeps until a pipe has something to say, or somebody has an order for it. What one pipe gets is a turn, one piece at a time, and then it is
//! another user's turn: a child that writes more than the disk takes is held back by its own full pipe, and nobody else is.

mod waiting;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use procbroker_protocol::ChildId;
use tokio::sync::oneshot;

use super::amounts::Amounts;
use super::error::LogsError;
use super::forward::Forwarder;
use super::order::{Order, Token, When};
use super::output::KeptStream;
use super::pipe_use::{PipePlace, PipeUse};
use super::pipes::Pipes;
use super::store::OutputStore;
use super::stream::StreamId;
use super::transfer::{PIECE_BYTES, Transfer};
use super::turns::RoundRobin;
use super::wakeup::Wakeup;
use waiting::{Patience, Waiting};

/// What the wake-up has in the place of a pipe's number.
pub(super) const WAKEUP: u64 = u64::MAX;

/// Signs that are taken in at a time.
const EVENTS_AT_A_TIME: usize = 256;

/// Pipes that turn out to be empty are so many looked at before orders and signs are: a thousand children may end at once.
const TURNS_AT_A_TIME: usize = 64;

/// Above so many pipes with something to say, no file stays open from one turn to the next.
const OPEN_FILES_MAX: usize = 64;

/// How often the broker's log is told that output is lost.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) epoll: Arc<Epoll>,
    pub(super) wakeup: Arc<Wakeup>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) folder: Pipes,
    pub(super) store: OutputStore,
    pub(super) transfer: Transfer,
    pub(super) work: Work,
    pub(super) amounts: Arc<Amounts>,
    pub(super) forwarder: Option<Forwarder>,
    /// Whatever touches a child's pipe is noted here.
    pub(super) pipe_use: Arc<PipeUse>,
}

/// What the thread knows of the pipes.
#[derive(Debug)]
pub(super) struct Work {
    pipes: HashMap<Token, Pipe>,
    /// The pipes of each child: one or two.
    children: HashMap<ChildId, Vec<Token>>,
    turns: RoundRobin<Token>,
    /// Who waits for output of streams that have no pipe yet, or never will.
    quiet: HashMap<StreamId, Vec<Waiting>>,
    settling: Vec<mpsc::Sender<()>>,
    warned: Option<Instant>,
    lost: u64,
    mode: Mode,
}

/// What the thread does at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Moving,
    /// Another program is about to take over.
    Paused,
    Stopped,
}

/// The pipe of a stream.
#[derive(Debug)]
struct Pipe {
    id: StreamId,
    user: u32,
    descriptor: Arc<OwnedFd>,
    place: PipePlace,
    /// How many bytes have gone through it.
    moved: u64,
    state: State,
    life: Life,
    waiting: Vec<Waiting>,
}

/// Whether a pipe waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was empty; the next byte rings.
    Silent,
    /// It has something to say, perhaps.
    Ready,
}

/// Whether somebody can write to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// Nobody can: once it is empty, it goes.
    Ending,
}

impl Work {
    pub(super) fn new() -> Self {
        Self {
            pipes: HashMap::new(),
            children: HashMap::new(),
            turns: RoundRobin::new(),
            quiet: HashMap::new(),
            settling: Vec::new(),
            warned: None,
            lost: 0,
            mode: Mode::Moving,
        }
    }
}

impl Pipe {
    /// How many bytes fit into it, as far as that can be told.
    fn capacity(&self, pipe_use: &PipeUse) -> u64 {
        let asked =
            pipe_use.during(self.place, self.user, || fcntl(&self.descriptor, FcntlArg::F_GETPIPE_SZ));
        asked.ok().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(PIECE_BYTES as u64)
    }
}

impl Keeper {
    /// Works until it is told to stop.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); EVENTS_AT_A_TIME];
        while self.work.mode != Mode::Stopped {
            let is_idle = self.work.turns.is_empty() || self.work.mode == Mode::Paused;
            let timeout = if is_idle { EpollTimeout::NONE } else { EpollTimeout::ZERO };
            if is_idle {
                self.pipe_use.rest();
            }
            // Errors but EINTR are not known to come; then the orders are looked at all the same.
            let count = self.epoll.wait(&mut events, timeout).unwrap_or_default();
            if is_idle {
                self.pipe_use.wake();
            }
            // Before the orders are looked at: what comes too late for that rings again.
            self.wakeup.clear();
            // A pipe is ordered to be kept before it can ring.
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            for event in events.iter().take(count) {
                if event.data() != WAKEUP {
                    self.make_ready(Token(event.data()));
                }
            }
            if self.work.mode == Mode::Moving {
                self.take_turns();
            }
        }
        let pipes = std::mem::take(&mut self.work.pipes);
        for pipe in pipes.into_values() {
            self.let_go(pipe);
        }
        self.pipe_use.finish();
    }

    /// Gives turns until a pipe had something to say: only that takes its time.
    fn take_turns(&mut self) {
        for _ in 0..TURNS_AT_A_TIME {
            if self.take_turn() == Emptied::No || self.work.turns.is_empty() {
                return;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Keep { token, id, user, pipe, author } => {
                if let (Some(forwarder), Some(author)) = (&mut self.forwarder, author) {
                    forwarder.know(id.child, author);
                }
                self.keep(token, id, user, pipe);
            }
            Order::Starts { child } => {
                if let Some(forwarder) = &mut self.forwarder {
                    forwarder.starts(child);
                }
            }
            Order::Runs { child, pid } => {
                if let Some(forwarder) = &mut self.forwarder {
                    forwarder.runs(child, pid);
                }
            }
            Order::Touch { child } => self.touch(child),
            Order::End { child } => self.end(child),
            Order::Forget { child } => self.forget(child),
            Order::Show { id, when, answer } => self.show(id, when, answer),
            Order::Settle { done } => self.work.settling.push(done),
            Order::Pause { pipes } => {
                self.work.mode = Mode::Paused;
                let all = self.work.pipes.values().map(|pipe| Arc::clone(&pipe.descriptor)).collect();
                // Whoever has asked says that it goes on when it has not waited for that.
                let _ = pipes.send(all);
            }
            Order::GoOn => self.work.mode = Mode::Moving,
            Order::Stop => self.work.mode = Mode::Stopped,
        }
    }

    /// Takes in a pipe. It has something to say, perhaps.
    pub(super) fn keep(&mut self, token: Token, id: StreamId, user: u32, pipe: OwnedFd) {
        // What is open can be examined.
        let place = PipePlace::of(&pipe).unwrap_or_default();
        let tokens = self.work.children.entry(id.child).or_default();
        // One whose file somebody has removed may still be written to by an earlier run of the child.
        let earlier =
            tokens.iter().filter_map(|token| self.work.pipes.get(token)).filter(|pipe| pipe.id == id);
        let moved = earlier.map(|pipe| pipe.moved).max().unwrap_or_default();
        tokens.push(token);
        let waiting = self.work.quiet.remove(&id).unwrap_or_default();
        let (state, life) = (State::Silent, Life::Open);
        let descriptor = Arc::new(pipe);
        let pipe = Pipe { id, user, descriptor, place, moved, state, life, waiting };
        self.work.pipes.insert(token, pipe);
    }

    /// Asks a child's pipes something. Whoever holds one keeps this thread, and is ended for it.
    fn touch(&self, child: ChildId) {
        let tokens = self.work.children.get(&child).into_iter().flatten();
        for pipe in tokens.filter_map(|token| self.work.pipes.get(token)) {
            pipe.capacity(&self.pipe_use);
        }
    }

    /// Nobody can write to a child's pipes any more.
    pub(super) fn end(&mut self, child: ChildId) {
        for token in self.work.children.get(&child).cloned().unwrap_or_default() {
            if let Some(pipe) = self.work.pipes.get_mut(&token) {
                pipe.life = Life::Ending;
            }
            self.make_ready(token);
        }
        self.dismiss(child);
    }

    /// Tells those who wait for output of streams without a pipe that none comes.
    fn dismiss(&mut self, child: ChildId) {
        for id in StreamId::both(child) {
            for waiting in self.work.quiet.remove(&id).unwrap_or_default() {
                // One that is gone needs no answer.
                let _ = waiting.answer.send(self.store.kept(id));
            }
        }
    }

    fn forget(&mut self, child: ChildId) {
        for token in self.work.children.get(&child).cloned().unwrap_or_default() {
            self.close(token);
        }
        self.dismiss(child);
        self.store.remove(child);
        self.amounts.keep(self.store.room());
    }

    /// Lets a pipe have its turn, unless it waits for one already.
    pub(super) fn make_ready(&mut self, token: Token) {
        // One that was closed meanwhile has nothing to say.
        let Some(pipe) = self.work.pipes.get_mut(&token) else { return };
        match pipe.state {
            State::Ready => {}
            State::Silent => {
                pipe.state = State::Ready;
                self.work.turns.push(pipe.user, token);
            }
        }
    }

    /// Moves one piece, of whoever comes next, and tells whether that one is empty.
    fn take_turn(&mut self) -> Emptied {
        let mut emptied = Emptied::Yes;
        if let Some(token) = self.work.turns.next() {
            emptied = self.move_piece(token);
            self.after_turn(token, emptied);
        }
        if self.work.turns.is_empty() {
            for done in self.work.settling.drain(..) {
                // One that waits no longer need not know.
                let _ = done.send(());
            }
        }
        emptied
    }

    /// Tells somebody what is kept of a stream, now or as soon as there is more.
    fn show(&mut self, id: StreamId, when: When, answer: oneshot::Sender<KeptStream>) {
        let tokens = self.work.children.get(&id.child);
        let token = tokens
            .into_iter()
            .flatten()
            .copied()
            .rfind(|token| self.work.pipes.get(token).is_some_and(|pipe| pipe.id == id));
        let Some((token, pipe)) = token.and_then(|token| Some((token, self.work.pipes.get_mut(&token)?)))
        else {
            let kept = self.store.kept(id);
            match when {
                // Nothing has come yet, and perhaps the pipe is still to come.
                When::MoreThan(0) if kept.end() == 0 => {
                    let waiting = Waiting { moved: 1, patience: Patience::UntilThereIsMore, answer };
                    self.work.quiet.entry(id).or_default().push(waiting);
                }
                // What has been moved went through a pipe that is gone by now, so nothing more comes. Who has gone
                // needs no answer.
                When::Now | When::MoreThan(_) => drop(answer.send(kept)),
            }
            return;
        };
        let waiting = match when {
            When::Now => {
                let moved = pipe.moved.saturating_add(pipe.capacity(&self.pipe_use));
                Waiting { moved, patience: Patience::UntilItIsEmpty, answer }
            }
            When::MoreThan(moved) => {
                let moved = moved.saturating_add(1);
                Waiting { moved, patience: Patience::UntilThereIsMore, answer }
            }
        };
        pipe.waiting.retain(|waiting| !waiting.answer.is_closed());
        pipe.waiting.push(waiting);
        self.make_ready(token);
    }

    /// Moves one piece of a pipe, and tells whether it is empty.
    fn move_piece(&mut self, token: Token) -> Emptied {
        let Some(pipe) = self.work.pipes.get_mut(&token) else { return Emptied::Yes };
        let (place, user, descriptor) = (pipe.place, pipe.user, pipe.descriptor.as_fd());
        let length = match self.pipe_use.during(place, user, || self.transfer.peek(descriptor)) {
            Ok(0) | Err(Errno::EAGAIN) => return Emptied::Yes,
            Ok(length) => length,
            Err(errno) => {
                tracing::warn!(%errno, output = %pipe.id, "cannot read from a pipe");
                return Emptied::Yes;
            }
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let (kept, result) = self.store.append(pipe.id, pipe.user, &mut self.transfer, length, now);
        match &mut self.forwarder {
            None => self.pipe_use.during(place, user, || self.transfer.consume(descriptor, length)),
            Some(forwarder) => {
                let piece = self.pipe_use.during(place, user, || Transfer::take(descriptor, length));
                forwarder.pass(pipe.id, piece);
            }
        }
        self.amounts.keep(self.store.room());
        pipe.moved = pipe.moved.saturating_add(length as u64);
        if kept < length {
            self.transfer.forget();
            let lost = (length - kept) as u64;
            self.store.count_dropped(pipe.id, pipe.user, lost);
            self.work.lost = self.work.lost.saturating_add(lost);
            self.amounts.drop_more(lost);
            if let Err(error) = result {
                warn(&mut self.work, &error);
            }
        }
        Emptied::No
    }

    /// Tells those who wait, and lets the pipe wait for its next turn or for more.
    fn after_turn(&mut self, token: Token, is_empty: Emptied) {
        let Some(pipe) = self.work.pipes.get_mut(&token) else { return };
        let is_over = is_empty == Emptied::Yes && pipe.life == Life::Ending;
        let due = |waiting: &mut Waiting| {
            let is_enough = is_empty == Emptied::Yes && waiting.patience == Patience::UntilItIsEmpty;
            is_over || is_enough || waiting.moved <= pipe.moved
        };
        for waiting in pipe.waiting.extract_if(.., due).collect::<Vec<_>>() {
            // One that is gone needs no answer.
            let _ = waiting.answer.send(self.store.kept(pipe.id).after(pipe.moved));
        }
        match is_empty {
            Emptied::No => {
                if self.work.turns.len() > OPEN_FILES_MAX {
                    self.store.rest(pipe.id);
                }
                self.work.turns.push(pipe.user, token);
            }
            Emptied::Yes => {
                pipe.state = State::Silent;
                self.store.rest(pipe.id);
                if is_over {
                    self.close(token);
                }
            }
        }
    }

    /// Closes and removes a pipe; those who wait are told what is kept.
    fn close(&mut self, token: Token) {
        let Some(mut pipe) = self.work.pipes.remove(&token) else { return };
        let id = pipe.id;
        for waiting in pipe.waiting.drain(..) {
            let _ = waiting.answer.send(self.store.kept(id).after(pipe.moved));
        }
        self.let_go(pipe);
        self.folder.remove(id);
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.end(id);
        }
        if let Some(tokens) = self.work.children.get_mut(&id.child) {
            tokens.retain(|other| *other != token);
            if tokens.is_empty() {
                self.work.children.remove(&id.child);
                if let Some(forwarder) = &mut self.forwarder {
                    forwarder.forget(id.child);
                }
            }
        }
    }

    /// Closes a pipe: it keeps its name until then, so that whoever comes after a crash in between finds it.
    fn let_go(&self, pipe: Pipe) {
        let Pipe { descriptor, place, user, .. } = pipe;
        self.pipe_use.during(place, user, || drop(descriptor));
    }
}

/// Whether a pipe was found empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emptied {
    Yes,
    No,
}

/// Says that output is lost, and how much since it was said last.
fn warn(work: &mut Work, error: &LogsError) {
    let now = Instant::now();
    if work.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= WARN_EVERY) {
        work.warned = Some(now);
        let bytes = std::mem::take(&mut work.lost);
        tracing::warn!(bytes, "output of children is lost: {error}");
    }
}
