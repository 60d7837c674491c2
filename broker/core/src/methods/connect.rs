//! Clients come and go: admission within the bounds, and what ends with a connection.

use procbroker_protocol::{Error, ErrorKind};

use crate::authorize::{self, Peer, is_administrator};
use crate::broker::Broker;
use crate::effect::Effect;
use crate::ids::{ConnectionId, SubscriptionId};
use crate::kept::places_for;
use crate::turn::Turn;

impl Broker {
    /// Admits a client or refuses it.
    pub(crate) fn connect(&mut self, connection: ConnectionId, peer: Peer, turn: &mut Turn<'_>) {
        let verdict =
            authorize::may_connect(&self.config, &peer).and_then(|()| self.check_connections(peer.uid));
        match verdict {
            Ok(()) => {
                self.connections.open(connection, peer);
                turn.order(Effect::Admit { connection });
            }
            Err(error) => {
                self.metrics.connection_refused();
                turn.order(Effect::Refuse { connection, error });
            }
        }
    }

    /// Refuses a client whose user is none here.
    pub(crate) fn connect_unmapped(connection: ConnectionId, turn: &mut Turn<'_>) {
        let message = "the user of this process has no number in the broker's user namespace (user_namespaces(7)), so \
            that the broker cannot tell it from others; map it there, or run the broker outside";
        let error = Error::new(ErrorKind::PermissionDenied, message);
        turn.order(Effect::Refuse { connection, error });
    }

    /// Whether one more connection of this user is within the bounds.
    fn check_connections(&self, uid: u32) -> Result<(), Error> {
        let bounds = &self.config.bounds;
        let (all, own) = (self.connections.count(), self.connections.count_of(uid));
        let reached = if own >= bounds.max_connections_per_user {
            format!("user {uid} has as many connections to this broker as a user may have, {own}")
        } else if all >= places_for(bounds.max_connections, is_administrator(&self.config, uid)) {
            format!(
                "{all} of the {} connections that this broker may have are taken (--max-connections), and a tenth is left to root \
                 and the broker's user",
                bounds.max_connections
            )
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Overloaded, format!("{reached}; close some, or send requests over one")))
    }

    /// Ends one subscription to a child's output.
    pub(crate) fn unfollow(&mut self, id: ConnectionId, subscription: SubscriptionId) {
        let followed = self.connections.unsubscribe(id, subscription);
        if let Some(child) = followed.and_then(|child| self.children.get_mut(child)) {
            child.unfollow(id, subscription);
        }
    }

    /// Drops what only the client of this connection waited for, and lets go of what it held.
    pub(crate) fn disconnect(&mut self, id: ConnectionId, turn: &Turn<'_>) {
        let Some(connection) = self.connections.close(id) else {
            return;
        };
        self.metrics.disconnected(id);
        for (subscription, followed) in connection.subscriptions() {
            if let Some(subscriber) = self.event_log.unsubscribe(connection.peer().uid, subscription) {
                self.pending.let_go(connection.peer().uid, subscriber.bytes());
            }
            if let Some(child) = followed.and_then(|child| self.children.get_mut(child)) {
                child.unfollow(id, subscription);
            }
        }
        self.pending.close(id, &mut self.timers);
        self.leases.close(id, turn.now.instant, &mut self.timers);
    }
}
