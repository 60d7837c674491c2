//! The worker thread: everything about descendants that may take longer than an event loop can stand still.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use procbroker_core::{Input, Members, Pid, Run};
use procbroker_protocol::Signal;
use procbroker_protocol::request::Scope;

use super::exit_watch::ExitWatch;
use super::job::{Pending, SignalOrder, WorkerJob};
use super::process_table::SharedTable;
use super::right;
use super::search::{PerSearch, Search};
use super::targets::Targets;
use super::visitors::{KillScope, KillVisitor, LiveRuns, SignalSenders, TakeNote};
use super::walk::{Breadth, Known, Walker, Wanted, each_member};
use crate::os::logs::pipes::Pipes;
use crate::os::process::pidfd;
use crate::os::process::proc::ProcessStat;
use crate::os::process::subreaper::Inheritance;
use crate::os::tree::cgroup::{Cgroups, Group};

/// How often a walk is repeated while processes die under it, before others get their turn.
pub(super) const SETTLING_WALKS: usize = 16;

/// How often a kill looks for new processes: each round ends all that it finds, so that only a program that
/// forks faster than it is walked through survives it, until the core orders the next kill.
pub(super) const KILL_ROUNDS: usize = 64;

/// How long a round of a sweep waits for the ends of those that it has killed.
const SWEEP_ROUND: Duration = Duration::from_millis(100);

/// Takes the worker's inputs to the driver. It is called on the worker's thread and must not wait for the driver's.
pub type Reporter = Box<dyn Fn(Input) + Send>;

/// What is done together.
#[derive(Debug, Default)]
struct Batch {
    orders: PerSearch<Orders>,
    survey: Option<Sender<HashMap<Run, Members>>>,
    sweep: Option<Instant>,
    tidy: bool,
    let_go: bool,
    settled: Vec<Sender<()>>,
}

/// The part of a batch that is about children whose processes are found in one way.
#[derive(Debug, Default)]
struct Orders {
    signals: Vec<SignalOrder>,
    kills: Vec<Run>,
    examine: bool,
}

/// The state of the worker thread.
pub(super) struct Worker {
    pub(super) inheritance: Inheritance,
    pub(super) cgroups: Option<Arc<Cgroups>>,
    pub(super) pipes: Pipes,
    pub(super) table: SharedTable,
    pub(super) pending: Pending,
    pub(super) report: Reporter,
    pub(super) known: Known,
    /// Whether the last look at what is left has to be repeated, such as for processes that died under it.
    pub(super) is_unsure: PerSearch<bool>,
    /// The exits that are waited for beside jobs.
    pub(super) exit_watch: ExitWatch,
    /// Whether tidying was put off for something more urgent.
    pub(super) is_untidy: bool,
    /// Whether letting go was.
    pub(super) has_released: bool,
}

impl Worker {
    /// Works until nobody can give it a job any more.
    ///
    /// All jobs that wait are done together: a walk over the orphans serves a thousand kills as it serves one, and
    /// a thousand walks in turn would take longer than a shutdown may.
    pub(super) fn work(mut self, jobs: &Receiver<WorkerJob>) {
        while let Some(job) = self.next_job(jobs) {
            let mut batch = Batch::default();
            for job in std::iter::once(job).chain(jobs.try_iter()) {
                self.pending.queued.fetch_sub(1, Ordering::SeqCst);
                self.sort(job, &mut batch);
            }
            self.carry_out(&batch);
        }
    }

    fn sort(&self, job: WorkerJob, batch: &mut Batch) {
        let search = |run| self.table.lock().search(run);
        match job {
            WorkerJob::Examine(search) => batch.orders.of_mut(search).examine = true,
            WorkerJob::Survey { answer } => batch.survey = Some(answer),
            WorkerJob::Kill { run } => batch.orders.of_mut(search(run)).kills.push(run),
            WorkerJob::Signal(order) => batch.orders.of_mut(search(order.run)).signals.push(order),
            WorkerJob::Sweep { deadline } => batch.sweep = Some(deadline),
            WorkerJob::Tidy => batch.tidy = true,
            WorkerJob::LetGo => batch.let_go = true,
            WorkerJob::Settle { answer } => batch.settled.push(answer),
        }
    }

