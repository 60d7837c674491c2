//! The driver's ends of the connections: answers, events and output on their way to clients.

use std::collections::BTreeMap;

use procbroker_core::{Call, ConnectionId};
use procbroker_protocol::{Error, Notification, Response};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::connection::{Feed, Outbox, Outgoing, feed};
use crate::follower::Paced;
use crate::limits::PACED_WAITING;

/// The clients that were admitted or are to be told that they are not.
#[derive(Debug, Default)]
pub struct Clients(BTreeMap<ConnectionId, Client>);

#[derive(Debug)]
struct Client {
    outbox: Outbox,
    /// Where events go, once there was one for it.
    feed: Option<Feed>,
    /// Where the output of children goes, once it asked for any.
    paced: Option<mpsc::Sender<Paced>>,
}

impl Clients {
    /// A client has connected.
    pub fn insert(&mut self, connection: ConnectionId, outbox: Outbox) {
        self.0.insert(connection, Client { outbox, feed: None, paced: None });
    }

    /// A client is gone, or is let go of: its connection sends what it has, and closes.
    pub fn remove(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// Lets a client talk.
    pub fn admit(&self, connection: ConnectionId) {
        if let Some(client) = self.0.get(&connection) {
            // The first message of a new connection always finds room.
            let _ = client.outbox.try_send(Outgoing::Admitted);
        }
    }

    /// Tells a client why it is not served, and lets go of it.
    pub fn refuse(&mut self, connection: ConnectionId, error: Error) {
        if let Some(client) = self.0.remove(&connection) {
            let _ = client.outbox.try_send(Outgoing::Refused(error));
        }
    }

    /// Hands an answer to its connection, or gives the connection up: its client asks and does not read.
    pub fn answer(&mut self, call: Call, result: Result<Response, Error>) {
        let outgoing = Outgoing::Answer { number: call.number, result };
        self.send(call.connection, outgoing);
    }

    /// Hands an event to its connection, which counts what does not fit.
    pub fn publish(&mut self, connection: ConnectionId, notification: Notification) {
        let Some(client) = self.0.get_mut(&connection) else { return };
        if client.feed.is_none() {
            let (writer, reader) = feed();
            client.feed = Some(writer);
            self.send(connection, Outgoing::Feed(reader));
        }
        let subscription = match &notification {
            Notification::Event { subscription, .. }
            | Notification::Lagged { subscription, .. }
            | Notification::Log { subscription, .. } => *subscription,
        };
        if let Some(feed) = self.0.get(&connection).and_then(|client| client.feed.as_ref()) {
            feed.publish(subscription, notification);
        }
    }

    /// Where the output of children goes that this client has asked for; none when it is gone.
    pub fn paced(&mut self, connection: ConnectionId) -> Option<mpsc::Sender<Paced>> {
        let client = self.0.get_mut(&connection)?;
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
        self.0.values().all(|client| client.outbox.capacity() == client.outbox.max_capacity())
    }

    fn send(&mut self, connection: ConnectionId, outgoing: Outgoing) {
        let Some(client) = self.0.get(&connection) else { return };
        match client.outbox.try_send(outgoing) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(connection = connection.0, "a client does not read its answers; closing");
                self.0.remove(&connection);
            }
            Err(TrySendError::Closed(_)) => {
                self.0.remove(&connection);
            }
        }
    }
}
