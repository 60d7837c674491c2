//! The worker thread: everything about descendants that may take longer than an event loop can stand still.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use procbroker_core::{Call, Input, Members, Pid, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, Signal};

use super::Report;
use super::ledger::{Leader, SharedLedger};
use super::walk::{Breadth, Found, Identity, Known, Visitor, Walker};
use crate::os::cgroup::{Cgroups, Group};
use crate::os::descendants::{Inheritance, ProcessStat};
use crate::os::pidfd;

/// How often a walk is repeated while processes die under it, before others get their turn.
const SETTLING_WALKS: usize = 16;

/// How often a kill looks for new processes: each round ends all that it finds, so that only a program that
/// forks faster than it is walked through survives it, until the core orders the next kill.
const KILL_ROUNDS: usize = 64;

/// What the worker is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Find out what is left of the children whose main process has ended.
    Examine,
    /// Kill all of a child.
    Kill { run: Run },
    /// Send a signal to more processes than the main one.
    Signal { run: Run, signal: Signal, scope: Scope, call: Option<Call> },
    /// Kill all that descends from the broker.
    Sweep { deadline: Instant },
    /// Make and remove cgroups ahead.
    Tidy,
}

/// The jobs of one kind that are waiting, of which more than one would do nothing more.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub(super) examine: Arc<AtomicBool>,
    pub(super) tidy: Arc<AtomicBool>,
    /// All jobs that are waiting.
    pub(super) queued: Arc<AtomicUsize>,
}

/// The thread's own.
pub(super) struct Worker {
    pub(super) inheritance: Inheritance,
    pub(super) cgroups: Option<Arc<Cgroups>>,
    pub(super) ledger: SharedLedger,
    pub(super) pending: Pending,
    pub(super) report: Report,
    pub(super) known: Known,
    /// Whether so many processes died under the last look at what is left that it has to be repeated.
    pub(super) is_unsure: bool,
    /// Whether tidying was put off for something more urgent.
    pub(super) is_untidy: bool,
}

impl Worker {
    /// Works until nobody can give it a job any more.
    ///
    /// All jobs that wait are done together: a walk over the orphans serves a thousand kills as it serves one, and
    /// a thousand walks in turn would take longer than a shutdown may.
    pub(super) fn work(mut self, jobs: &Receiver<Job>) {
        while let Some(job) = self.next_job(jobs) {
            let (mut signals, mut kills, mut deadline, mut tidy) = (Vec::new(), Vec::new(), None, false);
            for job in std::iter::once(job).chain(jobs.try_iter()) {
                self.pending.queued.fetch_sub(1, Ordering::SeqCst);
                match job {
                    Job::Examine => {}
                    Job::Kill { run } => kills.push(run),
                    Job::Signal { run, signal, scope, call } => signals.push((run, signal, scope, call)),
                    Job::Sweep { deadline: until } => deadline = Some(until),
                    Job::Tidy => tidy = true,
                }
            }
            self.signal(signals);
            self.kill(&kills);
            self.examine();
            if let Some(deadline) = deadline {
                self.sweep(deadline);
            }
            if tidy {
                self.tidy();
            }
        }
    }

