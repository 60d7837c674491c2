//! What a child has in hand when it makes a transition: what it may order, and what it may know of the broker.

use std::sync::Arc;

use procbroker_protocol::request::Scope;
use procbroker_protocol::{Child as ChildView, ChildId, EventKind};

use crate::config::Config;
use crate::effect::Effect;
use crate::event_log::EventLog;
use crate::metrics::MetricsRecorder;
use crate::spawn_queue::SpawnQueue;
use crate::time::{Instant, Now};
use crate::timers::{Timer, Timers};
use crate::turn::Turn;

/// What one transition of one child may order: it sees no state but its own, and what it may know of the broker.
pub(crate) struct Orders<'a> {
    /// What the clocks show as it happens.
    pub(crate) now: Now,
    /// What the broker lets a child begin.
    pub(crate) permits: Permits,
    turn: Turn<'a>,
    lent: Lent<'a>,
}

/// What a child may still begin, with regard to the broker's own life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permits {
    /// Whether it may begin another run.
    pub(crate) may_start: bool,
    /// Whether it may begin a cleanup.
    pub(crate) may_clean_up: bool,
}

/// What the broker lends to a transition, which reaches it through [`Orders`] alone.
pub(crate) struct Lent<'a> {
    /// Where the timers of the child are.
    pub(crate) timers: &'a mut Timers,
    /// Where its processes wait for their turn to be started.
    pub(crate) spawn_queue: &'a mut SpawnQueue,
    /// Where its events are kept, and told from.
    pub(crate) event_log: &'a mut EventLog,
    /// Where what happens to it is counted.
    pub(crate) metrics: &'a mut MetricsRecorder,
    /// The settings of the broker.
    pub(crate) config: &'a Config,
}

impl<'a> Orders<'a> {
    /// Makes the orders of one transition, which happens in this turn.
    pub(crate) fn new(turn: Turn<'a>, permits: Permits, lent: Lent<'a>) -> Self {
        Self { now: turn.now, permits, turn, lent }
    }

    /// Orders something from the edge.
    pub(crate) fn order(&mut self, effect: Effect) {
        self.turn.order(effect);
    }

    /// Keeps and counts that something has happened to a child.
    pub(crate) fn publish(&mut self, kind: EventKind, child: Arc<ChildView>) {
        let Lent { event_log, metrics, config, .. } = &mut self.lent;
        metrics.happened(kind, &child, self.now.instant);
        event_log.publish(kind, Some(child), config, &self.turn);
    }

    /// Counts that something did not end by itself, and gets SIGKILL.
    pub(crate) fn count_forced_stop(&mut self) {
        self.lent.metrics.stop_forced();
    }

    /// Moves the one timer of a child.
    pub(crate) fn set_timer(&mut self, child: ChildId, before: Option<Instant>, after: Option<Instant>) {
        self.lent.timers.set(Timer::Child(child), before, after);
    }

    /// Moves the timer of the command that finds out whether a child is ready.
    pub(crate) fn set_probe_timer(
        &mut self,
        child: ChildId,
        before: Option<Instant>,
        after: Option<Instant>,
    ) {
        self.lent.timers.set(Timer::Probe(child), before, after);
    }

    /// Has a process started when it is the turn of its user. `id` is that of the child, or what stands for its probe.
    pub(crate) fn enqueue(&mut self, uid: u32, id: ChildId) {
        self.lent.spawn_queue.enqueue(uid, id);
    }

    /// Takes a process back that waits for its turn to be started.
    pub(crate) fn withdraw(&mut self, uid: u32, id: ChildId) {
        self.lent.spawn_queue.withdraw(uid, id);
    }

    /// A process of this user has got to its program, or never will.
    pub(crate) fn launch_is_over(&mut self, uid: u32) {
        self.lent.spawn_queue.finish(uid);
    }

    /// A process of this user was left on the way to its program by an earlier broker.
    pub(crate) fn resume_launch(&mut self, uid: u32) {
        self.lent.spawn_queue.resume(uid);
    }

    /// Returns which processes of the main command the signals of its stop go to.
    pub(crate) fn stop_scope_of_main(&self) -> Scope {
        self.lent.config.main.as_ref().map_or(Scope::Group, |main| main.stop_scope)
    }
}
