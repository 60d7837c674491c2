//! Walks the processes that descend from the broker and says whose each is.
//!
//! A process is held by a pidfd before it is looked at, and it counts as a descendant only if its parent is the
//! one that it was found under: so a number that was given away meanwhile misleads nobody. What the walk
//! misses because it moved (its parent died) makes it inconclusive, and is found by the next.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::leader::GroupLeader;
use super::process_table::SharedTable;
use crate::os::logs::pipes::Pipes;
use crate::os::process::identity::{self, Birthmark};
use crate::os::process::mark::{self, MARK_PATIENCE, Mark};
use crate::os::process::pidfd;
use crate::os::process::proc::{self, ProcessStat};
use crate::os::process::subreaper::{Freed, Inheritance};
use crate::os::tree::cgroup::{Cgroups, Group};

/// How deep a tree of processes is followed: each level costs a descriptor while the walk is below it.
pub(super) const DEPTH_MAX: usize = 512;

/// A process for good: its number, and what tells it from others of that number.
pub(super) type ProcessKey = (Pid, Birthmark);

/// Known processes beyond which the dead ones are looked for.
const KNOWN_MIN: usize = 1024;

/// Whose each process is that was seen once: later it can leave its parent, group, session and environment.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) owners: HashMap<ProcessKey, ChildId>,
    /// Whose the orphans are that were seen, by their numbers: those stay theirs until the broker reaps them.
    orphans: HashMap<Pid, ChildId>,
    /// Since when those are looked at that execute a program, and have not come to have a mark.
    changing: HashMap<ProcessKey, Instant>,
    /// How many were left when the dead ones were last taken out.
    living: usize,
}

impl Known {
    /// Forgets those whose child is gone, and at times those that are gone themselves.
    pub(super) fn prune(&mut self, table: &SharedTable) {
        {
            let table = table.lock();
            self.owners.retain(|_, owner| table.knows(*owner));
            self.orphans.retain(|_, owner| table.knows(*owner));
        }
        let lives = |(pid, birthmark): &ProcessKey| {
            let found = pidfd::open(*pid).ok().filter(|pidfd| !pidfd::has_ended(pidfd.as_fd()));
            found.is_some_and(|pidfd| identity::birthmark(*pid, pidfd.as_fd()) == Ok(*birthmark))
        };
        if self.changing.len() > KNOWN_MIN {
            self.changing.retain(|identity, _| lives(identity));
        }
        if self.owners.len() > KNOWN_MIN.max(2 * self.living) {
            self.owners.retain(|identity, _| lives(identity));
            self.living = self.owners.len();
        }
    }
}

impl Known {
    /// Forgets orphans whose numbers may be other processes' by now.
    fn doubt(&mut self, freed: &Freed) {
        match freed {
            Freed::These(pids) => {
                for pid in pids {
                    self.orphans.remove(pid);
                }
            }
            Freed::All => self.orphans.clear(),
        }
    }

    /// Whether an orphan was seen before and is of none of these: then nothing below it is, either.
    fn is_anothers(&self, orphan: Pid, wanted: Wanted<'_>) -> bool {
        match wanted {
            Wanted::Everything => false,
            Wanted::Of(children) => self.orphans.get(&orphan).is_some_and(|owner| !children.contains(owner)),
        }
    }
}

impl Known {
    /// Whether a process is looked at again which has no mark at this moment, as it executes a program. One that does so for
    /// long is taken for nobody's until it has a mark: whoever can have a program come from a disk of their own can let it
    /// stand still there for ever, and no end of a child waits for that.
    pub(super) fn may_come_to_have_a_mark(&mut self, identity: ProcessKey) -> bool {
        self.changing.entry(identity).or_insert_with(Instant::now).elapsed() < MARK_PATIENCE
    }

    /// The process has a mark now, or is known to have none.
    pub(super) fn has_settled(&mut self, identity: ProcessKey) {
        self.changing.remove(&identity);
    }

    /// Whether a process has been without a mark for so long that it is not waited for any more.
    pub(super) fn is_without_mark_for_long(&self, identity: ProcessKey) -> bool {
        self.changing.get(&identity).is_some_and(|since| since.elapsed() >= MARK_PATIENCE)
    }
}

