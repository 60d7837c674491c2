//! Finds out what is left of children whose main process has ended.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use procbroker_core::{Input, Members, Run};
use procbroker_protocol::ChildId;

use super::search::Search;
use super::targets::Targets;
use super::visitors::{Snapshot, WitnessedSnapshot};
use super::walk::{Breadth, Visitor, Wanted, each_member};
use super::worker::{SETTLING_WALKS, Worker};
use crate::os::process::pidfd;

/// That nothing is left is believed when so many scans in a row have found nothing: a process can start another
/// behind the place that a scan has reached, and end before it is reached itself.
const SCANS_FOR_NOTHING: usize = 2;

/// What is left of each run; `None` where that cannot be told now, so that it has to be looked for again.
type Left = Vec<(Run, Option<Members>)>;

impl Worker {
    /// Reports what is left of each child whose main process has ended, where that is news.
    pub(super) fn examine(&mut self, search: Search) {
        let left = self.look(search);
        let mut table = self.table.lock();
        let news: Vec<Input> =
            left.into_iter().filter_map(|(run, members)| table.found(run, members?)).collect();
        drop(table);
        for input in news {
            (self.report)(input);
        }
    }

    /// Finds out what is left of those whose main process was gone before the broker came.
    pub(super) fn survey(&mut self) -> HashMap<Run, Members> {
        let left = self.look(Search::Everywhere);
        let mut table = self.table.lock();
        let mut survey = HashMap::new();
        for (run, members) in left {
            // What cannot be told by now may be there, and is looked for again.
            let members = members.unwrap_or(Members::Outside);
            let _told_at_once = table.found(run, members);
            survey.insert(run, members);
        }
        survey
    }

    fn look(&mut self, search: Search) -> Left {
        self.pending.examine.of(search).store(false, Ordering::SeqCst);
        let runs: Vec<Run> = self.table.lock().draining(search).iter().copied().collect();
        match search {
            Search::Inherited => self.look_among_inherited(&runs),
            Search::Everywhere => self.look_everywhere(&runs),
        }
    }

    fn look_among_inherited(&mut self, runs: &[Run]) -> Left {
        *self.is_unsure.of_mut(Search::Inherited) = false;
        if runs.is_empty() {
            return Vec::new();
        }
        let children = runs.iter().map(|run| run.child).collect();
        let mut snapshot = self.snapshot(Breadth::Orphans, &children);
        if runs.iter().any(|&run| self.is_hidden(run, &snapshot)) {
            snapshot = self.snapshot(Breadth::AllThreads, &children);
        }
        let members = |run: &Run| match snapshot.members(run.child) {
            Members::Nothing if self.has_members(*run) => Some(Members::Outside),
            Members::Nothing if !snapshot.is_settled => None,
            members => Some(members),
        };
        let left: Left = runs.iter().map(|run| (*run, members(run))).collect();
        *self.is_unsure.of_mut(Search::Inherited) = left.iter().any(|(_, members)| members.is_none());
        left
    }

    /// Counts the orphans of these children until nothing can have been missed.
    fn snapshot(&mut self, breadth: Breadth, children: &BTreeSet<ChildId>) -> Snapshot {
        let table = self.table.clone();
        let mut walker = self.walker();
        let mut snapshot = Snapshot::new(table);
        for _ in 0..SETTLING_WALKS {
            snapshot.left.clear();
            snapshot.is_settled = walker.orphans(breadth, Wanted::Of(children), &mut snapshot);
            if snapshot.is_settled {
                break;
            }
        }
        self.known.prune(&self.table);
        snapshot
    }

    /// Whether something of a child must be there that the snapshot does not have.
    fn is_hidden(&self, run: Run, snapshot: &Snapshot) -> bool {
        let members = snapshot.members(run.child);
        let leader = self.table.lock().get(run).and_then(|entry| entry.leader.clone());
        let has_group = || leader.is_some_and(|leader| pidfd::has_group(leader.pidfd.as_fd()) == Ok(true));
        members != Members::Group && has_group() || members == Members::Nothing && self.has_members(run)
    }

    /// From now on the end of one process of each of these is waited for.
    fn look_everywhere(&mut self, runs: &[Run]) -> Left {
        let mut snapshot = WitnessedSnapshot::new(Snapshot::new(self.table.clone()));
        let scanned: Vec<Run> =
            runs.iter().copied().filter(|&run| !self.look_into_group(run, &mut snapshot)).collect();
        let is_clear = scanned.is_empty() || self.scan(&scanned, &mut snapshot);
        let (mut left, mut watched, mut is_unsure) = (Vec::new(), HashMap::new(), false);
        for &run in runs {
            let members = snapshot.counted.members(run.child);
            let is_hidden = members == Members::Nothing && (!is_clear || self.has_members(run));
            match snapshot.witnesses.remove(&run.child) {
                Some((_, witness)) => {
                    watched.insert(run, witness);
                }
                None => is_unsure |= is_hidden || members != Members::Nothing,
            }
            left.push((run, Some(members).filter(|_| !is_hidden)));
        }
        is_unsure |= !self.exit_watch.watch_only(watched);
        *self.is_unsure.of_mut(Search::Everywhere) = is_unsure;
        left
    }

    /// Counts what is in the cgroup of a child; false where it has none.
    fn look_into_group(&self, run: Run, snapshot: &mut WitnessedSnapshot) -> bool {
        let Some((cgroups, group)) = self.cgroups.as_ref().zip(self.group(run)) else { return false };
        each_member(cgroups, group, Some(run.child), &mut |found| snapshot.enter(found));
        true
    }

    /// Scans until it is told of each run what is left of it. Returns whether everything could be looked at.
    fn scan(&mut self, runs: &[Run], snapshot: &mut WitnessedSnapshot) -> bool {
        let targets = Targets::new(&self.table, Search::Everywhere, runs);
        let mut walker = self.walker();
        let mut is_clear = false;
        for scans in 1..=SETTLING_WALKS {
            is_clear = walker.targets(&targets, snapshot);
            let is_something = |run: &Run| snapshot.counted.members(run.child) != Members::Nothing;
            if is_clear && (scans >= SCANS_FOR_NOTHING || runs.iter().all(is_something)) {
                break;
            }
        }
        self.known.prune(&self.table);
        is_clear
    }
}
