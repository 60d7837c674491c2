//! `events`: who is told what has happened to children.

use procbroker_protocol::event::Notification;
use procbroker_protocol::request::EventsParams;
use procbroker_protocol::response::Subscribed;
use procbroker_protocol::{ChildId, Error, ErrorKind, Response};

use crate::broker::Broker;
use crate::connections::NoPlace;
use crate::effect::Effect;
use crate::event_log::{EventHistory, Subscriber};
use crate::ids::{Call, ConnectionId, SubscriptionId};
use crate::turn::Turn;

impl Broker {
    /// Returns the events that are kept, for the program that takes over.
    #[must_use]
    pub fn event_history(&self) -> EventHistory {
        self.event_log.history()
    }

    /// `events`: answers with a subscription, and then sends what is kept since, and all that comes.
    pub(crate) fn subscribe(&mut self, call: Call, params: EventsParams, turn: &mut Turn<'_>) {
        let connection = call.connection;
        let Some(uid) = self.connection(connection).map(|connection| connection.peer().uid) else {
            return;
        };
        let subscriber = Subscriber { connection, labels: params.labels };
        if let Err(error) = self.pending.check_room(&self.config, uid, subscriber.label_bytes()) {
            return self.answer(call, Err(error), turn);
        }
        let subscription = match self.add_subscription(connection, None) {
            Ok(subscription) => subscription,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let next = self.event_log.next();
        let answer = Subscribed { subscription: subscription.0, next };
        self.answer(call, Ok(Response::Subscribed(answer)), turn);
        // A number that was never given is from before this broker: all that it knows is new.
        if let Some(since) = params.since.map(|since| if since > next { 1 } else { since.max(1) }) {
            let (missed, kept) = self.event_log.since(since);
            if missed > 0 {
                let notification = Notification::Lagged { subscription: subscription.0, missed };
                turn.order(Effect::Publish { connection, notification });
            }
            for event in kept {
                subscriber.tell(subscription, event, (&self.connections, &self.config), turn);
            }
        }
        self.pending.keep(uid, subscriber.bytes());
        self.event_log.subscribe(uid, subscription, subscriber);
    }

    /// A new subscription of a connection, within the bound.
    pub(crate) fn add_subscription(
        &mut self,
        id: ConnectionId,
        followed: Option<ChildId>,
    ) -> Result<SubscriptionId, Error> {
        let bounds = &self.config.bounds;
        let bounds = (bounds.max_subscriptions, bounds.max_connections_per_user);
        let subscription = self.event_log.new_subscription();
        let message = match self.connections.subscribe(id, (subscription, followed), bounds) {
            Ok(()) => return Ok(subscription),
            Err(NoPlace::OnConnection(bound)) => format!(
                "this connection has as many subscriptions as it may have, {bound} (--max-subscriptions); use another one"
            ),
            Err(NoPlace::OfUser(bound)) => format!(
                "this user has as many subscriptions as it may have connections, {bound} (--max-connections-per-user); close some"
            ),
        };
        Err(Error::new(ErrorKind::LimitExceeded, message))
    }
}
