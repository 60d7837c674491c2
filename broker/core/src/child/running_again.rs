//! Running again: what leads from the end of one run of a child to the next one, and away from there.

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{Error, ErrorKind, EventKind, Exit, ExitReason};

use crate::child::common::exit_before_start;
use crate::child::launching::{Launching, is_kill};
use crate::child::not_started::StartAttempt;
use crate::child::restarting::{Follows, RestartStage, RestartWish, Restarting, wants_restart};
use crate::child::stopping::{Leader, Stop};
use crate::child::{Child, Next, Phase};
use crate::effect::{Effect, Purpose, Receipt, Report, Safety};
use crate::orders::Orders;
use crate::record::{Afterwards, Unready};
use crate::time::Instant;

impl Child {
    /// What comes after a run that ended in this way.
    pub(super) fn follows(&mut self, exit: &Exit, afterwards: Afterwards, orders: &Orders<'_>) -> Follows {
        if !orders.permits.may_start {
            return Follows::End;
        }
        match afterwards {
            Afterwards::End => Follows::End,
            Afterwards::Restart => {
                self.common.runs_mut().forget();
                Follows::Run { pause: Duration::ZERO }
            }
            Afterwards::Policy => {
                let policy = self.params().restart;
                let is_by_itself = matches!(
                    exit.reason,
                    ExitReason::Exited | ExitReason::Watchdog | ExitReason::StartFailed
                );
                if !is_by_itself || !wants_restart(policy.policy, exit) {
                    return Follows::End;
                }
                let pause = self.common.runs_mut().count(&policy, orders.now.instant);
                pause.map_or(Follows::GivingUp, |pause| Follows::Run { pause })
            }
        }
    }

    /// The next run comes after a pause.
    pub(super) fn enter_restart(&mut self, exit: Exit, pause: Duration, orders: &mut Orders<'_>) -> Next {
        let until = orders.now.instant.plus(pause);
        orders.order(Effect::AwaitRun { child: self.common.id() });
        self.common.next_run();
        self.common.count_restart();
        self.common.await_ready();
        self.ready_command.forget_failure();
        let mut restarting = Box::new(Restarting { exit, stage: RestartStage::Unrecorded { until } });
        restarting.show(&mut self.common);
        let child = Arc::clone(self.view());
        orders.order(Effect::Report(Report::Restarting { child, pause }));
        self.common.publish(EventKind::Restarting, orders);
        restarting.record(&mut self.common, orders);
        self.phase = Phase::Restarting(restarting);
        Next::Changed
    }

    /// Goes on with the pause of an earlier broker.
    pub(super) fn pause_on(&mut self, exit: Exit, until: Instant, orders: &mut Orders<'_>) -> Next {
        // What was found of its last run is none of the next one.
        self.common.has_memory();
        orders.order(Effect::AwaitRun { child: self.common.id() });
        let mut restarting = Box::new(Restarting { exit, stage: RestartStage::Pausing { until } });
        restarting.show(&mut self.common);
        if until > orders.now.instant {
            self.common.set_due(Some(until), orders);
        } else {
            restarting.enqueue(&mut self.common, orders);
        }
        self.phase = Phase::Restarting(restarting);
        Next::Nothing
    }

    /// It is to be started again, whatever its policy.
    pub(crate) fn restart(&mut self, orders: &mut Orders<'_>) -> RestartWish {
        let restarts = self.common.runs().restarts;
        match &mut self.phase {
            Phase::Starting { pid, .. } | Phase::Running { pid, .. } => {
                let leader = Leader::Alive { pid: *pid };
                // No other word says that somebody wanted this run to end.
                let stop =
                    Stop { reason: ExitReason::Destroyed, steps: self.params().stop.clone(), kill_by: None };
                self.enter_stop_for(stop, leader, Afterwards::Restart, orders);
                RestartWish::Granted { restarts: restarts.saturating_add(1) }
            }
            Phase::Stopping(stopping) => {
                if stopping.restart() {
                    stopping.record(&self.common, orders);
                    RestartWish::Granted { restarts: restarts.saturating_add(1) }
                } else {
                    RestartWish::TooLate
                }
            }
            Phase::Restarting(restarting) => {
                if restarting.is_pausing() {
                    self.common.runs_mut().forget();
                    restarting.hurry(&mut self.common, orders);
                } else if restarting.stop().is_some() {
                    return RestartWish::TooLate;
                }
                RestartWish::Granted { restarts }
            }
            Phase::Spawning(launching) if launching.stop.is_some() || launching.killed.is_some() => {
                RestartWish::TooLate
            }
            // It is being started, and that is all that anybody can want.
            Phase::Recording { cancelled: None } | Phase::Queued | Phase::Spawning(_) => {
                RestartWish::Granted { restarts }
            }
            Phase::Recording { cancelled: Some(_) } | Phase::Cleaning(_) | Phase::Ended => {
                RestartWish::TooLate
            }
        }
    }

