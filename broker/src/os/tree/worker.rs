//! The worker thread: everything about descendants that may take longer than an event loop can stand still.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Instant;

use procbroker_core::{Call, Input, Members, Pid, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, Signal};

use super::Report;
use super::foreign::sweep_foreign;
use super::ledger::{Leader, SharedLedger};
use super::vigil::Vigil;
use super::visitors::{Census, Held, Killer, Senders, Victims};
use super::walk::{Breadth, Found, Known, Walker};
use crate::os::process::pidfd;
use crate::os::process::proc::ProcessStat;
use crate::os::process::subreaper::Inheritance;
use crate::os::tree::cgroup::{Cgroups, Group};

/// How often a walk is repeated while processes die under it, before others get their turn.
pub(super) const SETTLING_WALKS: usize = 16;

/// How often a kill looks for new processes: each round ends all that it finds, so that only a program that
/// forks faster than it is walked through survives it, until the core orders the next kill.
pub(super) const KILL_ROUNDS: usize = 64;

/// What the worker is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Find out what is left of the own children whose main process has ended.
    Examine,
    /// The same of those of an earlier broker.
    ExamineForeign,
    /// The same, for those whose main process was gone before.
    Survey { answer: Sender<HashMap<Run, Members>> },
    /// Kill all of a child.
    Kill { run: Run },
    /// Send a signal.
    Signal(SignalOrder),
    /// Kill all that descends from the broker.
    Sweep { deadline: Instant },
    /// Make and remove cgroups ahead.
    Tidy,
    /// Say when everything that was asked for before is done and reported.
    Settle { answer: Sender<()> },
}

/// A signal to more processes than the main one.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignalOrder {
    pub(super) run: Run,
    pub(super) signal: Signal,
    pub(super) scope: Scope,
    pub(super) call: Option<Call>,
}

/// The jobs of one kind that are waiting, of which more than one would do nothing more.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub(super) examine: Arc<AtomicBool>,
    pub(super) examine_foreign: Arc<AtomicBool>,
    pub(super) tidy: Arc<AtomicBool>,
    /// All jobs that are waiting.
    pub(super) queued: Arc<AtomicUsize>,
}

/// What is done together.
#[derive(Debug, Default)]
struct Batch {
    signals: Vec<SignalOrder>,
    kills: Vec<Run>,
    foreign: Foreign,
    survey: Option<Sender<HashMap<Run, Members>>>,
    sweep: Option<Instant>,
    tidy: bool,
    settled: Vec<Sender<()>>,
}

