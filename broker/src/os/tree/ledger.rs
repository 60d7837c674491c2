//! What is known of each child that has a process, for the main thread and the worker.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procbroker_core::{Input, Members, Pid, Run};
use procbroker_protocol::{ChildId, ExitStatus};

use super::scan::Wanted;
use crate::os::process::pidfd;
use crate::os::tree::cgroup::{Group, Wear};

/// The ledger, locked for moments only.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Each change to it is whole at every point at which a holder could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every child that has a process or may get one, and by what its processes are known.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<Run, Entry>,
    by_child: HashMap<ChildId, Run>,
    /// The broker's own only: the numbers of others can be given away without its knowing.
    by_pid: HashMap<Pid, ChildId>,
    by_group: HashMap<Group, ChildId>,
    /// The own ones whose main process has ended, while something may be left.
    draining: BTreeSet<Run>,
    /// The same of the foreign ones.
    draining_foreign: BTreeSet<Run>,
    /// Everything that an earlier broker has started and this one has taken over, gone or not.
    foreigners: BTreeSet<ChildId>,
    /// The own ones from before this process executed its program anew. They are children of the main thread, as
    /// orphans are.
    elders: BTreeSet<Run>,
}

/// One run of a child.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) leader: Option<Leader>,
    pub(super) life: Life,
    pub(super) group: Option<(Group, Wear)>,
}

/// Who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This process: what descends from it comes to the broker.
    Own,
    /// An earlier broker: nothing of it does.
    Foreign {
        /// The number that its main process had, which may be another's by now.
        number: Option<Pid>,
    },
}

/// The main process of a child.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) pid: Pid,
    pub(super) pidfd: Arc<OwnedFd>,
}

impl Leader {
    /// Whether its number is still taken, by itself or by its process group, so that it cannot mean another.
    pub(super) fn has_number(&self) -> bool {
        let pidfd = self.pidfd.as_fd();
        !pidfd::is_reaped(pidfd) || pidfd::has_group(pidfd) == Ok(true)
    }
}

/// How far the main process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has not ended, as far as the driver has said.
    Alive,
    /// It has ended, and the core does not know yet.
    Unreported(ExitStatus),
    /// The core knows, and that this was left.
    Reported(Members),
}

impl Ledger {
    pub(super) fn prepare(&mut self, run: Run, group: Option<Group>) {
        self.enter(run, Entry::new(Origin::Own, group.map(|group| (group, Wear::Clean))));
    }

    pub(super) fn adopt(&mut self, run: Run, pid: Pid, pidfd: Arc<OwnedFd>) {
        self.by_child.insert(run.child, run);
        self.by_pid.insert(pid, run.child);
        let entry = self.entries.entry(run).or_insert_with(|| Entry::new(Origin::Own, None));
        entry.leader = Some(Leader { pid, pidfd });
    }

    /// A child of this process, from before it executed its program anew.
    pub(super) fn adopt_again(&mut self, run: Run, leader: Leader, group: Option<Group>) {
        self.enter(run, Entry::new(Origin::Own, worn(group)));
        self.elders.insert(run);
        self.adopt(run, leader.pid, leader.pidfd);
    }

    /// Whether the main thread has children that are no orphans.
    pub(super) fn has_elders(&self) -> bool {
        !self.elders.is_empty()
    }

    /// A child of an earlier broker, whose main process was found.
    pub(super) fn adopt_foreign(&mut self, run: Run, leader: Leader, group: Option<Group>) {
        let entry = Entry::new(Origin::Foreign { number: Some(leader.pid) }, worn(group));
        self.foreigners.insert(run.child);
        self.enter(run, Entry { leader: Some(leader), ..entry });
    }

    /// A child of an earlier broker, whose main process is gone; this was its number.
    pub(super) fn adopt_rest(
        &mut self,
        run: Run,
        number: Option<Pid>,
        pidfd: Option<Arc<OwnedFd>>,
        group: Option<Group>,
    ) {
        let leader = number.zip(pidfd).map(|(pid, pidfd)| Leader { pid, pidfd });
        let entry = Entry::new(Origin::Foreign { number }, worn(group));
        self.foreigners.insert(run.child);
        self.draining_foreign.insert(run);
        self.enter(run, Entry { leader, life: Life::Reported(Members::Nothing), ..entry });
    }

