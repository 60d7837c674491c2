//! `events`: what happened to children, numbered, kept for a while, and sent on to those who asked for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use procbroker_protocol::event::Notification;
use procbroker_protocol::request::EventsParams;
use procbroker_protocol::response::Subscribed;
use procbroker_protocol::{Child, ChildId, ChildState, Error, ErrorKind, Event, EventKind, Exit, Response};

use crate::authorize;
use crate::broker::{Broker, Turn};
use crate::effect::Effect;
use crate::ids::{Call, ConnectionId, SubscriptionId};
use crate::limits::EVENTS_KEPT;
use crate::query::has_labels;
use crate::record::Role;

/// The events that are kept, and who is told of new ones.
#[derive(Debug)]
pub(crate) struct Events {
    /// The number of the next event.
    next: u64,
    kept: VecDeque<Arc<Event>>,
    subscribers: BTreeMap<SubscriptionId, Subscriber>,
    next_subscription: u64,
}

#[derive(Debug)]
struct Subscriber {
    connection: ConnectionId,
    labels: BTreeMap<String, String>,
}

impl Default for Events {
    fn default() -> Self {
        Self { next: 1, kept: VecDeque::new(), subscribers: BTreeMap::new(), next_subscription: 1 }
    }
}

impl Events {
    /// A number for a subscription, of events or of a log.
    pub(crate) fn new_subscription(&mut self) -> SubscriptionId {
        let id = SubscriptionId(self.next_subscription);
        self.next_subscription += 1;
        id
    }

    /// Keeps an event and gives it its number.
    fn keep(&mut self, event: impl FnOnce(u64) -> Event) -> Arc<Event> {
        let event = Arc::new(event(self.next));
        self.next += 1;
        if self.kept.len() >= EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::clone(&event));
        event
    }

    /// Drops a subscription whose connection is gone.
    pub(crate) fn unsubscribe(&mut self, subscription: SubscriptionId) {
        self.subscribers.remove(&subscription);
    }
}

impl Broker {
    /// `events`: answers with a subscription, and then sends what is kept since, and all that comes.
    pub(crate) fn subscribe(&mut self, call: Call, params: EventsParams, turn: &mut Turn<'_>) {
        let connection = call.connection;
        let subscription = match self.add_subscription(connection, None) {
            Ok(subscription) => subscription,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let next = self.events.next;
        let answer = Subscribed { subscription: subscription.0, next };
        self.answer(call, Ok(Response::Subscribed(answer)), turn);
        let subscriber = Subscriber { connection, labels: params.labels };
        // A number that was never given is from before this broker: all that it knows is new.
        if let Some(since) = params.since.map(|since| if since > next { 1 } else { since.max(1) }) {
            let first = self.events.kept.front().map_or(next, |event| event.seq);
            if first > since {
                let notification =
                    Notification::Lagged { subscription: subscription.0, missed: first - since };
                turn.order(Effect::Publish { connection, notification });
            }
            for event in self.events.kept.iter().filter(|event| event.seq >= since) {
                self.send(subscription, &subscriber, event, turn);
            }
        }
        self.events.subscribers.insert(subscription, subscriber);
    }

    /// A new subscription of a connection, within the bound.
    pub(crate) fn add_subscription(
        &mut self,
        id: ConnectionId,
        followed: Option<ChildId>,
    ) -> Result<SubscriptionId, Error> {
        let bound = self.config.bounds.max_subscriptions;
        let subscription = self.events.new_subscription();
        let Some(connection) = self.connections.open.get_mut(&id) else { return Ok(subscription) };
        if connection.subscriptions.len() >= usize::try_from(bound).unwrap_or(usize::MAX) {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "this connection has {bound} subscriptions, which is the bound (--max-subscriptions); use another connection"
                ),
            ));
        }
        connection.subscriptions.insert(subscription, followed);
        Ok(subscription)
    }

    /// Something has happened to a child.
    pub(crate) fn publish(&mut self, kind: EventKind, id: ChildId, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id).filter(|entry| entry.role == Role::Child) else { return };
        let child = Arc::clone(&entry.shown);
        self.publish_with(kind, Some(child), turn);
    }

    /// The main process of a child has ended, and nothing else of it is there.
    pub(crate) fn publish_exit(&mut self, id: ChildId, exit: &Exit, turn: &mut Turn<'_>) {
        let Some(entry) = self.table.get(id).filter(|entry| entry.role == Role::Child) else { return };
        let mut child = Child::clone(&entry.shown);
        child.exit = Some(exit.clone());
        child.pid = None;
        child.state = ChildState::Stopping;
        self.publish_with(EventKind::Exited, Some(Arc::new(child)), turn);
    }

    /// Something has happened, to a child or to the broker itself.
    pub(crate) fn publish_with(&mut self, kind: EventKind, child: Option<Arc<Child>>, turn: &mut Turn<'_>) {
        let at = turn.now.wall;
        let event = self.events.keep(|seq| Event { seq, at, kind, child });
        for (&subscription, subscriber) in &self.events.subscribers {
            self.send(subscription, subscriber, &event, turn);
        }
    }

    /// Sends an event to a subscriber who asked for it and may see it.
    fn send(&self, id: SubscriptionId, subscriber: &Subscriber, event: &Arc<Event>, turn: &mut Turn<'_>) {
        let connection = subscriber.connection;
        let Some(peer) = self.connection(connection).map(|connection| &connection.peer) else { return };
        let is_meant = event.child.as_ref().is_none_or(|child| {
            authorize::may_act_on(&self.config, peer, child.owner) && has_labels(child, &subscriber.labels)
        });
        if is_meant {
            let notification = Notification::Event { subscription: id.0, event: Arc::clone(event) };
            turn.order(Effect::Publish { connection, notification });
        }
    }
}
