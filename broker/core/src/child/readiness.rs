//! Readiness: a child whose program runs is not ready before it says so; until then its time is bounded, and from then on its
//! watchdog runs.

use std::sync::Arc;

use procbroker_protocol::create::{Check, Probe, Ready, StopStep, default_stop};
use procbroker_protocol::{ChildState, EventKind, ExitReason, Signal};

use crate::child::probing::Probing;
use crate::child::watchdog::{WatchLeft, Watchdog};
use crate::child::{Child, Next, Phase, Stop};
use crate::effect::{Effect, Receipt, Safety};
use crate::ids::Pid;
use crate::notice::Notice;
use crate::orders::Orders;
use crate::time::Instant;

/// Whether a child is asked by a command.
fn is_by_command(ready: &Ready) -> bool {
    matches!(ready, Ready::Probe(Probe { check: Check::Command(_), .. }))
}

impl Child {
    /// Bounds the time until it is ready.
    pub(crate) fn have_ready_by(&mut self, due: Instant, orders: &mut Orders<'_>) {
        self.common.have_ready_by(due);
        self.common.set_due(Some(due), orders);
    }

    /// Its process is there: it is ready at once, or waits for a word of it.
    pub(super) fn enter_up(&mut self, pid: Pid, orders: &mut Orders<'_>) {
        if self.params().ready == Ready::Spawn {
            self.enter_running(pid, orders);
        } else {
            self.enter_starting(pid, orders);
        }
    }

    pub(super) fn enter_starting(&mut self, pid: Pid, orders: &mut Orders<'_>) {
        let probing = Probing::begin(&self.params().ready, orders.now.instant);
        self.phase = Phase::Starting { pid, probing };
        self.common.show(ChildState::Starting, Some(pid), None);
        self.set_starting_timer(orders);
    }

    /// Sets the timer of the next probe, or of the end of its time.
    fn set_starting_timer(&mut self, orders: &mut Orders<'_>) {
        let Phase::Starting { probing, .. } = &self.phase else {
            return;
        };
        let due = probing.due_at().into_iter().chain(self.common.ready_by()).min();
        self.common.set_due(due, orders);
    }

    /// It is time for the next probe, or its time is over.
    pub(super) fn due_while_starting(&mut self, orders: &mut Orders<'_>) -> Next {
        let now = orders.now.instant;
        if self.common.ready_by().is_some_and(|by| by <= now) {
            return Next::NotReady;
        }
        let Phase::Starting { probing, .. } = &mut self.phase else {
            return Next::Nothing;
        };
        if probing.ask(now) {
            if !is_by_command(&self.common.params().ready) {
                // It may have written something before the broker has learned that it runs.
                let since = self.common.runs().ordered_at.unwrap_or(self.view().created_at);
                let run = self.run();
                orders.order(Effect::Probe { run, order: Arc::clone(self.common.order()), since });
            } else if self.ready_command.is_busy() {
                // Something is left of one that was asked for an earlier run, or by an earlier broker.
                probing.put_off(now);
            } else {
                self.ready_command.enqueue(&self.common, orders);
            }
        }
        self.set_starting_timer(orders);
        Next::Nothing
    }

    /// A probe has found it ready, or not yet.
    pub(super) fn probed_while_starting(&mut self, is_ready: bool, orders: &mut Orders<'_>) -> Next {
        if is_ready {
            return self.became_ready(orders);
        }
        if let Phase::Starting { probing, .. } = &mut self.phase {
            probing.rest(orders.now.instant);
        }
        self.set_starting_timer(orders);
        Next::Nothing
    }

    /// It is ready: its watchdog begins with a whole period.
    pub(super) fn enter_running(&mut self, pid: Pid, orders: &mut Orders<'_>) {
        let watchdog = Watchdog::begin(self.params().watchdog, orders.now.instant);
        self.enter_watched(pid, watchdog, orders);
    }

    /// It is ready, and goes on being watched as it was when an earlier program was there.
    pub(super) fn resume_running(&mut self, pid: Pid, left: WatchLeft, orders: &mut Orders<'_>) {
        let watchdog = Watchdog::resume(self.params().watchdog, left, orders.now.instant);
        self.enter_watched(pid, watchdog, orders);
    }

    fn enter_watched(&mut self, pid: Pid, watchdog: Watchdog, orders: &mut Orders<'_>) {
        self.common.is_ready();
        self.phase = Phase::Running { pid, watchdog };
        self.common.show(ChildState::Running, Some(pid), None);
        // Nothing has bitten yet: this sets the timer.
        let _ = self.keep_watch(watchdog, orders);
    }

    /// It goes on waiting for the word, with what was left of its time when an earlier broker died.
    pub(super) fn resume_starting(&mut self, pid: Pid, by: Option<Instant>, orders: &mut Orders<'_>) {
        let by = by.unwrap_or_else(|| orders.now.instant.plus(self.params().ready_timeout.0));
        self.have_ready_by(by, orders);
        self.enter_starting(pid, orders);
    }

    /// It has told something of itself, and was not ready before.
    pub(super) fn told_while_starting(&mut self, notice: &Notice, orders: &mut Orders<'_>) -> Next {
        match notice {
            Notice::Ready => self.became_ready(orders),
            Notice::MoreTime(time) => {
                self.have_more_time(orders.now.instant.plus(*time), orders);
                Next::Nothing
            }
            Notice::Unwell if self.params().watchdog.is_some() => self.bite(orders),
            Notice::Status(_) | Notice::Stopping | Notice::Well | Notice::Unwell => Next::Nothing,
        }
    }

    fn became_ready(&mut self, orders: &mut Orders<'_>) -> Next {
        let Phase::Starting { pid, .. } = self.phase else {
            return Next::Nothing;
        };
        self.enter_running(pid, orders);
        self.record_progress(Safety::Process, Receipt::NotWanted, orders);
        self.common.publish(EventKind::Ready, orders);
        Next::Changed
    }

    /// Its time to get ready ends then, or later (`EXTEND_TIMEOUT_USEC` of `sd_notify(3)`).
    fn have_more_time(&mut self, until: Instant, orders: &mut Orders<'_>) {
        if self.common.ready_by().is_some_and(|by| by < until) {
            self.common.have_ready_by(until);
            self.set_starting_timer(orders);
            self.record_progress(Safety::Process, Receipt::NotWanted, orders);
        }
    }

    /// Goes on watching it, or ends it: SIGABRT leaves a trace of where it hung, then come its own steps.
    pub(super) fn keep_watch(&mut self, now: Watchdog, orders: &mut Orders<'_>) -> Next {
        let Phase::Running { watchdog, .. } = &mut self.phase else {
            return Next::Nothing;
        };
        *watchdog = now;
        match now {
            Watchdog::Off => self.common.set_due(None, orders),
            Watchdog::On { by, .. } | Watchdog::PutOff { by, .. } => {
                self.common.set_due(Some(by), orders);
            }
            Watchdog::Bitten => return self.bite(orders),
        }
        Next::Nothing
    }

    pub(super) fn bite(&mut self, orders: &mut Orders<'_>) -> Next {
        let own = &self.params().stop;
        let grace = own.first().or(default_stop().first()).map(|step| step.grace).unwrap_or_default();
        let abort = StopStep { signal: Signal::ABRT, grace };
        let steps = std::iter::once(abort).chain(own.iter().copied()).collect();
        self.begin_stop(Stop { reason: ExitReason::Watchdog, steps, kill_by: None }, orders)
    }
}
