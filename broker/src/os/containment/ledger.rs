//! What is known of each child that has a process, for the main thread and the worker.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procbroker_core::{Input, Members, Pid, Run};
use procbroker_protocol::{ChildId, ExitStatus};

use crate::os::cgroup::{Group, Wear};

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
    by_pid: HashMap<Pid, ChildId>,
    by_group: HashMap<Group, ChildId>,
    /// Those whose main process has ended, while something may be left.
    draining: BTreeSet<Run>,
}

/// One run of a child.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) leader: Option<Leader>,
    pub(super) group: Option<(Group, Wear)>,
}

/// The main process of a child.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) pid: Pid,
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) life: Life,
}

/// How far the main process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has not been reaped, as far as the driver has said.
    Alive,
    /// It has been reaped, and the core does not know yet.
    Unreported(ExitStatus),
    /// The core knows, and that this was left.
    Reported(Members),
}

impl Ledger {
    pub(super) fn prepare(&mut self, run: Run, group: Option<Group>) {
        if let Some(group) = group {
            self.by_group.insert(group, run.child);
        }
        let group = group.map(|group| (group, Wear::Clean));
        self.entries.insert(run, Entry { leader: None, group });
        self.by_child.insert(run.child, run);
    }

    pub(super) fn adopt(&mut self, run: Run, pid: Pid, pidfd: OwnedFd) {
        self.by_child.insert(run.child, run);
        self.by_pid.insert(pid, run.child);
        let leader = Leader { pid, pidfd: Arc::new(pidfd), life: Life::Alive };
        self.entries.entry(run).or_default().leader = Some(leader);
    }

    pub(super) fn get(&self, run: Run) -> Option<&Entry> {
        self.entries.get(&run)
    }

    /// Its main process has been reaped, and what it left has to be looked for.
    pub(super) fn drain(&mut self, run: Run, status: ExitStatus) {
        if let Some(leader) = self.entries.get_mut(&run).and_then(|entry| entry.leader.as_mut()) {
            leader.life = Life::Unreported(status);
            self.draining.insert(run);
        }
    }

    /// Its main process has been reaped, and left nothing.
    pub(super) fn ended(&mut self, run: Run) {
        self.draining.remove(&run);
        if let Some(leader) = self.entries.get_mut(&run).and_then(|entry| entry.leader.as_mut()) {
            leader.life = Life::Reported(Members::Nothing);
        }
    }

    pub(super) fn draining(&self) -> &BTreeSet<Run> {
        &self.draining
    }

    /// Notes what is left of a child, and returns what the core has to be told, if anything.
    pub(super) fn found(&mut self, run: Run, members: Members) -> Option<Input> {
        let leader = self.entries.get_mut(&run)?.leader.as_mut()?;
        let before = leader.life;
        if members == Members::Nothing {
            self.draining.remove(&run);
        }
        let input = match before {
            // A report about it would come before that of its end.
            Life::Alive => return None,
            Life::Unreported(status) => Some(Input::Exited { run, status, members }),
            Life::Reported(known) if known == members => None,
            Life::Reported(_) => Some(Input::MembersLeft { run, members }),
        };
        leader.life = Life::Reported(members);
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
        self.draining.remove(&run);
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

    /// Whether this is the main process of a child, and has not been reaped as far as the driver has said.
    pub(super) fn is_living_leader(&self, pid: Pid) -> bool {
        let run = self.owner_of_pid(Some(pid)).and_then(|child| self.by_child.get(&child));
        let leader = run.and_then(|run| self.entries.get(run)).and_then(|entry| entry.leader.as_ref());
        leader.is_some_and(|leader| leader.pid == pid && leader.life == Life::Alive)
    }

    /// The process group of a child.
    pub(super) fn leader_pid(&self, child: ChildId) -> Option<Pid> {
        let run = self.by_child.get(&child)?;
        self.entries.get(run)?.leader.as_ref().map(|leader| leader.pid)
    }
}
