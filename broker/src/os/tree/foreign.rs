//! What the worker does for children of an earlier broker: nothing of them comes to this one, so that they are
//! searched for everywhere.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use procbroker_core::{Input, Members, Run};
use procbroker_protocol::{ChildId, Signal};

use super::ledger::{Leader, SharedLedger};
use super::scan::{Sight, Wanted};
use super::visitors::{Census, Held, Killer, Senders, Victims};
use super::walk::{Found, Visitor, Walker};
use super::worker::{KILL_ROUNDS, SETTLING_WALKS, SignalOrder, Worker, each_member};
use crate::os::process::pidfd;
use crate::os::tree::cgroup::{Cgroups, Group};

/// That nothing is left is believed when so many scans in a row have found nothing: a process can start another
/// behind the place that a scan has reached, and end before it is reached itself.
const SCANS_FOR_NOTHING: usize = 2;

/// So many processes are held at a time to wait for their ends.
const HELD_MAX: usize = 1024;

impl Worker {
    fn wanted(&self, runs: &[Run]) -> Wanted {
        self.ledger.lock().wanted(runs.iter().map(|run| run.child).collect())
    }

    /// Reports what is left of each whose main process has ended, where that is news.
    pub(super) fn examine_foreign(&mut self) {
        let mut news = Vec::new();
        for (run, members) in self.look_for_foreign() {
            if let Some(members) = members {
                news.extend(self.ledger.lock().found(run, members));
            }
        }
        for input in news {
            (self.report)(input);
        }
    }

    /// Finds out what is left of those whose main process was gone before the broker came.
    pub(super) fn survey(&mut self) -> HashMap<Run, Members> {
        let found = self.look_for_foreign();
        let mut ledger = self.ledger.lock();
        let mut survey = HashMap::new();
        for (run, members) in found {
            // What cannot be told by now may be there, and is looked for again.
            let members = members.unwrap_or(Members::Outside);
            let _told_at_once = ledger.found(run, members);
            survey.insert(run, members);
        }
        survey
    }

    /// What is left of each whose main process has ended; none where that cannot be told now. From now on the end
    /// of one process of each is waited for.
    fn look_for_foreign(&mut self) -> Vec<(Run, Option<Members>)> {
        self.pending.examine_foreign.store(false, Ordering::SeqCst);
        let runs: Vec<Run> = self.ledger.lock().draining_foreign().iter().copied().collect();
        let mut rest = Rest::new(Census::new(self.ledger.clone()));
        let scanned: Vec<Run> =
            runs.iter().copied().filter(|&run| !self.look_into_group(run, &mut rest)).collect();
        let sight = if scanned.is_empty() { Sight::Clear } else { self.scan(&scanned, &mut rest) };
        let (mut left, mut witnesses, mut is_unsure) = (Vec::new(), HashMap::new(), false);
        for run in runs {
            let members = rest.census.members(run.child);
            let is_hidden = members == Members::Nothing && (sight == Sight::Unclear || self.has_members(run));
            match rest.witnesses.remove(&run.child) {
                Some((_, witness)) => {
                    witnesses.insert(run, witness);
                }
                None => is_unsure |= is_hidden || members != Members::Nothing,
            }
            left.push((run, Some(members).filter(|_| !is_hidden)));
        }
        is_unsure |= !self.vigil.hold(witnesses);
        self.is_unsure_of_foreign = is_unsure;
        left
    }

    /// Counts what is in the cgroup of a child; false where it has none.
    fn look_into_group(&self, run: Run, rest: &mut Rest) -> bool {
        let Some((cgroups, group)) = self.cgroups.as_ref().zip(self.group(run)) else { return false };
        each_member(cgroups, group, Some(run.child), &mut |found| rest.enter(found));
        true
    }

    fn scan(&mut self, runs: &[Run], rest: &mut Rest) -> Sight {
        let wanted = self.wanted(runs);
        let mut walker = self.walker();
        let mut sight = Sight::Unclear;
        for scans in 1..=SETTLING_WALKS {
            sight = walker.everywhere(&wanted, rest);
            let is_something = |run: &Run| rest.census.members(run.child) != Members::Nothing;
            if sight == Sight::Clear && (scans >= SCANS_FOR_NOTHING || runs.iter().all(is_something)) {
                break;
            }
        }
        self.known.prune(&self.ledger);
        sight
    }

