//! Requests that were answered with a child that was there: the same one once more gets that answer again, as long as the
//! child is visible.

use std::collections::{BTreeMap, BTreeSet};

use procbroker_protocol::{ChildId, Outcome};
use uuid::Uuid;

use crate::kept::Budget;
use crate::limits::ANSWER_KEPT_BYTES;
use crate::record::Answered;

/// The answers that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    by_request: BTreeMap<(u32, Uuid), Remembered>,
    /// The requests that were answered with each child.
    by_child: BTreeMap<ChildId, BTreeSet<(u32, Uuid)>>,
    /// The requests of each user, numbered in the order of their answers.
    by_user: BTreeMap<u32, BTreeMap<u64, Uuid>>,
    next: u64,
}

/// What a request was answered with, and where that is on record.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    child: ChildId,
    same_spec: bool,
    /// What it is on record under.
    on_record: ChildId,
    number: u64,
}

impl Answers {
    /// Keeps an answer, the first one to its request.
    pub(crate) fn add(&mut self, answered: &Answered) {
        let Answered { id, child, uid, request, same_spec } = *answered;
        let number = self.next;
        self.next += 1;
        self.by_request.insert((uid, request), Remembered { child, same_spec, on_record: id, number });
        self.by_child.entry(child).or_default().insert((uid, request));
        self.by_user.entry(uid).or_default().insert(number, request);
    }

    /// Returns the child that a request of this user was answered with, and how.
    pub(crate) fn of(&self, uid: u32, request: Uuid) -> Option<(ChildId, Outcome)> {
        let Remembered { child, same_spec, .. } = self.by_request.get(&(uid, request))?;
        Some((*child, Outcome::Existing { same_spec: *same_spec }))
    }

    /// Forgets what was answered with a child, and returns what that is on record under.
    pub(crate) fn forget_child(&mut self, child: ChildId) -> Vec<ChildId> {
        let requests = self.by_child.get(&child).cloned().unwrap_or_default();
        requests.into_iter().filter_map(|key| self.forget(key)).collect()
    }

    /// Forgets the oldest answers to this user while there are more than it may have, and those of whoever has the most while
    /// all have too many together; returns what they are on record under.
    pub(crate) fn make_room(&mut self, uid: u32, budget: Budget) -> Vec<ChildId> {
        let mut forgotten = Vec::new();
        while let Some(key) = self.crowding(uid, budget) {
            forgotten.extend(self.forget(key));
        }
        forgotten
    }

    /// Returns the answer that makes room for others, if there are too many.
    fn crowding(&self, uid: u32, budget: Budget) -> Option<(u32, Uuid)> {
        let is_full = self.bytes() > budget.all;
        let fattest = || self.by_user.iter().max_by_key(|(_, own)| own.len()).map(|(uid, _)| *uid);
        let whose = if is_full { fattest()? } else { uid };
        let own = self.by_user.get(&whose).filter(|own| is_full || bytes_of(own.len()) > budget.user)?;
        own.first_key_value().map(|(_, request)| (whose, *request))
    }

    fn forget(&mut self, key: (u32, Uuid)) -> Option<ChildId> {
        let Remembered { child, on_record, number, .. } = self.by_request.remove(&key)?;
        if let Some(requests) = self.by_child.get_mut(&child) {
            requests.remove(&key);
            if requests.is_empty() {
                self.by_child.remove(&child);
            }
        }
        if let Some(own) = self.by_user.get_mut(&key.0) {
            own.remove(&number);
            if own.is_empty() {
                self.by_user.remove(&key.0);
            }
        }
        Some(on_record)
    }

    /// Returns how many bytes the answers take.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_of(self.by_request.len())
    }
}

/// Returns how many bytes so many answers take.
fn bytes_of(count: usize) -> u64 {
    ANSWER_KEPT_BYTES.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> ChildId {
        ChildId::from_uuid(Uuid::from_u128(number))
    }

    fn answered(uid: u32, number: u128, child: u128) -> Answered {
        Answered {
            id: id(1_000 + number),
            child: id(child),
            uid,
            request: Uuid::from_u128(number),
            same_spec: true,
        }
    }

    fn of(answers: &Answers, uid: u32, number: u128) -> Option<ChildId> {
        answers.of(uid, Uuid::from_u128(number)).map(|(child, _)| child)
    }

    #[test]
    fn what_was_answered_with_a_child_is_forgotten_with_it() {
        let mut answers = Answers::default();
        for (uid, number, child) in [(7, 1, 50), (8, 1, 51), (8, 2, 50)] {
            answers.add(&answered(uid, number, child));
        }
        assert_eq!(answers.forget_child(id(50)), [id(1_001), id(1_002)]);
        assert_eq!((of(&answers, 7, 1), of(&answers, 8, 1), of(&answers, 8, 2)), (None, Some(id(51)), None));
        assert_eq!(answers.forget_child(id(51)), [id(1_001)]);
        assert!(answers.by_child.is_empty() && answers.by_user.is_empty() && answers.bytes() == 0);
    }

    #[test]
    fn the_oldest_answers_go_first_and_only_those_of_who_has_too_many() {
        let budget = Budget { user: 2 * ANSWER_KEPT_BYTES, all: 3 * ANSWER_KEPT_BYTES };
        let mut answers = Answers::default();
        for number in 1..=3 {
            answers.add(&answered(7, number, 50));
        }
        assert_eq!(answers.make_room(7, budget), [id(1_001)]);
        assert_eq!(answers.make_room(7, budget), []);
        answers.add(&answered(8, 4, 50));
        assert_eq!(answers.make_room(8, budget), []);
        answers.add(&answered(8, 5, 50));
        answers.add(&answered(9, 6, 50));
        // All have too many together: those who have the most make room.
        assert_eq!(answers.make_room(9, budget).len(), 2);
        assert_eq!((answers.bytes(), of(&answers, 9, 6)), (budget.all, Some(id(50))));
    }
}
