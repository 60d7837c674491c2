//! Children that have ended and are visible still: as long as their time is not over, and as there is a place for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use procbroker_protocol::{ChildId, Name};

use crate::child::Child;
use crate::kept::{Budget, QuotaUsage};
use crate::limits::Bounds;
use crate::time::Instant;
use crate::timers::{Timer, Timers};

/// The ended children, numbered in the order of their ends.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// When each has ended.
    by_number: BTreeMap<u64, (Instant, ChildId)>,
    next: u64,
    /// The numbers of each user's.
    by_user: BTreeMap<u32, BTreeSet<u64>>,
    /// Who held a name before: by owner, because one may have no word about another's.
    by_name: BTreeMap<Name, BTreeMap<u32, BTreeSet<u64>>>,
    /// How many bytes they take.
    bytes: QuotaUsage,
    /// When the time of the first one is over.
    due: Option<Instant>,
}

impl Ended {
    /// Takes in a child that has ended at this moment.
    pub(super) fn add(&mut self, child: &Child, at: Instant) {
        let (id, uid, number) = (child.id(), child.owner().uid, self.next);
        self.next += 1;
        if let Some(name) = &child.params().name {
            let owners = self.by_name.entry(name.clone()).or_default();
            owners.entry(uid).or_default().insert(number);
        }
        self.by_number.insert(number, (at, id));
        self.by_user.entry(uid).or_default().insert(number);
        self.bytes.add(uid, child.bytes());
    }

    /// Finds the child that ended first, if its time is over at `now`; else the first one of the user who has the most, if there
    /// are more than may be kept; else that of a user whose children take more room than there is, with those that are `live`.
    pub(super) fn first_expired(&self, bounds: &Bounds, live: &QuotaUsage, now: Instant) -> Option<u64> {
        let since = now.checked_minus(bounds.ended_kept_for);
        let (first, (at, _)) = self.by_number.first_key_value()?;
        if since.is_some_and(|since| *at <= since) {
            return Some(*first);
        }
        let outnumbering = self.outnumbering(bounds.ended_kept);
        outnumbering.or_else(|| self.crowding(bounds.children_bytes(), live))
    }

    /// Returns the child of this number.
    pub(super) fn id(&self, number: u64) -> Option<ChildId> {
        self.by_number.get(&number).map(|(_, id)| *id)
    }

