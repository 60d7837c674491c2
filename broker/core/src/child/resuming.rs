//! Resuming: a child goes on where an earlier broker was with it, by what is on record and what is found of it.

use procbroker_protocol::create::{Ready, StopStep};
use procbroker_protocol::{EventKind, Exit, ExitReason, ExitStatus, Timestamp};

use crate::attempt::is_answered_early;
use crate::child::cleaning::{Cleaning, Remains};
use crate::child::common::Common;
use crate::child::memory::{self, EndedBy};
use crate::child::restarting::{RestartStage, Restarting};
use crate::child::stopping::{Cause, Leader, Stop, Stopping};
use crate::child::watchdog::WatchLeft;
use crate::child::{Child, Next, Phase};
use crate::effect::{Effect, Receipt, Safety};
use crate::ids::Pid;
use crate::input::Members;
use crate::orders::Orders;
use crate::record::{Finding, HandedOver, Kinship, Progress, Runs, StoppingProgress, Unready};
use crate::time::Instant;

impl Child {
    /// Goes on with a child that had not ended, as far as is on record, and by what was handed over.
    pub(crate) fn resume(
        &mut self,
        progress: Option<Progress>,
        finding: Finding,
        handed_over: &HandedOver,
        orders: &mut Orders<'_>,
    ) -> Next {
        self.common.show_status(handed_over.status_text.as_deref().unwrap_or_default());
        match progress {
            None if matches!(finding, Finding::Unexecuted { .. }) => {
                let stop = Stop { reason: ExitReason::StartFailed, steps: Vec::new(), kill_by: None };
                self.resume_unexecuted(stop, orders)
            }
            None => {
                self.may_have_started();
                self.resume_up(self.view().created_at, None, WatchLeft::default(), finding, orders)
            }
            Some(Progress::Unwanted { reason, steps }) => {
                if reason == ExitReason::Replaced {
                    self.is_replaced_unready();
                }
                let stop = Stop { reason, steps, kill_by: None };
                if let Finding::Unexecuted { .. } = finding {
                    return self.resume_unexecuted(stop, orders);
                }
                if reason != ExitReason::StartFailed && !self.is_superseded() {
                    self.may_have_started();
                }
                self.resume_unwanted(stop, finding, orders)
            }
            Some(Progress::Starting { started_at, ready_by, runs }) => {
                let unready = runs.unready.as_told(ExitReason::StartFailed, runs.restarts);
                self.common.resume_runs(Runs { unready, ..runs });
                self.resume_up(started_at, Some(ready_by), WatchLeft::default(), finding, orders)
            }
            Some(Progress::Running { started_at, runs, departure }) => {
                self.common.resume_runs(runs);
                self.common.is_ready();
                let left = WatchLeft { departure, time: handed_over.watchdog_left };
                self.resume_up(started_at, None, left, finding, orders)
            }
            Some(Progress::Restarting { started_at, exit, until, unwanted, runs }) => {
                self.common.show_start(started_at);
                self.common.resume_runs(runs);
                let is_replaced =
                    unwanted.as_ref().is_some_and(|(reason, _)| *reason == ExitReason::Replaced);
                if is_replaced && self.is_unanswered() {
                    self.is_replaced_unready();
                }
                self.resume_restart(exit, until, unwanted, finding, orders)
            }
            Some(Progress::Stopping(stopping)) => {
                self.resume_ending(stopping.reason, stopping.runs.clone());
                self.resume_stop(stopping, finding, orders)
            }
            Some(Progress::Cleaning { started_at, exit, attempts, ended, restarts, unready }) => {
                self.resume_ending(exit.reason, Runs { restarts, unready, ..Runs::default() });
                self.common.show_start(started_at);
                let cleaning = Cleaning::new(exit, handed_over.cleanup_attempts.unwrap_or(attempts));
                let cleaning = cleaning.bounded_by(handed_over.cleanup_until);
                self.resume_cleanup(cleaning, ended, finding, orders)
            }
            Some(Progress::Ended { started_at, exit, cleanup, at: _, restarts, unready }) => {
                self.resume_ending(exit.reason, Runs { restarts, unready, ..Runs::default() });
                self.phase = Phase::Ended;
                self.common.show_start(started_at);
                self.common.show_end(exit, cleanup);
                Next::Nothing
            }
        }
    }

    /// Of its run, which was going on when the earlier broker died, something was killed for want of memory.
    pub(crate) fn has_run_out_of_memory(&mut self) {
        self.common.lacks_memory();
    }

