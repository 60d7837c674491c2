//! How many processes are being started at a time, and who is next.
//!
//! A spawn cannot be taken back once it is ordered, and a program on a file system that does not answer may keep
//! one for long. So only a few are ordered at a time, users take turns, and one user's are bounded: what waits
//! here can still be called off without a process ever having been there.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use procbroker_protocol::ChildId;

use crate::limits::{SPAWNS_IN_FLIGHT_MAX, SPAWNS_IN_FLIGHT_PER_USER_MAX};

/// The spawns in flight, and those that wait, for each user in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct SpawnQueue {
    in_flight: u32,
    per_user: BTreeMap<u32, User>,
    /// Whose turn was last.
    last: u32,
}

#[derive(Debug, Default)]
struct User {
    in_flight: u32,
    queue: VecDeque<ChildId>,
}

impl SpawnQueue {
    /// Puts a child at the end of its user's queue.
    pub(crate) fn enqueue(&mut self, uid: u32, child: ChildId) {
        self.per_user.entry(uid).or_default().queue.push_back(child);
    }

    /// Takes a child out of its user's queue, before its turn.
    pub(crate) fn withdraw(&mut self, uid: u32, child: ChildId) {
        if let Some(user) = self.per_user.get_mut(&uid) {
            user.queue.retain(|waiting| *waiting != child);
        }
        self.tidy(uid);
    }

    /// The child that may be started now, if any: the next user's first.
    pub(crate) fn next(&mut self) -> Option<ChildId> {
        if self.in_flight >= SPAWNS_IN_FLIGHT_MAX {
            return None;
        }
        let may_start =
            |user: &User| user.in_flight < SPAWNS_IN_FLIGHT_PER_USER_MAX && !user.queue.is_empty();
        let after = self.per_user.range((Bound::Excluded(self.last), Bound::Unbounded));
        let uid = *after.chain(self.per_user.range(..=self.last)).find(|(_, user)| may_start(user))?.0;
        let user = self.per_user.get_mut(&uid)?;
        let child = user.queue.pop_front()?;
        user.in_flight += 1;
        self.in_flight += 1;
        self.last = uid;
        Some(child)
    }

    /// Counts a process that an earlier broker has left on the way to its program.
    pub(crate) fn resume(&mut self, uid: u32) {
        self.in_flight += 1;
        self.per_user.entry(uid).or_default().in_flight += 1;
    }

    /// Whether no process is being started.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// A spawn has come to its end, whichever.
    pub(crate) fn finish(&mut self, uid: u32) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(user) = self.per_user.get_mut(&uid) {
            user.in_flight = user.in_flight.saturating_sub(1);
        }
        self.tidy(uid);
    }

    /// Forgets a user who has nothing here.
    fn tidy(&mut self, uid: u32) {
        if self.per_user.get(&uid).is_some_and(|user| user.in_flight == 0 && user.queue.is_empty()) {
            self.per_user.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use procbroker_protocol::ChildId;

    fn child(number: u128) -> ChildId {
        ChildId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn users_take_turns_and_each_one_keeps_its_order() {
        let mut spawns = SpawnQueue::default();
        for (uid, number) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)] {
            spawns.enqueue(uid, child(number));
        }
        let order: Vec<_> = std::iter::from_fn(|| spawns.next()).collect();
        assert_eq!(order, [10, 20, 30, 11, 21, 12].map(child));
    }

    #[test]
    fn one_user_cannot_take_all_places() {
        let mut spawns = SpawnQueue::default();
        for number in 0..1_000 {
            spawns.enqueue(1, child(number));
        }
        let started = std::iter::from_fn(|| spawns.next()).count();
        assert_eq!(started, SPAWNS_IN_FLIGHT_PER_USER_MAX as usize);
        spawns.enqueue(2, child(5_000));
        assert_eq!(spawns.next(), Some(child(5_000)));
        spawns.finish(1);
        assert_eq!(spawns.next(), Some(child(u128::from(SPAWNS_IN_FLIGHT_PER_USER_MAX))));
        assert_eq!(spawns.next(), None);
    }

    #[test]
    fn all_users_together_are_bounded_and_nothing_is_kept_of_those_who_left() {
        let mut spawns = SpawnQueue::default();
        for uid in 0..1_000 {
            spawns.enqueue(uid, child(uid.into()));
        }
        assert_eq!(std::iter::from_fn(|| spawns.next()).count(), SPAWNS_IN_FLIGHT_MAX as usize);
        for uid in 0..1_000 {
            spawns.withdraw(uid, child(uid.into()));
        }
        for uid in 1..=SPAWNS_IN_FLIGHT_MAX {
            spawns.finish(uid);
        }
        spawns.finish(0);
        assert!(spawns.per_user.is_empty(), "{spawns:?}");
    }
}
