//! Whether a process that has spoken is one of a child's, found out without waiting for anything.

use procbroker_core::{Pid, Run};

use super::Containment;
use crate::os::process::proc::ProcessStat;

/// How many ancestors are asked, at most.
const ANCESTORS_MAX: usize = 64;

impl Containment {
    /// Whether a process is the main one of a child, or descends from it: by its ancestors, its session, its process group or
    /// its control group. One that has left all of these, or has been reaped, is not known.
    ///
    /// The environment, which tells more, is not looked at: to read that of a process that hangs may take forever.
    #[must_use]
    pub fn is_of(&self, run: Run, pid: Pid) -> bool {
        let table = self.table.lock();
        let Some(entry) = table.get(run) else { return false };
        let (leader, group) = (entry.leader.as_ref().map(|leader| leader.pid), entry.group);
        drop(table);
        let Some(leader) = leader else { return false };
        let in_group = || {
            let cgroups = self.cgroups.as_ref().zip(group);
            cgroups.is_some_and(|(cgroups, (group, _))| cgroups.group_of(pid) == Some(group))
        };
        descends(pid, leader) || in_group()
    }
}

fn descends(pid: Pid, leader: Pid) -> bool {
    let mut next = Some(pid);
    for _ in 0..ANCESTORS_MAX {
        let Some(pid) = next else { return false };
        if pid == leader {
            return true;
        }
        let Some(stat) = ProcessStat::read(pid) else { return false };
        if [stat.session, stat.group].contains(&Some(leader)) {
            return true;
        }
        next = stat.parent;
    }
    false
}
