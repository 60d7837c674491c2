//! Holds the processes of children, and the sockets on which they tell how they are, where they outlive the broker: in the fd
//! store of its service (`FileDescriptorStoreMax=`, systemd.service(5)).
//!
//! What is sent to a socket that nobody has open is refused, and lost where its sender says it once. Held, it takes in what
//! is told while there is no broker, and the next one hears it.
//!
//! The kernel tells how a process ended to whoever holds a pidfd of it, even if somebody else has reaped it; but not
//! to one who opens it after that. So that the next broker knows it of children that end while there is none,
//! their pidfds have to be held meanwhile.
//!
//! The store would take each of all these by itself, but not many: their names are handed back in one variable, and from
//! some 3,500 ids on the kernel refuses to start a program with it (`execve(2)`, E2BIG); and systemd compares each
//! with all that it has. So it is given the two ends of a socket, once, and the others lie in that socket as
//! messages that nobody receives. To store one is a single system call that waits for nobody.

mod queue;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use procbroker_core::{Incarnation, Run};
use procbroker_protocol::ChildId;
use thiserror::Error;

use crate::os::process::pidfd;
use crate::os::service::notify::ServiceOwner;
use queue::{First, StoreKey, StoreQueue, StoredKind};

/// The name in the store of the end that is read.
pub(super) const READ_NAME: &str = "procbroker-children-read";

/// The name in the store of the end that is written.
pub(super) const WRITE_NAME: &str = "procbroker-children-write";

/// Messages of processes that are not wanted any more, beside as many as there are of others, before room is made.
const UNWANTED_MAX: usize = 64;

/// So many messages are looked at when a process is stored and room has to be made: more than come to be, so that it
/// ends, and few, so that it holds up nobody.
const TURNS_A_STORE: usize = 4;

/// What an earlier broker left in the store.
#[derive(Debug, Default)]
pub struct StoredQueue {
    read: Option<OwnedFd>,
    write: Option<OwnedFd>,
}

impl StoredQueue {
    /// What this process had before it executed its program anew: the [ends](FdStore::ends).
    #[must_use]
    pub fn from_ends(read: OwnedFd, write: OwnedFd) -> Self {
        Self { read: Some(read), write: Some(write) }
    }

    /// Whether a descriptor of this name belongs here.
    pub(super) fn knows(name: &str) -> bool {
        [READ_NAME, WRITE_NAME].contains(&name)
    }

    /// Takes a descriptor that was handed back under such a name.
    pub(super) fn take(&mut self, name: &str, descriptor: OwnedFd) {
        let end = if name == READ_NAME { &mut self.read } else { &mut self.write };
        *end = Some(descriptor);
    }
}

