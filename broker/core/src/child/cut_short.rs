//! Cutting a launch short: a process that has not got to its program is killed, since its child is to be stopped or another
//! broker takes over.

use procbroker_protocol::ExitReason;

use crate::child::launching::{KillReason, Killed, Launching};
use crate::child::restarting::RestartStage;
use crate::child::stopping::Stop;
use crate::child::{Child, Next, Phase};
use crate::effect::Effect;
use crate::orders::Orders;
use crate::record::Role;
use crate::time::Instant;

impl Child {
    fn launching_mut(&mut self) -> Option<&mut Launching> {
        match &mut self.phase {
            Phase::Spawning(launching) => Some(launching),
            Phase::Restarting(restarting) => match &mut restarting.stage {
                RestartStage::Spawning(launching) => Some(launching),
                RestartStage::Recording { .. }
                | RestartStage::Unrecorded { .. }
                | RestartStage::Pausing { .. }
                | RestartStage::Queued => None,
            },
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Cleaning(_)
            | Phase::Ended => None,
        }
    }

    /// Returns when its launch is late, unless nobody cares any more.
    fn launch_is_late_at(&mut self) -> Option<Instant> {
        let ready_by = self.common.ready_by();
        let is_again = matches!(self.phase, Phase::Restarting(_));
        let stop = self.launching_mut()?.stop.as_ref();
        let is_awaited = match stop {
            None => true,
            // Who has wanted a later run to end has the last word.
            Some(stop) => !is_again && stop.reason != ExitReason::StartFailed,
        };
        ready_by.filter(|_| is_awaited)
    }

    /// Sets the timer of its launch: the end of its time, or its kill.
    pub(super) fn set_launch_timer(&mut self, orders: &mut Orders<'_>) {
        let late_at = self.launch_is_late_at();
        let Some(launching) = self.launching_mut() else { return };
        let kill_at = launching.kill_at.filter(|_| launching.killed.is_none());
        let due = late_at.into_iter().chain(kill_at).min();
        self.common.set_due(due, orders);
    }

    /// The timer of its launch has run out.
    pub(super) fn launch_due(&mut self, orders: &mut Orders<'_>) -> Next {
        let now = orders.now.instant;
        if self.launch_is_late_at().is_some_and(|at| at <= now) {
            // The stop that follows sets the timer.
            return Next::NotReady;
        }
        let is_due = |launching: &mut Launching| launching.kill_at.is_some_and(|at| at <= now);
        let is_due = self.launching_mut().is_some_and(is_due);
        let next = if is_due { self.kill_launch(KillReason::Stop, orders) } else { Next::Nothing };
        self.set_launch_timer(orders);
        next
    }

    /// Another program is to take over, and its launch keeps it from that.
    pub(crate) fn put_off_launch(&mut self, orders: &mut Orders<'_>) -> Next {
        match &mut self.phase {
            Phase::Cleaning(cleaning) => {
                cleaning.put_off_launch(&self.common, orders);
                Next::Nothing
            }
            // With it the broker itself would end.
            Phase::Spawning(_) if self.common.role() == Role::Main => Next::Nothing,
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_)
            | Phase::Ended => self.kill_launch(KillReason::TakeOver, orders),
        }
    }

    /// Kills its process on the way to its program, once.
    fn kill_launch(&mut self, reason: KillReason, orders: &mut Orders<'_>) -> Next {
        let (run, at) = (self.run(), orders.now.wall);
        let Some(launching) = self.launching_mut().filter(|launching| launching.killed.is_none()) else {
            return Next::Nothing;
        };
        launching.killed = Some(Killed { at, reason });
        orders.count_forced_stop();
        orders.order(Effect::Kill { run });
        Next::Changed
    }

    /// Goes on with a launch that an earlier broker has left: it is killed, and has no program ever.
    pub(super) fn resume_launch(&mut self, stop: Option<Stop>, orders: &mut Orders<'_>) -> Launching {
        orders.resume_launch(self.common.uid());
        orders.count_forced_stop();
        orders.order(Effect::Kill { run: self.run() });
        Launching::left_behind(stop, orders.now.wall)
    }
}
