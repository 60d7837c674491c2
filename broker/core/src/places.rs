//! Who waits for a place under the key of a limit, and whose turn it is: users take turns, and one user's creates come in
//! the order of their arrival. By its name and its request each is found without a look at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use procbroker_protocol::{ChildId, Name};
use uuid::Uuid;

use crate::attempt::Attempt;
use crate::ids::Ticket;

/// The creates that wait for a place, for each key.
#[derive(Debug, Default)]
pub(crate) struct Places {
    by_key: BTreeMap<String, Queue>,
    by_name: BTreeMap<Name, BTreeSet<Ticket>>,
    by_request: BTreeMap<(u32, Uuid), BTreeSet<Ticket>>,
    /// For whom places are kept under each key, by the children that are stopped for them: of those that want the name of one
    /// child one gets it, and one place.
    kept: BTreeMap<String, BTreeMap<ChildId, BTreeSet<Ticket>>>,
    /// The keys of which more is to be given than one turn has given.
    left_over: BTreeSet<String>,
}

/// Those that wait for one key.
#[derive(Debug, Default)]
struct Queue {
    users: BTreeMap<u32, BTreeSet<Ticket>>,
    /// Whose turn was last.
    last: u32,
}

impl Places {
    /// Lets a create of a user wait, if it has a limit.
    pub(crate) fn add(&mut self, attempt: &Attempt, uid: u32, ticket: Ticket) {
        let Some(key) = attempt.limit_key() else {
            return;
        };
        if let Some(name) = &attempt.params.name {
            self.by_name.entry(name.clone()).or_default().insert(ticket);
        }
        if let Some(request) = attempt.request_of(uid) {
            self.by_request.entry(request).or_default().insert(ticket);
        }
        let queue = self.by_key.entry(key.to_owned()).or_default();
        queue.users.entry(uid).or_default().insert(ticket);
    }

    /// Lets a create wait no longer.
    pub(crate) fn remove(&mut self, attempt: &Attempt, uid: u32, ticket: Ticket) {
        let Some(key) = attempt.limit_key() else {
            return;
        };
        if let Some(name) = &attempt.params.name {
            forget(&mut self.by_name, name, ticket);
        }
        if let Some(request) = attempt.request_of(uid) {
            forget(&mut self.by_request, &request, ticket);
        }
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

    /// Returns those that want a name, in the order of their arrival.
    pub(crate) fn of_name(&self, name: &Name) -> BTreeSet<Ticket> {
        self.by_name.get(name).cloned().unwrap_or_default()
    }

    /// Returns those that are one request of a user, in the order of their arrival.
    pub(crate) fn of_request(&self, request: (u32, Uuid)) -> BTreeSet<Ticket> {
        self.by_request.get(&request).cloned().unwrap_or_default()
    }

    /// Keeps a place under a key for a create, for which a child is stopped that has none there.
    pub(crate) fn keep(&mut self, key: &str, stopped: ChildId, ticket: Ticket) {
        self.kept.entry(key.to_owned()).or_default().entry(stopped).or_default().insert(ticket);
    }

    /// Keeps no place for a create any more.
    pub(crate) fn give_back(&mut self, key: &str, stopped: ChildId, ticket: Ticket) {
        if let Some(kept) = self.kept.get_mut(key) {
            forget(kept, &stopped, ticket);
            if kept.is_empty() {
                self.kept.remove(key);
            }
        }
    }

    /// Returns how many places are kept under a key.
    pub(crate) fn kept_count(&self, key: &str) -> u32 {
        self.kept.get(key).map_or(0, |kept| u32::try_from(kept.len()).unwrap_or(u32::MAX))
    }

    /// Whether a place is kept under a key for whoever gets the name of a child that is stopped.
    pub(crate) fn is_kept(&self, key: &str, stopped: ChildId) -> bool {
        self.kept.get(key).is_some_and(|kept| kept.contains_key(&stopped))
    }

    /// Leaves the rest of what is to be given under a key to a later turn. Returns whether that is the only one.
    pub(crate) fn leave_over(&mut self, key: &str) -> bool {
        let is_only = self.left_over.is_empty();
        self.left_over.insert(key.to_owned());
        is_only
    }

    /// Whether more is to be given under a key, to those who wait already.
    pub(crate) fn is_left_over(&self, key: &str) -> bool {
        self.left_over.contains(key)
    }

    /// Takes the keys of which more is to be given.
    pub(crate) fn take_left_over(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.left_over)
    }
}

/// Takes a create from what it is known by, and that too when it was the last one.
fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Ticket>>, key: &K, ticket: Ticket) {
    if let Some(tickets) = index.get_mut(key) {
        tickets.remove(&ticket);
        if tickets.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::tests::attempt;
    use procbroker_protocol::create::Limit;

    #[test]
    fn users_take_turns_and_each_has_its_own_order() {
        let tickets = Ticket::some(4);
        let mut places = Places::default();
        let seeker = attempt(1, |params| {
            params.limit = Some(Limit { key: "k".to_owned(), max: 1, wait: None });
            params.name = Some("n".parse().unwrap());
            params.request_id = Some(Uuid::from_u128(1));
        });
        for (uid, ticket) in [(7, tickets[0]), (7, tickets[1]), (9, tickets[2]), (3, tickets[3])] {
            places.add(&seeker, uid, ticket);
        }
        assert_eq!(places.of_name(&"n".parse().unwrap()), tickets.iter().copied().collect::<BTreeSet<_>>());
        assert_eq!(
            places.of_request((7, Uuid::from_u128(1))),
            tickets[..2].iter().copied().collect::<BTreeSet<_>>()
        );
        let order = |places: &Places| places.in_turn("k").collect::<Vec<_>>();
        assert_eq!(order(&places), [tickets[3], tickets[0], tickets[1], tickets[2]]);
        places.served("k", 7);
        assert_eq!(order(&places)[0], tickets[2]);
        for (uid, ticket) in [(7, tickets[0]), (7, tickets[1]), (9, tickets[2]), (3, tickets[3])] {
            places.remove(&seeker, uid, ticket);
        }
        assert!(places.by_key.is_empty(), "nothing is kept of a key that nobody waits for");
        assert!(places.by_name.is_empty() && places.by_request.is_empty());
    }

    #[test]
    fn those_who_want_the_name_of_one_child_have_one_place_kept_for_them() {
        let [first, second] = [1, 2].map(|number| ChildId::from_uuid(Uuid::from_u128(number)));
        let tickets = Ticket::some(3);
        let mut places = Places::default();
        for (stopped, ticket) in [(first, tickets[0]), (first, tickets[1]), (second, tickets[2])] {
            places.keep("k", stopped, ticket);
        }
        assert_eq!((places.kept_count("k"), places.kept_count("l")), (2, 0));
        places.give_back("k", first, tickets[0]);
        assert!(places.is_kept("k", first) && !places.is_kept("l", first));
        places.give_back("k", first, tickets[1]);
        assert!(!places.is_kept("k", first) && places.is_kept("k", second));
        places.give_back("k", second, tickets[2]);
        assert!(places.kept.is_empty(), "nothing is kept of a key under which no place is");
    }
}
