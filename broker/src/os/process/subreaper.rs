//! Inherits orphans: what loses its parent below the broker becomes a child of the broker's main thread.
//!
//! The broker is a subreaper (`prctl(2)`, `PR_SET_CHILD_SUBREAPER`). Its main thread starts no process itself: it sleeps.
//! So the children of that thread are the orphans.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{getpid, gettid};
use procbroker_core::Pid;
use thiserror::Error;

use super::proc::{ProcessStat, children, processes, read_list};

/// How often a list is read again because something was reaped meanwhile.
const LIST_ROUNDS: usize = 64;

/// Counts what the driver's thread reaps, so that a reader of the list of orphans in another thread can tell
/// whether the list was changed under it: the kernel then may have left somebody out (`proc_tid_children(5)`).
/// It is odd while something is being reaped.
#[derive(Clone, Debug, Default)]
pub struct ReapClock(Arc<AtomicU64>);

impl ReapClock {
    /// Does what may take processes out of the list.
    pub fn during<T>(&self, reaping: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::SeqCst);
        let result = reaping();
        self.0.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// None while something is being reaped.
    fn now(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|ticks| ticks % 2 == 0)
    }
}

/// Numbers of reaped orphans that are remembered until somebody asks.
const FREED_MAX: usize = 4_096;

/// The numbers of orphans that were reaped since they were asked for last. Each may be another process's by now; that of
/// any other orphan is not, since nobody but the broker reaps it.
#[derive(Clone, Debug, Default)]
pub(super) struct FreedNumbers(Arc<Mutex<Freed>>);

/// Numbers that may be other processes' by now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// These numbers, and no others.
    These(Vec<Pid>),
    /// So many that all may be.
    All,
}

impl Default for Freed {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl FreedNumbers {
    /// An orphan is about to be reaped: its number is told of before the kernel may give it to another process.
    pub(super) fn add(&self, pid: Pid) {
        let mut freed = self.lock();
        match &mut *freed {
            Freed::These(pids) if pids.len() < FREED_MAX => pids.push(pid),
            Freed::These(_) | Freed::All => *freed = Freed::All,
        }
    }

