//! Takes over what an earlier broker has left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

use procbroker_core::{Members, Run};

use super::Containment;
use super::ledger::Leader;
use super::worker::Job;
use crate::os::tree::cgroup::Group;
use crate::recovery::processes::{Parentage, Recovered};

impl Containment {
    /// Takes all of them over, before anything is spawned. [`Reaper::take_over`](crate::os::process::reaper::Reaper::take_over)
    /// has to be called before, for each.
    ///
    /// Returns, when it is known, what is left of each that is gone. It stays adopted until it is released, as every
    /// other, and changes are reported.
    pub fn take_over(&mut self, recovered: &[(Run, Recovered)]) -> HashMap<Run, Members> {
        let groups = self.claim_groups(recovered);
        let mut is_any_gone = false;
        for (run, recovered) in recovered {
            let (run, group) = (*run, groups.get(run).copied());
            let mut ledger = self.ledger.lock();
            match recovered {
                Recovered::Process { pid, pidfd, parentage, .. } => {
                    let leader = Leader { pid: *pid, pidfd: Arc::clone(pidfd) };
                    match parentage {
                        Parentage::Own => ledger.adopt_again(run, leader, group),
                        Parentage::Foreign => ledger.adopt_foreign(run, leader, group),
                    }
                }
                Recovered::Gone { pid, pidfd, .. } => {
                    ledger.adopt_rest(run, *pid, pidfd.clone(), group);
                    is_any_gone = true;
                }
                Recovered::NeverStarted | Recovered::Rebooted => {}
            }
        }
        if is_any_gone { self.survey() } else { HashMap::new() }
    }

    fn survey(&self) -> HashMap<Run, Members> {
        let (answer, answered) = channel();
        self.orders.give(Job::Survey { answer });
        answered.recv().unwrap_or_default()
    }

    /// Which cgroup is whose.
    ///
    /// A record can be late: a group that became empty may have been given to another child when the broker was
    /// killed. So it is that of the one that lives in it; and of two that are both gone, neither's.
    fn claim_groups(&self, recovered: &[(Run, Recovered)]) -> HashMap<Run, Group> {
        let Some(cgroups) = &self.cgroups else { return HashMap::new() };
        let mut claimed = HashMap::new();
        let mut of_gone: HashMap<u64, Vec<Run>> = HashMap::new();
        for (run, recovered) in recovered {
            match recovered {
                Recovered::Process { pid, cgroup, .. } => {
                    let number = cgroup.or_else(|| cgroups.group_of(*pid).map(Group::number));
                    let group = number.and_then(|number| cgroups.adopt(number));
                    claimed.extend(group.map(|group| (*run, group)));
                }
                Recovered::Gone { cgroup: Some(number), .. } => {
                    of_gone.entry(*number).or_default().push(*run);
                }
                Recovered::Gone { cgroup: None, .. } | Recovered::NeverStarted | Recovered::Rebooted => {}
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
