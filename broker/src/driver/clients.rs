//! The driver's ends of the connections: answers, events and output on their way to clients.

use std::collections::BTreeMap;

use procbroker_core::{Call, ConnectionId, UnreadEvents};
use procbroker_protocol::{Error, Notification, Response};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::answer_size::own_bytes;
use crate::feed::{Fed, feed};
use crate::limits::{ANSWER_BYTES_UNCOUNTED, PACED_WAITING};
use crate::messages::{Outbox, Outgoing, Paced};
use crate::transit::Transit;

/// The clients that were admitted or are to be told that they are not.
#[derive(Debug)]
pub struct Clients {
    open: BTreeMap<ConnectionId, Client>,
    transit: Transit,
}

#[derive(Debug)]
struct Client {
    user: u32,
    outbox: Outbox,
    /// Where events go, once there was one for it.
    feed: Option<mpsc::Sender<Fed>>,
    /// Where the output of children goes, once it asked for any.
    paced: Option<mpsc::Sender<Paced>>,
}

impl Clients {
    /// Begins without any client; what goes to them is counted in `transit`.
    #[must_use]
    pub fn new(transit: Transit) -> Self {
        Self { open: BTreeMap::new(), transit }
    }

    /// Returns how many bytes are on their way to clients.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.transit.bytes()
    }

    /// A client has connected.
    pub fn insert(&mut self, connection: ConnectionId, user: u32, outbox: Outbox) {
        self.open.insert(connection, Client { user, outbox, feed: None, paced: None });
    }

    /// A client is gone, or is let go of: its connection sends what it has, and closes.
    pub fn remove(&mut self, connection: ConnectionId) {
        self.open.remove(&connection);
    }

    /// Lets a client talk.
    pub fn admit(&self, connection: ConnectionId) {
        if let Some(client) = self.open.get(&connection) {
            // The first message of a new connection always finds room.
            let _ = client.outbox.try_send(Outgoing::Admitted);
        }
    }

    /// Tells a client why it is not served, and lets go of it.
    pub fn refuse(&mut self, connection: ConnectionId, error: Error) {
        if let Some(client) = self.open.remove(&connection) {
            let _ = client.outbox.try_send(Outgoing::Refused(error));
        }
    }

    /// Hands an answer to its connection, or gives the connection up: its client asks and does not read.
    pub fn answer(&mut self, call: Call, result: Result<Response, Error>) {
        let Some(user) = self.open.get(&call.connection).map(|client| client.user) else { return };
        let bytes = own_bytes(&result);
        let load = (bytes >= ANSWER_BYTES_UNCOUNTED).then(|| self.transit.add(user, bytes));
        let outgoing = Outgoing::Answer { number: call.number, result, load };
        self.send(call.connection, outgoing);
    }

    /// Tells a connection that there are events for it.
    pub fn unread(&mut self, connection: ConnectionId) {
        self.feed(connection, Fed::Unread);
    }

    /// Hands events to a connection that has room for them.
    pub fn publish(&mut self, connection: ConnectionId, notifications: Vec<Notification>) {
        let Some(client) = self.open.get(&connection) else { return };
        let events = Fed::events(notifications, &self.transit, client.user);
        self.feed(connection, events);
    }

    /// Leaves to a connection what it has not read, which it sends by itself.
    pub fn last_events(&mut self, connection: ConnectionId, unread: UnreadEvents) {
        self.feed(connection, Fed::Last(Box::new(unread)));
    }

    fn feed(&mut self, connection: ConnectionId, fed: Fed) {
        let Some(client) = self.open.get_mut(&connection) else { return };
        if client.feed.is_none() {
            let (sender, receiver) = feed();
            client.feed = Some(sender);
            self.send(connection, Outgoing::Feed(receiver));
        }
        if let Some(feed) = self.open.get(&connection).and_then(|client| client.feed.as_ref()) {
            // There is room for all that can be on its way, and a connection that is gone needs nothing.
            let _ = feed.try_send(fed);
        }
    }

    /// Where the output of children goes that this client has asked for; none when it is gone.
    pub fn paced(&mut self, connection: ConnectionId) -> Option<mpsc::Sender<Paced>> {
        let client = self.open.get_mut(&connection)?;
        if let Some(paced) = &client.paced {
            return Some(paced.clone());
        }
        let (sender, receiver) = mpsc::channel(PACED_WAITING);
        client.paced = Some(sender.clone());
        self.send(connection, Outgoing::Paced(receiver));
        Some(sender)
    }

    /// Whether the connections have taken all of their answers.
    #[must_use]
    pub fn all_answers_are_out(&self) -> bool {
        self.open.values().all(|client| client.outbox.capacity() == client.outbox.max_capacity())
    }

    fn send(&mut self, connection: ConnectionId, outgoing: Outgoing) {
        let Some(client) = self.open.get(&connection) else { return };
        match client.outbox.try_send(outgoing) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(connection = connection.0, "a client does not read its answers; closing");
                self.open.remove(&connection);
            }
            Err(TrySendError::Closed(_)) => {
                self.open.remove(&connection);
            }
        }
    }
}