    fn take(&self) -> Freed {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Freed> {
        // Each change to it is whole at every point at which a holder could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The orphans that the broker inherits.
#[derive(Debug)]
pub struct Inheritance {
    broker: Pid,
    subreaper: bool,
    /// `/proc/PID/task/PID/children`, where the kernel has it (`CONFIG_PROC_CHILDREN`).
    children: Option<File>,
    clock: ReapClock,
    freed: FreedNumbers,
}

/// The broker cannot inherit.
#[derive(Debug, Error)]
pub enum InheritanceError {
    /// Called elsewhere than on the main thread, which is the one that inherits.
    #[error("the orphans of children are inherited by the main thread, and this is another one")]
    NotMainThread,
    /// `/proc` is missing, or shows other processes than the broker's.
    #[error("cannot read /proc/self/stat: {0}; mount proc in the broker's own pid namespace")]
    Proc(#[source] io::Error),
}

impl Inheritance {
    /// Makes this process inherit all orphans from now on: to be called before there is a child.
    ///
    /// # Errors
    /// When this is not the main thread, or `/proc` cannot be used.
    pub fn begin() -> Result<Self, InheritanceError> {
        if gettid() != getpid() {
            return Err(InheritanceError::NotMainThread);
        }
        let stat = fs::read_to_string("/proc/self/stat").map_err(InheritanceError::Proc)?;
        let own = ProcessStat::of_stat(&stat).map(|stat| stat.pid);
        let broker = own
            .filter(|own| own.get() == std::process::id())
            .ok_or_else(|| InheritanceError::Proc(io::Error::from(Errno::ENOENT)))?;
        // PID 1 inherits everything even where this fails.
        let subreaper = prctl::set_child_subreaper(true).is_ok() || broker.get() == 1;
        let (clock, freed) = (ReapClock::default(), FreedNumbers::default());
        Ok(Self { broker, subreaper, children: open_list(broker), clock, freed })
    }

    /// Another one, for the worker thread.
    pub(crate) fn share(&self) -> Self {
        let children = self.children.as_ref().and_then(|_| open_list(self.broker));
        let (clock, freed) = (self.clock.clone(), self.freed.clone());
        Self { broker: self.broker, subreaper: self.subreaper, children, clock, freed }
    }

    /// Makes one that scans `/proc`, as where the kernel has no list of children.
    #[cfg(test)]
    pub(crate) fn without_list(mut self) -> Self {
        self.children = None;
        self
    }

    /// What the reaper ticks.
    #[must_use]
    pub fn clock(&self) -> ReapClock {
        self.clock.clone()
    }

    /// What the reaper adds to.
    pub(super) fn freed_numbers(&self) -> FreedNumbers {
        self.freed.clone()
    }

    /// The numbers of orphans that were reaped since this was asked last. For those who have a list of orphans: to be asked
    /// after that was read.
    pub(crate) fn freed(&self) -> Freed {
        self.freed.take()
    }

    /// Returns the number of the broker's own process.
    #[must_use]
    pub fn broker(&self) -> Pid {
        self.broker
    }

    /// Whether orphans come to the broker at all.
    #[must_use]
    pub fn is_subreaper(&self) -> bool {
        self.subreaper
    }

    /// Whether the kernel lists the children of a thread; else all of `/proc` is read each time.
    #[must_use]
    pub fn has_list(&self) -> bool {
        self.children.is_some()
    }

    /// Whether the list is empty, at the cost of one system call. False where there is no list.
    ///
    /// Only the thread that reaps may ask: nothing is taken out of the list meanwhile.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut first = [0; 1];
        self.children.as_ref().is_some_and(|file| matches!(file.read_at(&mut first, 0), Ok(0)))
    }

    /// The list as it is; none where the kernel has none. For the thread that reaps, which alone takes something out.
    pub(super) fn listed(&self) -> Option<Vec<Pid>> {
        read_list(self.children.as_ref()?).ok()
    }

    /// The orphans, zombies among them; where there is no list, the broker's own children too.
    pub(crate) fn orphans(&self) -> Listing {
        let Some(file) = &self.children else { return self.all() };
        for _ in 0..LIST_ROUNDS {
            let before = self.clock.now();
            let Ok(pids) = read_list(file) else { break };
            if before.is_some() && self.clock.now() == before {
                return Listing { pids, is_exact: true, has_orphans_only: true };
            }
            std::thread::yield_now();
        }
        self.all()
    }

    /// Every process whose parent is the broker, whichever of its threads; this reads all of `/proc`.
    pub(crate) fn all(&self) -> Listing {
        let before = self.clock.now();
        let is_own = |pid: &Pid| ProcessStat::read(*pid).is_some_and(|stat| stat.parent == Some(self.broker));
        let pids = match &self.children {
            Some(_) => children(self.broker),
            None => processes().filter(is_own).collect(),
        };
        let is_exact = before.is_some() && self.clock.now() == before;
        Listing { pids, is_exact, has_orphans_only: false }
    }
}

/// Processes whose parent is the broker.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) pids: Vec<Pid>,
    /// Whether none was reaped meanwhile: what that one leaves to the broker may be missing.
    pub(crate) is_exact: bool,
    /// Whether they are the children of the main thread, and not those of the others as well.
    pub(crate) has_orphans_only: bool,
}

/// The children of the main thread.
fn open_list(broker: Pid) -> Option<File> {
    File::open(format!("/proc/{broker}/task/{broker}/children")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_reaped_orphans_are_told_once_and_all_are_doubted_where_they_are_too_many() {
        let freed = FreedNumbers::default();
        let pids: Vec<Pid> = (1..).filter_map(Pid::new).take(FREED_MAX + 1).collect();
        assert_eq!(freed.take(), Freed::These(Vec::new()));
        for pid in &pids[..FREED_MAX] {
            freed.add(*pid);
        }
        assert_eq!(freed.take(), Freed::These(pids[..FREED_MAX].to_vec()));
        assert_eq!(freed.take(), Freed::These(Vec::new()));
        for pid in &pids {
            freed.add(*pid);
        }
        assert_eq!(freed.take(), Freed::All);
    }

    #[test]
    fn another_thread_than_the_main_one_cannot_inherit() {
        let result = std::thread::spawn(|| Inheritance::begin().map(drop)).join().unwrap();
        assert!(matches!(result, Err(InheritanceError::NotMainThread)));
    }
}
