//! Who is connected, how many of each user, and what each connection waits for and has subscribed to.

use std::collections::{BTreeMap, BTreeSet};

use procbroker_protocol::ChildId;

use crate::authorize::Peer;
use crate::ids::{ConnectionId, SubscriptionId};
use crate::pending::Ticket;

/// The connections that were admitted.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    per_user: BTreeMap<u32, u32>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: Peer,
    pending: BTreeSet<Ticket>,
    /// Each subscription, with the child whose output it follows; one to events follows none.
    subscriptions: BTreeMap<SubscriptionId, Option<ChildId>>,
}

impl Connections {
    /// Takes in a connection.
    pub(crate) fn open(&mut self, id: ConnectionId, peer: Peer) {
        *self.per_user.entry(peer.uid).or_default() += 1;
        let new = Connection { peer, pending: BTreeSet::new(), subscriptions: BTreeMap::new() };
        self.open.insert(id, new);
    }

    /// Gives up a connection, and returns what it left.
    pub(crate) fn close(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.open.remove(&id)?;
        if let Some(count) = self.per_user.get_mut(&connection.peer.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_user.remove(&connection.peer.uid);
            }
        }
        Some(connection)
    }

    /// Returns a connection that is open.
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.open.get(&id)
    }

    /// Returns a connection that is open, to change it.
    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.open.get_mut(&id)
    }

    /// Returns how many connections there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// Returns how many connections a user has.
    pub(crate) fn count_of(&self, uid: u32) -> u32 {
        self.per_user.get(&uid).copied().unwrap_or_default()
    }
}

impl Connection {
    /// Returns who is at the other end.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns its requests that are not answered yet, in the order of their arrival.
    pub(crate) fn pending(&self) -> impl ExactSizeIterator<Item = Ticket> + '_ {
        self.pending.iter().copied()
    }

    /// Counts a request among those that are not answered yet.
    pub(crate) fn add_pending(&mut self, ticket: Ticket) {
        self.pending.insert(ticket);
    }

    /// Takes a request off those that are not answered yet.
    pub(crate) fn remove_pending(&mut self, ticket: Ticket) {
        self.pending.remove(&ticket);
    }

    /// Adds a subscription. Returns false where the connection has as many as it may.
    pub(crate) fn subscribe(&mut self, id: SubscriptionId, followed: Option<ChildId>, bound: u32) -> bool {
        let has_place = self.subscriptions.len() < usize::try_from(bound).unwrap_or(usize::MAX);
        if has_place {
            self.subscriptions.insert(id, followed);
        }
        has_place
    }

    /// Ends a subscription, and returns the child whose output it followed.
    pub(crate) fn unsubscribe(&mut self, id: SubscriptionId) -> Option<ChildId> {
        self.subscriptions.remove(&id).flatten()
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
    fn a_connection_has_no_more_subscriptions_than_the_bound() {
        let mut connections = Connections::default();
        connections.open(ConnectionId(1), peer(5));
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let connection = connections.get_mut(ConnectionId(1)).expect("it is open");
        assert!(connection.subscribe(SubscriptionId(1), Some(child), 2));
        assert!(connection.subscribe(SubscriptionId(2), None, 2));
        assert!(!connection.subscribe(SubscriptionId(3), None, 2));
        assert_eq!(connection.followed_by(SubscriptionId(1)), Some(child));
        assert_eq!(connection.unsubscribe(SubscriptionId(1)), Some(child));
        assert!(connection.subscribe(SubscriptionId(3), None, 2));
    }
}
