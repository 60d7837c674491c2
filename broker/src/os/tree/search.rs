//! Where the processes of a child are searched for: among what the broker inherits, or everywhere.
//!
//! What descends from a child of this process comes to the broker when it loses its parent. Nothing of an adopted child
//! does: the broker that started it is gone. Every order is carried out by the same steps; only the walk differs.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use procbroker_core::{Kinship, Run};

use super::actions::{KillAndHold, Killer, Victims};
use super::cgroup::{Cgroups, Group};
use super::process_table::{Leader, SharedTable};
use super::scan::Wanted;
use super::walk::{Action, Breadth, LiveProcess, Walker};
use super::worker::each_member;

/// The way in which the processes of a child are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// Below its main process, and among the orphans of the broker.
    Inherited,
    /// In all of `/proc`, since nothing of it comes to this broker.
    Everywhere,
}

impl Search {
    /// Every way, the cheap one first.
    pub(super) const ALL: [Self; 2] = [Self::Inherited, Self::Everywhere];
}

impl From<Kinship> for Search {
    fn from(kinship: Kinship) -> Self {
        match kinship {
            Kinship::Own => Self::Inherited,
            Kinship::Foreign => Self::Everywhere,
        }
    }
}

/// One value for each way to search.
#[derive(Clone, Debug, Default)]
pub(super) struct PerSearch<T> {
    inherited: T,
    everywhere: T,
}

impl<T> PerSearch<T> {
    pub(super) fn of(&self, search: Search) -> &T {
        match search {
            Search::Inherited => &self.inherited,
            Search::Everywhere => &self.everywhere,
        }
    }

    pub(super) fn of_mut(&mut self, search: Search) -> &mut T {
        match search {
            Search::Inherited => &mut self.inherited,
            Search::Everywhere => &mut self.everywhere,
        }
    }
}

/// The runs that an order is for, and by what their processes are found.
pub(super) struct Targets {
    search: Search,
    pub(super) all: Vec<Target>,
    wanted: Wanted,
}

/// One run that an order is for.
pub(super) struct Target {
    run: Run,
    pub(super) leader: Option<Leader>,
    pub(super) group: Option<Group>,
}

impl Targets {
    pub(super) fn new(table: &SharedTable, search: Search, runs: &[Run]) -> Self {
        let table = table.lock();
        let target = |run: &Run| {
            let entry = table.get(*run);
            let leader = entry.and_then(|entry| entry.leader.clone());
            let group = entry.and_then(|entry| entry.group).map(|(group, _)| group);
            Target { run: *run, leader, group }
        };
        let children: BTreeSet<_> = runs.iter().map(|run| run.child).collect();
        let wanted = match search {
            Search::Inherited => Wanted::default(),
            Search::Everywhere => table.wanted(children),
        };
        Self { search, all: runs.iter().map(target).collect(), wanted }
    }
}

impl Walker<'_> {
    /// Visits the processes of these targets once. Returns whether nothing can have been missed.
    pub(super) fn targets(&mut self, targets: &Targets, action: &mut dyn Action) -> bool {
        match targets.search {
            Search::Inherited => {
                let mut is_settled = true;
                for target in &targets.all {
                    if let Some(leader) = &target.leader {
                        is_settled &= self.leader(leader, target.run.child, action);
                    }
                }
                self.orphans(Breadth::Orphans, action) && is_settled
            }
            Search::Everywhere => self.everywhere(&targets.wanted, action),
        }
    }

    /// Kills what is left of all adopted children, and returns what was there.
    pub(super) fn kill_adopted(&mut self, table: &SharedTable, cgroups: Option<&Cgroups>) -> Vec<OwnedFd> {
        let mut remains = KillAndHold::new(Killer::of(Victims::All));
        if let Some(cgroups) = cgroups {
            for group in cgroups.unclaimed() {
                let _killed_below = cgroups.kill(group);
                each_member(cgroups, group, None, &mut |found: &LiveProcess| remains.leave(found));
            }
        }
        let children = table.lock().adopted().clone();
        if !children.is_empty() {
            let wanted = table.lock().wanted(children);
            let _seen_again = self.everywhere(&wanted, &mut remains);
        }
        remains.held
    }
}
