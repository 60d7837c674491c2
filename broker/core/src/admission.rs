//! Who is connected: admission within the bounds, and what ends with a connection.

use std::collections::{BTreeMap, BTreeSet};

use procbroker_protocol::{ChildId, Error, ErrorKind};

use crate::authorize::{self, Peer};
use crate::broker::{Broker, Turn};
use crate::calls::Ticket;
use crate::effect::Effect;
use crate::ids::{ConnectionId, SubscriptionId};

/// The connections that were admitted.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Each of them.
    pub(crate) open: BTreeMap<ConnectionId, Connection>,
    /// How many each user has.
    pub(crate) per_user: BTreeMap<u32, u32>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Who is at its other end.
    pub(crate) peer: Peer,
    /// Its requests that are not answered yet.
    pub(crate) waiting: BTreeSet<Ticket>,
    /// What it has subscribed to: events, or the output of a child.
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Option<ChildId>>,
}

impl Broker {
    /// Admits a client or refuses it.
    pub(crate) fn connect(&mut self, connection: ConnectionId, peer: Peer, turn: &mut Turn<'_>) {
        let verdict =
            authorize::may_connect(&self.config, &peer).and_then(|()| self.check_connections(peer.uid));
        match verdict {
            Ok(()) => {
                *self.connections.per_user.entry(peer.uid).or_default() += 1;
                let new = Connection { peer, waiting: BTreeSet::new(), subscriptions: BTreeMap::new() };
                self.connections.open.insert(connection, new);
                turn.order(Effect::Admit { connection });
            }
            Err(error) => turn.order(Effect::Refuse { connection, error }),
        }
    }

    /// Whether one more connection of this user is within the bounds.
    fn check_connections(&self, uid: u32) -> Result<(), Error> {
        let bounds = &self.config.bounds;
        let all = u32::try_from(self.connections.open.len()).unwrap_or(u32::MAX);
        let own = self.connections.per_user.get(&uid).copied().unwrap_or_default();
        let reached = if own >= bounds.max_connections_per_user {
            format!("user {uid} has {own} connections to this broker, which is the bound for a user")
        } else if all >= bounds.max_connections {
            format!("this broker has {all} connections, which is its bound")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Overloaded, format!("{reached}; close some, or send requests over one")))
    }

    /// Ends one subscription to a child's output.
    pub(crate) fn unfollow(&mut self, id: ConnectionId, subscription: SubscriptionId) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        if let Some(entry) = connection
            .subscriptions
            .remove(&subscription)
            .flatten()
            .and_then(|child| self.table.get_mut(child))
        {
            entry.followers.remove(&(id, subscription));
        }
    }

    /// Drops what only the client of this connection waited for. Children that it created stay.
    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.open.remove(&id) else { return };
        let uid = connection.peer.uid;
        if let Some(count) = self.connections.per_user.get_mut(&uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.connections.per_user.remove(&uid);
            }
        }
        for (subscription, followed) in connection.subscriptions {
            self.events.unsubscribe(subscription);
            if let Some(entry) = followed.and_then(|child| self.table.get_mut(child)) {
                entry.followers.remove(&(id, subscription));
            }
        }
        for ticket in connection.waiting {
            self.unpark(ticket);
        }
    }
}