/// The part of it that is about children of an earlier broker.
#[derive(Debug, Default)]
struct Foreign {
    signals: Vec<SignalOrder>,
    kills: Vec<Run>,
    examine: bool,
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
    /// The same of children of an earlier broker.
    pub(super) is_unsure_of_foreign: bool,
    /// What is waited for beside jobs.
    pub(super) vigil: Vigil,
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
            let mut batch = Batch::default();
            for job in std::iter::once(job).chain(jobs.try_iter()) {
                self.pending.queued.fetch_sub(1, Ordering::SeqCst);
                self.sort(job, &mut batch);
            }
            self.carry_out(&batch);
        }
    }

    fn sort(&self, job: Job, batch: &mut Batch) {
        match job {
            Job::Examine => {}
            Job::ExamineForeign => batch.foreign.examine = true,
            Job::Survey { answer } => batch.survey = Some(answer),
            Job::Kill { run } if self.ledger.lock().is_foreign(run) => batch.foreign.kills.push(run),
            Job::Kill { run } => batch.kills.push(run),
            Job::Signal(order) if self.ledger.lock().is_foreign(order.run) => {
                batch.foreign.signals.push(order);
            }
            Job::Signal(order) => batch.signals.push(order),
            Job::Sweep { deadline } => batch.sweep = Some(deadline),
            Job::Tidy => batch.tidy = true,
            Job::Settle { answer } => batch.settled.push(answer),
        }
    }

    fn carry_out(&mut self, batch: &Batch) {
        self.signal(&batch.signals);
        self.kill(&batch.kills);
        self.examine();
        let Foreign { signals, kills, examine } = &batch.foreign;
        if !signals.is_empty() {
            self.signal_foreign(signals);
        }
        if !kills.is_empty() {
            self.kill_foreign(kills);
        }
        if let Some(answer) = &batch.survey {
            // Whoever asked is waiting for it.
            let _told = answer.send(self.survey());
        } else if *examine || !kills.is_empty() || !signals.is_empty() || self.is_unsure_of_foreign {
            self.examine_foreign();
        }
        if let Some(deadline) = batch.sweep {
            self.sweep(deadline);
        }
        for answer in &batch.settled {
            // Whoever asked may have lost patience.
            let _told = answer.send(());
        }
        if batch.tidy {
            self.tidy();
        }
    }

    fn next_job(&self, jobs: &Receiver<Job>) -> Option<Job> {
        let again = match (self.is_unsure_of_foreign, self.is_unsure, self.is_untidy) {
            (true, _, _) => Job::ExamineForeign,
            (false, true, _) => Job::Examine,
            (false, false, true) => Job::Tidy,
            (false, false, false) if self.vigil.is_empty() => return jobs.recv().ok(),
            (false, false, false) => return self.next_job_or_end(jobs),
        };
        match jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) => {
                self.pending.queued.fetch_add(1, Ordering::SeqCst);
                Some(again)
            }
            Err(TryRecvError::Disconnected) => None,
        }
    }

    /// Waits for the end of something that is left of a child, too.
    fn next_job_or_end(&self, jobs: &Receiver<Job>) -> Option<Job> {
        loop {
            self.vigil.listen();
            let taken = jobs.try_recv();
            let has_ended = matches!(taken, Err(TryRecvError::Empty)) && self.vigil.wait();
            self.vigil.stop_listening();
            match taken {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if has_ended => {
                    self.pending.queued.fetch_add(1, Ordering::SeqCst);
                    return Some(Job::ExamineForeign);
                }
                Err(TryRecvError::Empty) => {}
            }
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

    pub(super) fn walker(&mut self) -> Walker<'_> {
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
        let mut census = Census::new(ledger);
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

    pub(super) fn has_members(&self, run: Run) -> bool {
        let group = self.group(run);
        self.cgroups.as_ref().zip(group).is_some_and(|(cgroups, group)| cgroups.has_members(group))
    }

    pub(super) fn group(&self, run: Run) -> Option<Group> {
        self.ledger.lock().get(run)?.group.map(|(group, _)| group)
    }

    pub(super) fn leader(&self, run: Run) -> Option<Leader> {
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
        let held = Held::new(self.ledger.clone(), targets.iter().map(|(run, ..)| *run));
        let mut killer = Killer::of(Victims::Of(held));
        let cgroups = self.cgroups.clone();
        let mut walker = self.walker();
        for round in 0..KILL_ROUNDS {
            killer.fresh = false;
            let mut is_settled = true;
            for (run, leader, group) in &targets {
                if let Some((cgroups, group)) = cgroups.as_ref().zip(*group)
                    && (round > 0 || cgroups.kill(group).is_err())
                {
                    each_member(cgroups, group, None, &mut |found| killer.kill(found));
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
    fn signal(&mut self, orders: &[SignalOrder]) {
        let mut senders = Senders::new(self.ledger.clone());
        let mut targets = Vec::new();
        for order in orders {
            let SignalOrder { run, call, .. } = *order;
            let Some(leader) = self.leader(run) else {
                (self.report)(Input::Signalled { run, call, outcome: SignalOutcome::Gone });
                continue;
            };
            senders.add(run.child, Some(leader.pid), order);
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
                each_member(cgroups, group, None, &mut |found| sender.send(found));
            }
            (self.report)(Input::Signalled { run, call, outcome: sender.outcome() });
        }
    }

    /// Kills everything that descends from the broker until nothing does, or until the time is up. The main
    /// thread has to reap meanwhile.
    fn sweep(&mut self, deadline: Instant) {
        let mut killer = Killer::of(Victims::All);
        let (inheritance, ledger, cgroups) =
            (self.inheritance.share(), self.ledger.clone(), self.cgroups.clone());
        let mut walker = self.walker();
        let left = loop {
            // Before the walk, so that it kills each of them.
            let mut living: Vec<OwnedFd> =
                inheritance.all().pids.into_iter().filter_map(hold_living).collect();
            killer.fresh = false;
            let is_settled = walker.orphans(Breadth::AllThreads, &mut killer);
            living.extend(sweep_foreign(&mut walker, &ledger, cgroups.as_deref()));
            let is_over = living.is_empty() && is_settled && !killer.fresh;
            if is_over || Instant::now() >= deadline {
                break living.len();
            }
            // The walk may have missed one, by a list that was changing while it was read. What they leave behind is the
            // broker's then, and found by the next round.
            for pidfd in &living {
                let _gone = pidfd::send(pidfd.as_fd(), Signal::KILL);
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

/// Everything in a cgroup, wherever it descends from, as this child's.
pub(super) fn each_member(
    cgroups: &Cgroups,
    group: Group,
    owner: Option<ChildId>,
    visit: &mut dyn FnMut(&Found),
) {
    for pid in cgroups.members(group) {
        let Ok(pidfd) = pidfd::open(pid) else { continue };
        let is_member = |stat: &ProcessStat| !stat.is_zombie && cgroups.group_of(pid) == Some(group);
        let Some(stat) = ProcessStat::read(pid).filter(is_member) else { continue };
        let identity = (pid, pidfd::inode(pidfd.as_fd()).unwrap_or_default(), stat.start_ticks);
        visit(&Found { stat, identity, pidfd, owner });
    }
}