    /// Sends SIGKILL to everything of these children, and again to what is new, until nothing is.
    pub(super) fn kill_foreign(&mut self, runs: &[Run]) {
        let targets: Vec<(Option<Leader>, Option<Group>)> =
            runs.iter().map(|&run| (self.leader(run), self.ledger.lock().wear_out(run))).collect();
        let wanted = self.wanted(runs);
        let mut killer = Killer::of(Victims::Of(Held::new(self.ledger.clone(), runs.iter().copied())));
        let cgroups = self.cgroups.clone();
        let mut walker = self.walker();
        for round in 0..KILL_ROUNDS {
            killer.fresh = false;
            for group in targets.iter().filter_map(|(_, group)| *group) {
                if let Some(cgroups) = &cgroups
                    && (round > 0 || cgroups.kill(group).is_err())
                {
                    each_member(cgroups, group, None, &mut |found| killer.kill(found));
                }
            }
            let sight = walker.everywhere(&wanted, &mut killer);
            // Only now: what has lost its parent cannot be told by it.
            for leader in targets.iter().filter_map(|(leader, _)| leader.as_ref()) {
                let _nobody = pidfd::send_to_group(leader.pidfd.as_fd(), Signal::KILL);
            }
            if !killer.fresh && sight == Sight::Clear {
                break;
            }
        }
    }

    /// Sends each of these signals once to each process of its child, and reports what became of it.
    pub(super) fn signal_foreign(&mut self, orders: &[SignalOrder]) {
        let mut senders = Senders::new(self.ledger.clone());
        for order in orders {
            senders.add(order.run.child, self.ledger.lock().leader_pid(order.run.child), order);
        }
        let runs: Vec<Run> = orders.iter().map(|order| order.run).collect();
        let groups: Vec<Option<Group>> = runs.iter().map(|&run| self.group(run)).collect();
        let wanted = self.wanted(&runs);
        let cgroups = self.cgroups.clone();
        let mut walker = self.walker();
        for _ in 0..SETTLING_WALKS {
            let before = senders.count();
            let sight = walker.everywhere(&wanted, &mut senders);
            if sight == Sight::Clear && senders.count() == before {
                break;
            }
        }
        for ((order, group), mut sender) in orders.iter().zip(groups).zip(senders.all) {
            if let Some((cgroups, group)) = cgroups.as_ref().zip(group) {
                each_member(cgroups, group, None, &mut |found| sender.send(found));
            }
            (self.report)(Input::Signalled { run: order.run, call: order.call, outcome: sender.outcome() });
        }
    }
}

/// Kills what is left of all of them, and returns what was there.
pub(super) fn sweep_foreign(
    walker: &mut Walker<'_>,
    ledger: &SharedLedger,
    cgroups: Option<&Cgroups>,
) -> Vec<OwnedFd> {
    let mut remains = Remains { killer: Killer::of(Victims::All), held: Vec::new() };
    if let Some(cgroups) = cgroups {
        for group in cgroups.unclaimed() {
            let _killed_below = cgroups.kill(group);
            each_member(cgroups, group, None, &mut |found| remains.leave(found));
        }
    }
    let children = ledger.lock().foreigners().clone();
    if !children.is_empty() {
        let wanted = ledger.lock().wanted(children);
        let _seen_again = walker.everywhere(&wanted, &mut remains);
    }
    remains.held
}

/// Counts what is left of each child, and keeps one process of each.
struct Rest {
    census: Census,
    witnesses: BTreeMap<ChildId, (Members, OwnedFd)>,
}

impl Rest {
    fn new(census: Census) -> Self {
        Self { census, witnesses: BTreeMap::new() }
    }
}

impl Visitor for Rest {
    fn enter(&mut self, found: &Found) {
        self.census.enter(found);
        let Some(owner) = found.owner else { return };
        let members = self.census.class(owner, found);
        // One of the group is held if there is one: its end is what changes the answer.
        if self.witnesses.get(&owner).is_none_or(|(known, _)| *known < members)
            && let Ok(witness) = found.pidfd.try_clone()
        {
            self.witnesses.insert(owner, (members, witness));
        }
    }

    fn leave(&mut self, _found: &Found) {}
}

/// Kills what it comes across, and keeps it, to wait for its end.
struct Remains {
    killer: Killer,
    held: Vec<OwnedFd>,
}

impl Visitor for Remains {
    fn enter(&mut self, found: &Found) {
        self.killer.enter(found);
    }

    fn leave(&mut self, found: &Found) {
        self.killer.leave(found);
        if self.held.len() < HELD_MAX {
            self.held.extend(found.pidfd.try_clone());
        }
    }
}
