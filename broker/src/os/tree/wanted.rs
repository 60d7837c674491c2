//! What a scan of all processes looks for: the children, and by what their processes are known.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::cgroup::Group;
use super::leader::GroupLeader;
use crate::os::process::pidfd;

/// What is searched for.
#[derive(Debug, Default)]
pub(super) struct ScanTargets {
    pub(super) children: BTreeSet<ChildId>,
    /// Their main processes, by number.
    pub(super) leaders: HashMap<Pid, (ChildId, GroupLeader)>,
    pub(super) groups: HashMap<Group, ChildId>,
    /// The main processes of others, which need no look as long as they live.
    pub(super) others: HashMap<Pid, Arc<OwnedFd>>,
}

impl ScanTargets {
    /// Whether this is the main process of another child, alive.
    pub(super) fn is_passed_over(&self, pid: Pid) -> bool {
        self.others.get(&pid).is_some_and(|pidfd| !pidfd::has_ended(pidfd.as_fd()))
    }

    /// Whose session or group has this number. To be asked after it was read.
    pub(super) fn owner_of_number(&self, number: Option<Pid>) -> Option<ChildId> {
        let (child, leader) = self.leaders.get(&number?)?;
        leader.has_number().then_some(*child)
    }
}
