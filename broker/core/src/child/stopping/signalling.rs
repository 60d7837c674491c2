//! What is sent to a child that is being stopped, and to how much of it.

use procbroker_protocol::request::Scope;
use procbroker_protocol::{Signal, StepTaken};

use super::{Cause, Leader, StopStage, Stopping};
use crate::child::common::Common;
use crate::effect::Effect;
use crate::input::Members;
use crate::limits::KILL_AGAIN_FIRST;
use crate::orders::Orders;
use crate::record::Role;
use crate::time::doubled;

impl Stopping {
    /// Sends the next signal, or SIGKILL after the last.
    pub(in crate::child) fn step(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        let Some(step) = self.steps.pop_front() else {
            return self.kill(common, orders);
        };
        let now = orders.now;
        self.stage = StopStage::Asking { until: now.instant.plus(step.grace) };
        self.taken.push(StepTaken { signal: step.signal, at: now.wall });
        let scope = self.scope(common, orders);
        self.widened = scope == Scope::All;
        self.show(common);
        self.set_timer(common, orders);
        self.record(common, orders);
        send(step.signal, scope, common, orders);
    }

    /// Returns what a step goes to. A stop that somebody asked for goes to the process group. Descendants of a child
    /// that ended by itself may have no group of its left, and get the steps themselves; so do those outside the group
    /// when nothing of that is left.
    fn scope(&self, common: &Common, orders: &Orders<'_>) -> Scope {
        match (self.cause, self.leader, common.role()) {
            (Cause::OwnEnd, _, _) | (Cause::Asked, Leader::Gone { members: Members::Outside, .. }, _) => {
                Scope::All
            }
            (Cause::Asked, Leader::Alive { .. } | Leader::Gone { .. }, Role::Child) => Scope::Group,
            (Cause::Asked, Leader::Alive { .. } | Leader::Gone { .. }, Role::Main) => {
                orders.stop_scope_of_main()
            }
        }
    }

    /// Sends the signal of the present step to the descendants outside the group as well. They have what is left of its
    /// time.
    pub(super) fn widen(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        self.widened = true;
        if let Some(last) = self.taken.last() {
            let signal = last.signal;
            self.record(common, orders);
            send(signal, Scope::All, common, orders);
        }
    }

    /// Sends SIGKILL to everything of a child, and again after a while.
    pub(in crate::child) fn kill(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        let now = orders.now;
        let first = !self.forced;
        if first {
            self.forced = true;
            self.taken.push(StepTaken { signal: Signal::KILL, at: now.wall });
            orders.count_forced_stop();
        }
        let (begins, pause) = match self.stage {
            StopStage::Asking { .. } => (true, KILL_AGAIN_FIRST),
            StopStage::Killing { pause, .. } => (false, doubled(pause)),
        };
        self.stage = StopStage::Killing { again: now.instant.plus(pause), pause };
        self.show(common);
        self.set_timer(common, orders);
        if begins {
            self.record(common, orders);
        }
        orders.order(Effect::Kill { run: common.run() });
    }
}

/// Sends a signal of a stop, and has those that are suspended take it.
fn send(signal: Signal, scope: Scope, common: &Common, orders: &mut Orders<'_>) {
    let run = common.run();
    orders.order(Effect::Signal { run, signal, scope, call: None });
    if may_find_it_suspended(signal) {
        orders.order(Effect::Signal { run, signal: Signal::CONT, scope, call: None });
    }
}

/// Returns whether a process that is suspended has to be continued to take a signal: SIGKILL and SIGCONT reach it anyway,
/// and to SIGSTOP it would be the contrary (signal(7)).
fn may_find_it_suspended(signal: Signal) -> bool {
    ![Signal::STOP, Signal::CONT, Signal::KILL].contains(&signal)
}
