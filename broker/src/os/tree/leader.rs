//! The main process of a child, held for good.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::killpg;
use procbroker_core::{Pid, SignalOutcome};
use procbroker_protocol::Signal;

use crate::os::process::pidfd;

/// The main process of a child.
#[derive(Clone, Debug)]
pub(super) struct GroupLeader {
    pub(super) pid: Pid,
    pub(super) pidfd: Arc<OwnedFd>,
}

impl GroupLeader {
    /// Whether its number is still taken, by itself or by its process group, so that it cannot mean another.
    pub(super) fn has_number(&self) -> bool {
        let pidfd = self.pidfd.as_fd();
        !pidfd::is_reaped(pidfd) || pidfd::has_group(pidfd) == Ok(true)
    }

    /// Sends a signal to the process group; none when each of its processes has to be looked up. Its number means this group
    /// only for who reaps the leader, and as long as they have not.
    pub(super) fn signal_group(&self, is_number_its: bool, signal: Signal) -> Option<SignalOutcome> {
        match pidfd::send_to_group(self.pidfd.as_fd(), signal) {
            Err(Errno::EINVAL) => {}
            result => return Some(pidfd::outcome(result)),
        }
        // Before Linux 6.9 there is only the number.
        if !is_number_its || pidfd::has_ended(self.pidfd.as_fd()) {
            return None;
        }
        let group = nix::unistd::Pid::from_raw(self.pid.get().cast_signed());
        let signal = nix::sys::signal::Signal::try_from(signal.number()).ok()?;
        Some(pidfd::outcome(killpg(group, signal)))
    }
}
