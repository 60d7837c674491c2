//! Takes note of every process that ends, and has the kernel forget it.
//!
//! The main processes of children are watched by pidfd. To ask the kernel for "any child that has ended" would
//! make it look at all that live: 3 ms for each question with 10,000 of them. The orphans that the broker inherits are
//! the children of the main thread (see [`subreaper`](super::subreaper)): the kernel lists them, and each is asked for.
//! So a child is not reaped before it is watched, however early it ends.
//!
//! Children of an earlier broker are not this one's to reap: see `exit_status`.
#![expect(unsafe_code, reason = "nix's waitid fails for a process that a real-time signal ended")]

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use procbroker_core::{Kinship, Pid, Run};
use procbroker_protocol::ExitStatus;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::descriptor::watched;
use super::exit_status::{Adopted, AdoptedExit};
use crate::os::process::pidfd::{self, Abilities};
use crate::os::process::subreaper::{FreedNumbers, Inheritance};
use crate::os::process::whereabouts::Whereabouts;

/// So many processes are reaped at a time, before the driver looks at its other sources of input.
const BATCH: usize = 256;

/// After so many calls that found nothing, plus a share of the watched children, all of them are asked: a child
/// can start processes that are not its own children but its parent's (`CLONE_PARENT`).
const FRUITLESS_CALLS: usize = 64;

/// That share: one call of so many children.
const CHILDREN_PER_CALL: usize = 16;

/// The one that reaps.
#[derive(Debug)]
pub struct Reaper {
    epoll: Epoll,
    inheritance: Inheritance,
    next_token: u64,
    watched: HashMap<u64, Watched>,
    tokens: HashMap<Pid, u64>,
    /// Their numbers are in nobody's table: whoever reaps them does not say so before the number is free.
    adopted: HashMap<u64, Adopted>,
    /// Whether the kernel keeps the status of what others reap.
    tells_reaped: bool,
    /// Those that epoll cannot announce: it would not take them, or a debugger keeps their status for now.
    asked_each_time: Vec<u64>,
    fruitless_calls: usize,
    heirs: Heirs,
    /// What is told of orphans before they are reaped.
    freed: FreedNumbers,
    /// What epoll has announced last; kept for its room.
    events: Vec<EpollEvent>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    run: Run,
    pid: Pid,
}

/// A process that has ended and has been reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// The main process of a child. No signal goes to this pid any more. That of a child of an earlier broker has
    /// ended; somebody else reaps it.
    Child {
        /// The run that the process was the main one of.
        run: Run,
        /// Its number, which may mean another process from now on.
        pid: Pid,
        /// The status with which it has ended.
        status: ExitStatus,
    },
    /// One that the broker inherited.
    Orphan {
        /// The number that it had.
        pid: Pid,
    },
}

/// Whether those that have ended have left processes to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heirs {
    /// The broker had inherited nothing any more when all of them had ended.
    None,
    /// There may be some, of these or of others.
    Perhaps,
}

/// Whether there may be more to reap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Everything that has ended so far has been reaped.
    Nothing,
    /// The batch was full: call again.
    More,
}

