//! Holds each child together with everything that descends from it: knows what is left, and signals and kills it.
//!
//! The main process is held by its pidfd. What descends from it is known by the cgroup that it was born into, where
//! there is one; by its session and process group; by the child's id in its environment; and by its ancestors. The
//! common case, a child that leaves nothing behind, is answered at once; everything else is the worker's.

mod ledger;
#[cfg(test)]
mod tests;
mod walk;
mod worker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::killpg;
use procbroker_core::{Call, Input, Members, Pid, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ExitStatus, Signal};
use thiserror::Error;

use super::cgroup::Cgroups;
use super::descendants::Inheritance;
use super::pidfd;
use ledger::{Leader, Life, SharedLedger};
use walk::Known;
use worker::{Job, Pending, Worker};

/// Takes the worker's reports to the driver. It is called on the worker's thread and must not wait for the main one.
pub type Report = Box<dyn Fn(Input) + Send>;

/// Every child's processes. All of its methods are for the main thread.
#[derive(Debug)]
pub struct Containment {
    inheritance: Inheritance,
    cgroups: Option<Arc<Cgroups>>,
    ledger: SharedLedger,
    pending: Pending,
    jobs: Sender<Job>,
    /// Closed when the worker has ended.
    worker: Receiver<()>,
}

/// The worker cannot be started.
#[derive(Debug, Error)]
#[error("cannot start the thread that follows descendants: {0}; raise the limit on processes (ulimit -u)")]
pub struct ContainmentError(#[source] io::Error);

impl Containment {
    /// Starts the worker.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn new(
        inheritance: Inheritance,
        cgroups: Option<Cgroups>,
        report: Report,
    ) -> Result<Self, ContainmentError> {
        let (jobs, received) = channel();
        let cgroups = cgroups.map(Arc::new);
        let (ledger, pending) = (SharedLedger::default(), Pending::default());
        let worker = Worker {
            inheritance: inheritance.share(),
            cgroups: cgroups.clone(),
            ledger: ledger.clone(),
            pending: pending.clone(),
            report,
            known: Known::default(),
            is_unsure: false,
            is_untidy: false,
        };
        let (alive, ended) = channel();
        std::thread::Builder::new()
            .name("descendants".to_owned())
            .spawn(move || {
                worker.work(&received);
                drop(alive);
            })
            .map_err(ContainmentError)?;
        Ok(Self { inheritance, cgroups, ledger, pending, jobs, worker: ended })
    }

    /// Before a child is spawned: the directory of the cgroup that it is to be born into, if it gets one.
    pub fn prepare(&mut self, run: Run) -> Option<OwnedFd> {
        let taken = self.cgroups.as_ref().and_then(|cgroups| cgroups.take().ok());
        let (group, directory) = taken.unzip();
        self.ledger.lock().prepare(run, group);
        self.refill();
        directory
    }

    /// A child was spawned. [`Reaper::watch`](super::reaper::Reaper::watch) has to be called before, with the same
    /// pidfd.
    pub fn adopt(&mut self, run: Run, pid: Pid, pidfd: OwnedFd) {
        self.ledger.lock().adopt(run, pid, pidfd);
    }

    /// The main process of a child has been reaped: the input for the core, or none when the worker will report it.
    pub fn exited(&mut self, run: Run, status: ExitStatus) -> Option<Input> {
        let mut ledger = self.ledger.lock();
        let entry = ledger.get(run)?;
        let leader = entry.leader.as_ref()?;
        let left_group = pidfd::has_group(leader.pidfd.as_fd()) == Ok(true);
        let group = entry.group.map(|(group, _)| group);
        let has_members =
            || self.cgroups.as_ref().zip(group).is_some_and(|(cgroups, group)| cgroups.has_members(group));
        if self.inheritance.is_empty() && !left_group && !has_members() {
            ledger.ended(run);
            return Some(Input::Exited { run, status, members: Members::Nothing });
        }
        ledger.drain(run, status);
        drop(ledger);
        self.examine();
        None
    }

    /// Orphans have been reaped: what is left of some child may have become less. Once for each batch is enough.
    pub fn orphan_reaped(&mut self) {
        if !self.ledger.lock().draining().is_empty() {
            self.examine();
        }
    }

    /// Sends a signal: the input for the core, or none when the worker will report it.
    ///
    /// A process group without a leader that turns out to be empty is reported as well.
    pub fn signal(&mut self, run: Run, signal: Signal, scope: Scope, call: Option<Call>) -> Option<Input> {
        let leader = self.ledger.lock().get(run).and_then(|entry| entry.leader.clone());
        let outcome = match (leader, scope) {
            (None, Scope::Main | Scope::Group | Scope::All) => SignalOutcome::Gone,
            (Some(leader), Scope::Main) => pidfd::outcome(pidfd::send(leader.pidfd.as_fd(), signal)),
            (Some(leader), Scope::Group) => match signal_group(&leader, signal) {
                Some(outcome) => outcome,
                None => return self.signal_later(run, signal, scope, call),
            },
            (Some(_), Scope::All) => return self.signal_later(run, signal, scope, call),
        };
        if outcome == SignalOutcome::Gone {
            self.orphan_reaped();
        }
        Some(Input::Signalled { run, call, outcome })
    }

    fn signal_later(&self, run: Run, signal: Signal, scope: Scope, call: Option<Call>) -> Option<Input> {
        self.order(Job::Signal { run, signal, scope, call });
        None
    }

    /// Kills everything of a child. What is left of one whose main process has ended is reported when it changes.
    pub fn kill(&mut self, run: Run) {
        self.order(Job::Kill { run });
    }

    /// Nothing of a child is left, or it was never spawned.
    pub fn release(&mut self, run: Run) {
        let entry = self.ledger.lock().release(run);
        if let Some(((group, wear), cgroups)) = entry.and_then(|entry| entry.group).zip(self.cgroups.as_ref())
        {
            cgroups.give_back(group, wear);
        }
    }

    /// Kills whatever descends from the broker, for when no child is left. Reports how much there is when that is
    /// nothing, or when the time is up. The reaper has to be kept going meanwhile.
    pub fn sweep(&mut self, deadline: Instant) {
        self.order(Job::Sweep { deadline });
    }

    /// Has cgroups made ahead, where they run low.
    pub fn refill(&mut self) {
        if self.cgroups.as_ref().is_some_and(|cgroups| cgroups.wants_tidying()) {
            self.order_once(&self.pending.tidy, Job::Tidy);
        }
    }

    /// Waits for the worker to end, for so long at most, and removes all cgroups: the last thing that the broker
    /// does. Nobody may wait in the report callback any more: a channel that it fills has to be closed first.
    pub fn shut_down(self, patience: Duration) {
        drop(self.jobs);
        // Nothing is ever sent: it closes when the worker has dropped all that it had.
        let _ended = self.worker.recv_timeout(patience);
        // Whoever has the last reference removes the groups: a worker that is still busy ends with the process,
        // and leaves them to the next broker.
        drop(self.cgroups);
    }

    fn examine(&self) {
        self.order_once(&self.pending.examine, Job::Examine);
    }

    fn order_once(&self, pending: &AtomicBool, job: Job) {
        if !pending.swap(true, Ordering::SeqCst) {
            self.order(job);
        }
    }

    fn order(&self, job: Job) {
        self.pending.queued.fetch_add(1, Ordering::SeqCst);
        // The worker takes jobs as long as this sender lives.
        let _taken = self.jobs.send(job);
    }
}

/// Sends a signal to the process group of a child; none when each of its processes has to be looked up.
fn signal_group(leader: &Leader, signal: Signal) -> Option<SignalOutcome> {
    match pidfd::send_to_group(leader.pidfd.as_fd(), signal) {
        Err(Errno::EINVAL) => {}
        result => return Some(pidfd::outcome(result)),
    }
    // Before Linux 6.9 there is only the number. It means this group as long as its leader has not been reaped,
    // which only this thread does.
    if leader.life != Life::Alive || pidfd::has_ended(leader.pidfd.as_fd()) {
        return None;
    }
    let group = nix::unistd::Pid::from_raw(leader.pid.get().cast_signed());
    let signal = nix::sys::signal::Signal::try_from(signal.number()).ok()?;
    Some(pidfd::outcome(killpg(group, signal)))
}
