//! Adopts the children that a previous broker has left.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::channel;

use procbroker_core::{Kinship, Members, Run};

use super::ProcessTrees;
use super::job::WorkerJob;
use super::leader::GroupLeader;
use crate::os::process::whereabouts::Whereabouts;
use crate::os::tree::cgroup::Group;

impl ProcessTrees {
    /// Adopts all of them, before anything is spawned. [`Reaper::adopt`](crate::os::process::reaper::Reaper::adopt) has
    /// to be called before, for each.
    ///
    /// Returns, when it is known, what is left of each that is gone. It stays adopted until it is released, as every
    /// other, and changes are reported.
    pub fn adopt_all(&mut self, recovered: &[(Run, Whereabouts)]) -> HashMap<Run, Members> {
        let groups = self.claim_groups(recovered);
        let mut is_any_gone = false;
        for (run, recovered) in recovered {
            let (run, group) = (*run, groups.get(run).copied());
            let mut table = self.table.lock();
            match recovered {
                Whereabouts::Process { pid, pidfd, kinship, .. } => {
                    let leader = GroupLeader { pid: *pid, pidfd: Arc::clone(pidfd) };
                    match kinship {
                        Kinship::Own => table.adopt_after_upgrade(run, leader, group),
                        Kinship::Foreign => table.adopt_living(run, leader, group),
                    }
                }
                Whereabouts::Unexecuted { pid, pidfd } => {
                    let leader = GroupLeader { pid: *pid, pidfd: Arc::clone(pidfd) };
                    table.adopt_living(run, leader, group);
                }
                Whereabouts::Gone { pid, pidfd, .. } => {
                    table.adopt_ended(run, *pid, pidfd.clone(), group);
                    is_any_gone = true;
                }
                Whereabouts::NeverStarted | Whereabouts::Rebooted => {}
            }
        }
        if is_any_gone { self.survey() } else { HashMap::new() }
    }

    /// Which of them the kernel has killed something of for want of memory, as far as it counts that.
    #[must_use]
    pub fn out_of_memory(&self, recovered: &[(Run, Whereabouts)]) -> HashSet<Run> {
        let Some(cgroups) = &self.cgroups else { return HashSet::new() };
        let is_one = |(run, whereabouts): &&(Run, Whereabouts)| match whereabouts {
            Whereabouts::Process { cgroup: Some(number), .. }
            | Whereabouts::Gone { cgroup: Some(number), .. } => {
                cgroups.had_killed_for_memory(*number) || self.has_run_out_of_memory(*run)
            }
            Whereabouts::Process { cgroup: None, .. } => self.has_run_out_of_memory(*run),
            Whereabouts::Unexecuted { .. }
            | Whereabouts::Gone { cgroup: None, .. }
            | Whereabouts::NeverStarted
            | Whereabouts::Rebooted => false,
        };
        recovered.iter().filter(is_one).map(|(run, _)| *run).collect()
    }

    fn survey(&self) -> HashMap<Run, Members> {
        let (answer, answered) = channel();
        self.orders.give(WorkerJob::Survey { answer });
        answered.recv().unwrap_or_default()
    }

    /// Which cgroup is whose.
    ///
    /// A record can be late: a group that became empty may have been given to another child when the broker was
    /// killed. So it is that of the one that lives in it; and of two that are both gone, neither's.
    fn claim_groups(&self, recovered: &[(Run, Whereabouts)]) -> HashMap<Run, Group> {
        let Some(cgroups) = &self.cgroups else { return HashMap::new() };
        let mut claimed = HashMap::new();
        let mut of_gone: HashMap<u64, Vec<Run>> = HashMap::new();
        for (run, recovered) in recovered {
            match recovered {
                Whereabouts::Process { pid, cgroup, .. } => {
                    let number = cgroup.or_else(|| cgroups.group_of(*pid).map(Group::number));
                    let group = number.and_then(|number| cgroups.adopt(number));
                    claimed.extend(group.map(|group| (*run, group)));
                }
                Whereabouts::Unexecuted { pid, .. } => {
                    let group = cgroups.group_of(*pid).and_then(|group| cgroups.adopt(group.number()));
                    claimed.extend(group.map(|group| (*run, group)));
                }
                Whereabouts::Gone { cgroup: Some(number), .. } => {
                    of_gone.entry(*number).or_default().push(*run);
                }
                Whereabouts::Gone { cgroup: None, .. }
                | Whereabouts::NeverStarted
                | Whereabouts::Rebooted => {}
            }
        }
        for (number, runs) in of_gone {
            if let [run] = runs.as_slice() {
                claimed.extend(cgroups.adopt(number).map(|group| (*run, group)));
            }
        }
        claimed
    }
}
