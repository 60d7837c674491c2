//! Carries out the core's orders, each with the one module of the edge that can.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use procbroker_core::{Call, Effect, ExitCause, Input, Pid, Record, Run, ServiceState, SpawnOrder};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{ChildId, Error, Response};
use tokio::sync::mpsc::error::TrySendError;

use super::Outboxes;
use crate::connection::Outgoing;
use crate::limits::{FORMER_LOGS_MAX, SWEEP_PATIENCE, TIDYING_PATIENCE};
use crate::os::containment::Containment;
use crate::os::environment::Surroundings;
use crate::os::logs::Logs;
use crate::os::notify::ServiceOwner;
use crate::os::reaper::{Backlog, Reaped, Reaper};
use crate::os::spawn::{self, Output, Step};
use crate::os::state_dir::StateDir;
use crate::report;
use crate::spawners::{Job, Outcome, Spawners};

/// What the driver acts with.
#[derive(Debug)]
pub struct Hands {
    /// The clients, by connection.
    pub outboxes: Outboxes,
    /// Starts processes.
    pub spawners: Spawners,
    /// Reaps them.
    pub reaper: Reaper,
    /// Signals and finds what belongs to them.
    pub containment: Containment,
    /// What children find around them.
    pub surroundings: Surroundings,
    /// What children write to.
    pub logs: Logs,
    /// Children that are not visible any more, whose files of output can be used again.
    pub former: VecDeque<ChildId>,
    /// The folder that the broker has for itself as long as it lives.
    pub state: StateDir,
    /// Who owns the broker's service, if anybody does.
    pub owner: ServiceOwner,
    /// How many processes are being started.
    pub in_flight: usize,
    /// Whether the reaper has more than one batch could take.
    pub backlog: Backlog,
    /// Room for what is reaped at a time.
    pub reaped: Vec<Reaped>,
}

impl Hands {
    /// Whether processes are being started.
    pub(super) fn spawns_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether more has ended than one batch could take.
    pub(super) fn has_backlog(&self) -> bool {
        match self.backlog {
            Backlog::Nothing => false,
            Backlog::More => true,
        }
    }

    /// Looks after the spawning threads.
    pub(super) fn tend(&mut self) {
        self.spawners.tend();
    }

    /// Carries out one order. What is known of its outcome at once goes to `inputs`.
    pub(super) fn perform(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) {
        match effect {
            Effect::Admit { connection } => {
                if let Some(outbox) = self.outboxes.get(&connection) {
                    // The first message of a new connection always finds room.
                    let _ = outbox.try_send(Outgoing::Admitted);
                }
            }
            Effect::Refuse { connection, error } => {
                if let Some(outbox) = self.outboxes.remove(&connection) {
                    let _ = outbox.try_send(Outgoing::Refused(error));
                }
            }
            Effect::Answer { call, result } => self.answer(call, result),
            Effect::Record { run, record } => match record {
                // Nothing is kept across a crash yet: a record is as safe as it gets at once.
                Record::Intent { .. } => inputs.push_back(Input::Recorded { run, result: Ok(()) }),
                Record::Progress { .. } | Record::Void => {}
            },
            Effect::Spawn { run, order } => self.spawn(run, &order, inputs),
            Effect::Signal { run, signal, scope, call } => {
                inputs.extend(self.containment.signal(run, signal, scope, call));
            }
            Effect::Kill { run } => self.containment.kill(run),
            Effect::Release { run } => self.containment.release(run),
            Effect::Forget { child } => self.forget(child),
            Effect::Report(line) => report::write(&line),
            Effect::Notify(ServiceState::Stopping { timeout, children }) => {
                self.owner.stopping(timeout.as_duration(), &format!("Stopping {children} children"));
            }
            Effect::Sweep => self.containment.sweep(Instant::now() + SWEEP_PATIENCE),
            // The driver itself takes this one.
            Effect::Exit(ExitCause::Done | ExitCause::Left(_)) => {}
        }
    }

    /// Hands an answer to its connection, or gives the connection up: its client asks and does not read.
    fn answer(&mut self, call: Call, result: Result<Response, Error>) {
        let Some(outbox) = self.outboxes.get(&call.connection) else { return };
        match outbox.try_send(Outgoing::Answer { number: call.number, result }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(connection = call.connection.0, "a client does not read its answers; closing");
                self.outboxes.remove(&call.connection);
            }
            Err(TrySendError::Closed(_)) => {
                self.outboxes.remove(&call.connection);
            }
        }
    }

    fn spawn(&mut self, run: Run, order: &SpawnOrder, inputs: &mut VecDeque<Input>) {
        let cgroup = self.containment.prepare(run);
        let submitted = self.surroundings.spec(run.child, order, cgroup).and_then(|spec| {
            let refused = |_| spawn::SpawnFailure::Refused { step: Step::Clone, errno: Errno::EAGAIN };
            let heir_of = match &spec.stdout {
                Output::Append(_) => self.former.pop_front(),
                Output::Null | Output::Inherit => None,
            };
            self.spawners.submit(Job { run, spec, heir_of }).map_err(refused)
        });
        match submitted {
            Ok(()) => self.in_flight += 1,
            Err(failure) => inputs.push_back(Input::SpawnFailed { run, failure: told(failure) }),
        }
    }

    /// Keeps the file of a child's output for another child, or removes it where there are enough of them.
    fn forget(&mut self, child: ChildId) {
        if self.former.len() < FORMER_LOGS_MAX && self.logs.stdout_is_empty(child) {
            self.former.push_back(child);
        } else if let Err(error) = self.logs.remove(child) {
            tracing::warn!(%child, %error, "cannot remove the output of a child that is not visible any more");
        }
    }

    /// Takes in what a spawning thread has done.
    pub(super) fn spawned(&mut self, outcome: Outcome, inputs: &mut VecDeque<Input>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Outcome { run, result } = outcome;
        match result {
            Ok(spawned) => {
                let Some(pid) = u32::try_from(spawned.pid.as_raw()).ok().and_then(Pid::new) else { return };
                self.reaper.watch(run, pid, spawned.pidfd.as_fd());
                self.containment.adopt(run, pid, spawned.pidfd);
                inputs.push_back(Input::Spawned { run, pid });
            }
            Err(failure) => inputs.push_back(Input::SpawnFailed { run, failure: told(failure) }),
        }
    }

    /// Reaps a batch of what has ended.
    pub(super) fn reap(&mut self, inputs: &mut VecDeque<Input>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        self.backlog = self.reaper.reap(self.in_flight, &mut reaped);
        let mut orphans = false;
        for one in reaped.drain(..) {
            match one {
                Reaped::Child { run, status, .. } => inputs.extend(self.containment.exited(run, status)),
                Reaped::Orphan { .. } => orphans = true,
            }
        }
        if orphans {
            self.containment.orphan_reaped();
        }
        self.reaped = reaped;
    }

    /// Lets go of everything, in the order in which it depends on each other.
    pub(super) fn finish(self) {
        drop(self.outboxes);
        self.containment.shut_down(TIDYING_PATIENCE);
    }
}

/// A failure to spawn, as clients are told of it.
fn told(failure: spawn::SpawnFailure) -> SpawnFailure {
    let errno = failure.errno();
    SpawnFailure {
        errno: errno as i32,
        errno_name: format!("{errno:?}"),
        step: failure.step_name().to_owned(),
    }
}