    fn next_job(&self, jobs: &Receiver<Job>) -> Option<Job> {
        if !self.is_unsure && !self.is_untidy {
            return jobs.recv().ok();
        }
        match jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) => {
                self.pending.queued.fetch_add(1, Ordering::SeqCst);
                Some(if self.is_unsure { Job::Examine } else { Job::Tidy })
            }
            Err(TryRecvError::Disconnected) => None,
        }
    }

    /// Makes and removes cgroups, until there is something more urgent to do.
    fn tidy(&mut self) {
        self.pending.tidy.store(false, Ordering::SeqCst);
        let queued = &self.pending.queued;
        let is_done =
            self.cgroups.as_ref().is_none_or(|cgroups| cgroups.tidy(|| queued.load(Ordering::SeqCst) > 0));
        self.is_untidy = !is_done;
    }

    fn walker(&mut self) -> Walker<'_> {
        Walker::new(&self.inheritance, self.cgroups.as_deref(), &self.ledger, &mut self.known)
    }

    /// Reports what is left of each child whose main process has ended, where that is news.
    fn examine(&mut self) {
        self.pending.examine.store(false, Ordering::SeqCst);
        self.is_unsure = false;
        let runs: Vec<Run> = self.ledger.lock().draining().iter().copied().collect();
        if runs.is_empty() {
            return;
        }
        let mut census = self.census(Breadth::Orphans);
        if runs.iter().any(|&run| self.is_hidden(run, &census)) {
            census = self.census(Breadth::AllThreads);
        }
        let mut news = Vec::new();
        for run in runs {
            let mut members = census.members(run.child);
            if members == Members::Nothing && self.has_members(run) {
                members = Members::Outside;
            }
            if members == Members::Nothing && !census.is_settled {
                self.is_unsure = true;
                continue;
            }
            news.extend(self.ledger.lock().found(run, members));
        }
        for input in news {
            (self.report)(input);
        }
    }

    /// Counts until nothing can have been missed.
    fn census(&mut self, breadth: Breadth) -> Census {
        let ledger = self.ledger.clone();
        let mut walker = self.walker();
        let mut census = Census { ledger, left: BTreeMap::new(), is_settled: false };
        for _ in 0..SETTLING_WALKS {
            census.left.clear();
            census.is_settled = walker.orphans(breadth, &mut census);
            if census.is_settled {
                break;
            }
        }
        self.known.prune(&self.ledger);
        census
    }

    /// Whether something of a child must be there that the census has not found.
    fn is_hidden(&self, run: Run, census: &Census) -> bool {
        let members = census.members(run.child);
        let leader = self.leader(run);
        let has_group = || leader.is_some_and(|leader| pidfd::has_group(leader.pidfd.as_fd()) == Ok(true));
        members != Members::Group && has_group() || members == Members::Nothing && self.has_members(run)
    }

    fn has_members(&self, run: Run) -> bool {
        let group = self.group(run);
        self.cgroups.as_ref().zip(group).is_some_and(|(cgroups, group)| cgroups.has_members(group))
    }

    fn group(&self, run: Run) -> Option<Group> {
        self.ledger.lock().get(run)?.group.map(|(group, _)| group)
    }

    fn leader(&self, run: Run) -> Option<Leader> {
        self.ledger.lock().get(run)?.leader.clone()
    }

    /// Sends SIGKILL to everything of these children, and again to what is new, until nothing is.
    fn kill(&mut self, runs: &[Run]) {
        let targets: Vec<(Run, Leader, Option<Group>)> = runs
            .iter()
            .filter_map(|&run| Some((run, self.leader(run)?, self.ledger.lock().wear_out(run))))
            .collect();
        if targets.is_empty() {
            return;
        }
        let victims = Victims::Of(targets.iter().map(|(run, ..)| run.child).collect());
        let mut killer = Killer { victims, killed: HashSet::new(), fresh: false };
        let cgroups = self.cgroups.clone();
        let mut walker = self.walker();
        for round in 0..KILL_ROUNDS {
            killer.fresh = false;
            let mut is_settled = true;
            for (run, leader, group) in &targets {
                if let Some((cgroups, group)) = cgroups.as_ref().zip(*group)
                    && (round > 0 || cgroups.kill(group).is_err())
                {
                    each_member(cgroups, group, &mut |found| killer.kill(found));
                }
                is_settled &= walker.leader(leader, run.child, &mut killer);
                let _nobody = pidfd::send_to_group(leader.pidfd.as_fd(), Signal::KILL);
            }
            is_settled &= walker.orphans(Breadth::Orphans, &mut killer);
            if !killer.fresh && is_settled {
                break;
            }
        }
    }

    /// Sends each of these signals once to each process of its child, and reports what became of it.
    fn signal(&mut self, orders: Vec<(Run, Signal, Scope, Option<Call>)>) {
        let mut senders = Senders { all: Vec::new(), of: BTreeMap::new() };
        let mut targets = Vec::new();
        for (run, signal, scope, call) in orders {
            let Some(leader) = self.leader(run) else {
                (self.report)(Input::Signalled { run, call, outcome: SignalOutcome::Gone });
                continue;
            };
            let group = match scope {
                Scope::Main | Scope::All => None,
                Scope::Group => Some(leader.pid),
            };
            senders.of.entry(run.child).or_default().push(senders.all.len());
            senders.all.push(Sender { group, signal, sent: HashSet::new(), results: [0; 2] });
            targets.push((run, call, leader, self.group(run)));
        }
        if targets.is_empty() {
            return;
        }
        let cgroups = self.cgroups.clone();
        let mut walker = self.walker();
        for _ in 0..SETTLING_WALKS {
            let mut is_settled = true;
            for (run, _, leader, _) in &targets {
                is_settled &= walker.leader(leader, run.child, &mut senders);
            }
            if walker.orphans(Breadth::Orphans, &mut senders) && is_settled {
                break;
            }
        }
        for ((run, call, _, group), mut sender) in targets.into_iter().zip(senders.all) {
            if let Some((cgroups, group)) = cgroups.as_ref().zip(group) {
                each_member(cgroups, group, &mut |found| sender.send(found));
            }
            (self.report)(Input::Signalled { run, call, outcome: sender.outcome() });
        }
    }

    /// Kills everything that descends from the broker until nothing does, or until the time is up. The main
    /// thread has to reap meanwhile.
    fn sweep(&mut self, deadline: Instant) {
        let mut killer = Killer { victims: Victims::All, killed: HashSet::new(), fresh: false };
        let inheritance = self.inheritance.share();
        let mut walker = self.walker();
        let left = loop {
            // Before the walk, so that it kills each of them.
            let living: Vec<OwnedFd> = inheritance.all().pids.into_iter().filter_map(hold_living).collect();
            killer.fresh = false;
            let is_settled = walker.orphans(Breadth::AllThreads, &mut killer);
            let is_over = living.is_empty() && is_settled && !killer.fresh;
            if is_over || Instant::now() >= deadline {
                break living.len();
            }
            // What they leave behind is the broker's then, and found by the next round.
            for pidfd in &living {
                let _in_time = pidfd::wait_for_end(pidfd.as_fd(), deadline);
            }
        };
        (self.report)(Input::Swept { left: u32::try_from(left).unwrap_or(u32::MAX) });
    }
}

