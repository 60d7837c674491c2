//! The spawn that a spawner is busy with: what its child reports, and how another thread can end it.
#![expect(unsafe_code, reason = "adopts the pidfd that the kernel wrote, and signals it")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::failure::{SpawnFailure, Step};
use super::memory::{Shareable, Shared};

/// What the kernel and the child write while the broker's thread is suspended.
#[derive(Debug)]
pub(super) struct Report {
    /// The [`Step`] that failed; 0 for none.
    step: AtomicU32,
    /// Why.
    errno: AtomicI32,
    /// The pidfd, written by the kernel before the child runs; negative outside a spawn.
    pidfd: AtomicI32,
}

// SAFETY: three atomic integers, for which zero is a value.
unsafe impl Shareable for Report {}

impl Report {
    /// Records a failure; the child's last word.
    pub(super) fn refuse(&self, step: Step, errno: Errno) {
        self.errno.store(errno as i32, Ordering::Relaxed);
        self.step.store(step as u32, Ordering::Release);
    }

    /// What the child recorded.
    pub(super) fn failure(&self) -> Option<SpawnFailure> {
        let step = Step::from_discriminant(self.step.load(Ordering::Acquire))?;
        Some(SpawnFailure::refused(step, Errno::from_raw(self.errno.load(Ordering::Relaxed))))
    }

    /// Where the kernel is to write the pidfd.
    pub(super) const fn pidfd_slot(&self) -> &AtomicI32 {
        &self.pidfd
    }
}

/// The state of the spawn in flight, if there is one.
#[derive(Debug)]
pub(super) struct Flight {
    report: Shared<Report>,
    /// When the spawn in flight began. Who holds the lock may use the pidfd: it is not closed meanwhile.
    since: Mutex<Option<Instant>>,
}

impl Flight {
    /// None in flight.
    pub(super) fn new() -> io::Result<Self> {
        let report = Shared::<Report>::zeroed()?;
        report.get().pidfd.store(-1, Ordering::Relaxed);
        Ok(Self { report, since: Mutex::new(None) })
    }

    pub(super) fn report(&self) -> &Report {
        self.report.get()
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        // The value is whole at every point at which a holder could panic.
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A spawn begins.
    pub(super) fn begin(&self) {
        let mut since = self.since();
        self.report().step.store(0, Ordering::Relaxed);
        *since = Some(Instant::now());
    }

    /// No child came to be. The kernel may have written the number of a pidfd that it has closed again.
    pub(super) fn cancel(&self) {
        let mut since = self.since();
        self.report().pidfd.store(-1, Ordering::Relaxed);
        *since = None;
    }

    /// A child came to be, and the broker's thread runs again: the pidfd.
    pub(super) fn land(&self) -> OwnedFd {
        let mut since = self.since();
        *since = None;
        let pidfd = self.report().pidfd.swap(-1, Ordering::Relaxed);
        // SAFETY: the kernel opened it for the clone that has just succeeded, and this swap takes it once.
        unsafe { OwnedFd::from_raw_fd(pidfd) }
    }
}

/// Ends, from another thread, a spawn that takes too long.
///
/// The thread that spawns is suspended until the child executes its program. Between taking on the ids of its
/// user and that moment the child can be held up by that user, who may stop it (SIGSTOP cannot be blocked) or
/// have its working directory on a file system that never answers. Whoever must not be held up in turn asks
/// this switch from time to time. (A wait inside a file system that the kernel does not let SIGKILL
/// interrupt ends only with that file system: use more than one spawner.)
#[derive(Clone, Debug)]
pub struct KillSwitch(Arc<Flight>);

impl KillSwitch {
    pub(super) const fn new(flight: Arc<Flight>) -> Self {
        Self(flight)
    }

    /// Kills the child of a spawn that has been going on for at least `limit`, and says whether it did.
    ///
    /// The spawn then fails with [`SpawnFailure::Killed`]. Should it have succeeded in this very moment,
    /// then it is a program that SIGKILL ends.
    #[must_use]
    pub fn kill_overdue(&self, limit: Duration) -> bool {
        let since = self.0.since();
        let overdue = since.is_some_and(|since| since.elapsed() >= limit);
        let pidfd = self.0.report().pidfd.load(Ordering::Relaxed);
        if !overdue || pidfd < 0 {
            return false;
        }
        // SAFETY: the call reads no memory, and the lock keeps the pidfd from being closed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, libc::SIGKILL, 0, 0) == 0 }
    }
}
