//! Who waits for a place under the key of a limit, and whose turn it is: users take turns, and one user's creates come in
//! the order of their arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::ids::Ticket;

/// The creates that wait for a place, for each key.
#[derive(Debug, Default)]
pub(crate) struct Places {
    by_key: BTreeMap<String, Queue>,
}

/// Those that wait for one key.
#[derive(Debug, Default)]
struct Queue {
    users: BTreeMap<u32, BTreeSet<Ticket>>,
    /// Whose turn was last.
    last: u32,
}

impl Places {
    /// Lets a create of a user wait.
    pub(crate) fn add(&mut self, key: &str, uid: u32, ticket: Ticket) {
        let queue = self.by_key.entry(key.to_owned()).or_default();
        queue.users.entry(uid).or_default().insert(ticket);
    }

    /// Lets a create wait no longer.
    pub(crate) fn remove(&mut self, key: &str, uid: u32, ticket: Ticket) {
        let Some(queue) = self.by_key.get_mut(key) else {
            return;
        };
        if let Some(tickets) = queue.users.get_mut(&uid) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                queue.users.remove(&uid);
            }
        }
        if queue.users.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// A create of this user has had its turn.
    pub(crate) fn served(&mut self, key: &str, uid: u32) {
        if let Some(queue) = self.by_key.get_mut(key) {
            queue.last = uid;
        }
    }

    /// Returns those that wait for a key, in the order of their turns.
    pub(crate) fn in_turn(&self, key: &str) -> impl Iterator<Item = Ticket> + '_ {
        self.by_key.get(key).into_iter().flat_map(|queue| {
            let after = queue.users.range((Bound::Excluded(queue.last), Bound::Unbounded));
            after.chain(queue.users.range(..=queue.last)).flat_map(|(_, tickets)| tickets.iter().copied())
        })
    }

    /// Returns all that wait, in the order of their arrival.
    pub(crate) fn all(&self) -> BTreeSet<Ticket> {
        self.by_key.values().flat_map(|queue| queue.users.values().flatten()).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_and_each_has_its_own_order() {
        let tickets = Ticket::some(4);
        let mut places = Places::default();
        for (uid, ticket) in [(7, tickets[0]), (7, tickets[1]), (9, tickets[2]), (3, tickets[3])] {
            places.add("k", uid, ticket);
        }
        let order = |places: &Places| places.in_turn("k").collect::<Vec<_>>();
        assert_eq!(order(&places), [tickets[3], tickets[0], tickets[1], tickets[2]]);
        places.served("k", 7);
        assert_eq!(order(&places)[0], tickets[2]);
        for (uid, ticket) in [(7, tickets[0]), (7, tickets[1]), (9, tickets[2]), (3, tickets[3])] {
            places.remove("k", uid, ticket);
        }
        assert!(places.by_key.is_empty(), "nothing is kept of a key that nobody waits for");
    }
}
