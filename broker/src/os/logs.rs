//! What children write: through a pipe for each stream, by one thread, to files that are the broker's own; and by a second
//! one on to the journal or to syslog, where that is wanted.
//!
//! [`LogHandle`] is the way to that thread. The driver gives it a pipe before it starts a child, and tells it when nothing of
//! the child is left; whoever reads asks it what is kept. Nobody waits for it, nor for its disk, but who asks for output.

mod amounts;
mod error;
mod excerpt;
mod folder;
mod forward;
mod holders;
mod keeper;
mod left_pipes;
mod order;
pub mod output;
mod pipe_use;
pub mod pipes;
mod stalls;
pub mod stamps;
mod store;
mod stream;
pub mod text;
mod times;
mod transfer;
mod turns;
mod wakeup;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use procbroker_core::Pid;
use procbroker_protocol::{ChildId, CreateParams};
use tokio::sync::oneshot;

pub use amounts::Amounts;
pub use error::LogsError;
pub use excerpt::{Continuation, Excerpt, ExcerptRange, read};
use folder::Folder;
use forward::{Author, Forwarder, Passing};
pub use forward::{Destination, LineReader};
use keeper::{Keeper, WAKEUP, Work};
pub use left_pipes::release_all;
use order::{Order, Token, When};
use output::KeptStream;
use pipe_use::{PipePlace, PipeUse};
use pipes::Pipes;
pub use store::LogBounds;
use store::OutputStore;
pub use stream::StreamId;
use transfer::Transfer;
use wakeup::Wakeup;

use crate::os::process::priority;

/// How much memory the thread may use for its calls, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// A child of an earlier broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The child that writes.
    pub child: ChildId,
    /// The user whose share it counts in.
    pub user: u32,
    /// Whether it has ended, and nothing of it can write.
    pub has_ended: bool,
    /// What it was created with.
    pub params: Arc<CreateParams>,
    /// Its process, where there is one.
    pub pid: Option<Pid>,
}

/// What the log thread begins with.
#[derive(Debug)]
pub struct LogSettings {
    /// The folder of the files.
    pub folder: PathBuf,
    /// The folder of the pipes.
    pub pipes: Pipes,
    /// How much is kept.
    pub bounds: LogBounds,
    /// Where lines go beside the files.
    pub forward: Option<Destination>,
    /// The children that an earlier broker has left.
    pub children: Vec<Remembered>,
    /// Their pipes, where the program before this one has handed them over: what is in them would be lost if nobody had
    /// them open.
    pub inherited: Vec<Arc<OwnedFd>>,
}

/// The way to the log thread; a copy leads to the same one. It ends with the last of them.
#[derive(Clone, Debug)]
pub struct LogHandle {
    pipes: Pipes,
    way: Arc<Way>,
}

#[derive(Debug)]
struct Way {
    orders: mpsc::Sender<Order>,
    wakeup: Arc<Wakeup>,
    epoll: Arc<Epoll>,
    next: AtomicU64,
    amounts: Arc<Amounts>,
    pipe_use: Arc<PipeUse>,
    /// Lines on their way, where they are passed on.
    passing: Option<Passing>,
    /// Whether there are orders that the thread was not woken for.
    left: AtomicBool,
}

impl Way {
    /// Orders what has time until the thread is awake.
    fn leave(&self, order: Order) {
        // A thread that has gone keeps nothing any more.
        let _ = self.orders.send(order);
        self.left.store(true, Ordering::Relaxed);
    }

    fn order(&self, order: Order) {
        // A thread that has gone keeps nothing any more.
        let _ = self.orders.send(order);
        self.wakeup.raise();
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.pipe_use.set_haste(true);
        self.order(Order::Stop);
    }
}

/// Makes a pipe ring when there is something new in it.
fn watch(epoll: &Epoll, token: Token, pipe: BorrowedFd<'_>) -> Result<(), Errno> {
    epoll.add(pipe, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token.0))
}

