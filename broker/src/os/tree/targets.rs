//! Visits the processes of the children that an order is for, in the way in which they are found.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use procbroker_core::Run;
use procbroker_protocol::ChildId;

use super::cgroup::{Cgroups, Group};
use super::leader::GroupLeader;
use super::process_table::SharedTable;
use super::search::Search;
use super::visitors::{KillAndHoldVisitor, KillScope, KillVisitor};
use super::walk::{Breadth, LiveProcess, Visitor, Walker, Wanted, each_member};
use super::wanted::ScanTargets;

/// The runs that an order is for, and by what their processes are found.
pub(super) struct Targets {
    search: Search,
    pub(super) all: Vec<Target>,
    children: BTreeSet<ChildId>,
    wanted: ScanTargets,
}

/// One run that an order is for.
pub(super) struct Target {
    run: Run,
    pub(super) leader: Option<GroupLeader>,
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
        let children: BTreeSet<ChildId> = runs.iter().map(|run| run.child).collect();
        let wanted = match search {
            Search::Inherited => ScanTargets::default(),
            Search::Everywhere => table.wanted(children.clone()),
        };
        Self { search, all: runs.iter().map(target).collect(), children, wanted }
    }
}

impl Walker<'_> {
    /// Visits the processes of these targets once. Returns whether nothing can have been missed.
    pub(super) fn targets(&mut self, targets: &Targets, visitor: &mut dyn Visitor) -> bool {
        match targets.search {
            Search::Inherited => {
                let mut is_settled = true;
                for target in &targets.all {
                    if let Some(leader) = &target.leader {
                        is_settled &= self.leader(leader, target.run.child, visitor);
                    }
                }
                self.orphans(Breadth::Orphans, Wanted::Of(&targets.children), visitor) && is_settled
            }
            Search::Everywhere => self.everywhere(&targets.wanted, visitor),
        }
    }

    /// Kills what is left of all adopted children, and returns what was there.
    pub(super) fn kill_adopted(&mut self, table: &SharedTable, cgroups: Option<&Cgroups>) -> Vec<OwnedFd> {
        let mut remains = KillAndHoldVisitor::new(KillVisitor::of(KillScope::All));
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
