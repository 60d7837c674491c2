//! How a child leaves Running or Stopping: its run is released, and it is run again, cleaned up, or ended.

use std::sync::Arc;

use procbroker_protocol::{Cleaned, EventKind, Exit, ExitReason, ExitStatus, Timestamp};

use crate::child::cleaning::Cleaning;
use crate::child::common::exit_before_start;
use crate::child::memory::{self, EndedBy};
use crate::child::restarting::Follows;
use crate::child::stopping::{Leader, Stop, Stopping};
use crate::child::{Child, Next, Phase};
use crate::effect::{Effect, Receipt, Report, Safety};
use crate::input::Members;
use crate::orders::Orders;
use crate::record::{Afterwards, Unready};

impl Child {
    /// It has ended by itself. What it left behind gets its own steps.
    pub(super) fn exited_by_itself(
        &mut self,
        reason: ExitReason,
        status: ExitStatus,
        members: Members,
        orders: &mut Orders<'_>,
    ) -> Next {
        let at = orders.now.wall;
        if members == Members::Nothing {
            let exit = memory::told(Exit::new(status, reason, at), EndedBy::Itself, &self.common);
            self.common.publish_exit(&exit, orders);
            let afterwards = self.after(reason);
            return self.release(exit, afterwards, orders);
        }
        let stop = Stop { reason, steps: self.params().stop.clone(), kill_by: None };
        let stopping =
            Stopping::new(stop, Leader::Gone { status, at, members }, self.after(reason), orders.now.instant);
        self.begin(stopping.by_its_own_end(), EventKind::Exited, orders);
        Next::Nothing
    }

    pub(super) fn enter_stop(&mut self, stop: Stop, leader: Leader, orders: &mut Orders<'_>) {
        let afterwards = self.after(stop.reason);
        self.enter_stop_for(stop, leader, afterwards, orders);
    }

    /// Returns what comes after a stop for this reason, unless somebody asks for something else.
    pub(super) fn after(&self, reason: ExitReason) -> Afterwards {
        match reason {
            ExitReason::Exited | ExitReason::Watchdog | ExitReason::StartFailed => {
                match self.common.unready() {
                    Unready::No | Unready::Now => Afterwards::Policy,
                    // Who created it is told that it has failed.
                    Unready::Ever => Afterwards::End,
                }
            }
            // What somebody else has wanted is not undone by a policy.
            ExitReason::Destroyed
            | ExitReason::Shutdown
            | ExitReason::Replaced
            | ExitReason::Expired
            | ExitReason::OwnerGone
            | ExitReason::BrokerLost => Afterwards::End,
        }
    }

    /// Makes a stop that leads to another run, or to the end.
    pub(super) fn enter_stop_for(
        &mut self,
        stop: Stop,
        leader: Leader,
        afterwards: Afterwards,
        orders: &mut Orders<'_>,
    ) {
        let event = match leader {
            Leader::Alive { .. } => EventKind::Stopping,
            Leader::Gone { .. } => EventKind::Exited,
        };
        self.begin(Stopping::new(stop, leader, afterwards, orders.now.instant), event, orders);
    }

    pub(super) fn begin(&mut self, stopping: Stopping, event: EventKind, orders: &mut Orders<'_>) {
        let mut stopping = Box::new(stopping);
        stopping.show(&mut self.common);
        self.common.publish(event, orders);
        stopping.step(&mut self.common, orders);
        // After the record that tells why.
        self.ready_command.end(&self.common, orders);
        self.phase = Phase::Stopping(stopping);
    }

    /// A stop goes on, or is over with this exit.
    pub(super) fn stop_is_over(&mut self, over: Option<Exit>, orders: &mut Orders<'_>) -> Next {
        match (&self.phase, over) {
            (Phase::Stopping(stopping), Some(exit)) => {
                let afterwards = stopping.afterwards();
                self.release(exit, afterwards, orders)
            }
            (_, Some(_) | None) => Next::Nothing,
        }
    }

    /// Nothing of a run is left: the next one follows, or the end.
    pub(super) fn release(
        &mut self,
        mut exit: Exit,
        afterwards: Afterwards,
        orders: &mut Orders<'_>,
    ) -> Next {
        self.common.set_due(None, orders);
        self.ready_command.end(&self.common, orders);
        if self.ready_command.may_have_processes() {
            return self.outlived(&exit, afterwards, orders);
        }
        orders.order(Effect::Release { run: self.run() });
        match self.follows(&exit, afterwards, orders) {
            Follows::Run { pause } => return self.enter_restart(exit, pause, orders),
            Follows::GivingUp => exit.gave_up = true,
            Follows::End => {}
        }
        self.conclude(exit, orders)
    }

    /// Nothing of a run is left but what was to find out whether it is ready: that goes first.
    fn outlived(&mut self, exit: &Exit, afterwards: Afterwards, orders: &mut Orders<'_>) -> Next {
        match &self.phase {
            Phase::Stopping(_) => {}
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => {
                let stopping = Stopping::over_already(exit, afterwards, orders.now.instant);
                stopping.show(&mut self.common);
                stopping.record(&self.common, orders);
                self.phase = Phase::Stopping(Box::new(stopping));
            }
        }
        Next::Nothing
    }

    /// No run follows: its cleanup comes next, if it has one, and its end else.
    pub(super) fn conclude(&mut self, exit: Exit, orders: &mut Orders<'_>) -> Next {
        if self.params().cleanup.is_none() {
            return self.end(exit, None, orders);
        }
        let mut cleaning = Box::new(Cleaning::new(exit, 0));
        cleaning.show(&mut self.common);
        self.common.publish(EventKind::Cleaning, orders);
        let next = if orders.permits.may_clean_up {
            cleaning.begin_attempt(&mut self.common, orders)
        } else {
            cleaning.is_left(&mut self.common, orders)
        };
        self.phase = Phase::Cleaning(cleaning);
        next
    }

    /// It is over, after its cleanup if there was one.
    pub(super) fn end(&mut self, exit: Exit, cleaned: Option<Cleaned>, orders: &mut Orders<'_>) -> Next {
        self.common.set_due(None, orders);
        // The end of a cleanup is on record already.
        let is_news = cleaned.is_none();
        self.phase = Phase::Ended;
        self.common.show_end(exit, cleaned);
        if is_news {
            self.record_progress(Safety::Process, Receipt::NotWanted, orders);
        }
        orders.order(Effect::Report(Report::Ended { child: Arc::clone(self.view()) }));
        self.common.publish(EventKind::Ended, orders);
        Next::Over
    }

    /// It is over before it was started. Nobody was told of one that is not on record.
    pub(crate) fn end_unstarted(
        &mut self,
        reason: ExitReason,
        killed: Option<Timestamp>,
        orders: &mut Orders<'_>,
    ) {
        let was_told_of = match self.phase {
            Phase::Recording { .. } => false,
            Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_)
            | Phase::Cleaning(_)
            | Phase::Ended => true,
        };
        self.common.set_due(None, orders);
        self.phase = Phase::Ended;
        self.common.show_end(exit_before_start(reason, killed, orders.now.wall), None);
        orders.order(Effect::Release { run: self.run() });
        if was_told_of {
            self.common.publish(EventKind::Ended, orders);
        }
    }
}