impl LogHandle {
    /// Starts the thread. It takes over what an earlier broker has left, before it does anything else.
    ///
    /// # Errors
    /// When the folder cannot be used, or the system refuses a thread or a descriptor.
    pub fn start(settings: LogSettings) -> Result<Self, LogsError> {
        let LogSettings { folder, pipes, bounds, forward, children, inherited } = settings;
        let (folder, _) = Folder::open(folder)?;
        let refused = |attempt| {
            let path = folder.path().to_owned();
            move |source: io::Error| LogsError::new(attempt, path, source)
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(Arc::new);
        let epoll = epoll.map_err(|errno| refused("watch the pipes of")(errno.into()))?;
        let wakeup =
            Wakeup::new().map(Arc::new).map_err(|errno| refused("make a wake-up for")(errno.into()))?;
        watch(&epoll, Token(WAKEUP), wakeup.as_fd())
            .map_err(|errno| refused("watch the wake-up of")(errno.into()))?;
        let pipe_use = PipeUse::new().map(Arc::new);
        let pipe_use = pipe_use.map_err(|errno| refused("make a timer for")(errno.into()))?;
        let (orders, received) = mpsc::channel();
        let amounts = Arc::new(Amounts::default());
        let forwarder = forward.map(|destination| Forwarder::start(destination, &amounts)).transpose()?;
        let passing = forwarder.as_ref().map(Forwarder::passing);
        let mut keeper = Keeper {
            epoll: Arc::clone(&epoll),
            wakeup: Arc::clone(&wakeup),
            orders: received,
            folder: pipes.clone(),
            store: OutputStore::new(folder.clone(), bounds),
            transfer: Transfer::new()?,
            work: Work::new(),
            amounts: Arc::clone(&amounts),
            forwarder,
            pipe_use: Arc::clone(&pipe_use),
        };
        // Those of the new children follow.
        let next = AtomicU64::new(2 * children.len() as u64);
        // Now, as long as all of them are from before.
        let left = pipes.all()?;
        // Before there is anybody to look after.
        stalls::start(Arc::clone(&pipe_use), pipes.clone()).map_err(refused("start a thread for"))?;
        let work = move || {
            keeper.pipe_use.begin();
            keeper.pipe_use.set_haste(true);
            keeper.take_over(&children, left);
            keeper.close_inherited(inherited);
            keeper.pipe_use.set_haste(false);
            // A child that writes without pause costs whoever starts another one no time.
            priority::let_others_go_first();
            keeper.run();
        };
        let builder = thread::Builder::new().name("logs".to_owned()).stack_size(STACK_BYTES);
        builder.spawn(work).map_err(|error| {
            pipe_use.finish();
            refused("start a thread for")(error)
        })?;
        let left = AtomicBool::new(false);
        Ok(Self {
            pipes,
            way: Arc::new(Way { orders, wakeup, epoll, next, amounts, pipe_use, passing, left }),
        })
    }

    /// Makes the pipe of a stream, for a child that is about to be started, unless it has one from before.
    ///
    /// # Errors
    /// Such as EMFILE, or ENOSPC where the folder of the pipes is full.
    pub fn open(&self, id: StreamId, user: u32, params: &Arc<CreateParams>) -> Result<(), Errno> {
        let Some(pipe) = self.pipes.make(id)? else { return Ok(()) };
        let token = Token(self.way.next.fetch_add(1, Ordering::Relaxed));
        let watched = watch(&self.way.epoll, token, pipe.as_fd());
        // It is looked for when the pipe rings: to start a child wakes no thread.
        let author = self.passes_on().then(|| Author::new(user, Arc::clone(params), None));
        let order = Order::Keep { token, id, user, pipe, author };
        if let (Err(errno), _) | (Ok(()), Err(errno)) =
            (watched, self.way.orders.send(order).map_err(|_| Errno::ESRCH))
        {
            self.pipes.remove(id);
            return Err(errno);
        }
        Ok(())
    }

    /// Whether lines are passed on, to the journal or to syslog.
    #[must_use]
    pub fn passes_on(&self) -> bool {
        self.way.passing.is_some()
    }

    /// A process of a child is about to be made, for those to whom its lines are passed on.
    pub fn starts(&self, child: ChildId) {
        if self.passes_on() {
            // It is looked for when a pipe rings. A thread that has gone passes nothing on any more.
            let _ = self.way.orders.send(Order::Starts { child });
        }
    }

    /// It has been made, and has this pid if any. What it has said by now waits for that.
    pub fn runs(&self, child: ChildId, pid: Option<Pid>) {
        if self.passes_on() {
            self.way.order(Order::Runs { child, pid });
        }
    }

    /// How much is kept and was lost, in all.
    #[must_use]
    pub fn amounts(&self) -> &Amounts {
        &self.way.amounts
    }

    /// Nothing of a child is left that could write: all that it has written is kept, and its pipes go, once the thread
    /// [is awake](Self::wake).
    pub fn end(&self, child: ChildId) {
        self.way.leave(Order::End { child });
    }

    /// A child is not visible any more: its output goes, once the thread [is awake](Self::wake).
    pub fn forget(&self, child: ChildId) {
        self.way.leave(Order::Forget { child });
    }

    /// Has the thread do what was left to it. Whoever asks it something wakes it too.
    pub fn wake(&self) {
        if self.way.left.swap(false, Ordering::Relaxed) {
            self.way.wakeup.raise();
        }
    }

    /// Another run of a child is to come, and nothing of it is there: a later broker is not to take the next one for one that was
    /// executed because this one was.
    pub fn awaits_run(&self, child: ChildId) {
        self.pipes.take_mark_away(child);
    }

    /// What a child has left was killed. Whoever opens or closes its pipe, as on the way to a program or to their end, waits for one
    /// who holds that, and for nothing else: the thread asks the pipe something, and gets an answer when nobody does.
    pub fn touch(&self, child: ChildId) {
        self.way.order(Order::Touch { child });
    }

    /// A child's program was not executed: no later broker takes it for one that may have been.
    pub fn never_ran(&self, child: ChildId) {
        for id in StreamId::both(child) {
            self.pipes.remove(id);
        }
    }

    /// What is kept of a stream, with all that has been written by now. `None` when the thread has gone.
    pub async fn kept(&self, id: StreamId) -> Option<KeptStream> {
        self.show(id, When::Now).await
    }

    /// What is kept of a stream as soon as that is more than before, or when nothing more can come.
    pub async fn more_than(&self, before: &KeptStream) -> Option<KeptStream> {
        self.show(before.id(), When::MoreThan(before.moved)).await
    }

    async fn show(&self, id: StreamId, when: When) -> Option<KeptStream> {
        let (answer, kept) = oneshot::channel();
        self.way.order(Order::Show { id, when, answer });
        kept.await.ok()
    }

    /// Waits until all that was written by children that have ended is kept, at most so long: a disk that does not answer
    /// holds up nobody.
    pub fn settle(&self, patience: Duration) {
        let (done, settled) = mpsc::channel();
        self.way.pipe_use.set_haste(true);
        self.way.order(Order::Settle { done });
        if self.await_answer(&settled, patience).is_err() {
            tracing::warn!("what children wrote last could not be kept in time");
        }
        if self.way.passing.as_ref().is_some_and(|passing| !passing.settle(patience)) {
            tracing::warn!("what children wrote last could not be passed on in time");
        }
    }

    /// Waits at most so long; longer where the thread is to come back from a pipe that somebody holds.
    fn await_answer<T>(&self, answer: &mpsc::Receiver<T>, patience: Duration) -> Result<T, RecvTimeoutError> {
        let began = Instant::now();
        loop {
            let outcome = answer.recv_timeout(patience);
            let is_patient = began.elapsed() < stalls::RELEASE_PATIENCE && self.way.pipe_use.step().is_some();
            if outcome.is_ok() || !is_patient {
                return outcome;
            }
        }
    }

    /// Lets the thread touch no pipe any more, so that another program can go on where it has left off.
    ///
    /// # Errors
    /// When the disk does not answer for so long.
    pub fn pause(&self, patience: Duration) -> Result<Paused, LogsError> {
        let (pipes, given) = mpsc::channel();
        self.way.pipe_use.set_haste(true);
        self.way.order(Order::Pause { pipes });
        let mut paused = Paused { way: Arc::clone(&self.way), pipes: Vec::new() };
        paused.pipes = self.await_answer(&given, patience).map_err(|_| {
            let source = io::Error::from(io::ErrorKind::TimedOut);
            LogsError::new("finish what is being written to", "the children's output".into(), source)
        })?;
        if self.way.passing.as_ref().is_some_and(|passing| !passing.flush(patience)) {
            tracing::warn!("what children wrote last could not be passed on in time");
        }
        Ok(paused)
    }
}

/// The log thread rests for as long as this lives.
#[derive(Debug)]
pub struct Paused {
    way: Arc<Way>,
    pipes: Vec<Arc<OwnedFd>>,
}

impl Paused {
    /// The children's pipes: what is in them is lost when nobody has them open.
    pub fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(|pipe| pipe.as_fd())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.way.pipe_use.set_haste(false);
        self.way.order(Order::GoOn);
    }
}

