//! The broker: the one owner of all state, and what every part of it needs to answer and to wait.

use std::sync::Arc;

use procbroker_protocol::{Child as ChildView, ChildId, Error, EventKind, Response};

use crate::answers::Answers;
use crate::children::Children;
use crate::config::Config;
use crate::connections::{Connection, Connections};
use crate::effect::{After, Effect, UsageQuery};
use crate::event_log::{EventHistory, EventLog};
use crate::idleness::Idleness;
use crate::ids::{Call, ConnectionId, Run, Ticket};
use crate::leases::Leases;
use crate::main_process::MainState;
use crate::metrics::{Counts, KeptBytes, MetricsRecorder};
use crate::pending::{PendingRequest, PendingRequests, WaitsFor};
use crate::shown;
use crate::spawn_queue::SpawnQueue;
use crate::time::Instant;
use crate::timers::Timers;
use crate::turn::Turn;
use crate::upgrade::Upgrade;
use crate::waves::BrokerState;

/// The one owner of every child.
///
/// Its fields are for the four modules that decide over several of them at once, `handle`, `methods`, `life` and `shutdown`.
/// What stands below names no broker, so that each state reaches nothing but itself and what a call hands it.
#[derive(Debug)]
pub struct Broker {
    pub(crate) config: Config,
    pub(crate) children: Children,
    pub(crate) answers: Answers,
    pub(crate) pending: PendingRequests,
    pub(crate) connections: Connections,
    pub(crate) leases: Leases,
    pub(crate) timers: Timers,
    pub(crate) spawn_queue: SpawnQueue,
    pub(crate) state: BrokerState,
    pub(crate) upgrade: Upgrade,
    pub(crate) main: MainState,
    pub(crate) event_log: EventLog,
    pub(crate) metrics: MetricsRecorder,
    pub(crate) idleness: Idleness,
}

impl Broker {
    /// A broker that has nothing yet, and that nobody is connected to.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let event_log = EventLog::new(EventHistory::beginning(config.instance), config.bounds.events_kept);
        let upgrade = Upgrade::new(config.failed_upgrade.clone());
        let spawn_queue = SpawnQueue::new(config.bounds.max_spawns_in_flight, config.broker_uid);
        Self {
            config,
            children: Children::default(),
            answers: Answers::default(),
            pending: PendingRequests::default(),
            connections: Connections::default(),
            leases: Leases::default(),
            timers: Timers::default(),
            spawn_queue,
            state: BrokerState::Serving,
            upgrade,
            main: MainState::Absent,
            event_log,
            metrics: MetricsRecorder::default(),
            idleness: Idleness::default(),
        }
    }

    /// Sends an answer that promises nothing, unless nobody reads it any more.
    pub(crate) fn answer(&mut self, call: Call, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        self.answer_after(After::Nothing, call, result, turn);
    }

    /// Sends an answer on which the client may rely, as soon as a later broker would know of it too.
    pub(crate) fn promise(&mut self, call: Call, result: Result<Response, Error>, turn: &mut Turn<'_>) {
        self.answer_after(After::Records, call, result, turn);
    }

    fn answer_after(
        &mut self,
        after: After,
        call: Call,
        result: Result<Response, Error>,
        turn: &mut Turn<'_>,
    ) {
        self.metrics.answered(call, &result);
        if self.connections.get(call.connection).is_some() {
            let result = result.map(shown::fitting);
            turn.order(Effect::Answer { call, result, after, usage: None });
        }
    }

    /// Sends an answer that tells what children use at that moment as well.
    pub(crate) fn answer_with_usage(
        &mut self,
        call: Call,
        response: Response,
        runs: Vec<Run>,
        turn: &mut Turn<'_>,
    ) {
        let result = Ok(shown::fitting(response));
        self.metrics.answered(call, &result);
        if let Some(connection) = self.connections.get(call.connection) {
            let user = connection.peer().uid;
            let usage = (!runs.is_empty()).then_some(UsageQuery { user, runs });
            turn.order(Effect::Answer { call, result, after: After::Nothing, usage });
        }
    }

    /// Lets a request wait for what its cause says.
    pub(crate) fn wait_for(&mut self, call: Call, waits_for: WaitsFor, due: Option<Instant>) {
        if let Some(connection) = self.connections.get(call.connection) {
            let uid = connection.peer().uid;
            self.pending.add(PendingRequest { call, uid, due, waits_for }, &mut self.timers);
        }
    }

    /// Takes a request that waits, to answer it or to drop it.
    pub(crate) fn take_pending(&mut self, ticket: Ticket) -> Option<PendingRequest> {
        self.pending.take(ticket, &mut self.timers)
    }

    /// Answers a request that waits.
    pub(crate) fn answer_pending(
        &mut self,
        ticket: Ticket,
        result: Result<Response, Error>,
        turn: &mut Turn<'_>,
    ) {
        if let Some(pending) = self.take_pending(ticket) {
            self.answer_after(pending.waits_for.answer_waits_for(), pending.call, result, turn);
        }
    }

    /// Looks again at every request that waits for this child, in the order of their arrival.
    pub(crate) fn child_changed(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        for ticket in self.pending.watchers(id) {
            self.recheck(ticket, id, turn);
        }
    }

    /// Makes ended children invisible whose time, or whose place, is over.
    pub(crate) fn forget_expired(&mut self, turn: &mut Turn<'_>) {
        for child in self.children.expire(&self.config.bounds, turn.now.instant, &mut self.timers) {
            turn.order(Effect::Forget { child });
            self.forget_answers_with(child, turn);
        }
    }

    /// Starts and stops the timer of the exit for lack of work.
    pub(crate) fn watch_idleness(&mut self, turn: &Turn<'_>) {
        if let Some(patience) = self.config.exit_when_idle {
            let is_empty = self.connections.count() == 0 && self.children.live_count() == 0;
            let is_idle = is_empty && self.main == MainState::Absent && self.is_serving();
            self.idleness.watch(is_idle, patience, turn.now.instant, &mut self.timers);
        }
    }

    /// Keeps and tells that something has happened, to a child or to the broker itself.
    pub(crate) fn publish_with(&mut self, kind: EventKind, child: Option<Arc<ChildView>>, turn: &Turn<'_>) {
        self.event_log.publish(kind, child, &self.config, turn);
    }

    /// Returns what was counted since the start, for `metrics`.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let kept = KeptBytes {
            children: self.children.bytes(),
            requests: self.pending.bytes().all() + self.answers.bytes(),
            events: self.event_log.bytes(),
        };
        self.metrics.counts(self.children.counts(), self.connections.count(), kept)
    }

    /// Whether creates are taken.
    pub(crate) fn is_serving(&self) -> bool {
        self.state.is_serving()
    }

    /// The client of a connection that is open.
    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id)
    }
}