    /// It is its turn to be started again.
    pub(super) fn start_again(&mut self, orders: &mut Orders<'_>) {
        let Phase::Restarting(restarting) = &mut self.phase else { return };
        match restarting.stage {
            RestartStage::Queued => {
                restarting.stage = RestartStage::Spawning(Launching::default());
                self.common.runs_mut().ordered_at = Some(orders.now.wall);
                let ready_by = orders.now.instant.plus(self.params().ready_timeout.0);
                self.have_ready_by(ready_by, orders);
                let order = Arc::clone(self.common.order());
                orders.order(Effect::Spawn { run: self.run(), order, purpose: Purpose::Main });
            }
            RestartStage::Recording { .. }
            | RestartStage::Unrecorded { .. }
            | RestartStage::Pausing { .. }
            | RestartStage::Spawning(_) => {}
        }
    }

    /// The timer of a restart has run out: its pause, that before another attempt to record it, or the time that its start may take.
    pub(super) fn restart_due(&mut self, orders: &mut Orders<'_>) -> Next {
        let Phase::Restarting(restarting) = &mut self.phase else { return Next::Nothing };
        match restarting.stage {
            RestartStage::Pausing { .. } => {
                restarting.enqueue(&mut self.common, orders);
                Next::Nothing
            }
            RestartStage::Unrecorded { .. } => {
                restarting.record(&mut self.common, orders);
                Next::Nothing
            }
            RestartStage::Recording { .. } | RestartStage::Queued => Next::Nothing,
            RestartStage::Spawning(_) => self.launch_due(orders),
        }
    }

    /// Its program could not be executed again: that is a run that has failed.
    pub(super) fn not_started_again(&mut self, failure: &SpawnFailure, orders: &mut Orders<'_>) -> Next {
        let Phase::Restarting(restarting) = &mut self.phase else { return Next::Nothing };
        let RestartStage::Spawning(launching) = &mut restarting.stage else { return Next::Nothing };
        let launching = std::mem::take(launching);
        orders.launch_is_over(self.common.uid());
        if launching.is_put_off() && is_kill(failure) {
            // Nothing has run that could have failed.
            orders.order(Effect::Release { run: self.common.run() });
            orders.order(Effect::AwaitRun { child: self.common.id() });
            restarting.enqueue(&mut self.common, orders);
            return Next::Nothing;
        }
        let killed = launching.killed_at();
        let (reason, afterwards) = match launching.stop {
            Some(Stop { reason, .. }) if reason != ExitReason::StartFailed => (reason, Afterwards::End),
            Some(_) | None => (ExitReason::StartFailed, self.after(ExitReason::StartFailed)),
        };
        let child = Arc::clone(self.common.view());
        let attempt = StartAttempt::main(self.common.order());
        let (program, message) = (attempt.program(), attempt.why(failure, None));
        orders.order(Effect::Report(Report::StartFailed { child, message: message.clone() }));
        let exit = exit_before_start(reason, killed, orders.now.wall);
        let then = self.release(exit, afterwards, orders);
        if reason != ExitReason::StartFailed {
            // It has not come back because somebody wants it to end.
            return then;
        }
        let what_follows =
            if self.is_ending() { "the child ends" } else { "its policy starts it again later" };
        let message = format!("cannot start {program} again: {message}; {what_follows}");
        let error = Error::new(ErrorKind::SpawnFailed(failure.clone()), message);
        Next::NotStartedAgain { error, then: Box::new(then) }
    }

    /// It is to end between two runs.
    pub(super) fn stop_between_runs(&mut self, stop: Stop, orders: &mut Orders<'_>) -> Next {
        let unready = self.common.unready();
        let Phase::Restarting(restarting) = &mut self.phase else { return Next::Nothing };
        match &mut restarting.stage {
            RestartStage::Spawning(launching) => {
                launching.hasten(&stop, orders.now.instant);
                let pending = &mut launching.stop;
                let is_news = match pending {
                    // That this run is late is no reason to begin another one when somebody wants none.
                    Some(earlier)
                        if earlier.reason == ExitReason::StartFailed && unready != Unready::Ever =>
                    {
                        earlier.join(&stop);
                        earlier.reason = stop.reason;
                        stop.reason != ExitReason::StartFailed
                    }
                    Some(earlier) => earlier.join(&stop),
                    None => true,
                };
                if is_news {
                    pending.get_or_insert(stop);
                    self.record_progress(Safety::Process, Receipt::NotWanted, orders);
                }
                self.set_launch_timer(orders);
                Next::Nothing
            }
            RestartStage::Recording { .. }
            | RestartStage::Unrecorded { .. }
            | RestartStage::Pausing { .. }
            | RestartStage::Queued => {
                // How the last run ended stays true; why nothing follows is news.
                let exit = Exit { reason: stop.reason, ..restarting.exit.clone() };
                orders.withdraw(self.common.uid(), self.common.id());
                self.common.set_due(None, orders);
                self.conclude(exit, orders)
            }
        }
    }
}