/// Why nothing can be stored. The broker works without it, and knows less after a crash.
#[derive(Debug, Error)]
enum FdStoreError {
    /// There is no socket to be had.
    #[error("cannot make a socket pair for the processes of children: {0}")]
    Socket(#[source] io::Error),
    /// The service's owner does not take it.
    #[error("cannot hand {name} to the service manager through NOTIFY_SOCKET: {source}")]
    Refused {
        /// The name under which the end was to be kept.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What was found in the store: the latest process of each child, and its socket.
#[derive(Debug, Default)]
pub struct HandedBack {
    /// The processes.
    pub processes: BTreeMap<Run, OwnedFd>,
    /// The sockets.
    pub sockets: BTreeMap<ChildId, OwnedFd>,
}

/// The store. It is off where nobody would hold anything: without an owner of the service (`NOTIFY_SOCKET`).
#[derive(Debug)]
pub struct FdStore(Option<Contents>);

#[derive(Debug)]
struct Contents {
    queue: StoreQueue,
    /// Whether processes are of use to the next broker: where the kernel keeps their exit status (Linux 6.15).
    holds_processes: bool,
    /// What is wanted, each with the age of its message.
    wanted: BTreeMap<(Run, StoredKind), u32>,
    /// The age of this broker's messages: how many brokers there were before.
    age: u32,
    messages: usize,
    /// How many there may be.
    capacity: usize,
    /// Whether it was said that there is no room.
    complained: bool,
}

impl FdStore {
    /// Goes on with the store of an earlier broker, or begins one. What is found in it is returned, and stays in it until it
    /// is removed. Each takes a descriptor.
    ///
    /// What fails is logged, and the store is off then.
    #[must_use]
    pub fn open(kept: StoredQueue) -> (Self, HandedBack) {
        let is_owned = ServiceOwner.is_there() || kept.read.is_some();
        if !is_owned {
            return (Self(None), HandedBack::default());
        }
        let (mut store, found) = Self::open_at(kept, |name, end| ServiceOwner.keep(name, end));
        if let Some(contents) = &mut store.0 {
            contents.holds_processes = pidfd::Abilities::probe().exit_status;
        }
        (store, found)
    }

    /// Opens a store whose ends somebody keeps: `hand_over` gives them one under a name.
    fn open_at(
        kept: StoredQueue,
        hand_over: impl FnMut(&str, BorrowedFd<'_>) -> io::Result<()>,
    ) -> (Self, HandedBack) {
        match Contents::of_earlier(kept) {
            Some((contents, found)) => (Self(Some(contents)), found),
            None => match Contents::begin(hand_over) {
                Ok(contents) => (Self(Some(contents)), HandedBack::default()),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    tracing::warn!(
                        cause,
                        "{error}; how children end while there is no broker will not be known, and what they tell then is lost"
                    );
                    (Self(None), HandedBack::default())
                }
            },
        }
    }

    /// A child is about to get another process: the one that it had before is not its latest any more, even if the
    /// broker is killed before the new one is stored. Costs nothing for a child's first one.
    pub fn expect(&mut self, run: Run) {
        if let Some(contents) = &mut self.0
            && run.incarnation > Incarnation::FIRST
            && contents.holds_processes
        {
            let done = contents.expect(run);
            contents.tell(run, done);
        }
    }

    /// Stores the process of a run, unless that was done already.
    ///
    /// Without room for it nothing fails: if it ends while there is no broker, it will not be known how.
    pub fn store(&mut self, run: Run, pidfd: BorrowedFd<'_>) {
        if let Some(contents) = self.0.as_mut().filter(|contents| contents.holds_processes) {
            let done = contents.store((run, StoredKind::Process), pidfd);
            contents.tell(run, done);
        }
    }

    /// Stores the socket of a child, unless that was done already. Without room for it nothing fails.
    pub fn store_socket(&mut self, child: ChildId, socket: BorrowedFd<'_>) {
        if let Some(contents) = &mut self.0 {
            let run = Run { child, incarnation: Incarnation::FIRST };
            let done = contents.store((run, StoredKind::Socket), socket);
            contents.tell(run, done);
        }
    }

    /// The process of a run is not wanted any more. It is dropped when the room is needed, and may be found until then.
    pub fn remove(&mut self, run: Run) {
        if let Some(contents) = &mut self.0 {
            contents.wanted.remove(&(run, StoredKind::Process));
        }
    }

    /// The socket of a child is not wanted any more. It takes in nothing then, as its path is gone.
    pub fn remove_socket(&mut self, child: ChildId) {
        if let Some(contents) = &mut self.0 {
            contents.wanted.remove(&(Run { child, incarnation: Incarnation::FIRST }, StoredKind::Socket));
        }
    }

    /// The ends of the socket, to be read from and to be written to, for this process after it has executed its
    /// program anew.
    #[must_use]
    pub fn ends(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.0.as_ref().map(|contents| contents.queue.ends())
    }
}

impl Contents {
    fn begin(
        mut hand_over: impl FnMut(&str, BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<Self, FdStoreError> {
        let queue = StoreQueue::new().map_err(FdStoreError::Socket)?;
        for (name, end) in [READ_NAME, WRITE_NAME].into_iter().zip(queue.ends()) {
            hand_over(name, end).map_err(|source| FdStoreError::Refused { name, source })?;
        }
        Self::in_queue(queue).map_err(FdStoreError::Socket)
    }

    fn in_queue(queue: StoreQueue) -> io::Result<Self> {
        let capacity = queue.capacity()?;
        let wanted = BTreeMap::new();
        Ok(Self { queue, holds_processes: true, wanted, age: 0, messages: 0, capacity, complained: false })
    }

    /// Takes the store of an earlier broker over, if all of it is there.
    fn of_earlier(kept: StoredQueue) -> Option<(Self, HandedBack)> {
        let (read, write) = match kept {
            StoredQueue { read: None, write: None } => return None,
            StoredQueue { read: Some(read), write: Some(write) } => (read, write),
            StoredQueue { read: Some(_), write: None } | StoredQueue { read: None, write: Some(_) } => {
                tracing::warn!("only one of {READ_NAME} and {WRITE_NAME} was handed back; beginning anew");
                return None;
            }
        };
        let taken = StoreQueue::of_ends(read, write).and_then(Self::in_queue).and_then(|mut contents| {
            let found = contents.look_through()?;
            Ok((contents, found))
        });
        taken
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot use {READ_NAME} as it was handed back; beginning anew");
            })
            .ok()
    }

    /// Reads all that earlier brokers stored. Each message is written again before it is taken away, so that
    /// nothing is lost if this broker is killed meanwhile.
    fn look_through(&mut self) -> io::Result<HandedBack> {
        let mut latest = BTreeMap::new();
        let round = self.queue.mark_end()?;
        loop {
            match self.queue.first()? {
                First::Stored { key, descriptor } => self.put_back(key, Some(descriptor), &mut latest)?,
                First::Expected(key) => self.put_back(key, None, &mut latest)?,
                First::Mark(mark) if mark == round => break self.queue.drop_first()?,
                // The last broker was killed while it did this.
                First::Mark(_) | First::Malformed => {}
                First::Nothing => break,
            }
            self.queue.drop_first()?;
        }
        let mut found = HandedBack::default();
        for (key, descriptor) in latest.into_values() {
            self.age = self.age.max(key.age.saturating_add(1));
            let Some(descriptor) = descriptor else { continue };
            self.wanted.insert((key.run, key.held), key.age);
            match key.held {
                StoredKind::Process => drop(found.processes.insert(key.run, descriptor)),
                StoredKind::Socket => drop(found.sockets.insert(key.run.child, descriptor)),
            }
        }
        Ok(found)
    }

    /// Writes a message again, unless a later one of the same child has been read.
    fn put_back(
        &mut self,
        key: StoreKey,
        descriptor: Option<OwnedFd>,
        latest: &mut BTreeMap<(ChildId, StoredKind), (StoreKey, Option<OwnedFd>)>,
    ) -> io::Result<()> {
        let place = (key.run.child, key.held);
        if let Some((later, found)) = latest.get(&place)
            && (later.order(), found.is_some()) >= (key.order(), descriptor.is_some())
        {
            return Ok(());
        }
        match &descriptor {
            Some(descriptor) => self.queue.push(key, descriptor.as_fd())?,
            None => self.queue.push_expected(key)?,
        }
        self.messages += 1;
        latest.insert(place, (key, descriptor));
        Ok(())
    }

    fn expect(&mut self, run: Run) -> io::Result<()> {
        self.make_room()?;
        self.push(StoreKey { run, held: StoredKind::Process, age: self.age }, None)
    }

    fn store(&mut self, (run, held): (Run, StoredKind), descriptor: BorrowedFd<'_>) -> io::Result<()> {
        if self.wanted.get(&(run, held)) == Some(&self.age) {
            return Ok(());
        }
        self.make_room()?;
        self.push(StoreKey { run, held, age: self.age }, Some(descriptor))?;
        self.wanted.insert((run, held), self.age);
        Ok(())
    }

    /// Says that something cannot be stored: to the administrator once, because it is the same for all that follow.
    fn tell(&mut self, run: Run, done: io::Result<()>) {
        match done {
            Ok(()) => {}
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(
                    %error, stored = self.wanted.len(),
                    "cannot store more for the next broker: how these children end while there is none will not be known, and \
                     what they tell then is lost"
                );
            }
            Err(error) => tracing::debug!(%error, child = %run.child, "cannot store what is of a child"),
        }
    }

    fn push(&mut self, key: StoreKey, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.messages >= self.capacity {
            return Err(io::Error::other(format!(
                "{} messages are all that may lie in a socket",
                self.messages
            )));
        }
        match descriptor {
            Some(descriptor) => self.queue.push(key, descriptor)?,
            None => self.queue.push_expected(key)?,
        }
        self.messages += 1;
        Ok(())
    }

    /// Drops messages that nobody wants from the beginning of the queue, and moves others to its end.
    fn make_room(&mut self) -> io::Result<()> {
        for _ in 0..TURNS_A_STORE {
            let wanted = self.wanted.len();
            let plenty = wanted.saturating_mul(2).saturating_add(UNWANTED_MAX);
            if self.messages <= plenty.min(self.capacity - self.capacity / 4).max(wanted) {
                break;
            }
            if self
                .queue
                .first_key()?
                .is_some_and(|key| self.wanted.get(&(key.run, key.held)) == Some(&key.age))
                && let First::Stored { key, descriptor } = self.queue.first()?
            {
                self.push(key, Some(descriptor.as_fd()))?;
            }
            self.queue.drop_first()?;
            self.messages = self.messages.saturating_sub(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
