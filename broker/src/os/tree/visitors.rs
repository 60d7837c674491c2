//! What is done at each process that is come across: count it, kill it, or send it a signal.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

use procbroker_core::{Asker, Members, Pid, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, Signal};

use super::job::SignalOrder;
use super::process_table::SharedTable;
use super::right;
use super::walk::{LiveProcess, ProcessKey, Visitor};
use crate::os::process::pidfd;

/// So many processes are held at a time to wait for their ends.
const HELD_MAX: usize = 1024;

/// Counts what is left of each child.
pub(super) struct Snapshot {
    pub(super) table: SharedTable,
    pub(super) left: BTreeMap<ChildId, Members>,
    /// Whether nothing can have been missed.
    pub(super) is_settled: bool,
}

impl Snapshot {
    pub(super) fn new(table: SharedTable) -> Self {
        Self { table, left: BTreeMap::new(), is_settled: false }
    }

    /// What it says of a child that this process of it is left.
    pub(super) fn class(&self, owner: ChildId, found: &LiveProcess) -> Members {
        let group = found.stat.group;
        let in_group = group.is_some() && group == self.table.lock().group_number(owner);
        if in_group { Members::Group } else { Members::Outside }
    }

    pub(super) fn members(&self, child: ChildId) -> Members {
        self.left.get(&child).copied().unwrap_or(Members::Nothing)
    }
}

impl Visitor for Snapshot {
    fn enter(&mut self, found: &LiveProcess) {
        let Some(owner) = found.owner else { return };
        let members = self.class(owner, found);
        let known = self.left.entry(owner).or_insert(members);
        *known = members.max(*known);
    }

    fn leave(&mut self, _found: &LiveProcess) {}
}

/// Counts what is left of each child, and keeps one process of each, whose end changes the count.
pub(super) struct WitnessedSnapshot {
    pub(super) counted: Snapshot,
    pub(super) witnesses: BTreeMap<ChildId, (Members, OwnedFd)>,
}

impl WitnessedSnapshot {
    pub(super) fn new(counted: Snapshot) -> Self {
        Self { counted, witnesses: BTreeMap::new() }
    }
}

impl Visitor for WitnessedSnapshot {
    fn enter(&mut self, found: &LiveProcess) {
        self.counted.enter(found);
        let Some(owner) = found.owner else { return };
        let members = self.counted.class(owner, found);
        // One of the group is held if there is one: its end is what changes the answer.
        if self.witnesses.get(&owner).is_none_or(|(known, _)| *known < members)
            && let Ok(witness) = found.pidfd.try_clone()
        {
            self.witnesses.insert(owner, (members, witness));
        }
    }

    fn leave(&mut self, _found: &LiveProcess) {}
}

/// Does nothing: a walk itself takes note of whose each process is.
pub(super) struct TakeNote;

impl Visitor for TakeNote {
    fn enter(&mut self, _found: &LiveProcess) {}

    fn leave(&mut self, _found: &LiveProcess) {}
}

/// Whom a kill is for.
pub(super) enum KillScope {
    Of(LiveRuns),
    All,
}

/// Runs of children, each for as long as it is not released.
///
/// An order can be late: then the next run of the same child is on its way, with the same mark. A process that is held
/// while the run of the order is not released yet is not of the next one, which is started after that.
pub(super) struct LiveRuns {
    table: SharedTable,
    runs: BTreeMap<ChildId, Run>,
}

impl LiveRuns {
    pub(super) fn new(table: SharedTable, runs: impl IntoIterator<Item = Run>) -> Self {
        Self { table, runs: runs.into_iter().map(|run| (run.child, run)).collect() }
    }

    fn has(&self, found: &LiveProcess) -> bool {
        let run = found.owner.and_then(|owner| self.runs.get(&owner));
        run.is_some_and(|run| self.table.lock().get(*run).is_some())
    }
}

/// Stops each process, so that it starts no other while it is walked through, and kills it afterwards.
pub(super) struct KillVisitor {
    pub(super) scope: KillScope,
    /// Those that were stopped.
    paused: HashSet<ProcessKey>,
    pub(super) killed: HashSet<ProcessKey>,
    /// Whether this round has found a process that was not killed before.
    pub(super) fresh: bool,
}

impl KillVisitor {
    pub(super) fn of(scope: KillScope) -> Self {
        Self { scope, paused: HashSet::new(), killed: HashSet::new(), fresh: false }
    }

    fn is_in_scope(&self, found: &LiveProcess) -> bool {
        let is_meant = match &self.scope {
            KillScope::All => true,
            KillScope::Of(held) => held.has(found),
        };
        is_meant && !self.killed.contains(&found.identity)
    }