/// A living process in a walk.
pub(super) struct LiveProcess {
    pub(super) stat: ProcessStat,
    pub(super) identity: ProcessKey,
    pub(super) pidfd: OwnedFd,
    /// The child that it descends from, as far as that can be told.
    pub(super) owner: Option<ChildId>,
}

/// Which processes the broker's own children are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breadth {
    /// Those of the main thread: the orphans.
    Orphans,
    /// Those of all threads. Needed for what a child started as its sibling (`CLONE_PARENT`).
    AllThreads,
}

/// Whose processes a walk is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Those of all children.
    Everything,
    /// Those of these children; others may be passed over.
    Of(&'a BTreeSet<ChildId>),
}

/// What happens at each living process of a walk.
pub(super) trait Visitor {
    /// Before the children of the process are looked up.
    fn enter(&mut self, found: &LiveProcess);
    /// After everything below it was visited.
    fn leave(&mut self, found: &LiveProcess);
}

/// What a walk needs to know.
pub(super) struct Walker<'a> {
    pub(super) inheritance: &'a Inheritance,
    pub(super) cgroups: Option<&'a Cgroups>,
    pub(super) pipes: &'a Pipes,
    table: &'a SharedTable,
    pub(super) known: &'a mut Known,
    /// The whole tree, where the kernel lists no children.
    tree: Option<HashMap<Pid, Vec<Pid>>>,
    zombies: HashSet<Pid>,
    settled: bool,
    /// Who may have inherited what an earlier broker has left, for a scan.
    pub(super) heirs: Vec<ProcessStat>,
    /// What a scan has come across, be it from above or by itself.
    pub(super) seen: Option<HashSet<ProcessKey>>,
    /// Whether something could not be looked at, for want of descriptors or since it was changing.
    pub(super) is_unclear: bool,
}

impl<'a> Walker<'a> {
    pub(super) fn new(
        inheritance: &'a Inheritance,
        cgroups: Option<&'a Cgroups>,
        pipes: &'a Pipes,
        table: &'a SharedTable,
        known: &'a mut Known,
    ) -> Self {
        Self {
            inheritance,
            cgroups,
            pipes,
            table,
            known,
            tree: None,
            zombies: HashSet::new(),
            settled: true,
            heirs: Vec::new(),
            seen: None,
            is_unclear: false,
        }
    }

    /// Visits the orphans that are wanted, or may be, and what descends from them. Living children are left out. However many
    /// orphans of others there are, each is looked at once.
    ///
    /// Returns whether nothing can have been missed: nobody died meanwhile, so that nobody moved, and nobody was
    /// between two programs, so that all could be asked whose they are. What was a
    /// zombie in an earlier walk of this walker has nothing below it any more.
    pub(super) fn orphans(
        &mut self,
        breadth: Breadth,
        wanted: Wanted<'_>,
        visitor: &mut dyn Visitor,
    ) -> bool {
        self.begin();
        let broker = self.inheritance.broker();
        let top = match breadth {
            Breadth::Orphans => self.inheritance.orphans(),
            Breadth::AllThreads => self.inheritance.all(),
        };
        self.settled = top.is_exact;
        self.known.doubt(&self.inheritance.freed());
        for pid in top.pids {
            if self.known.is_anothers(pid, wanted) || self.table.lock().is_living_leader(pid) {
                continue;
            }
            let owner = self.visit(pid, broker, None, DEPTH_MAX, visitor);
            // Of others nobody tells when they are reaped.
            if let Some(owner) = owner.filter(|_| top.has_orphans_only) {
                self.known.orphans.insert(pid, owner);
            }
        }
        self.settled
    }

    /// Visits the main process of an own child, as long as it lives, and what descends from it.
    ///
    /// Returns what [`orphans`](Self::orphans) does.
    pub(super) fn leader(&mut self, leader: &GroupLeader, child: ChildId, visitor: &mut dyn Visitor) -> bool {
        if pidfd::has_ended(leader.pidfd.as_fd()) {
            return true;
        }
        self.begin();
        self.visit(leader.pid, self.inheritance.broker(), Some(child), DEPTH_MAX, visitor);
        self.settled
    }

    pub(super) fn begin(&mut self) {
        self.settled = true;
        self.tree = (!self.inheritance.has_list()).then(|| {
            let mut tree: HashMap<Pid, Vec<Pid>> = HashMap::new();
            for stat in proc::parents() {
                if let Some(parent) = stat.parent {
                    tree.entry(parent).or_default().push(stat.pid);
                }
            }
            tree
        });
    }