    fn enter(&mut self, run: Run, entry: Entry) {
        if let Some((group, _)) = entry.group {
            self.by_group.insert(group, run.child);
        }
        self.entries.insert(run, entry);
        self.by_child.insert(run.child, run);
    }

    pub(super) fn get(&self, run: Run) -> Option<&Entry> {
        self.entries.get(&run)
    }

    /// The living main processes of foreign children.
    pub(super) fn foreign_leaders(&self) -> Vec<(ChildId, Arc<OwnedFd>)> {
        let foreign = self.entries.iter().filter(|(_, entry)| entry.is_foreign());
        let living = foreign.filter_map(|(run, entry)| {
            let leader = entry.leader.as_ref().filter(|_| entry.life == Life::Alive)?;
            Some((run.child, Arc::clone(&leader.pidfd)))
        });
        living.collect()
    }

    pub(super) fn is_foreign(&self, run: Run) -> bool {
        self.get(run).is_some_and(Entry::is_foreign)
    }

    /// Its main process has ended, and what it left has to be looked for.
    pub(super) fn drain(&mut self, run: Run, status: ExitStatus) {
        if let Some(entry) = self.entries.get_mut(&run) {
            entry.life = Life::Unreported(status);
            let draining = match entry.origin {
                Origin::Own => &mut self.draining,
                Origin::Foreign { .. } => &mut self.draining_foreign,
            };
            draining.insert(run);
        }
    }

    /// Its main process has ended, and left nothing.
    pub(super) fn ended(&mut self, run: Run) {
        self.drained(run);
        if let Some(entry) = self.entries.get_mut(&run) {
            entry.life = Life::Reported(Members::Nothing);
        }
    }

    /// Whether the core does not know yet of some main process that it has ended.
    pub(super) fn owes_ends(&self) -> bool {
        let owes = |run: &Run| match self.get(*run).map(|entry| entry.life) {
            Some(Life::Unreported(_)) => true,
            Some(Life::Alive | Life::Reported(_)) | None => false,
        };
        self.draining.iter().chain(&self.draining_foreign).any(owes)
    }

    fn drained(&mut self, run: Run) {
        self.draining.remove(&run);
        self.draining_foreign.remove(&run);
    }

    pub(super) fn draining(&self) -> &BTreeSet<Run> {
        &self.draining
    }

    pub(super) fn draining_foreign(&self) -> &BTreeSet<Run> {
        &self.draining_foreign
    }

    /// Notes what is left of a child, and returns what the core has to be told, if anything.
    pub(super) fn found(&mut self, run: Run, members: Members) -> Option<Input> {
        if members == Members::Nothing {
            self.drained(run);
        }
        let entry = self.entries.get_mut(&run)?;
        let input = match entry.life {
            // A report about it would come before that of its end.
            Life::Alive => return None,
            Life::Unreported(status) => Some(Input::Exited { run, status, members }),
            Life::Reported(known) if known == members => None,
            Life::Reported(_) => Some(Input::MembersLeft { run, members }),
        };
        entry.life = Life::Reported(members);
        input
    }

    /// Notes that a child's group has to be killed, and is worth nothing afterwards.
    pub(super) fn wear_out(&mut self, run: Run) -> Option<Group> {
        let (group, wear) = self.entries.get_mut(&run)?.group.as_mut()?;
        *wear = Wear::Killed;
        Some(*group)
    }

    pub(super) fn release(&mut self, run: Run) -> Option<Entry> {
        let entry = self.entries.remove(&run)?;
        self.drained(run);
        self.elders.remove(&run);
        if self.by_child.get(&run.child) == Some(&run) {
            self.by_child.remove(&run.child);
        }
        if let Some(leader) = &entry.leader
            && self.by_pid.get(&leader.pid) == Some(&run.child)
        {
            self.by_pid.remove(&leader.pid);
        }
        if let Some((group, _)) = entry.group {
            self.by_group.remove(&group);
        }
        Some(entry)
    }

