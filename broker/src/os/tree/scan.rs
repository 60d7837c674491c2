//! Looks through all of `/proc` for what belongs to children of an earlier broker: nothing of them comes to this one
//! when it loses its parent.
//!
//! What is taken for a child's has been held by a pidfd while it was looked at. Its cgroup proves whose it is, its
//! mark, its parent, that it was seen to be before, and an orphan's open output; the number of its session or group only while
//! that number cannot have been given to another.

use std::collections::HashSet;
use std::os::fd::AsFd;

use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::walk::{DEPTH_MAX, LiveProcess, ProcessKey, Visitor, Walker};
use super::wanted::ScanTargets;
use crate::os::process::identity;
use crate::os::process::mark::{self, Mark, Patience, settled_mark};
use crate::os::process::pidfd;
use crate::os::process::proc::{self, ProcessStat, stat_of};
use crate::os::spawn::LaunchName;

/// How many processes above the broker are known.
const ANCESTORS_MAX: usize = 64;

impl Walker<'_> {
    /// Visits everything that is known to belong to one of these children. Returns whether all could be looked at.
    pub(super) fn everywhere(&mut self, wanted: &ScanTargets, visitor: &mut dyn Visitor) -> bool {
        self.begin();
        self.seen = Some(HashSet::new());
        self.is_unclear = false;
        self.heirs = heirs(self.inheritance.broker());
        let mut patience = Patience::for_scan();
        match proc::all_processes() {
            Ok(pids) => {
                for pid in pids.filter(|&pid| !wanted.is_passed_over(pid)) {
                    self.inspect(pid, (wanted, &mut patience), visitor);
                }
            }
            Err(_) => self.is_unclear = true,
        }
        self.seen = None;
        !self.is_unclear
    }

    fn inspect(
        &mut self,
        pid: Pid,
        (wanted, patience): (&ScanTargets, &mut Patience),
        visitor: &mut dyn Visitor,
    ) {
        let looked_at = pidfd::open(pid).and_then(|pidfd| {
            let stat = stat_of(pid, pidfd.as_fd())?;
            Ok((stat, identity::birthmark(pid, pidfd.as_fd())?, pidfd))
        });
        let (stat, birthmark, pidfd) = match looked_at {
            Ok((stat, ..)) if stat.is_zombie || stat.is_of_kernel => return,
            Ok(found) => found,
            Err(errno) => {
                self.is_unclear |= !pidfd::means_gone(errno);
                return;
            }
        };
        let identity = (pid, birthmark);
        let Some(owner) = self.wanted_owner(identity, &stat, wanted, patience) else { return };
        // What was read meanwhile was another's if it has been reaped.
        if !pidfd::is_reaped(pidfd.as_fd()) {
            self.descend(&LiveProcess { stat, identity, pidfd, owner: Some(owner) }, DEPTH_MAX, visitor);
        }
    }

    fn wanted_owner(
        &mut self,
        identity: ProcessKey,
        stat: &ProcessStat,
        wanted: &ScanTargets,
        patience: &mut Patience,
    ) -> Option<ChildId> {
        if let Some(&owner) = self.known.owners.get(&identity) {
            return Some(owner).filter(|owner| wanted.children.contains(owner));
        }
        let by_number = wanted.owner_of_number(stat.session).or_else(|| wanted.owner_of_number(stat.group));
        if by_number.is_some() {
            return by_number;
        }
        let cgroups = self.cgroups.filter(|_| !wanted.groups.is_empty());
        let group = cgroups.and_then(|cgroups| cgroups.group_of(stat.pid));
        let by_group = group.and_then(|group| wanted.groups.get(&group));
        if by_group.is_some() {
            return by_group.copied();
        }
        let is_wanted = |child: &ChildId| wanted.children.contains(child);
        let mark = if self.known.is_without_mark_for_long(identity) {
            mark::mark(stat.pid)
        } else {
            settled_mark(stat.pid, patience)
        };
        if mark != Mark::Changing {
            self.known.has_settled(identity);
        }
        match mark {
            Mark::Child(child) => Some(child).filter(is_wanted),
            Mark::Nobody => on_its_way(stat.pid, wanted).or_else(|| {
                let holds = || self.pipes.held_by(stat.pid).filter(is_wanted);
                self.is_orphan(stat).then(holds).flatten()
            }),
            Mark::Changing => {
                self.is_unclear |= self.known.may_come_to_have_a_mark(identity);
                None
            }
        }
    }
    /// Whether a process may be what the broker before this one has left, which was given to somebody above both. Who looks
    /// into a child's output from outside has another parent, or is of its session.
    fn is_orphan(&self, stat: &ProcessStat) -> bool {
        let heir = self.heirs.iter().find(|heir| Some(heir.pid) == stat.parent);
        heir.is_some_and(|heir| heir.session != stat.session)
    }
}

/// Who may have inherited what the broker before this one has left: the processes above this one, and the system's init.
fn heirs(broker: Pid) -> Vec<ProcessStat> {
    let above = |stat: &ProcessStat| ProcessStat::read(stat.parent?);
    let init = Pid::new(1).and_then(ProcessStat::read);
    let above = std::iter::successors(ProcessStat::read(broker), above).skip(1).take(ANCESTORS_MAX);
    above.chain(init).collect()
}

/// Whose process is on the way to its program, and has no mark so far: a cleanup, or a command that asks a child.
fn on_its_way(pid: Pid, wanted: &ScanTargets) -> Option<ChildId> {
    let name = proc::thread_name(pid).filter(|name| LaunchName::is_one(name))?;
    wanted.children.iter().copied().find(|child| LaunchName::of(*child).is(&name))
}