    /// Visits a process, and what descends from it. Returns whose it is, as far as that can be told.
    fn visit(
        &mut self,
        pid: Pid,
        parent: Pid,
        inherited: Option<ChildId>,
        depth: usize,
        visitor: &mut dyn Visitor,
    ) -> Option<ChildId> {
        let depth = depth.checked_sub(1)?;
        let (pidfd, stat) = self.hold(pid, parent)?;
        let Ok(birthmark) = identity::birthmark(pid, pidfd.as_fd()) else {
            self.settled = false;
            return None;
        };
        let identity = (pid, birthmark);
        let owner = inherited.or_else(|| self.owner(identity, &stat));
        self.descend(&LiveProcess { stat, identity, pidfd, owner }, depth, visitor);
        owner
    }

    /// Visits one that was found, and what descends from it.
    pub(super) fn descend(&mut self, found: &LiveProcess, depth: usize, visitor: &mut dyn Visitor) {
        let LiveProcess { stat, identity, owner, .. } = found;
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(*identity)) {
            return;
        }
        if let Some(owner) = owner {
            self.known.owners.insert(*identity, *owner);
        }
        visitor.enter(found);
        let below = match &self.tree {
            None => proc::children(stat.pid),
            Some(tree) => tree.get(&stat.pid).cloned().unwrap_or_default(),
        };
        for child in below {
            self.visit(child, stat.pid, *owner, depth, visitor);
        }
        if pidfd::has_ended(found.pidfd.as_fd()) {
            self.settled = false;
        }
        visitor.leave(found);
    }

    /// Makes sure that a number means a living process with this parent.
    fn hold(&mut self, pid: Pid, parent: Pid) -> Option<(OwnedFd, ProcessStat)> {
        let opened = pidfd::open(pid);
        self.is_unclear |= opened.as_ref().is_err_and(|errno| !pidfd::means_gone(*errno));
        let held = opened.ok().and_then(|pidfd| Some((pidfd, ProcessStat::read(pid)?)));
        let Some((pidfd, stat)) = held.filter(|(_, stat)| stat.parent == Some(parent)) else {
            self.settled = false;
            return None;
        };
        if stat.is_zombie {
            // When it was listed it may have lived, and have had children that are listed elsewhere now.
            self.settled &= !self.zombies.insert(pid);
            return None;
        }
        Some((pidfd, stat))
    }

    /// Whose process it is, by what it cannot change first.
    fn owner(&mut self, identity: ProcessKey, stat: &ProcessStat) -> Option<ChildId> {
        if let Some(&owner) = self.known.owners.get(&identity) {
            return Some(owner);
        }
        let group = self.cgroups.and_then(|cgroups| cgroups.group_of(stat.pid));
        let owner = {
            let table = self.table.lock();
            let by_group = group.and_then(|group| table.owner_of_group(group));
            by_group.or_else(|| table.owner_of_pid(stat.session)).or_else(|| table.owner_of_pid(stat.group))
        };
        if owner.is_some() {
            return owner;
        }
        let mark = mark::mark(stat.pid);
        if mark != Mark::Changing {
            self.known.has_settled(identity);
        }
        let known = |child: &ChildId| self.table.lock().knows(*child);
        match mark {
            Mark::Child(child) => Some(child).filter(known),
            Mark::Nobody => self.pipes.held_by(stat.pid).filter(known),
            Mark::Changing => {
                self.settled &= !self.known.may_come_to_have_a_mark(identity);
                None
            }
        }
    }
}

/// Everything in a cgroup, wherever it descends from, as this child's.
pub(super) fn each_member(
    cgroups: &Cgroups,
    group: Group,
    owner: Option<ChildId>,
    visit: &mut dyn FnMut(&LiveProcess),
) {
    for pid in cgroups.members(group) {
        let Ok(pidfd) = pidfd::open(pid) else { continue };
        let is_member = |stat: &ProcessStat| !stat.is_zombie && cgroups.group_of(pid) == Some(group);
        let Some(stat) = ProcessStat::read(pid).filter(is_member) else { continue };
        let Ok(birthmark) = identity::birthmark(pid, pidfd.as_fd()) else { continue };
        let identity = (pid, birthmark);
        visit(&LiveProcess { stat, identity, pidfd, owner });
    }
}