    /// The child whose cgroup this is.
    pub(super) fn owner_of_group(&self, group: Group) -> Option<ChildId> {
        self.by_group.get(&group).copied()
    }

    /// The child whose main process has, or had, this number.
    pub(super) fn owner_of_pid(&self, pid: Option<Pid>) -> Option<ChildId> {
        pid.and_then(|pid| self.by_pid.get(&pid)).copied()
    }

    /// Whether there is such a child.
    pub(super) fn knows(&self, child: ChildId) -> bool {
        self.by_child.contains_key(&child)
    }

    /// Whether this is the main process of an own child, and has not been reaped as far as the driver has said.
    pub(super) fn is_living_leader(&self, pid: Pid) -> bool {
        let run = self.owner_of_pid(Some(pid)).and_then(|child| self.by_child.get(&child));
        let entry = run.and_then(|run| self.entries.get(run)).filter(|entry| entry.life == Life::Alive);
        entry.and_then(|entry| entry.leader.as_ref()).is_some_and(|leader| leader.pid == pid)
    }

    /// The process group of a child.
    pub(super) fn leader_pid(&self, child: ChildId) -> Option<Pid> {
        let entry = self.entries.get(self.by_child.get(&child)?)?;
        match entry.origin {
            Origin::Own => entry.leader.as_ref().map(|leader| leader.pid),
            Origin::Foreign { number } => number,
        }
    }

    /// All that an earlier broker has started and this one has taken over, gone or not.
    pub(super) fn foreigners(&self) -> &BTreeSet<ChildId> {
        &self.foreigners
    }

    /// What tells the processes of these children of an earlier broker.
    pub(super) fn wanted(&self, children: BTreeSet<ChildId>) -> Wanted {
        let mut wanted = Wanted { children, ..Wanted::default() };
        for (run, entry) in &self.entries {
            let is_wanted = entry.is_foreign() && wanted.children.contains(&run.child);
            match &entry.leader {
                Some(leader) if is_wanted => {
                    wanted.leaders.insert(leader.pid, (run.child, leader.clone()));
                }
                Some(leader) if entry.life == Life::Alive => {
                    wanted.others.insert(leader.pid, Arc::clone(&leader.pidfd));
                }
                Some(_) | None => {}
            }
            if let Some((group, _)) = entry.group.filter(|_| is_wanted) {
                wanted.groups.insert(group, run.child);
            }
        }
        wanted
    }
}

impl Entry {
    fn new(origin: Origin, group: Option<(Group, Wear)>) -> Self {
        Self { origin, leader: None, life: Life::Alive, group }
    }

    pub(super) fn is_foreign(&self) -> bool {
        match self.origin {
            Origin::Own => false,
            Origin::Foreign { .. } => true,
        }
    }

    /// Its main process, if the driver has not said that it has ended.
    pub(super) fn living(&self) -> Option<&Leader> {
        self.leader.as_ref().filter(|_| self.life == Life::Alive)
    }
}

/// The group of a child that was not born under this broker: who knows what was killed in it.
fn worn(group: Option<Group>) -> Option<(Group, Wear)> {
    group.map(|group| (group, Wear::Killed))
}

#[cfg(test)]
mod tests {
    use procbroker_core::Incarnation;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_those_from_before_the_program_was_replaced_are_elders_and_only_until_they_are_released() {
        let mut ledger = Ledger::default();
        let run = |number| Run {
            child: ChildId::from_uuid(Uuid::from_u128(number)),
            incarnation: Incarnation::FIRST,
        };
        let pid = Pid::new(std::process::id()).unwrap();
        let leader = Leader { pid, pidfd: Arc::new(pidfd::open(pid).unwrap()) };
        ledger.adopt(run(1), leader.pid, Arc::clone(&leader.pidfd));
        ledger.adopt_foreign(run(2), leader.clone(), None);
        assert!(!ledger.has_elders());
        ledger.adopt_again(run(3), leader.clone(), None);
        ledger.adopt_again(run(4), leader, None);
        ledger.release(run(3));
        assert!(ledger.has_elders());
        ledger.release(run(4));
        assert!(!ledger.has_elders());
    }
}
