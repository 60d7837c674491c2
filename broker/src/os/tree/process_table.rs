//! What is known of each child that has a process, for the driver and the worker.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procbroker_core::{Input, Members, Pid, Run};
use procbroker_protocol::{ChildId, ExitStatus};

use super::leader::GroupLeader;
use super::search::{PerSearch, Search};
use super::wanted::ScanTargets;
use crate::os::process::identity::{Birthmark, BootId, ProcessIdentity};
use crate::os::tree::cgroup::{Group, Taint};

/// The table, locked for moments only.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedTable(Arc<Mutex<ProcessTable>>);

impl SharedTable {
    pub(super) fn lock(&self) -> MutexGuard<'_, ProcessTable> {
        // Each change to it is whole at every point at which a holder could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every child that has a process or may get one, and by what its processes are known.
#[derive(Debug, Default)]
pub(super) struct ProcessTable {
    entries: HashMap<Run, ProcessEntry>,
    by_child: HashMap<ChildId, Run>,
    /// The broker's own only: the numbers of others can be given away without its knowing.
    by_pid: HashMap<Pid, ChildId>,
    by_group: HashMap<Group, ChildId>,
    /// The runs whose main process has ended, while something may be left.
    draining: PerSearch<BTreeSet<Run>>,
    /// Everything that an earlier broker has started and this one has taken over, gone or not.
    adopted: BTreeSet<ChildId>,
    /// The own ones from before this process executed its program anew. They are children of the main thread, as
    /// orphans are.
    from_before_upgrade: BTreeSet<Run>,
}

/// One run of a child.
#[derive(Debug)]
pub(super) struct ProcessEntry {
    pub(super) search: Search,
    pub(super) leader: Option<GroupLeader>,
    /// The number of its process group, which is that of its main process. It may be another's once that is gone.
    group_number: Option<Pid>,
    pub(super) life: Life,
    pub(super) group: Option<(Group, Taint)>,
    /// What tells its main process from others of its number, once that was asked for.
    birthmark: Option<Birthmark>,
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

impl ProcessTable {
    pub(super) fn prepare(&mut self, run: Run, group: Option<(Group, Taint)>) {
        self.enter(run, ProcessEntry::new(Search::Inherited, group));
    }

    pub(super) fn adopt(&mut self, run: Run, pid: Pid, pidfd: Arc<OwnedFd>) {
        self.by_child.insert(run.child, run);
        self.by_pid.insert(pid, run.child);
        let entry = self.entries.entry(run).or_insert_with(|| ProcessEntry::new(Search::Inherited, None));
        entry.group_number = Some(pid);
        entry.leader = Some(GroupLeader { pid, pidfd });
        entry.birthmark = None;
    }

    /// What identifies the main process of a run for good.
    pub(super) fn identity(&mut self, run: Run) -> Option<ProcessIdentity> {
        let entry = self.entries.get_mut(&run)?;
        let GroupLeader { pid, pidfd } = entry.leader.as_ref()?;
        let cgroup = entry.group.map(|(group, _)| group.number());
        let identity = match entry.birthmark {
            Some(birthmark) => {
                ProcessIdentity { pid: *pid, birthmark, boot: BootId::current().ok()?, cgroup }
            }
            None => ProcessIdentity::of(*pid, pidfd.as_fd(), cgroup).ok()?,
        };
        entry.birthmark = Some(identity.birthmark);
        Some(identity)
    }

    /// A child of this process, from before it executed its program anew.
    pub(super) fn adopt_after_upgrade(&mut self, run: Run, leader: GroupLeader, group: Option<Group>) {
        self.enter(run, ProcessEntry::new(Search::Inherited, tainted(group)));
        self.from_before_upgrade.insert(run);
        self.adopt(run, leader.pid, leader.pidfd);
    }

    /// Whether the main thread has children that are no orphans.
    pub(super) fn has_children_from_before_upgrade(&self) -> bool {
        !self.from_before_upgrade.is_empty()
    }

    /// A child of an earlier broker, whose main process was found.
    pub(super) fn adopt_living(&mut self, run: Run, leader: GroupLeader, group: Option<Group>) {
        let entry = ProcessEntry::new(Search::Everywhere, tainted(group));
        self.adopted.insert(run.child);
        self.enter(run, ProcessEntry { group_number: Some(leader.pid), leader: Some(leader), ..entry });
    }

    /// A child of an earlier broker, whose main process is gone; this was its number.
    pub(super) fn adopt_ended(
        &mut self,
        run: Run,
        number: Option<Pid>,
        pidfd: Option<Arc<OwnedFd>>,
        group: Option<Group>,
    ) {
        let leader = number.zip(pidfd).map(|(pid, pidfd)| GroupLeader { pid, pidfd });
        let entry = ProcessEntry::new(Search::Everywhere, tainted(group));
        self.adopted.insert(run.child);
        self.draining.of_mut(Search::Everywhere).insert(run);
        let life = Life::Reported(Members::Nothing);
        self.enter(run, ProcessEntry { leader, group_number: number, life, ..entry });
    }