    /// It was about to be started: its process is killed before it has its program, and it never was.
    fn resume_unexecuted(&mut self, stop: Stop, orders: &mut Orders<'_>) -> Next {
        self.phase = Phase::Spawning(self.resume_launch(Some(stop), orders));
        // That it never was is to be known after the next crash, too.
        self.record_progress(Safety::Process, Receipt::NotWanted, orders);
        Next::Nothing
    }

    /// It had been started, or may have been.
    fn resume_up(
        &mut self,
        started_at: Timestamp,
        ready_by: Option<Instant>,
        watch: WatchLeft,
        finding: Finding,
        orders: &mut Orders<'_>,
    ) -> Next {
        self.common.show_start(Some(started_at));
        match finding {
            Finding::Process { pid, .. } | Finding::Unexecuted { pid } => {
                if self.was_ready() {
                    self.resume_running(pid, watch, orders);
                } else {
                    self.resume_starting(pid, ready_by, orders);
                }
                // Its process may not have been on record.
                self.record_progress(Safety::Process, Receipt::NotWanted, orders);
                Next::Nothing
            }
            Finding::Gone { .. } | Finding::NeverStarted | Finding::Rebooted => {
                let steps = self.params().stop.clone();
                let reason = if self.was_ready() { ExitReason::Exited } else { ExitReason::StartFailed };
                self.resume_gone(Stop { reason, steps, kill_by: None }, Cause::OwnEnd, finding, orders)
            }
        }
    }

    /// Its process may have been there: it was ready then, unless it had to say so, or its create did not wait for that.
    fn may_have_started(&mut self) {
        if self.params().ready == Ready::Spawn {
            self.common.is_ready();
        } else if is_answered_early(self.params()) {
            self.common.is_answered();
        }
    }

    /// It was on its way to its end, or there.
    fn resume_ending(&mut self, reason: ExitReason, runs: Runs) {
        let unready = runs.unready.as_told(reason, runs.restarts);
        self.common.resume_runs(Runs { unready, ..runs });
        if reason == ExitReason::Replaced && unready == Unready::Ever {
            self.is_replaced_unready();
        }
    }

    /// It was to be stopped as soon as it was there.
    fn resume_unwanted(&mut self, stop: Stop, finding: Finding, orders: &mut Orders<'_>) -> Next {
        self.common.show_start(Some(self.view().created_at));
        match finding {
            Finding::Process { pid, .. } | Finding::Unexecuted { pid } => {
                self.enter_stop(stop, Leader::Alive { pid }, orders);
                Next::Nothing
            }
            Finding::Gone { .. } | Finding::NeverStarted | Finding::Rebooted => {
                self.resume_gone(stop, Cause::Asked, finding, orders)
            }
        }
    }

    /// Its main process has ended while no broker was there; what it left behind gets this stop.
    fn resume_gone(&mut self, stop: Stop, cause: Cause, finding: Finding, orders: &mut Orders<'_>) -> Next {
        let at = orders.now.wall;
        let (status, members, reason) = match finding {
            Finding::Gone { status, members } => (status, members, stop.reason),
            Finding::NeverStarted | Finding::Process { .. } | Finding::Unexecuted { .. } => {
                (ExitStatus::Unknown, Members::Nothing, stop.reason)
            }
            Finding::Rebooted => {
                (ExitStatus::Unknown, Members::Nothing, self.lost_with_the_machine(stop.reason))
            }
        };
        if members == Members::Nothing {
            let ended_by = match cause {
                Cause::OwnEnd => EndedBy::Itself,
                Cause::Asked => EndedBy::Steps,
            };
            return self.lost(memory::told(Exit::new(status, reason, at), ended_by, &self.common), orders);
        }
        let afterwards = self.after(stop.reason);
        let stopping =
            Stopping::new(stop, Leader::Gone { status, at, members }, afterwards, orders.now.instant);
        let stopping = match cause {
            Cause::OwnEnd => stopping.by_its_own_end(),
            Cause::Asked => stopping,
        };
        self.begin(stopping, EventKind::Exited, orders);
        Next::Nothing
    }