/// The kernel offers no way to watch processes.
#[derive(Debug, Error)]
#[error(
    "cannot create an epoll instance to watch children with: {0}; raise the limit on open files (ulimit -n)"
)]
pub struct ReaperError(#[source] Errno);

enum Waited {
    /// One that has ended.
    Ended(Pid, ExitStatus),
    /// None that has ended so far.
    None,
    /// No such child at all.
    NoChild,
}

impl Reaper {
    /// One that watches nothing yet. All of its methods are for one thread.
    ///
    /// # Errors
    /// When the kernel is out of descriptors or memory.
    pub fn new(inheritance: &Inheritance) -> Result<Self, ReaperError> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(ReaperError)?,
            inheritance: inheritance.share(),
            next_token: 0,
            watched: HashMap::new(),
            tokens: HashMap::new(),
            adopted: HashMap::new(),
            tells_reaped: Abilities::probe().exit_status,
            asked_each_time: Vec::new(),
            fruitless_calls: 0,
            heirs: Heirs::Perhaps,
            freed: inheritance.freed_numbers(),
            events: Vec::new(),
        })
    }

    /// Watches the main process of a child, which may have ended already.
    pub fn watch(&mut self, run: Run, pid: Pid, pidfd: BorrowedFd<'_>) {
        let token = self.next_token();
        self.watched.insert(token, Watched { run, pid });
        self.tokens.insert(pid, token);
        self.announce(token, pidfd);
    }

    /// Watches the main process of a child of an earlier broker, if it was found.
    pub fn adopt(&mut self, run: Run, found: &Whereabouts) {
        match found {
            Whereabouts::Process { pid, pidfd, kinship: Kinship::Own, .. } => {
                self.watch(run, *pid, pidfd.as_fd());
            }
            Whereabouts::Process { pid, pidfd, kinship: Kinship::Foreign, .. }
            | Whereabouts::Unexecuted { pid, pidfd } => {
                let token = self.next_token();
                let adopted = Adopted { run, pid: *pid, pidfd: Arc::clone(pidfd) };
                self.adopted.insert(token, adopted);
                self.announce(token, pidfd.as_fd());
            }
            Whereabouts::Gone { .. } | Whereabouts::NeverStarted | Whereabouts::Rebooted => {}
        }
    }

    fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn announce(&mut self, token: u64, pidfd: BorrowedFd<'_>) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token);
        if self.epoll.add(pidfd, event).is_err() {
            self.asked_each_time.push(token);
        }
    }

    /// Readable when an adopted child exits. `None` when every child is the broker's own: SIGCHLD covers those. To be
    /// called in the event loop, once every child is adopted.
    ///
    /// # Errors
    /// When the event loop cannot watch it.
    pub fn readable(&self) -> io::Result<Option<AsyncFd<OwnedFd>>> {
        if self.adopted.is_empty() {
            return Ok(None);
        }
        watched(self.as_fd().try_clone_to_owned()?, Interest::READABLE).map(Some)
    }

    /// How many children are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.watched.len() + self.adopted.len()
    }

    /// What those have left that were reaped last.
    #[must_use]
    pub fn heirs(&self) -> Heirs {
        self.heirs
    }

    /// Reaps what has ended: to be called when the reaper's descriptor is readable, and upon SIGCHLD.
    ///
    /// `spawns_in_flight` is the number of children that may exist and are not watched yet. The thread that
    /// started them has to live until they are watched: the main thread would inherit them.
    pub fn reap(&mut self, spawns_in_flight: usize, reaped: &mut Vec<Reaped>) -> Backlog {
        let before = reaped.len();
        let clock = self.inheritance.clock();
        clock.during(|| {
            self.reap_announced(reaped);
            self.reap_silent(reaped);
            self.reap_orphans(spawns_in_flight, reaped);
            self.fruitless_calls = if reaped.len() > before { 0 } else { self.fruitless_calls + 1 };
            let patience = FRUITLESS_CALLS + self.watched.len() / CHILDREN_PER_CALL;
            if self.fruitless_calls > patience && spawns_in_flight == 0 {
                self.fruitless_calls = 0;
                self.reap_any(reaped);
            }
        });
        if reaped.len() - before < BATCH { Backlog::Nothing } else { Backlog::More }
    }

    /// Children whose pidfd says that they have ended.
    fn reap_announced(&mut self, reaped: &mut Vec<Reaped>) {
        let mut events = std::mem::take(&mut self.events);
        events.resize(BATCH, EpollEvent::empty());
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in events.iter().take(count) {
            self.reap_ended(event.data(), reaped);
        }
        self.events = events;
    }

    fn reap_ended(&mut self, token: u64, reaped: &mut Vec<Reaped>) {
        if let Some(&watched) = self.watched.get(&token) {
            match self.reap_child(token, watched) {
                Some(child) => reaped.push(child),
                None => self.asked_each_time.push(token),
            }
        } else if let Some(adopted) = self.adopted.get(&token) {
            match adopted.ending(self.tells_reaped) {
                AdoptedExit::Told(status) => {
                    let (run, pid) = (adopted.run, adopted.pid);
                    self.adopted.remove(&token);
                    reaped.push(Reaped::Child { run, pid, status });
                }
                AdoptedExit::NotReaped => {
                    // That it hangs up is announced without being asked for. It is watched anew, because a change of what
                    // is asked for tells nobody of what is so already where it still stands among those that are ready.
                    let event = EpollEvent::new(EpollFlags::EPOLLONESHOT, token);
                    let pidfd = adopted.pidfd.as_fd();
                    if self.epoll.delete(pidfd).and_then(|()| self.epoll.add(pidfd, event)).is_err() {
                        self.asked_each_time.push(token);
                    }
                }
            }
        }
    }

    /// Children that nothing announces.
    fn reap_silent(&mut self, reaped: &mut Vec<Reaped>) {
        for token in std::mem::take(&mut self.asked_each_time) {
            match self.adopted.get(&token) {
                Some(adopted) if !pidfd::has_ended(adopted.pidfd.as_fd()) => self.asked_each_time.push(token),
                Some(_) | None => self.reap_ended(token, reaped),
            }
        }
    }

    /// Reaps this child, whose number is forgotten here before the kernel may give it to somebody else.
    fn reap_child(&mut self, token: u64, watched: Watched) -> Option<Reaped> {
        let Watched { run, pid } = watched;
        self.retire(token, pid);
        let status = match wait(libc::P_PID, pid.get(), libc::WEXITED) {
            Waited::Ended(_, status) => status,
            // Somebody else has reaped it, which nobody does as long as SIGCHLD has its default action.
            Waited::NoChild => ExitStatus::Unknown,
            Waited::None => {
                self.watched.insert(token, watched);
                self.tokens.insert(pid, token);
                return None;
            }
        };
        Some(Reaped::Child { run, pid, status })
    }

    fn retire(&mut self, token: u64, pid: Pid) {
        self.watched.remove(&token);
        if self.tokens.get(&pid) == Some(&token) {
            self.tokens.remove(&pid);
        }
    }

    /// Orphans that have ended. Among them are the broker's own children from before it executed its program anew.
    fn reap_orphans(&mut self, spawns_in_flight: usize, reaped: &mut Vec<Reaped>) {
        if self.inheritance.is_empty() {
            self.heirs = Heirs::None;
            return;
        }
        self.heirs = Heirs::Perhaps;
        // One question about all spares as many as there are orphans, of whom most live on.
        if self.inheritance.has_list()
            && !matches!(
                wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT | libc::__WALL),
                Waited::Ended(..)
            )
        {
            return;
        }
        let Some(listed) = self.inheritance.listed() else {
            // Without a list all children are asked, once none is there that would be taken for an orphan.
            if spawns_in_flight == 0 {
                self.reap_any(reaped);
            }
            return;
        };
        for pid in listed.into_iter().filter(|pid| !self.tokens.contains_key(pid)) {
            // Of the program before this one there may be children that tell nobody of their end (`__WALL`, wait(2)).
            let flags = libc::WEXITED | libc::__WALL;
            if let Waited::Ended(pid, _) = wait(libc::P_PID, pid.get(), flags | libc::WNOWAIT) {
                self.freed.add(pid);
                let _same = wait(libc::P_PID, pid.get(), flags);
                reaped.push(Reaped::Orphan { pid });
            }
        }
    }

    /// Whatever has ended, among all children.
    fn reap_any(&mut self, reaped: &mut Vec<Reaped>) {
        self.heirs = Heirs::Perhaps;
        for _ in 0..BATCH {
            let flags = libc::WEXITED | libc::WNOWAIT;
            let Waited::Ended(pid, status) = wait(libc::P_ALL, 0, flags) else { return };
            let token = self.tokens.get(&pid).copied();
            let watched = token.and_then(|token| self.watched.get(&token).copied());
            if watched.is_none() {
                self.freed.add(pid);
            }
            if let Some(token) = token {
                self.retire(token, pid);
            }
            let _same = wait(libc::P_PID, pid.get(), libc::WEXITED);
            reaped.push(match watched {
                Some(Watched { run, pid }) => Reaped::Child { run, pid, status },
                None => Reaped::Orphan { pid },
            });
        }
    }
}

impl AsFd for Reaper {
    /// Readable when a watched child has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Asks for an end, without waiting for it.
fn wait(which: libc::idtype_t, id: u32, flags: i32) -> Waited {
    // SAFETY: all zeroes are a `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `siginfo_t` there.
    let result = unsafe { libc::waitid(which, id, &raw mut info, flags | libc::WNOHANG) };
    if result != 0 {
        return Waited::NoChild;
    }
    // SAFETY: waitid has filled in the fields of a SIGCHLD, or left all at zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let Some(pid) = u32::try_from(pid).ok().and_then(Pid::new) else { return Waited::None };
    let status =
        if info.si_code == libc::CLD_EXITED { ExitStatus::Code(status) } else { pidfd::ended_by(status) };
    Waited::Ended(pid, status)
}