    fn enter(&mut self, run: Run, entry: ProcessEntry) {
        if let Some((group, _)) = entry.group {
            self.by_group.insert(group, run.child);
        }
        self.entries.insert(run, entry);
        self.by_child.insert(run.child, run);
    }

    pub(super) fn get(&self, run: Run) -> Option<&ProcessEntry> {
        self.entries.get(&run)
    }

    /// The living main processes of adopted children.
    pub(super) fn adopted_leaders(&self) -> Vec<(ChildId, Arc<OwnedFd>)> {
        let adopted = self.entries.iter().filter(|(_, entry)| entry.search == Search::Everywhere);
        adopted.filter_map(|(run, entry)| Some((run.child, Arc::clone(&entry.living()?.pidfd)))).collect()
    }

    /// The way in which its processes are found.
    pub(super) fn search(&self, run: Run) -> Search {
        self.get(run).map_or(Search::Inherited, |entry| entry.search)
    }

    /// Its main process has ended, and what it left has to be looked for.
    pub(super) fn drain(&mut self, run: Run, status: ExitStatus) {
        if let Some(entry) = self.entries.get_mut(&run) {
            entry.life = Life::Unreported(status);
            self.draining.of_mut(entry.search).insert(run);
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
        Search::ALL.into_iter().flat_map(|search| self.draining(search)).any(owes)
    }

    fn drained(&mut self, run: Run) {
        for search in Search::ALL {
            self.draining.of_mut(search).remove(&run);
        }
    }

    /// The runs whose main process has ended, while something may be left.
    pub(super) fn draining(&self, search: Search) -> &BTreeSet<Run> {
        self.draining.of(search)
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
    pub(super) fn taint_by_kill(&mut self, run: Run) {
        if let Some((_, taint)) = self.entries.get_mut(&run).and_then(|entry| entry.group.as_mut()) {
            *taint = Taint::Killed;
        }
    }

    pub(super) fn release(&mut self, run: Run) -> Option<ProcessEntry> {
        let entry = self.entries.remove(&run)?;
        self.drained(run);
        self.from_before_upgrade.remove(&run);
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

    /// The number of the process group of a child.
    pub(super) fn group_number(&self, child: ChildId) -> Option<Pid> {
        self.entries.get(self.by_child.get(&child)?)?.group_number
    }

    /// All that an earlier broker has started and this one has taken over, gone or not.
    pub(super) fn adopted(&self) -> &BTreeSet<ChildId> {
        &self.adopted
    }

    /// What tells the processes of these children of an earlier broker.
    pub(super) fn wanted(&self, children: BTreeSet<ChildId>) -> ScanTargets {
        let mut wanted = ScanTargets { children, ..ScanTargets::default() };
        for (run, entry) in &self.entries {
            let is_wanted = entry.search == Search::Everywhere && wanted.children.contains(&run.child);
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

impl ProcessEntry {
    pub(super) fn new(search: Search, group: Option<(Group, Taint)>) -> Self {
        Self { search, leader: None, group_number: None, life: Life::Alive, group, birthmark: None }
    }

    /// Its main process, if the driver has not said that it has ended.
    pub(super) fn living(&self) -> Option<&GroupLeader> {
        self.leader.as_ref().filter(|_| self.life == Life::Alive)
    }
}

/// The group of a child that was not born under this broker: who knows what was killed in it.
fn tainted(group: Option<Group>) -> Option<(Group, Taint)> {
    group.map(|group| (group, Taint::Killed))
}

#[cfg(test)]
mod tests {
    use procbroker_core::Incarnation;
    use uuid::Uuid;

    use super::*;
    use crate::os::process::pidfd;

    #[test]
    fn only_those_from_before_the_program_was_replaced_are_elders_and_only_until_they_are_released() {
        let mut table = ProcessTable::default();
        let run = |number| Run {
            child: ChildId::from_uuid(Uuid::from_u128(number)),
            incarnation: Incarnation::FIRST,
        };
        let pid = Pid::new(std::process::id()).unwrap();
        let leader = GroupLeader { pid, pidfd: Arc::new(pidfd::open(pid).unwrap()) };
        table.adopt(run(1), leader.pid, Arc::clone(&leader.pidfd));
        table.adopt_living(run(2), leader.clone(), None);
        assert!(!table.has_children_from_before_upgrade());
        table.adopt_after_upgrade(run(3), leader.clone(), None);
        table.adopt_after_upgrade(run(4), leader, None);
        table.release(run(3));
        assert!(table.has_children_from_before_upgrade());
        table.release(run(4));
        assert!(!table.has_children_from_before_upgrade());
    }
}
