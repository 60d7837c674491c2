//! From Recording to Spawning: what becomes of a child while its intent is put on record and its process waits for its turn.

use std::sync::Arc;

use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{Error, ErrorKind, EventKind, ExitReason};

use crate::attempt::is_answered_early;
use crate::child::launching::{Launching, is_kill};
use crate::child::not_started::StartAttempt;
use crate::child::stopping::{Leader, Stop, Stopping};
use crate::child::{Child, Next, Phase};
use crate::effect::{Effect, Purpose, Receipt, Report, Safety};
use crate::ids::Pid;
use crate::input::RecordFailure;
use crate::orders::Orders;
use crate::record::Afterwards;

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
            let (reason, killed) = (ExitReason::StartFailed, None);
            return Next::NeverStarted { reason, killed, error: Some(error) };
        }
        self.phase = Phase::Queued;
        self.common.publish(EventKind::Created, orders);
        if let Some(stop) = cancelled {
            return Next::NeverStarted { reason: stop.reason, killed: None, error: None };
        }
        orders.enqueue(self.common.uid(), self.common.id());
        Next::Nothing
    }

    /// It is its turn to be started.
    pub(super) fn spawn(&mut self, orders: &mut Orders<'_>) {
        self.phase = Phase::Spawning(Launching::default());
        let order = Arc::clone(self.common.order());
        orders.order(Effect::Spawn { run: self.run(), order, purpose: Purpose::Main });
    }

    /// Its program was executed.
    pub(super) fn main_spawned(&mut self, pid: Pid, launching: Launching, orders: &mut Orders<'_>) -> Next {
        orders.launch_is_over(self.common.uid());
        let (killed, is_put_off) = (launching.killed_at(), launching.is_put_off());
        let is_again = matches!(self.phase, Phase::Restarting(_));
        let stop = match launching.stop {
            // It got to its program as it was killed for the sake of another one: no other word says that this was wanted.
            None if is_put_off && is_again => Some(ExitReason::Destroyed),
            None if is_put_off => Some(ExitReason::StartFailed),
            Some(_) | None => None,
        }
        .map(|reason| Stop { reason, steps: Vec::new(), kill_by: None })
        .or(launching.stop);
        self.common.show_start(Some(orders.now.wall));
        self.common.begin_run(orders.now.instant);
        match &stop {
            // Its time was over before it was there, or it is replaced: it is none that was ready, nor that its create gets.
            Some(stop) if stop.reason == ExitReason::StartFailed || self.is_superseded() => {
                self.enter_starting(pid, orders);
            }
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
            let afterwards =
                if is_put_off && is_again { Afterwards::Restart } else { self.after(stop.reason) };
            let stopping = Stopping::new(stop, Leader::Alive { pid }, afterwards, orders.now.instant);
            let stopping = match killed {
                Some(at) => stopping.killed_at(at),
                None => stopping,
            };
            self.begin(stopping, EventKind::Stopping, orders);
        }
        Next::Changed
    }

    /// Its program could not be executed.
    pub(super) fn main_not_spawned(&mut self, failure: &SpawnFailure, orders: &mut Orders<'_>) -> Next {
        orders.launch_is_over(self.common.uid());
        let Phase::Spawning(launching) = &self.phase else { return Next::Nothing };
        if launching.is_put_off() && is_kill(failure) {
            // Nothing has run that could have failed.
            orders.order(Effect::Release { run: self.run() });
            self.phase = Phase::Queued;
            orders.enqueue(self.common.uid(), self.common.id());
            return Next::Nothing;
        }
        let killed = launching.killed_at();
        if let Some(stop) = &launching.stop
            && is_kill(failure)
            && stop.reason != ExitReason::StartFailed
        {
            // It did not get to its program because it was to be stopped.
            return Next::NeverStarted { reason: stop.reason, killed, error: None };
        }
        let killed_for = launching.killed.map(|killed| killed.reason);
        let attempt = StartAttempt::main(self.common.order());
        let message = format!("cannot start {}: {}", attempt.program(), attempt.why(failure, killed_for));
        let child = Arc::clone(self.view());
        orders.order(Effect::Report(Report::StartFailed { child, message: message.clone() }));
        let error = Error::new(ErrorKind::SpawnFailed(failure.clone()), message);
        Next::NeverStarted { reason: ExitReason::StartFailed, killed, error: Some(error) }
    }
}