    pub(super) fn kill(&mut self, found: &LiveProcess) {
        if self.killed.insert(found.identity) {
            self.fresh = true;
            let _gone = pidfd::send(found.pidfd.as_fd(), Signal::KILL);
        }
    }
}

impl Visitor for KillVisitor {
    fn enter(&mut self, found: &LiveProcess) {
        if self.is_in_scope(found) {
            self.paused.insert(found.identity);
            let _gone = pidfd::pause(found.pidfd.as_fd());
        }
    }

    fn leave(&mut self, found: &LiveProcess) {
        if self.paused.remove(&found.identity) {
            self.kill(found);
        }
    }
}

/// Kills what it comes across, and holds it, to wait for its end.
pub(super) struct KillAndHoldVisitor {
    killer: KillVisitor,
    pub(super) held: Vec<OwnedFd>,
}

impl KillAndHoldVisitor {
    pub(super) fn new(killer: KillVisitor) -> Self {
        Self { killer, held: Vec::new() }
    }
}

impl Visitor for KillAndHoldVisitor {
    fn enter(&mut self, found: &LiveProcess) {
        self.killer.enter(found);
    }

    fn leave(&mut self, found: &LiveProcess) {
        self.killer.leave(found);
        if self.held.len() < HELD_MAX {
            self.held.extend(found.pidfd.try_clone());
        }
    }
}

/// Those who send signals at the same time, and whose each one's child is.
pub(super) struct SignalSenders {
    table: SharedTable,
    pub(super) all: Vec<SignalSender>,
    pub(super) of: BTreeMap<ChildId, Vec<usize>>,
}

impl SignalSenders {
    pub(super) fn new(table: SharedTable) -> Self {
        Self { table, all: Vec::new(), of: BTreeMap::new() }
    }

    /// One more, for this child; the number is that of its process group.
    pub(super) fn add(&mut self, child: ChildId, group: Option<Pid>, order: &SignalOrder) {
        let whom = match order.scope {
            Scope::Main | Scope::All => Whom::All,
            Scope::Group => Whom::Group(group),
        };
        self.of.entry(child).or_default().push(self.all.len());
        self.all.push(SignalSender {
            run: order.run,
            whom,
            signal: order.signal,
            by: order.asked.and_then(|asked| asked.by),
            sent: HashSet::new(),
            results: [0; 2],
        });
    }

    /// How many signals were sent.
    pub(super) fn count(&self) -> usize {
        self.all.iter().map(|sender| sender.sent.len()).sum()
    }
}

impl Visitor for SignalSenders {
    fn enter(&mut self, found: &LiveProcess) {
        let own = found.owner.and_then(|owner| self.of.get(&owner));
        for &index in own.into_iter().flatten() {
            // As for a kill, an order can be late.
            if let Some(sender) = self.all.get_mut(index)
                && self.table.lock().get(sender.run).is_some()
            {
                sender.send(found);
            }
        }
    }

    fn leave(&mut self, _found: &LiveProcess) {}
}

/// Which of a child's processes are meant.
pub(super) enum Whom {
    All,
    /// Those of its process group, if that has a number.
    Group(Option<Pid>),
}

/// Sends a signal to each process of a child, or to those of its process group.
pub(super) struct SignalSender {
    run: Run,
    pub(super) whom: Whom,
    pub(super) signal: Signal,
    /// Who has to have the right to.
    by: Option<Asker>,
    pub(super) sent: HashSet<ProcessKey>,
    /// How many got it, and how many may not be signalled.
    pub(super) results: [usize; 2],
}

impl SignalSender {
    pub(super) fn send(&mut self, found: &LiveProcess) {
        let is_meant = match self.whom {
            Whom::All => true,
            Whom::Group(number) => number.is_some() && found.stat.group == number,
        };
        if !is_meant || !self.sent.insert(found.identity) {
            return;
        }
        let [delivered, refused] = &mut self.results;
        match right::send(found.stat.pid, found.pidfd.as_fd(), self.signal, self.by) {
            SignalOutcome::Delivered => *delivered += 1,
            SignalOutcome::Refused => *refused += 1,
            SignalOutcome::Gone => {}
        }
    }

    pub(super) fn outcome(&self) -> SignalOutcome {
        match self.results {
            [0, 0] => SignalOutcome::Gone,
            [0, _] => SignalOutcome::Refused,
            [_, _] => SignalOutcome::Delivered,
        }
    }
}
