//! What a child has in hand when it makes a transition: what it may order, and what it may know of the broker.

use std::sync::Arc;

use procbroker_protocol::request::Scope;
use procbroker_protocol::{Child as ChildView, ChildId, EventKind};

use crate::config::Config;
use crate::connections::Connections;
use crate::effect::Effect;
use crate::event_log::EventLog;
use crate::metrics::Metrics;
use crate::spawn_queue::SpawnQueue;
use crate::time::{Instant, Now};
use crate::timers::{Timer, Timers};
use crate::turn::Turn;

/// What one transition of one child may order.
pub(crate) struct Orders<'a> {
    /// When it happens.
    pub(crate) now: Now,
    /// Whether another run may still be begun.
    pub(crate) may_start: bool,
    /// Whether a cleanup may still be begun.
    pub(crate) may_clean_up: bool,
    pub(crate) turn: Turn<'a>,
    pub(crate) timers: &'a mut Timers,
    pub(crate) spawn_queue: &'a mut SpawnQueue,
    pub(crate) event_log: &'a mut EventLog,
    pub(crate) metrics: &'a mut Metrics,
    pub(crate) connections: &'a Connections,
    pub(crate) config: &'a Config,
}

impl Orders<'_> {
    /// Orders something from the edge.
    pub(crate) fn order(&mut self, effect: Effect) {
        self.turn.order(effect);
    }

    /// Keeps and counts that something has happened to a child, and tells the subscribers.
    pub(crate) fn publish(&mut self, kind: EventKind, child: Arc<ChildView>) {
        self.metrics.happened(kind, &child, self.now.instant);
        self.event_log.publish(kind, Some(child), (self.connections, self.config), &mut self.turn);
    }

    /// Moves the one timer of a child.
    pub(crate) fn set_timer(&mut self, child: ChildId, before: Option<Instant>, after: Option<Instant>) {
        self.timers.set(Timer::Child(child), before, after);
    }

    /// Returns which processes of the main command the signals of its stop go to.
    pub(crate) fn stop_scope_of_main(&self) -> Scope {
        self.config.main.as_ref().map_or(Scope::Group, |main| main.stop_scope)
    }
}