impl Keeper {
    /// Closes pipes that the program before this one has handed over.
    fn close_inherited(&self, inherited: Vec<Arc<OwnedFd>>) {
        for pipe in inherited {
            let found = fstat(&pipe).ok();
            let place = found.as_ref().map(PipePlace::told).unwrap_or_default();
            let user = found.map_or_else(|| geteuid().as_raw(), |found| found.st_uid);
            self.pipe_use.during(place, user, || drop(pipe));
        }
    }

    /// Opens the pipes of the children that an earlier broker has left, and finds what it has kept of them.
    fn take_over(&mut self, children: &[Remembered], mut left: Vec<StreamId>) {
        let known: HashMap<ChildId, &Remembered> = children.iter().map(|one| (one.child, one)).collect();
        match self.store.recover(|child| known.get(&child).map(|one| one.user)) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed the output of children that nobody knows any more"),
            Err(error) => tracing::warn!("{error}"),
        }
        self.amounts.keep(self.store.room());
        left.retain(|id| {
            let is_known = known.contains_key(&id.child);
            if !is_known {
                self.folder.remove(*id);
            }
            is_known
        });
        for (id, token) in left.into_iter().zip((0..).map(Token)) {
            let Some(Remembered { user, has_ended, params, pid, .. }) = known.get(&id.child) else {
                continue;
            };
            if let Some(forwarder) = &mut self.forwarder {
                forwarder.know(id.child, Author::new(*user, Arc::clone(params), *pid));
            }
            let place = self.folder.place(id).map(|found| PipePlace::told(&found)).unwrap_or_default();
            let reopen = || self.folder.reopen(id);
            let opened = self.pipe_use.during(place, *user, reopen).and_then(|pipe| {
                pipe.map_or(Ok(None), |pipe| watch(&self.epoll, token, pipe.as_fd()).map(|()| Some(pipe)))
            });
            match opened {
                Ok(Some(pipe)) => self.keep(token, id, *user, pipe),
                Ok(None) => {}
                Err(errno) => tracing::warn!(%errno, output = %id, "cannot open the pipe of a child"),
            }
            self.make_ready(token);
            if *has_ended {
                self.end(id.child);
            }
        }
    }
}

#[cfg(test)]
mod tests;
