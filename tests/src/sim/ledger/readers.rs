//! What the broker has told of in events, and how far each subscriber has been told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_core::{Call, ConnectionId};
use procbroker_protocol::{Event, Request, Response};

use crate::sim::ledger::Ledger;

/// The events, and their readers.
#[derive(Debug, Default)]
pub struct Readers {
    /// Every event that this broker, and the programs before it, have told of, as far as it was seen.
    pub events: BTreeMap<u64, Arc<Event>>,
    /// Those of this turn.
    pub fresh: Vec<Arc<Event>>,
    /// The number of the next one.
    pub next: u64,
    /// The numbers of those that are kept at the end of this turn, where a gap is told in it.
    pub kept: BTreeSet<u64>,
    /// The subscriptions of connections that are there.
    pub subscriptions: BTreeMap<(ConnectionId, u64), Reading>,
    /// Whether a connection with subscriptions was told that there is more, and has not asked since.
    pub roused: BTreeSet<ConnectionId>,
    /// The connection that asks for events in this turn.
    pub asking: Option<ConnectionId>,
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who subscribed.
    pub uid: u32,
    /// The labels that children have to have.
    pub labels: BTreeMap<String, String>,
    /// The number of the first event that it has not been told of, if it wants it.
    pub next: u64,
    /// How many it was told to have missed from there on.
    pub missed: u64,
}

impl Ledger {
    /// Whether a subscriber is to be told of an event.
    #[must_use]
    pub fn is_wanted(&self, reading: &Reading, event: &Event) -> bool {
        event.child.as_ref().is_none_or(|child| {
            let has = |(key, value)| child.labels.get(key) == Some(value);
            self.may_touch(reading.uid, child.owner) && reading.labels.iter().all(has)
        })
    }

    /// Takes down that a request for events is answered.
    pub fn subscribed(&mut self, call: Call, response: &Response) {
        let (Some(asked), Response::Subscribed(subscribed)) = (self.calls.get(&call), response) else {
            return;
        };
        let Request::Events(params) = &asked.request else { return };
        let next = match params.since {
            None => subscribed.next,
            Some(since) if since > subscribed.next => 1,
            Some(since) => since.max(1),
        };
        let reading = Reading { uid: asked.peer.uid, labels: params.labels.clone(), next, missed: 0 };
        self.readers.subscriptions.insert((call.connection, subscribed.subscription), reading);
    }

    /// The subscriptions of a connection are over.
    pub fn unsubscribed(&mut self, connection: ConnectionId) {
        self.readers.subscriptions.retain(|(of, _), _| *of != connection);
        self.readers.roused.remove(&connection);
    }
}
