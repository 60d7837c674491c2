//! How a process ended that is not the broker's child: one that an earlier broker started.
//!
//! Its parent is the system's init, or a subreaper above the broker, which reaps it sooner or later, or never.
//! The kernel tells everybody who holds a process how it ended, once it has been reaped (Linux 6.15); and before
//! that, everybody who might trace it (`proc_pid_stat(5)`, field 52).

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use procbroker_core::{Pid, Run};
use procbroker_protocol::ExitStatus;

use super::{pidfd, proc};

/// The main process of a child that is not the broker's own.
#[derive(Clone, Debug)]
pub(crate) struct Adopted {
    pub(crate) run: Run,
    pub(crate) pid: Pid,
    pub(crate) pidfd: Arc<OwnedFd>,
}

/// What can be said of a process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdoptedExit {
    /// This is how, as far as that can be known at all.
    Told(ExitStatus),
    /// That will be known when somebody reaps it, which its pidfd announces (`EPOLLHUP`).
    NotReaped,
}

/// Asks how a process ended, of which the pidfd says that it has. `tells_reaped` says whether the kernel keeps the
/// status of what was reaped, and announces the reaping; both came with Linux 6.15 at the latest.
pub(crate) fn ending(pid: Pid, pidfd: BorrowedFd<'_>, tells_reaped: bool) -> AdoptedExit {
    if let Ok(status) = pidfd::exit_status(pidfd) {
        return AdoptedExit::Told(status);
    }
    let status = zombie_status(pid);
    if !pidfd::is_reaped(pidfd) {
        // So the number meant this process all the time.
        return match status {
            Some(status) => AdoptedExit::Told(status),
            None if tells_reaped => AdoptedExit::NotReaped,
            None => AdoptedExit::Told(ExitStatus::Unknown),
        };
    }
    // It was reaped between the first question and now.
    AdoptedExit::Told(pidfd::exit_status(pidfd).unwrap_or(ExitStatus::Unknown))
}

impl Adopted {
    pub(crate) fn ending(&self, tells_reaped: bool) -> AdoptedExit {
        ending(self.pid, self.pidfd.as_fd(), tells_reaped)
    }
}

/// How a process ended that has not been reaped; `None` where the kernel does not tell this user.
fn zombie_status(pid: Pid) -> Option<ExitStatus> {
    let status = proc::zombie_status(pid)?;
    // To others the kernel shows a 0 there. The link, which a zombie has not any more, is kept from the same ones.
    let link = fs::read_link(format!("/proc/{pid}/exe"));
    let is_shown = link.is_err_and(|error| error.raw_os_error() == Some(Errno::ENOENT as i32));
    is_shown.then(|| pidfd::from_wait_status(status))
}