    fn carry_out(&mut self, batch: &Batch) {
        for search in Search::ALL {
            let orders = batch.orders.of(search);
            self.signal(search, &orders.signals);
            self.kill(search, &orders.kills);
            let is_changed = !orders.signals.is_empty() || !orders.kills.is_empty();
            match &batch.survey {
                // Whoever asked is waiting for it.
                Some(answer) if search == Search::Everywhere => drop(answer.send(self.survey())),
                Some(_) | None if orders.examine || is_changed || *self.is_unsure.of(search) => {
                    self.examine(search);
                }
                Some(_) | None => {}
            }
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
        if batch.let_go {
            self.let_go();
        }
    }

    fn next_job(&self, jobs: &Receiver<WorkerJob>) -> Option<WorkerJob> {
        let unsure = Search::ALL.into_iter().find(|search| *self.is_unsure.of(*search));
        let again = match unsure {
            Some(search) => WorkerJob::Examine(search),
            None if self.is_untidy => WorkerJob::Tidy,
            None if self.has_released => WorkerJob::LetGo,
            None if self.exit_watch.is_empty() => return jobs.recv().ok(),
            None => return self.next_job_or_exit(jobs),
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
    fn next_job_or_exit(&self, jobs: &Receiver<WorkerJob>) -> Option<WorkerJob> {
        loop {
            self.exit_watch.listen();
            let taken = jobs.try_recv();
            let has_ended = matches!(taken, Err(TryRecvError::Empty)) && self.exit_watch.wait();
            self.exit_watch.stop_listening();
            match taken {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if has_ended => {
                    self.pending.queued.fetch_add(1, Ordering::SeqCst);
                    return Some(WorkerJob::Examine(Search::Everywhere));
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

    /// Lets go of what was released, until there is something more urgent to do.
    fn let_go(&mut self) {
        self.pending.let_go.store(false, Ordering::SeqCst);
        let Pending { queued, released, .. } = &self.pending;
        self.has_released = !released.let_go(|| queued.load(Ordering::SeqCst) > 0);
    }

    pub(super) fn walker(&mut self) -> Walker<'_> {
        Walker::new(&self.inheritance, self.cgroups.as_deref(), &self.pipes, &self.table, &mut self.known)
    }

    pub(super) fn has_members(&self, run: Run) -> bool {
        let group = self.group(run);
        self.cgroups.as_ref().zip(group).is_some_and(|(cgroups, group)| cgroups.has_members(group))
    }

    pub(super) fn group(&self, run: Run) -> Option<Group> {
        self.table.lock().get(run)?.group.map(|(group, _)| group)
    }

    /// Sends SIGKILL to everything of these children, and again to what is new, until nothing is.
    fn kill(&mut self, search: Search, runs: &[Run]) {
        if runs.is_empty() {
            return;
        }
        for &run in runs {
            self.table.lock().taint_by_kill(run);
        }
        let targets = Targets::new(&self.table, search, runs);
        let mut killer =
            KillVisitor::of(KillScope::Of(LiveRuns::new(self.table.clone(), runs.iter().copied())));
        let cgroups = self.cgroups.clone();
        let mut walker = self.walker();
        for round in 0..KILL_ROUNDS {
            killer.fresh = false;
            for (cgroups, group) in targets.all.iter().filter_map(|target| cgroups.as_ref().zip(target.group))
            {
                if round > 0 || cgroups.kill(group).is_err() {
                    each_member(cgroups, group, None, &mut |found| killer.kill(found));
                }
            }
            let is_settled = walker.targets(&targets, &mut killer);
            // Only now: what has lost its parent cannot be told by it.
            for leader in targets.all.iter().filter_map(|target| target.leader.as_ref()) {
                let _nobody = pidfd::send_to_group(leader.pidfd.as_fd(), Signal::KILL);
            }
            if !killer.fresh && is_settled {
                break;
            }
        }
    }

    /// Sends each of these signals once to each process of its child, and reports what became of it.
    fn signal(&mut self, search: Search, orders: &[SignalOrder]) {
        if orders.is_empty() {
            return;
        }
        let orders = self.signal_at_once(search, orders);
        let runs: Vec<Run> = orders.iter().map(|order| order.run).collect();
        if runs.is_empty() {
            return;
        }
        let targets = Targets::new(&self.table, search, &runs);
        let mut senders = SignalSenders::new(self.table.clone());
        for order in &orders {
            senders.add(order.run.child, self.table.lock().group_number(order.run.child), order);
        }
        let cgroups = self.cgroups.clone();
        let mut walker = self.walker();
        for _ in 0..SETTLING_WALKS {
            let before = senders.count();
            let is_settled = walker.targets(&targets, &mut senders);
            // What a scan reaches it may have reached too late to see what that one had started.
            if is_settled && (search == Search::Inherited || senders.count() == before) {
                break;
            }
        }
        for ((order, target), mut sender) in orders.iter().zip(&targets.all).zip(senders.all) {
            if let Some((cgroups, group)) = cgroups.as_ref().zip(target.group) {
                each_member(cgroups, group, None, &mut |found| sender.send(found));
            }
            let call = order.asked.map(|asked| asked.call);
            (self.report)(Input::Signalled { run: order.run, call, outcome: sender.outcome() });
        }
    }

    /// Takes note of what descends from children without a cgroup, which may lose the parent that tells whose it is; then
    /// sends the signals that one system call sends. Returns the others.
    fn signal_at_once(&mut self, search: Search, orders: &[SignalOrder]) -> Vec<SignalOrder> {
        let without_group: Vec<Run> =
            orders.iter().map(|order| order.run).filter(|&run| self.group(run).is_none()).collect();
        if search == Search::Inherited && !without_group.is_empty() {
            let targets = Targets::new(&self.table, search, &without_group);
            let _noted = self.walker().targets(&targets, &mut TakeNote);
        }
        let is_left = |order: &&SignalOrder| {
            let SignalOrder { run, signal, scope, asked } = **order;
            let by = asked.and_then(|asked| asked.by);
            let call = asked.map(|asked| asked.call);
            let leader = self.table.lock().get(run).and_then(|entry| entry.leader.clone());
            let outcome = leader.and_then(|leader| match scope {
                Scope::Main => Some(right::send(leader.pid, leader.pidfd.as_fd(), signal, by)),
                Scope::Group if by.is_some() => None,
                Scope::Group => leader.signal_group(false, signal),
                Scope::All => None,
            });
            if let Some(outcome) = outcome {
                (self.report)(Input::Signalled { run, call, outcome });
            }
            outcome.is_none()
        };
        orders.iter().filter(is_left).copied().collect()
    }

    /// Kills everything that descends from the broker until nothing does, or until the time is up. The driver
    /// has to reap meanwhile.
    fn sweep(&mut self, deadline: Instant) {
        let mut killer = KillVisitor::of(KillScope::All);
        let (inheritance, table, cgroups) =
            (self.inheritance.share(), self.table.clone(), self.cgroups.clone());
        let mut walker = self.walker();
        let left = loop {
            // Before the walk, so that it kills each of them.
            let mut living: Vec<OwnedFd> =
                inheritance.all().pids.into_iter().filter_map(hold_living).collect();
            killer.fresh = false;
            let is_settled = walker.orphans(Breadth::AllThreads, Wanted::Everything, &mut killer);
            living.extend(walker.kill_adopted(&table, cgroups.as_deref()));
            let is_over = living.is_empty() && is_settled && !killer.fresh;
            if is_over || Instant::now() >= deadline {
                break living.len();
            }
            // The walk may have missed one, by a list that was changing while it was read. What they leave behind is the
            // broker's then, and found by the next round.
            // One that does not end holds up no further round.
            let until = deadline.min(Instant::now() + SWEEP_ROUND);
            for pidfd in &living {
                let _gone = pidfd::send(pidfd.as_fd(), Signal::KILL);
            }
            for pidfd in &living {
                let _in_time = pidfd::wait_for_end(pidfd.as_fd(), until);
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
