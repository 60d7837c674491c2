//! Finds the processes that an earlier broker has left: what is on record of them, and what has become of them.
//!
//! A process on record is opened and verified, which takes microseconds. A child without one was about to be started
//! when the broker was killed: if it was started, it has its mark in its environment and leads a session, and is
//! searched for in all of `/proc`, once for all of them.

mod search;
mod sought;
#[cfg(test)]
mod tests;
mod underway;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use procbroker_core::{Kinship, Pid, Run};
use procbroker_protocol::ChildId;
use thiserror::Error;

use crate::os::process::identity::{self, BootId, Lookup, ProcessIdentity};
use crate::os::process::pidfd;
use crate::os::process::proc::{self, ProcessStat};
use crate::os::process::whereabouts::Whereabouts;
use sought::Lost;
pub use sought::{LaunchProgress, Sought};

/// A child on record that may have a process.
#[derive(Debug)]
pub struct Expected {
    /// The latest run of the child.
    pub run: Run,
    /// The user whose its processes become.
    pub user: u32,
    /// Its main process, as far as it is on record.
    pub process: Option<ProcessIdentity>,
    /// Its pidfd, as it was passed on by the earlier broker.
    pub passed: Option<Arc<OwnedFd>>,
    /// Whether it can have been started, if no process is on record.
    pub launch: LaunchProgress,
    /// Which of its processes there can be.
    pub sought: Sought,
}

/// It cannot be found out what there is.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// A process cannot be opened.
    #[error(
        "cannot open process {pid} of child {child} to see whether it is still the same: {errno}; every child that is \
         recovered needs a descriptor: raise the limit on open files (ulimit -n)"
    )]
    Open {
        /// The child whose process it may be.
        child: ChildId,
        /// The number of the process.
        pid: Pid,
        /// What the system said.
        errno: Errno,
    },
    /// The processes of the system cannot be looked through.
    #[error(
        "cannot search /proc for children that the last broker was about to start when it ended: {0}; raise the limit \
         on open files (ulimit -n)"
    )]
    Search(#[source] io::Error),
}

/// Finds out what has become of these children, in the same order.
///
/// # Errors
/// When it cannot be told of one: to take it for one that has ended would be worse.
pub fn recover(expected: Vec<Expected>) -> Result<Vec<(Run, Whereabouts)>, RecoveryError> {
    let own = own_children();
    let mut lost = BTreeMap::new();
    let mut recovered = Vec::with_capacity(expected.len());
    for Expected { run, user, process, passed, launch, sought } in expected {
        let found = match (process, passed) {
            (Some(process), passed) => {
                let found = on_record(run.child, &process, passed)?;
                // An earlier broker may have found it on its way, and died before it had ended it.
                if launch.may_be_underway() { found.held_on_its_way(run.child, user) } else { found }
            }
            (None, Some(passed)) => passed_on(passed, sought),
            (None, None) => match launch {
                LaunchProgress::RuledOut => Whereabouts::NeverStarted,
                LaunchProgress::Possible | LaunchProgress::Underway | LaunchProgress::Executed => {
                    lost.insert(run.child, Lost { user, sought, launch, index: recovered.len() });
                    if launch == LaunchProgress::Underway {
                        Whereabouts::NeverStarted
                    } else {
                        Whereabouts::gone(None, None, None)
                    }
                }
            },
        };
        recovered.push((run, found));
    }
    if !lost.is_empty() {
        let living = recovered.iter().filter_map(|(_, found)| found.pid()).collect();
        for (child, found_leader) in search::leaders(&lost, &living).map_err(RecoveryError::Search)? {
            if let Some((_, found)) = lost.get(&child).and_then(|lost| recovered.get_mut(lost.index)) {
                *found = found_leader;
            }
        }
    }
    for (_, found) in &mut recovered {
        found.tell_kinship(&own);
    }
    Ok(recovered)
}

/// A process on record. One that was passed on is the same if the record says so too.
fn on_record(
    child: ChildId,
    identity: &ProcessIdentity,
    passed: Option<Arc<OwnedFd>>,
) -> Result<Whereabouts, RecoveryError> {
    let ProcessIdentity { pid, cgroup, .. } = *identity;
    if BootId::current().is_ok_and(|boot| boot != identity.boot) {
        return Ok(Whereabouts::Rebooted);
    }
    if let Some(passed) = passed.filter(|passed| identity.is_of(passed.as_fd())) {
        return Ok(if pidfd::is_reaped(passed.as_fd()) {
            Whereabouts::gone(Some(pid), Some(passed), cgroup)
        } else {
            Whereabouts::process(pid, passed, cgroup)
        });
    }
    match identity::find(child, identity) {
        Ok(Lookup::Same(pidfd)) => Ok(Whereabouts::process(pid, Arc::new(pidfd), cgroup)),
        Ok(Lookup::Gone) => Ok(Whereabouts::gone(Some(pid), None, cgroup)),
        Ok(Lookup::OtherBoot) => Ok(Whereabouts::Rebooted),
        Err(errno) => Err(RecoveryError::Open { child, pid, errno }),
    }
}

/// A process that was passed on before it was on record.
fn passed_on(passed: Arc<OwnedFd>, sought: Sought) -> Whereabouts {
    match pidfd::number(passed.as_fd()) {
        // It is found again with everything else that has the mark of the child.
        Some(pid) if !sought.may_be(pid) => Whereabouts::gone(None, None, None),
        Some(pid) => Whereabouts::process(pid, passed, None),
        None => Whereabouts::gone(None, Some(passed), None),
    }
}

impl Whereabouts {
    /// If it is on the way to its program, it is held there.
    fn held_on_its_way(self, child: ChildId, user: u32) -> Self {
        match self {
            Self::Process { pid, pidfd, .. } if underway::hold(child, user, pid, pidfd.as_fd()) => {
                Self::Unexecuted { pid, pidfd }
            }
            Self::Process { .. }
            | Self::Gone { .. }
            | Self::Unexecuted { .. }
            | Self::NeverStarted
            | Self::Rebooted => self,
        }
    }

    fn tell_kinship(&mut self, own: &HashSet<Pid>) {
        if let Self::Process { pid, pidfd, kinship, .. } = self
            && own.contains(pid)
            // One that is not the broker's child can be reaped, and its number be given to one that is.
            && !pidfd::is_reaped(pidfd.as_fd())
        {
            *kinship = Kinship::Own;
        }
    }
}

/// The broker's own children, after it has replaced its program: none after a crash.
fn own_children() -> HashSet<Pid> {
    let Some(broker) = Pid::new(std::process::id()) else { return HashSet::new() };
    let listed = proc::children(broker);
    if !listed.is_empty() || proc::lists_children() {
        return listed.into_iter().collect();
    }
    let own = |stat: &ProcessStat| stat.parent == Some(broker);
    proc::parents().iter().filter(|stat| own(stat)).map(|stat| stat.pid).collect()
}