    /// Forgets the child of this number.
    pub(super) fn remove(&mut self, number: u64, child: &Child) {
        let uid = child.owner().uid;
        self.by_number.remove(&number);
        self.bytes.remove(uid, child.bytes());
        take_out(&mut self.by_user, &uid, number);
        if let Some(name) = &child.params().name
            && let Some(owners) = self.by_name.get_mut(name)
        {
            take_out(owners, &uid, number);
            if owners.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// Returns the number of the child whose place is over, where there are more than may be kept: the first one of the user
    /// who has the most, so that a crowd of one user's hides no other's. Of users who have as many, whose ended first.
    fn outnumbering(&self, kept: u32) -> Option<u64> {
        let is_over = self.by_number.len() > usize::try_from(kept).unwrap_or(usize::MAX);
        let users = self.by_user.values().filter(|_| is_over);
        let most = users.max_by_key(|numbers| (numbers.len(), Reverse(numbers.first().copied())))?;
        most.first().copied()
    }

    /// Returns the number of the child that makes room for others: the first one of a user who has too much, or of the one who
    /// has the most where all have too much together.
    fn crowding(&self, budget: Budget, live: &QuotaUsage) -> Option<u64> {
        let is_over = live.all() + self.bytes.all() > budget.all;
        let fattest = self.bytes.users().max_by_key(|(_, bytes)| *bytes).filter(|_| is_over);
        let greedy = || self.bytes.users().find(|(uid, bytes)| live.of(*uid) + bytes > budget.user);
        let (uid, _) = fattest.or_else(greedy)?;
        self.by_user.get(&uid)?.first().copied()
    }

    /// Returns the child that held a name last, of those whose owners are meant.
    pub(super) fn last_of(&self, name: &Name, is_meant: impl Fn(u32) -> bool) -> Option<ChildId> {
        let owners = self.by_name.get(name)?.iter().filter(|(uid, _)| is_meant(**uid));
        let last = owners.filter_map(|(_, numbers)| numbers.last()).max()?;
        self.id(*last)
    }

    /// Returns how many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.all()
    }

    /// Sets the timer for the end of the time of the first one.
    pub(super) fn set_timer(&mut self, bounds: &Bounds, timers: &mut Timers) {
        let first = self.by_number.first_key_value();
        let due = first.map(|(_, (at, _))| at.plus(bounds.ended_kept_for));
        timers.set(Timer::Retention, self.due, due);
        self.due = due;
    }

    /// The timer has run out.
    pub(super) fn timer_ran_out(&mut self) {
        self.due = None;
    }
}

/// Takes a number out of a set that is dropped when it is empty.
fn take_out<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<u64>>, key: &K, number: u64) {
    if let Some(numbers) = sets.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::tests::intent;
    use std::time::Duration;

    const NOW: Instant = Instant::from_nanos(1_000);

    /// Makes a child of a user, with a name.
    fn child(number: u128, uid: u32, name: &str) -> Child {
        let mut intent = intent(number, |params| params.name = name.parse().ok());
        intent.owner.uid = uid;
        Child::new(&intent)
    }

    fn bounds(kept: u32) -> Bounds {
        let kept_for = Duration::from_nanos(100);
        Bounds { ended_kept: kept, ended_kept_for: kept_for, ..Bounds::default() }
    }

    fn ended(children: &[(Instant, Child)]) -> Ended {
        let mut ended = Ended::default();
        for (at, child) in children {
            ended.add(child, *at);
        }
        ended
    }

    #[test]
    fn the_first_one_goes_when_its_time_is_over_and_the_timer_says_when_that_is() {
        let (child, timers, live) = (child(1, 7, "a"), &mut Timers::default(), QuotaUsage::default());
        let mut ended = ended(&[(NOW, child)]);
        ended.set_timer(&bounds(5), timers);
        let over = NOW.plus(Duration::from_nanos(100));
        assert_eq!(timers.next(), Some(over));
        assert_eq!(ended.first_expired(&bounds(5), &live, over.minus(Duration::from_nanos(1))), None);
        assert_eq!(ended.first_expired(&bounds(5), &live, over), Some(0));
    }

    #[test]
    fn a_crowd_of_one_users_hides_no_other_users_child() {
        let children = [(1, 7), (2, 8), (3, 8)].map(|(number, uid)| (NOW, child(number, uid, "a")));
        let ended = ended(&children);
        let live = QuotaUsage::default();
        assert_eq!(ended.first_expired(&bounds(3), &live, NOW), None);
        assert_eq!(ended.first_expired(&bounds(2), &live, NOW), Some(1));
    }

    #[test]
    fn who_has_too_much_with_what_lives_makes_room() {
        let children = [(1, 7), (2, 8)].map(|(number, uid)| (NOW, child(number, uid, "a")));
        let ended = ended(&children);
        let mut live = QuotaUsage::default();
        live.add(8, bounds(5).children_bytes().user);
        assert_eq!(ended.first_expired(&bounds(5), &live, NOW), Some(1));
    }

    #[test]
    fn a_name_means_the_last_one_of_those_that_may_be_seen_and_nothing_is_kept_of_it_in_the_end() {
        let children = [(1, 7), (2, 8)].map(|(number, uid)| (NOW, child(number, uid, "a")));
        let mut ended = ended(&children);
        let name = "a".parse().expect("a name");
        let (first, last) = (children[0].1.id(), children[1].1.id());
        assert_eq!(ended.last_of(&name, |_| true), Some(last));
        assert_eq!(ended.last_of(&name, |uid| uid == 7), Some(first));
        ended.remove(1, &children[1].1);
        assert_eq!(ended.last_of(&name, |_| true), Some(first));
        ended.remove(0, &children[0].1);
        assert_eq!((ended.last_of(&name, |_| true), ended.bytes()), (None, 0));
        assert!(ended.by_number.is_empty() && ended.by_user.is_empty() && ended.by_name.is_empty());
    }
}