fn hold_living(pid: Pid) -> Option<OwnedFd> {
    let pidfd = pidfd::open(pid).ok()?;
    let is_living = ProcessStat::read(pid).is_some_and(|stat| !stat.is_zombie);
    is_living.then_some(pidfd)
}

/// Everything in a child's cgroup, wherever it descends from.
fn each_member(cgroups: &Cgroups, group: Group, visit: &mut dyn FnMut(&Found)) {
    for pid in cgroups.members(group) {
        let Ok(pidfd) = pidfd::open(pid) else { continue };
        let Some(stat) = ProcessStat::read(pid).filter(|_| cgroups.group_of(pid) == Some(group)) else {
            continue;
        };
        let identity = (pid, pidfd::inode(pidfd.as_fd()).unwrap_or_default(), stat.start_ticks);
        visit(&Found { stat, identity, pidfd, owner: None });
    }
}

/// Counts what is left of each child.
struct Census {
    ledger: SharedLedger,
    left: BTreeMap<ChildId, Members>,
    /// Whether nothing can have been missed.
    is_settled: bool,
}

impl Census {
    fn members(&self, child: ChildId) -> Members {
        self.left.get(&child).copied().unwrap_or(Members::Nothing)
    }
}

impl Visitor for Census {
    fn enter(&mut self, found: &Found) {
        let Some(owner) = found.owner else { return };
        let in_group = found.stat.group.is_some() && found.stat.group == self.ledger.lock().leader_pid(owner);
        let members = if in_group { Members::Group } else { Members::Outside };
        let known = self.left.entry(owner).or_insert(members);
        *known = members.max(*known);
    }

    fn leave(&mut self, _found: &Found) {}
}

/// Whom a kill is for.
enum Victims {
    Of(BTreeSet<ChildId>),
    All,
}

/// Stops each process, so that it starts no other while it is walked through, and kills it afterwards.
struct Killer {
    victims: Victims,
    killed: HashSet<Identity>,
    /// Whether this round has found a process that was not killed before.
    fresh: bool,
}

impl Killer {
    fn is_victim(&self, found: &Found) -> bool {
        let is_meant = match &self.victims {
            Victims::All => true,
            Victims::Of(children) => found.owner.is_some_and(|owner| children.contains(&owner)),
        };
        is_meant && !self.killed.contains(&found.identity)
    }

    fn kill(&mut self, found: &Found) {
        if self.killed.insert(found.identity) {
            self.fresh = true;
            let _gone = pidfd::send(found.pidfd.as_fd(), Signal::KILL);
        }
    }
}

impl Visitor for Killer {
    fn enter(&mut self, found: &Found) {
        if self.is_victim(found) {
            let _gone = pidfd::pause(found.pidfd.as_fd());
        }
    }

    fn leave(&mut self, found: &Found) {
        if self.is_victim(found) {
            self.kill(found);
        }
    }
}

/// Those who send signals at the same time, and whose each one's child is.
struct Senders {
    all: Vec<Sender>,
    of: BTreeMap<ChildId, Vec<usize>>,
}

impl Visitor for Senders {
    fn enter(&mut self, found: &Found) {
        let own = found.owner.and_then(|owner| self.of.get(&owner));
        for &index in own.into_iter().flatten() {
            if let Some(sender) = self.all.get_mut(index) {
                sender.send(found);
            }
        }
    }

    fn leave(&mut self, _found: &Found) {}
}

/// Sends a signal to each process of a child, or to those of its process group.
struct Sender {
    group: Option<Pid>,
    signal: Signal,
    sent: HashSet<Identity>,
    /// How many got it, and how many the broker may not signal.
    results: [usize; 2],
}

impl Sender {
    fn send(&mut self, found: &Found) {
        let is_meant = self.group.is_none() || found.stat.group == self.group;
        if !is_meant || !self.sent.insert(found.identity) {
            return;
        }
        let [delivered, refused] = &mut self.results;
        match pidfd::outcome(pidfd::send(found.pidfd.as_fd(), self.signal)) {
            SignalOutcome::Delivered => *delivered += 1,
            SignalOutcome::Refused => *refused += 1,
            SignalOutcome::Gone => {}
        }
    }

    fn outcome(&self) -> SignalOutcome {
        match self.results {
            [0, 0] => SignalOutcome::Gone,
            [0, _] => SignalOutcome::Refused,
            [_, _] => SignalOutcome::Delivered,
        }
    }
}