    fn resume_stop(&mut self, progress: StoppingProgress, finding: Finding, orders: &mut Orders<'_>) -> Next {
        let now = orders.now;
        let (ended, reason, forced) = (progress.ended, progress.reason, progress.forced);
        self.common.show_start(progress.started_at);
        let gone = |status, members| match ended {
            Some((status, at)) => Leader::Gone { status, at, members },
            None => Leader::Gone { status, at: now.wall, members },
        };
        let leader = match finding {
            Finding::Process { pid, .. } | Finding::Unexecuted { pid } => Leader::Alive { pid },
            Finding::Gone { status, members } => gone(status, members),
            Finding::NeverStarted => gone(ExitStatus::Unknown, Members::Nothing),
            Finding::Rebooted => {
                let (status, at) = ended.unwrap_or((ExitStatus::Unknown, now.wall));
                let reason = self.lost_with_the_machine(reason);
                return self
                    .lost(Exit { forced, steps: progress.taken, ..Exit::new(status, reason, at) }, orders);
            }
        };
        let mut stopping = Stopping::resumed(progress, leader, now.instant);
        stopping.show(&mut self.common);
        stopping.set_timer(&mut self.common, orders);
        match leader {
            Leader::Gone { .. } if ended.is_none() => self.common.publish(EventKind::Exited, orders),
            Leader::Gone { .. } | Leader::Alive { .. } => {}
        }
        match leader {
            Leader::Gone { members: Members::Nothing, .. } => {}
            Leader::Gone { .. } | Leader::Alive { .. } if stopping.is_forced() => {
                stopping.kill(&mut self.common, orders);
            }
            Leader::Gone { .. } | Leader::Alive { .. } => stopping.record(&self.common, orders),
        }
        let over = stopping.look(&mut self.common, orders);
        self.phase = Phase::Stopping(Box::new(stopping));
        self.stop_is_over(over, orders)
    }

    /// Goes on with an attempt: one whose process has ended is seen through, one that was interrupted is begun anew
    /// after whatever is left of it is gone.
    fn resume_cleanup(
        &mut self,
        mut cleaning: Cleaning,
        ended: Option<ExitStatus>,
        finding: Finding,
        orders: &mut Orders<'_>,
    ) -> Next {
        cleaning.show(&mut self.common);
        let next = match ended {
            Some(status) => cleaning.resume_ended(status, &mut self.common, finding, orders),
            None => cleaning.resume_interrupted(&mut self.common, finding, orders),
        };
        self.phase = Phase::Cleaning(Box::new(cleaning));
        next
    }

    /// A run had ended and the next one was to come: whatever there is of that goes on.
    fn resume_restart(
        &mut self,
        exit: Exit,
        until: Instant,
        unwanted: Option<(ExitReason, Vec<StopStep>)>,
        finding: Finding,
        orders: &mut Orders<'_>,
    ) -> Next {
        self.common.await_ready();
        if let Finding::Unexecuted { .. } = finding {
            let stop = unwanted.map(|(reason, steps)| Stop { reason, steps, kill_by: None });
            return self.relaunch(exit, stop, orders);
        }
        match finding {
            // The edge holds whatever it has found something of.
            Finding::Gone { members: Members::Nothing, .. }
                if !is_late(unwanted.as_ref()) && !self.is_asked() =>
            {
                orders.order(Effect::Release { run: self.run() });
            }
            Finding::Process { .. }
            | Finding::Unexecuted { .. }
            | Finding::Gone { .. }
            | Finding::NeverStarted
            | Finding::Rebooted => {}
        }
        let stop = unwanted.map(|(reason, steps)| Stop { reason, steps, kill_by: None });
        match (finding, stop) {
            (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, stop)
                if self.is_asked() =>
            {
                self.resume_asked(stop, finding, orders)
            }
            (Finding::Process { pid, .. } | Finding::Unexecuted { pid }, stop) => {
                self.resume_next_run(pid, stop, orders);
                Next::Nothing
            }
            (Finding::Gone { members: Members::Outside | Members::Group, .. }, Some(stop)) => {
                self.resume_gone(stop, Cause::Asked, finding, orders)
            }
            (Finding::Gone { members: Members::Outside | Members::Group, .. }, None) => {
                let steps = self.params().stop.clone();
                let stop = Stop { reason: ExitReason::Exited, steps, kill_by: None };
                self.resume_gone(stop, Cause::OwnEnd, finding, orders)
            }
            // A run that was late, and is not there, is one that has failed: its policy says what follows.
            (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, Some(stop))
                if stop.reason == ExitReason::StartFailed =>
            {
                self.lost(Exit::new(ExitStatus::Unknown, stop.reason, orders.now.wall), orders)
            }
            (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, Some(stop)) => {
                self.conclude(Exit { reason: stop.reason, ..exit }, orders)
            }
            // Whether it was ever there cannot be told from the last run's traces, and nothing of it is.
            (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, None) => {
                self.pause_on(exit, until, orders)
            }
            (Finding::Rebooted, _) => {
                let exit = Exit { reason: ExitReason::BrokerLost, ..exit };
                self.conclude(exit, orders)
            }
        }
    }

