//! Whether a process that has spoken is one of a child's, found out without waiting for anything.

use procbroker_core::{Pid, Run};

use super::ProcessTrees;
use crate::os::process::proc::ProcessStat;

/// How many ancestors are asked, at most.
const ANCESTORS_MAX: usize = 64;

impl ProcessTrees {
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
        let Some(stat) = ProcessStat::read(pid) else { return false };
        let in_group = || {
            let cgroups = self.cgroups.as_ref().zip(group);
            cgroups.is_some_and(|(cgroups, (group, _))| cgroups.group_of(pid) == Some(group))
        };
        // Most are found by what is their own: only then are their ancestors asked, one after the other.
        pid == leader || is_beside(stat, leader) || in_group() || descends(stat, leader)
    }
}

/// Whether a process is in the session or in the process group of a child's main process.
fn is_beside(stat: ProcessStat, leader: Pid) -> bool {
    [stat.session, stat.group].contains(&Some(leader))
}

fn descends(stat: ProcessStat, leader: Pid) -> bool {
    let mut next = stat.parent;
    for _ in 0..ANCESTORS_MAX {
        let Some(pid) = next else { return false };
        if pid == leader {
            return true;
        }
        let Some(stat) = ProcessStat::read(pid) else { return false };
        if is_beside(stat, leader) {
            return true;
        }
        next = stat.parent;
    }
    false
}
