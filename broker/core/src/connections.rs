//! Who is connected, how many of each user, and what each connection has subscribed to.

use std::collections::BTreeMap;

use procbroker_protocol::{ChildId, Error, ErrorKind};

use crate::authorize::{Peer, is_administrator};
use crate::config::Config;
use crate::ids::{ConnectionId, SubscriptionId};
use crate::kept::places_for;

/// The connections that were admitted.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    per_user: BTreeMap<u32, UserCounts>,
}

/// What one user has.
#[derive(Clone, Copy, Debug, Default)]
struct UserCounts {
    connections: u32,
    subscriptions: u32,
}

/// Why there is no place for one more subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The connection has as many as it may have.
    OnConnection(u32),
    /// The user has as many on all of its connections as it may have connections.
    OfUser(u32),
}

/// A client that is connected.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: Peer,
    /// Each subscription, with the child whose output it follows; one to events follows none.
    subscriptions: BTreeMap<SubscriptionId, Option<ChildId>>,
}

impl Connections {
    /// Takes in a connection.
    pub(crate) fn open(&mut self, id: ConnectionId, peer: Peer) {
        self.per_user.entry(peer.uid).or_default().connections += 1;
        let new = Connection { peer, subscriptions: BTreeMap::new() };
        self.open.insert(id, new);
    }

    /// Gives up a connection, and returns what it left.
    pub(crate) fn close(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.open.remove(&id)?;
        if let Some(own) = self.per_user.get_mut(&connection.peer.uid) {
            own.connections = own.connections.saturating_sub(1);
            let gone = u32::try_from(connection.subscriptions.len()).unwrap_or(u32::MAX);
            own.subscriptions = own.subscriptions.saturating_sub(gone);
            if own.connections == 0 {
                self.per_user.remove(&connection.peer.uid);
            }
        }
        Some(connection)
    }

    /// Returns a connection that is open.
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.open.get(&id)
    }

    /// Returns how many connections there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is a place for one more connection of a user.
    ///
    /// # Errors
    /// `overloaded`, with the bound that is reached.
    pub(crate) fn check_place(&self, config: &Config, uid: u32) -> Result<(), Error> {
        let bounds = &config.bounds;
        let (all, own) = (self.count(), self.count_of(uid));
        let reached = if own >= bounds.max_connections_per_user {
            format!("user {uid} has as many connections to this broker as a user may have, {own}")
        } else if all >= places_for(bounds.max_connections, is_administrator(config, uid)) {
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

    /// Returns how many connections a user has.
    fn count_of(&self, uid: u32) -> u32 {
        self.per_user.get(&uid).map_or(0, |own| own.connections)
    }

    /// Adds a subscription to a connection that is open.
    ///
    /// # Errors
    /// When there are as many as there may be on one connection, or of one user.
    pub(crate) fn subscribe(
        &mut self,
        id: ConnectionId,
        (subscription, followed): (SubscriptionId, Option<ChildId>),
        (of_a_connection, of_a_user): (u32, u32),
    ) -> Result<(), NoPlace> {
        let Some(connection) = self.open.get_mut(&id) else {
            return Ok(());
        };
        let own = self.per_user.entry(connection.peer.uid).or_default();
        if connection.subscriptions.len() >= usize::try_from(of_a_connection).unwrap_or(usize::MAX) {
            return Err(NoPlace::OnConnection(of_a_connection));
        }
        if own.subscriptions >= of_a_user {
            return Err(NoPlace::OfUser(of_a_user));
        }
        own.subscriptions += 1;
        connection.subscriptions.insert(subscription, followed);
        Ok(())
    }

    /// Ends a subscription, and returns the child whose output it followed.
    pub(crate) fn unsubscribe(&mut self, id: ConnectionId, subscription: SubscriptionId) -> Option<ChildId> {
        let connection = self.open.get_mut(&id)?;
        let followed = connection.subscriptions.remove(&subscription)?;
        if let Some(own) = self.per_user.get_mut(&connection.peer.uid) {
            own.subscriptions = own.subscriptions.saturating_sub(1);
        }
        followed
    }
}

impl Connection {
    /// Returns who is at the other end.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns the child whose output a subscription follows.
    pub(crate) fn followed_by(&self, id: SubscriptionId) -> Option<ChildId> {
        self.subscriptions.get(&id).copied().flatten()
    }

    /// Returns every subscription, with the child whose output it follows.
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionId, Option<ChildId>)> + '_ {
        self.subscriptions.iter().map(|(id, followed)| (*id, *followed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Peer {
        Peer { uid, gid: uid, groups: Vec::new(), pid: None }
    }

    #[test]
    fn a_connection_counts_for_its_user_until_it_is_closed() {
        let mut connections = Connections::default();
        for (number, uid) in [(1, 5), (2, 5), (3, 6)] {
            connections.open(ConnectionId(number), peer(uid));
        }
        assert_eq!((connections.count(), connections.count_of(5), connections.count_of(6)), (3, 2, 1));
        assert!(connections.close(ConnectionId(1)).is_some());
        assert!(connections.close(ConnectionId(1)).is_none());
        assert_eq!((connections.count(), connections.count_of(5)), (2, 1));
        connections.close(ConnectionId(2));
        assert!(!connections.per_user.contains_key(&5), "nothing is kept of a user who left");
    }

    #[test]
    fn a_connection_and_a_user_have_no_more_subscriptions_than_the_bounds() {
        let mut connections = Connections::default();
        let [one, other, third] = [1, 2, 3].map(ConnectionId);
        for (connection, uid) in [(one, 5), (other, 5), (third, 6)] {
            connections.open(connection, peer(uid));
        }
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let mut add = |connection, number, followed| {
            connections.subscribe(connection, (SubscriptionId(number), followed), (2, 3))
        };
        assert_eq!(add(one, 1, Some(child)), Ok(()));
        assert_eq!(add(one, 2, None), Ok(()));
        assert_eq!(add(one, 3, None), Err(NoPlace::OnConnection(2)));
        assert_eq!(add(other, 4, None), Ok(()));
        assert_eq!(add(other, 5, None), Err(NoPlace::OfUser(3)));
        assert_eq!(add(third, 6, None), Ok(()));
        let followed = connections.get(one).and_then(|one| one.followed_by(SubscriptionId(1)));
        assert_eq!(followed, Some(child));
        assert_eq!(connections.unsubscribe(one, SubscriptionId(1)), Some(child));
        assert_eq!(connections.unsubscribe(one, SubscriptionId(1)), None);
        let mut add = |number| connections.subscribe(other, (SubscriptionId(number), None), (2, 3));
        assert_eq!(add(7), Ok(()));
        assert_eq!(add(8), Err(NoPlace::OnConnection(2)));
        connections.close(other);
        connections.open(other, peer(5));
        let mut add = |number| connections.subscribe(other, (SubscriptionId(number), None), (3, 3));
        assert_eq!([add(9), add(10), add(11)], [Ok(()), Ok(()), Err(NoPlace::OfUser(3))]);
    }
}
