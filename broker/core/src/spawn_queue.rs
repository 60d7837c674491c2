//! How many processes are being started at a time, and who is next.
//!
//! A spawn cannot be taken back once it is ordered, and a program on a file system that does not answer may keep
//! one for long. So users take turns, and what waits here can still be called off without a process ever having been there.
//!
//! One user's spawns are bounded, and the more so the fewer places are left: whoever comes after a few users whose spawns hang
//! finds a place, and so does whoever comes after many. The last tenth is left to administrators.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use procbroker_protocol::ChildId;

use crate::kept::places_for;
use crate::limits::{FREE_FOR_EACH_OF_A_USER, SPAWNS_IN_FLIGHT_PER_USER_MAX};

/// The spawns in flight, and those that wait, for each user in the order of their arrival.
#[derive(Debug)]
pub(crate) struct SpawnQueue {
    /// How many there may be in flight, in all.
    most: u32,
    /// The user that the broker runs as, who is an administrator as root is.
    broker_uid: u32,
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
    /// Makes an empty one with so many places.
    pub(crate) fn new(most: u32, broker_uid: u32) -> Self {
        Self { most, broker_uid, in_flight: 0, per_user: BTreeMap::new(), last: 0 }
    }

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

    /// Whether one more of a user's may be started.
    fn has_place(&self, uid: u32, in_flight: u32) -> bool {
        let is_administrator = uid == 0 || uid == self.broker_uid;
        let free = places_for(self.most, is_administrator).saturating_sub(self.in_flight);
        let most = if is_administrator {
            SPAWNS_IN_FLIGHT_PER_USER_MAX
        } else {
            (free / FREE_FOR_EACH_OF_A_USER).clamp(1, SPAWNS_IN_FLIGHT_PER_USER_MAX)
        };
        free > 0 && in_flight < most
    }

    /// The child that may be started now, if any: the next user's first.
    pub(crate) fn next(&mut self) -> Option<ChildId> {
        let may_start =
            |(uid, user): &(&u32, &User)| !user.queue.is_empty() && self.has_place(**uid, user.in_flight);
        let after = self.per_user.range((Bound::Excluded(self.last), Bound::Unbounded));
        let uid = *after.chain(self.per_user.range(..=self.last)).find(may_start)?.0;
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

    const BROKER_UID: u32 = 900;

    fn child(number: u32) -> ChildId {
        ChildId::from_uuid(uuid::Uuid::from_u128(number.into()))
    }

    fn queue() -> SpawnQueue {
        SpawnQueue::new(256, BROKER_UID)
    }

    /// Has a user want very many, and says how many were started: they hang.
    fn hang(spawns: &mut SpawnQueue, uid: u32) -> usize {
        for number in 0..1_000 {
            spawns.enqueue(uid, child(number));
        }
        let started = std::iter::from_fn(|| spawns.next()).count();
        for number in 0..1_000 {
            spawns.withdraw(uid, child(number));
        }
        started
    }

    #[test]
    fn users_take_turns_and_each_one_keeps_its_order() {
        let mut spawns = queue();
        for (uid, number) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)] {
            spawns.enqueue(uid, child(number));
        }
        let order: Vec<_> = std::iter::from_fn(|| spawns.next()).collect();
        assert_eq!(order, [10, 20, 30, 11, 21, 12].map(child));
    }

    #[test]
    fn one_user_cannot_take_all_places() {
        for uid in [0, 1, BROKER_UID] {
            let mut spawns = queue();
            for number in 0..1_000 {
                spawns.enqueue(uid, child(number));
            }
            let started = std::iter::from_fn(|| spawns.next()).count();
            assert_eq!(started, SPAWNS_IN_FLIGHT_PER_USER_MAX as usize);
            spawns.enqueue(2, child(5_000));
            assert_eq!(spawns.next(), Some(child(5_000)));
            spawns.finish(uid);
            assert_eq!(spawns.next(), Some(child(SPAWNS_IN_FLIGHT_PER_USER_MAX)));
            assert_eq!(spawns.next(), None);
        }
    }

    #[test]
    fn spawns_of_a_few_users_that_hang_cost_another_none_of_its_places() {
        let mut spawns = queue();
        for uid in 1..=5 {
            assert_eq!(hang(&mut spawns, uid), 16, "{uid}");
        }
        assert_eq!(hang(&mut spawns, 6), 16);
    }

    #[test]
    fn whoever_comes_after_very_many_users_whose_spawns_hang_has_a_place() {
        let mut spawns = queue();
        for uid in 1..=30 {
            assert!(hang(&mut spawns, uid) > 0, "{uid}");
        }
    }

    #[test]
    fn administrators_have_places_whatever_hangs() {
        for uid in [0, BROKER_UID] {
            let mut spawns = queue();
            for user in 1_000..2_000 {
                hang(&mut spawns, user);
            }
            assert_eq!(hang(&mut spawns, 2_000), 0, "all places for users are taken");
            assert_eq!(hang(&mut spawns, uid), 16);
        }
    }

    #[test]
    fn all_users_together_are_bounded_and_nothing_is_kept_of_those_who_left() {
        let mut spawns = queue();
        for uid in 0..1_000 {
            spawns.enqueue(uid, child(uid));
        }
        let started: Vec<_> = std::iter::from_fn(|| spawns.next()).collect();
        // Those of root and of the broker's user come from the last tenth, or leave more of it.
        assert_eq!(started.len(), 233);
        for uid in 0..1_000 {
            spawns.withdraw(uid, child(uid));
        }
        for uid in (0..1_000).filter(|uid| started.contains(&child(*uid))) {
            spawns.finish(uid);
        }
        assert!(spawns.per_user.is_empty() && spawns.is_idle(), "{spawns:?}");
    }
}
