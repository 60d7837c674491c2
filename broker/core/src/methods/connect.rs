//! Clients come and go: admission within the bounds, and what ends with a connection.

use procbroker_protocol::{Error, ErrorKind};

use crate::authorize::{self, Peer};
use crate::broker::Broker;
use crate::child::Next;
use crate::effect::Effect;
use crate::ids::{ConnectionId, SubscriptionId};
use crate::turn::Turn;

impl Broker {
    /// Admits a client or refuses it.
    pub(crate) fn connect(&mut self, connection: ConnectionId, peer: Peer, turn: &mut Turn<'_>) {
        let verdict = authorize::may_connect(&self.config, &peer)
            .and_then(|()| self.connections.check_place(&self.config, peer.uid));
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

    /// Ends one subscription to a child's output.
    pub(crate) fn unfollow(&mut self, id: ConnectionId, subscription: SubscriptionId) {
        let followed = self.connections.unsubscribe(id, subscription);
        if let Some(child) = followed.and_then(|child| self.children.get_mut(child)) {
            child.unfollow(id, subscription);
        }
    }

    /// Drops what only the client of this connection waited for, and lets go of what it held.
    pub(crate) fn disconnect(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.close(id) else {
            return;
        };
        self.metrics.disconnected(id);
        self.pending.let_go(connection.peer().uid, self.event_log.close(id));
        for (subscription, followed) in connection.subscriptions() {
            if let Some(child) = followed.and_then(|child| self.children.get_mut(child)) {
                child.unfollow(id, subscription);
            }
        }
        let kept = self.pending.close(id, &mut self.timers);
        for (child, until) in self.leases.close(id, turn.now.instant, &mut self.timers) {
            self.with_child(child, turn, |child, orders| {
                // A later broker goes on counting.
                child.expires_at(until, orders);
                Next::Nothing
            });
        }
        for key in kept {
            self.offer_places(&key, turn);
        }
    }
}
