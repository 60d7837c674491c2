//! What has become of the main process of a child that an earlier broker, or an earlier program of this one, has started.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use procbroker_core::{Kinship, Pid};
use procbroker_protocol::ExitStatus;

use super::pidfd;

/// What has become of the main process of a child.
#[derive(Debug)]
pub enum Whereabouts {
    /// It is there: alive, or not reaped yet.
    Process {
        /// The number of the process.
        pid: Pid,
        /// Refers to it for good.
        pidfd: Arc<OwnedFd>,
        /// Whose child it is.
        kinship: Kinship,
        /// The number of its cgroup, if that is on record.
        cgroup: Option<u64>,
    },
    /// It is not there any more, or perhaps never was.
    Gone {
        /// What its number was, if that is on record.
        pid: Option<Pid>,
        /// Its pidfd, if it was passed on.
        pidfd: Option<Arc<OwnedFd>>,
        /// The status with which it has ended, as far as the kernel still tells.
        status: ExitStatus,
        /// The number of its cgroup, if that is on record.
        cgroup: Option<u64>,
    },
    /// It has not executed its program, and does not any more: it is suspended.
    Unexecuted {
        /// The number of the process.
        pid: Pid,
        /// Refers to it for good.
        pidfd: Arc<OwnedFd>,
    },
    /// There was no process.
    NeverStarted,
    /// It lived in another run of the kernel.
    Rebooted,
}

impl Whereabouts {
    /// A process that was found; whose child it is remains to be said.
    #[must_use]
    pub fn process(pid: Pid, pidfd: Arc<OwnedFd>, cgroup: Option<u64>) -> Self {
        Self::Process { pid, pidfd, kinship: Kinship::Foreign, cgroup }
    }

    /// With the status that its pidfd still tells, where there is one.
    #[must_use]
    pub fn gone(pid: Option<Pid>, pidfd: Option<Arc<OwnedFd>>, cgroup: Option<u64>) -> Self {
        let status = pidfd.as_ref().and_then(|pidfd| pidfd::exit_status(pidfd.as_fd()).ok());
        let status = status.unwrap_or(ExitStatus::Unknown);
        Self::Gone { pid, pidfd, status, cgroup }
    }

    /// The process that was found.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match self {
            Self::Process { pid, .. } | Self::Unexecuted { pid, .. } => Some(*pid),
            Self::Gone { .. } | Self::NeverStarted | Self::Rebooted => None,
        }
    }
}
