//! Creates that want one name, in the order of their arrival: which of them gets it, and what the others are told.
//!
//! They are decided as if each had come after the one before was carried out, but nothing is started that would be
//! replaced at once: the last `replace` starts its child, and everybody before it is answered with that one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use crate::attempt::{Claim, Waiting};
use crate::authorize;
use crate::config::Config;

/// Creates that want one name, by their places in the order of arrival. What the next winner is costs no look at them all:
/// each may fail, and one user may have thousands of them.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    waiting: Vec<Option<Waiting>>,
    /// Those that would start a child where nobody holds the name.
    starters: BTreeSet<usize>,
    /// Those of them that would also replace a child, by whose they would.
    replacing: BTreeMap<Reach, BTreeSet<usize>>,
    /// Creates that would replace and are the same request as one before: each is in the place of that, and in its own once
    /// that has failed.
    retries: BTreeMap<(u32, Uuid), VecDeque<usize>>,
}

/// Whose child a create may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Those of all users.
    All,
    /// Those of this user.
    User(u32),
}

impl Reach {
    fn of(config: &Config, uid: u32) -> Self {
        if authorize::is_administrator(config, uid) { Self::All } else { Self::User(uid) }
    }
}

impl Rivals {
    /// Puts creates that have waited in their order.
    pub(crate) fn new(config: &Config, waiting: impl IntoIterator<Item = Waiting>) -> Self {
        let mut rivals = Self::default();
        for (index, waiting) in waiting.into_iter().enumerate() {
            let request = waiting.request().filter(|_| waiting.attempt.replaces());
            let earlier = request.and_then(|request| rivals.retries.get_mut(&request));
            match (earlier, waiting.attempt.claim) {
                (Some(retries), _) => retries.push_back(index),
                (None, Claim::Own(_) | Claim::Yielded) => rivals.compete(config, index, &waiting),
                (None, Claim::Superseded) => {}
            }
            if let Some(request) = request {
                rivals.retries.entry(request).or_default();
            }
            rivals.waiting.push(Some(waiting));
        }
        rivals
    }

    /// Lets a create be in its own place.
    fn compete(&mut self, config: &Config, index: usize, waiting: &Waiting) {
        self.starters.insert(index);
        if waiting.attempt.replaces() {
            self.replacing.entry(Reach::of(config, waiting.uid)).or_default().insert(index);
        }
    }

    /// Finds the create whose child would hold the name in the end if all were carried out one after the other: the first one
    /// starts its child, and each that may replace that does.
    pub(crate) fn winner(&self, config: &Config) -> Option<usize> {
        let first = *self.starters.first()?;
        let holder = self.waiting.get(first)?.as_ref()?.uid;
        let last = |reach| self.replacing.get(&reach).and_then(BTreeSet::last).copied();
        // What an administrator has put there is replaced by no other user.
        let replaces = last(Reach::All).or_else(|| last(Reach::of(config, holder)));
        Some(replaces.unwrap_or(first))
    }

    /// Takes the winner of those that `may_start` out: who would have the name and may not start waits on, and is no rival.
    pub(crate) fn take_winner_of(
        &mut self,
        config: &Config,
        may_start: impl Fn(&Waiting) -> bool,
    ) -> Option<(usize, Waiting)> {
        while let Some((index, waiting)) = self.take_winner(config) {
            if may_start(&waiting) {
                return Some((index, waiting));
            }
        }
        None
    }

    /// Takes the create out that is decided about first.
    pub(crate) fn take_winner(&mut self, config: &Config) -> Option<(usize, Waiting)> {
        let index = self.winner(config)?;
        let waiting = self.waiting.get_mut(index)?.take()?;
        self.starters.remove(&index);
        if waiting.attempt.replaces() {
            if let Some(own) = self.replacing.get_mut(&Reach::of(config, waiting.uid)) {
                own.remove(&index);
            }
            let retries = waiting.request().and_then(|request| self.retries.get_mut(&request));
            if let Some(next) = retries.and_then(VecDeque::pop_front) {
                // The same request has the same user, and replaces too.
                self.compete(config, next, &waiting);
            }
        }
        Some((index, waiting))
    }

    /// Has the creates before this place reuse what was started in the place of theirs, and their retries with them.
    pub(crate) fn yield_names(&mut self, place: usize) {
        let first = self.waiting.iter().take(place).flatten().filter(|waiting| waiting.attempt.replaces());
        let yielding: BTreeSet<_> = first.filter_map(Waiting::request).collect();
        for (index, waiting) in self.waiting.iter_mut().enumerate() {
            let Some(waiting) = waiting else { continue };
            let is_retry = waiting.request().is_some_and(|request| yielding.contains(&request));
            if index < place || is_retry {
                waiting.attempt.yield_name();
            }
        }
    }
}