    /// The next run is there: it begins now, as far as is known.
    fn resume_next_run(&mut self, pid: Pid, stop: Option<Stop>, orders: &mut Orders<'_>) {
        self.common.begin_run(orders.now.instant);
        self.common.show_start(Some(orders.now.wall));
        let ready_by = orders.now.instant.plus(self.params().ready_timeout.0);
        self.have_ready_by(ready_by, orders);
        match &stop {
            // Its time was over before it was there, or it is replaced: it is none that was ready.
            Some(stop) if stop.reason == ExitReason::StartFailed || self.is_superseded() => {
                self.enter_starting(pid, orders);
            }
            Some(_) | None => self.enter_up(pid, orders),
        }
        match stop {
            Some(stop) => self.enter_stop(stop, Leader::Alive { pid }, orders),
            None => self.record_progress(Safety::Process, Receipt::NotWanted, orders),
        }
    }

    /// The next run was there, since a command has asked whether it is ready, and is not any more.
    fn resume_asked(&mut self, stop: Option<Stop>, finding: Finding, orders: &mut Orders<'_>) -> Next {
        self.common.begin_run(orders.now.instant);
        self.common.show_start(Some(orders.now.wall));
        let steps = self.params().stop.clone();
        let cause = if stop.is_some() { Cause::Asked } else { Cause::OwnEnd };
        let stop = stop.unwrap_or(Stop { reason: ExitReason::StartFailed, steps, kill_by: None });
        self.resume_gone(stop, cause, finding, orders)
    }

    /// The process of the next run was on its way to its program, and is killed there: it is started once more, unless it was
    /// to be stopped.
    fn relaunch(&mut self, exit: Exit, stop: Option<Stop>, orders: &mut Orders<'_>) -> Next {
        // What was found of its last run is none of the next one.
        self.common.has_memory();
        let stage = RestartStage::Spawning(self.resume_launch(stop, orders));
        let restarting = Box::new(Restarting { exit, stage });
        restarting.show(&mut self.common);
        self.phase = Phase::Restarting(restarting);
        Next::Nothing
    }

    /// It was lost: nothing of it is left.
    fn lost(&mut self, exit: Exit, orders: &mut Orders<'_>) -> Next {
        self.common.publish_exit(&exit, orders);
        let afterwards = self.after(exit.reason);
        self.release(exit, afterwards, orders)
    }

    /// Returns why it has ended that was lost with the machine. That its create has failed is to be known after the next
    /// crash, too.
    fn lost_with_the_machine(&self, reason: ExitReason) -> ExitReason {
        let has_failed = reason == ExitReason::StartFailed && self.is_unanswered();
        if has_failed { reason } else { ExitReason::BrokerLost }
    }
}

/// Whether a run was to be stopped because it was not ready in time.
fn is_late(unwanted: Option<&(ExitReason, Vec<StopStep>)>) -> bool {
    unwanted.is_some_and(|(reason, _)| *reason == ExitReason::StartFailed)
}

impl Cleaning {
    /// The attempt that an earlier broker began was interrupted by its death: whatever is left of it goes first, and
    /// then it is begun anew.
    fn resume_interrupted(&mut self, common: &mut Common, finding: Finding, orders: &mut Orders<'_>) -> Next {
        match finding {
            // Its broker has not died.
            Finding::Process { kinship: Kinship::Own, .. } => self.spawned(common, orders),
            Finding::Process { kinship: Kinship::Foreign, .. }
            | Finding::Unexecuted { .. }
            | Finding::Gone { members: Members::Outside | Members::Group, .. } => {
                self.kill(Remains::Interrupted, common, orders);
            }
            // The edge holds whatever it has found something of.
            Finding::Gone { members: Members::Nothing, .. } => {
                orders.order(Effect::Release { run: common.run() });
                return self.begin_attempt(common, orders);
            }
            Finding::NeverStarted | Finding::Rebooted => return self.begin_attempt(common, orders),
        }
        Next::Nothing
    }

    /// The process of the attempt had ended by itself, and what it left behind was being killed: that is seen through,
    /// and not begun anew.
    fn resume_ended(
        &mut self,
        status: ExitStatus,
        common: &mut Common,
        finding: Finding,
        orders: &mut Orders<'_>,
    ) -> Next {
        let remains = Remains::Descendants(status);
        match finding {
            Finding::Process { .. }
            | Finding::Unexecuted { .. }
            | Finding::Gone { members: Members::Outside | Members::Group, .. } => {
                self.kill(remains, common, orders);
                Next::Nothing
            }
            Finding::Gone { members: Members::Nothing, .. } => self.attempt_is_over(remains, common, orders),
            Finding::NeverStarted | Finding::Rebooted => self.conclude(Some(status), common, orders),
        }
    }
}
