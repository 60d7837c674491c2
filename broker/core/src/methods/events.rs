//! `events`: who is told what has happened to children.

use std::sync::Arc;

use procbroker_protocol::request::EventsParams;
use procbroker_protocol::response::Subscribed;
use procbroker_protocol::{ChildId, Error, ErrorKind, Event, Response};

use crate::authorize::is_administrator;
use crate::broker::Broker;
use crate::connections::NoPlace;
use crate::event_log::{EventHistory, Sight, UnreadEvents, label_bytes};
use crate::ids::{Call, ConnectionId, SubscriptionId};
use crate::limits::REQUEST_KEPT_BYTES;
use crate::turn::Turn;

impl Broker {
    /// Returns the events that are kept, for the program that takes over.
    #[must_use]
    pub fn event_history(&self) -> EventHistory {
        self.event_log.history()
    }

    /// Returns the events that are kept from a number on, whoever may see them.
    pub fn events_from(&self, number: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.event_log.kept_from(number)
    }

    /// Returns what each connection has not read of the events that it has subscribed to, for when nobody answers
    /// [`EventsWanted`](crate::Input::EventsWanted) any more.
    #[must_use]
    pub fn unread_events(&self) -> Vec<(ConnectionId, UnreadEvents)> {
        self.event_log.unread()
    }

    /// `events`: answers with a subscription. What is kept since, and all that comes, can be read from then on.
    pub(crate) fn subscribe(&mut self, call: Call, params: EventsParams, turn: &mut Turn<'_>) {
        let EventsParams { since, labels } = params;
        let connection = call.connection;
        let Some(uid) = self.connection(connection).map(|connection| connection.peer().uid) else {
            return;
        };
        let bytes = label_bytes(&labels);
        if let Err(error) = self.pending.check_room(&self.config, uid, bytes) {
            return self.answer(call, Err(error), turn);
        }
        let subscription = match self.add_subscription(connection, None) {
            Ok(subscription) => subscription,
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let next = self.event_log.next();
        let answer = Subscribed { subscription: subscription.0, next };
        self.answer(call, Ok(Response::Subscribed(answer)), turn);
        self.pending.keep(uid, REQUEST_KEPT_BYTES + bytes);
        // A number that was never given is from before this broker: all that it knows is new.
        let since = since.map_or(next, |since| if since > next { 1 } else { since.max(1) });
        let sight = if is_administrator(&self.config, uid) { Sight::All } else { Sight::Own(uid) };
        self.event_log.subscribe(connection, (uid, sight), (subscription, labels), since, turn);
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