impl IntoIterator for Rivals {
    type Item = Waiting;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Option<Waiting>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.waiting.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::tests::{attempt, config};
    use crate::ids::{Call, ConnectionId};
    use procbroker_protocol::create::IfExists;

    fn rivals<const N: usize>(claims: [(u32, Claim, Option<u128>); N]) -> Rivals {
        let waiting = claims.into_iter().zip(1..).map(|((uid, claim, request), number)| {
            let mut attempt =
                attempt(number.into(), |params| params.request_id = request.map(Uuid::from_u128));
            attempt.claim = claim;
            Waiting { call: Call { connection: ConnectionId(1), number }, uid, attempt }
        });
        Rivals::new(&config(), waiting)
    }

    const FAIL: Claim = Claim::Own(IfExists::Fail);
    const REPLACE: Claim = Claim::Own(IfExists::Replace);

    #[test]
    fn the_last_replace_wins_and_without_one_whoever_came_first() {
        let winner = |claims: [Claim; 3]| rivals(claims.map(|claim| (7, claim, None))).winner(&config());
        assert_eq!(winner([FAIL, REPLACE, REPLACE]), Some(2));
        assert_eq!(winner([REPLACE, FAIL, Claim::Yielded]), Some(0));
        assert_eq!(winner([Claim::Superseded, FAIL, FAIL]), Some(1));
        assert_eq!(winner([Claim::Superseded; 3]), None);
    }

    #[test]
    fn nobody_replaces_the_child_of_another_user_but_administrators() {
        let winner = |uid| rivals([(7, FAIL, None), (uid, REPLACE, None)]).winner(&config());
        assert_eq!((winner(7), winner(8), winner(0)), (Some(1), Some(0), Some(1)));
    }

    #[test]
    fn a_retry_is_in_the_place_of_its_request_and_yields_with_it() {
        let mut rivals = rivals([(7, REPLACE, Some(1)), (7, REPLACE, Some(2)), (7, REPLACE, Some(1))]);
        assert_eq!(rivals.take_winner(&config()).map(|(place, _)| place), Some(1));
        rivals.yield_names(1);
        let claims: Vec<_> = rivals.into_iter().map(|waiting| waiting.attempt.claim).collect();
        assert_eq!(claims, [Claim::Yielded; 2]);
    }

    #[test]
    fn who_may_not_start_is_no_rival() {
        let mut rivals = rivals([(7, REPLACE, None), (8, FAIL, None), (7, REPLACE, None)]);
        let winner = rivals.take_winner_of(&config(), |waiting| waiting.call.number == 2);
        assert_eq!(winner.map(|(place, _)| place), Some(1));
        assert_eq!(rivals.into_iter().count(), 0);
    }

    /// The winner as it is defined: all creates carried out one after the other.
    fn winner_by_definition(waiting: &[(usize, Waiting)]) -> Option<usize> {
        let mut holder: Option<(usize, u32)> = None;
        let mut requests = BTreeSet::new();
        for (index, Waiting { uid, attempt, .. }) in waiting {
            let request = attempt.request_of(*uid).filter(|_| attempt.replaces());
            if request.is_some_and(|request| !requests.insert(request)) {
                continue;
            }
            let wins = match (attempt.claim, holder) {
                (Claim::Own(_) | Claim::Yielded, None) => true,
                (Claim::Own(IfExists::Replace), Some((_, before))) => {
                    authorize::may_act_on(&config(), *uid, before)
                }
                (Claim::Own(IfExists::Reuse | IfExists::Fail) | Claim::Yielded, Some(_))
                | (Claim::Superseded, _) => false,
            };
            if wins {
                holder = Some((*index, *uid));
            }
        }
        holder.map(|(index, _)| index)
    }

    #[test]
    fn one_winner_after_the_other_is_who_would_hold_the_name_without_those_before() {
        let mut state = 7_u64;
        let mut dice = |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        for _ in 0..2_000 {
            let claims: [_; 9] = std::array::from_fn(|_| {
                let uid = u32::try_from(dice(3)).unwrap() * 7;
                let claim = [FAIL, REPLACE, REPLACE, REPLACE, Claim::Yielded, Claim::Superseded];
                let request = dice(5);
                let claim = claim[usize::try_from(dice(6)).unwrap()];
                (uid, claim, (request < 3).then(|| u128::from(request)))
            });
            let mut rivals = rivals(claims);
            let mut left: Vec<_> = rivals.waiting.iter().flatten().cloned().enumerate().collect();
            loop {
                let expected = winner_by_definition(&left);
                assert_eq!(rivals.take_winner(&config()).map(|(place, _)| place), expected, "{claims:?}");
                let Some(expected) = expected else { break };
                left.retain(|(index, _)| *index != expected);
            }
        }
    }
}
