//! Looks whether somebody listens at a path or an address, in a process of its own with the rights of a user.
//!
//! The path may lead to where nothing answers: a server that is gone, or a file system that the user has made himself. Whoever
//! goes there hangs, a thread for ever and a process until it is killed. (One that waits for a file system which has taken
//! its question and keeps the answer to itself is not ended by that either; it has nothing of the broker's but its place.)

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procbroker_protocol::Signal;

use super::child::ChildTask;
use super::clone::{self, Birth, Memory};
use super::facilities::SpawnFacilities;
use super::listens::{Inquiry, Place};
use super::memory::Shared;
use super::oom_score::OomScore;
use super::plan::Ids;
use super::signals::SignalSet;
use super::slot::{Departed, Slot, Way};
use crate::os::host::fs_rights::Rights;
use crate::os::process::pidfd;

/// How many empty slots are kept, which is how many looks are under way at a time as a rule. They are made at the start, when
/// there are few descriptors: a child copies those below its slot's.
const SLOTS_KEPT: usize = 4;

/// Where looks are taken from.
#[derive(Debug)]
pub struct PathLooks {
    way: Way,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    empty: Vec<Slot>,
    underway: BTreeMap<u64, Arc<OwnedFd>>,
    next: u64,
}

/// A process that looks. It is killed when this is dropped before its end.
#[derive(Debug)]
pub struct PathLook {
    looks: Arc<PathLooks>,
    number: u64,
    slot: Option<Slot>,
    pidfd: Arc<OwnedFd>,
}

impl PathLooks {
    /// Takes them in this way. Its descriptors should be among the first that are opened.
    ///
    /// # Errors
    /// When there is no memory or no descriptor.
    pub fn new(facilities: SpawnFacilities) -> io::Result<Self> {
        let way = Way {
            method: facilities.method,
            memory: Memory::Brokers,
            // It executes no program: neither is changed.
            oom_score: OomScore::Inherited,
            signals: SignalSet(0),
        };
        let empty = (0..SLOTS_KEPT).map(|_| new_slot()).collect::<io::Result<_>>()?;
        Ok(Self { way, state: Mutex::new(State { empty, underway: BTreeMap::new(), next: 0 }) })
    }

    /// Begins to look whether a process of this user listens at a path, as far as these rights reach.
    ///
    /// # Errors
    /// When there is no process to be had, or the path cannot be one.
    pub fn begin(self: &Arc<Self>, path: &str, rights: &Rights, user: u32) -> io::Result<PathLook> {
        self.look(Inquiry { place: Place::Path { path: CString::new(path)?, user }, ids: ids(rights) })
    }

    /// Begins to look whether somebody listens at an address, as these rights reach it: a firewall may tell users apart.
    ///
    /// # Errors
    /// When there is no process to be had.
    pub fn begin_at(self: &Arc<Self>, address: SocketAddr, rights: &Rights) -> io::Result<PathLook> {
        let address = match address {
            SocketAddr::V4(address) => address.into(),
            SocketAddr::V6(address) => address.into(),
        };
        self.look(Inquiry { place: Place::Address(address), ids: ids(rights) })
    }

    fn look(self: &Arc<Self>, inquiry: Inquiry) -> io::Result<PathLook> {
        let mut state = self.lock();
        let mut slot = state.empty.pop().map_or_else(new_slot, Ok)?;
        if let Err((_, errno)) = slot.enter(self.way, ChildTask::Look(Box::new(inquiry)), None) {
            state.empty.push(slot);
            return Err(errno.into());
        }
        let pidfd = slot.pidfd().ok_or(Errno::ESRCH).map_err(io::Error::from);
        let pidfd = match pidfd.and_then(|pidfd| pidfd.try_clone_to_owned()) {
            Ok(pidfd) => Arc::new(pidfd),
            Err(error) => {
                abandon(slot);
                return Err(error);
            }
        };
        let number = state.next;
        state.next += 1;
        state.underway.insert(number, Arc::clone(&pidfd));
        drop(state);
        Ok(PathLook { looks: Arc::clone(self), number, slot: Some(slot), pidfd })
    }

    /// Kills all that are under way, and waits for their ends: for whoever goes on in this process knows nothing of them.
    /// One that does not end within the patience is left.
    pub fn end_all(&self, patience: Duration) {
        let underway: Vec<_> = self.lock().underway.values().cloned().collect();
        for pidfd in &underway {
            kill(pidfd);
        }
        let began = Instant::now();
        for pidfd in &underway {
            let left = PollTimeout::try_from(patience.saturating_sub(began.elapsed()));
            let mut waiting = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            // Whatever comes of it, it is asked then.
            let _ended = poll(&mut waiting, left.unwrap_or(PollTimeout::ZERO));
            let _reaped = clone::outcome(pidfd.as_fd());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PathLook {
    /// Its process, which is readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> &Arc<OwnedFd> {
        &self.pidfd
    }

    /// What it has found, if it has ended: whether somebody listens.
    #[must_use]
    pub fn outcome(&mut self) -> Option<bool> {
        let Departed { birth, failure, .. } = self.slot.as_mut()?.leave()?;
        let mut state = self.looks.lock();
        state.underway.remove(&self.number);
        state.empty.extend(self.slot.take());
        state.empty.truncate(SLOTS_KEPT);
        Some(failure.is_none() && birth == Birth::Exited)
    }
}

impl Drop for PathLook {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            kill(&self.pidfd);
            self.looks.lock().underway.remove(&self.number);
            abandon(slot);
        }
    }
}

/// Kills the process of a look. One that was reaped is not there any more.
pub fn kill(pidfd: &OwnedFd) {
    let _ended = pidfd::send(pidfd.as_fd(), Signal::KILL);
}

fn new_slot() -> io::Result<Slot> {
    Slot::new(0, &Arc::new(Shared::zeroed()?), None)
}

/// What a child reads and runs on is never taken from under it.
fn abandon(slot: Slot) {
    std::mem::forget(slot);
}

fn ids(rights: &Rights) -> Option<Ids> {
    match rights {
        Rights::Own => None,
        Rights::Of { uid, gid, groups } => {
            Some(Ids { uid: *uid, gid: *gid, groups: groups.clone(), is_other: true })
        }
    }
}
