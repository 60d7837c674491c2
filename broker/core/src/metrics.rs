//! What is counted of the broker's work for those who watch it: counters that only grow, from its start on, and what there is now.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procbroker_protocol::status::ChildCounts;
use procbroker_protocol::{Child as ChildView, ChildId, Error, EventKind, Outcome, Response};
use serde::{Deserialize, Serialize};

use crate::histogram::{Histogram, Observed};
use crate::ids::{Call, ConnectionId};
use crate::time::Instant;

/// The bounds that stops are counted by. Most children end within milliseconds; a grace is often 5, 10 or 30 seconds.
const STOP_BOUNDS: [Duration; 14] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
];

/// What was counted since the start, and how things are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// How many children are in each state.
    pub children: ChildCounts,
    /// How many clients are connected.
    pub connections: u32,
    /// How often something happened.
    pub totals: Totals,
    /// How many bytes are kept for clients.
    pub kept: KeptBytes,
    /// How long stops took, from their first signal until nothing of the child was left.
    pub stops: Histogram,
}

/// How many bytes are kept for clients, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptBytes {
    /// Of children, live and ended.
    pub children: u64,
    /// Of requests that wait.
    pub requests: u64,
    /// Of events that are kept for those who ask since when.
    pub events: u64,
}

/// What was counted by a program that another one takes over from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    totals: Totals,
    stops: Observed,
}

/// How often something happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Creates that were answered with a child.
    pub creates: Creates,
    /// Creates that were answered with an error, by its kind.
    pub create_failures: BTreeMap<Cow<'static, str>, u64>,
    /// Restarts, automatic ones and manual ones.
    pub restarts: u64,
    /// Children that were given up: they ended by themselves once more than their restart policy starts them again.
    #[serde(default)]
    pub restarts_given_up: u64,
    /// Stops that needed SIGKILL.
    pub forced_stops: u64,
    /// Cleanups that are over.
    pub cleanups: Cleanups,
    /// Connections that were refused.
    pub connections_refused: u64,
}

/// Creates that were answered with a child, by what they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creates {
    /// Those that started a child.
    pub created: u64,
    /// Those that found the live child of that name.
    pub existing: u64,
    /// Those that replaced one.
    pub replaced: u64,
}

/// Cleanups that are over, by how they went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleanups {
    /// Those that exited with 0.
    pub ok: u64,
    /// Those that did not, or could not be started.
    pub failed: u64,
}

/// The counters, and what is needed to count.
#[derive(Debug)]
pub(crate) struct MetricsRecorder {
    totals: Totals,
    stops: Histogram,
    /// When the stops began that are under way.
    stopping: BTreeMap<ChildId, Instant>,
    /// The creates that are not answered yet.
    creates: BTreeSet<Call>,
}

impl Default for MetricsRecorder {
    fn default() -> Self {
        Self {
            totals: Totals::default(),
            stops: Histogram::new(&STOP_BOUNDS),
            stopping: BTreeMap::new(),
            creates: BTreeSet::new(),
        }
    }
}

impl MetricsRecorder {
    /// Returns what was counted, with how things are now.
    pub(crate) fn counts(&self, children: ChildCounts, connections: u32, kept: KeptBytes) -> Counts {
        Counts { children, connections, kept, totals: self.totals.clone(), stops: self.stops.clone() }
    }

    /// Returns what was counted, for a program that takes over.
    pub(crate) fn counted(&self) -> Counted {
        Counted { totals: self.totals.clone(), stops: self.stops.observed() }
    }

    /// Goes on with what another program has counted.
    pub(crate) fn go_on(&mut self, before: Counted) {
        let Counted { totals, stops } = before;
        self.totals.add(totals);
        self.stops.go_on(&stops);
    }

    /// A create has come in.
    pub(crate) fn create_called(&mut self, call: Call) {
        self.creates.insert(call);
    }

    /// A request is answered: it counts where it is a create.
    pub(crate) fn answered(&mut self, call: Call, result: &Result<Response, Error>) {
        if !self.creates.remove(&call) {
            return;
        }
        match result {
            Ok(Response::Created(created)) => increase(match created.outcome {
                Outcome::Created => &mut self.totals.creates.created,
                Outcome::Existing { .. } => &mut self.totals.creates.existing,
                Outcome::Replaced => &mut self.totals.creates.replaced,
            }),
            // A create has no other answer.
            Ok(_) => {}
            Err(error) => {
                increase(self.totals.create_failures.entry(error.kind.as_str().into()).or_default());
            }
        }
    }

    /// A client has gone, and its creates are not answered any more.
    pub(crate) fn disconnected(&mut self, connection: ConnectionId) {
        self.creates.retain(|call| call.connection != connection);
    }

    /// A client was refused.
    pub(crate) fn connection_refused(&mut self) {
        increase(&mut self.totals.connections_refused);
    }

    /// A child did not end by itself, and gets SIGKILL.
    pub(crate) fn stop_forced(&mut self) {
        increase(&mut self.totals.forced_stops);
    }

    /// Something has happened to a child.
    pub(crate) fn happened(&mut self, kind: EventKind, child: &ChildView, now: Instant) {
        match kind {
            EventKind::Stopping => {
                self.stopping.insert(child.id, now);
            }
            EventKind::Restarting => {
                increase(&mut self.totals.restarts);
                self.stopped(child.id, now);
            }
            EventKind::Cleaning => self.stopped(child.id, now),
            EventKind::Ended => {
                self.stopped(child.id, now);
                if child.exit.as_ref().is_some_and(|exit| exit.gave_up) {
                    increase(&mut self.totals.restarts_given_up);
                }
                match &child.cleanup {
                    Some(cleaned) if cleaned.ok => increase(&mut self.totals.cleanups.ok),
                    Some(_) => increase(&mut self.totals.cleanups.failed),
                    None => {}
                }
            }
            EventKind::Created
            | EventKind::Started
            | EventKind::Ready
            | EventKind::Exited
            | EventKind::ShuttingDown => {}
        }
    }

    /// Nothing of a child is left; it counts where it was being stopped.
    fn stopped(&mut self, child: ChildId, now: Instant) {
        if let Some(began) = self.stopping.remove(&child) {
            self.stops.observe(now.since(began));
        }
    }
}

impl Totals {
    fn add(&mut self, more: Self) {
        let Self {
            creates,
            create_failures,
            restarts,
            restarts_given_up,
            forced_stops,
            cleanups,
            connections_refused,
        } = more;
        for (count, more) in [
            (&mut self.creates.created, creates.created),
            (&mut self.creates.existing, creates.existing),
            (&mut self.creates.replaced, creates.replaced),
            (&mut self.restarts, restarts),
            (&mut self.restarts_given_up, restarts_given_up),
            (&mut self.forced_stops, forced_stops),
            (&mut self.cleanups.ok, cleanups.ok),
            (&mut self.cleanups.failed, cleanups.failed),
            (&mut self.connections_refused, connections_refused),
        ] {
            *count = count.saturating_add(more);
        }
        for (kind, more) in create_failures {
            let count = self.create_failures.entry(kind).or_default();
            *count = count.saturating_add(more);
        }
    }
}

fn increase(count: &mut u64) {
    *count = count.saturating_add(1);
}
