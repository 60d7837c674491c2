//! Starting: the intent of a child is on record, then its process is started in its turn, or it never was.

use std::sync::Arc;

use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{Error, ErrorKind, EventKind, ExitReason};

use crate::child::stopping::{Leader, Stop};
use crate::child::{Child, Next, Phase};
use crate::effect::{Effect, Purpose, Receipt, Report, Safety};
use crate::ids::Pid;
use crate::input::RecordFailure;
use crate::orders::Orders;
use crate::pending::is_answered_early;

impl Child {
    /// The intent is on record: now, and not before, the process may be started.
    pub(super) fn intent_recorded(
        &mut self,
        cancelled: Option<Stop>,
        result: Result<(), RecordFailure>,
        orders: &mut Orders<'_>,
    ) -> Next {
        if let Err(failure) = result {
            let error = Error::new(
                ErrorKind::Internal,
                format!("cannot create a child: it could not be recorded: {}", failure.message),
            );
            return Next::NeverStarted { reason: ExitReason::StartFailed, error: Some(error) };
        }
        self.phase = Phase::Queued;
        self.common.publish(EventKind::Created, orders);
        if let Some(stop) = cancelled {
            return Next::NeverStarted { reason: stop.reason, error: None };
        }
        orders.spawn_queue.enqueue(self.common.uid(), self.common.id());
        Next::Nothing
    }

    /// It is its turn to be started.
    pub(super) fn spawn(&mut self, orders: &mut Orders<'_>) {
        self.phase = Phase::Spawning { stop: None };
        let order = Arc::clone(self.common.order());
        orders.order(Effect::Spawn { run: self.run(), order, purpose: Purpose::Main });
    }

    /// Its program was executed.
    pub(super) fn main_spawned(&mut self, pid: Pid, stop: Option<Stop>, orders: &mut Orders<'_>) -> Next {
        orders.spawn_queue.finish(self.common.uid());
        self.common.show_start(Some(orders.now.wall));
        self.common.runs_mut().begin(orders.now.instant);
        match &stop {
            // Its time was over before it was there: it is none that was ready.
            Some(stop) if stop.reason == ExitReason::StartFailed => self.enter_starting(pid, orders),
            Some(_) | None => {
                self.enter_up(pid, orders);
                if is_answered_early(self.params()) {
                    self.common.is_answered();
                }
            }
        }
        if stop.is_none() {
            // Else what is on record is that it is to be stopped, until that has begun.
            self.record_progress(Safety::Process, Receipt::NotWanted, orders);
        }
        orders.order(Effect::Report(Report::Started { child: Arc::clone(self.view()) }));
        self.common.publish(EventKind::Started, orders);
        if self.was_ready() {
            self.common.publish(EventKind::Ready, orders);
        }
        if let Some(stop) = stop {
            self.enter_stop(stop, Leader::Alive { pid }, orders);
        }
        Next::Changed
    }

    /// Its program could not be executed.
    pub(super) fn main_not_spawned(&mut self, failure: &SpawnFailure, orders: &mut Orders<'_>) -> Next {
        orders.spawn_queue.finish(self.common.uid());
        if let Phase::Spawning { stop: Some(stop) } = &self.phase
            && failure.step == KILLED
            && stop.reason != ExitReason::StartFailed
        {
            // It did not get to its program because it was to be stopped.
            return Next::NeverStarted { reason: stop.reason, error: None };
        }
        let program = self.view().command.first().cloned().unwrap_or_default();
        let message = format!(
            "cannot start {program:?}: {} failed with {} ({})",
            failure.step,
            failure.errno_name,
            advice(&failure.step)
        );
        let child = Arc::clone(self.view());
        orders.order(Effect::Report(Report::StartFailed { child, message: message.clone() }));
        let error = Error::new(ErrorKind::SpawnFailed(failure.clone()), message);
        Next::NeverStarted { reason: ExitReason::StartFailed, error: Some(error) }
    }
}

/// The step at which a process is when it is killed because it does not get to its program.
const KILLED: &str = "killed";

/// What a user can do about a step that failed.
pub(super) fn advice(step: &str) -> &'static str {
    match step {
        "exec" => "check the program, its permissions and the child's PATH",
        "cwd" => "check that the folder exists and that the child's user may enter it",
        "user" | "groups" => "check the account and what the broker may do",
        "rlimits" => "ask for no more than the broker's own hard limit",
        "stdout" | "stderr" | "stdin" => "check the broker's state folder",
        "cgroup" | "resources" => "see the facilities in status",
        _ => "see the broker's log",
    }
}
