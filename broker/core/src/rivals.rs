//! Creates that want one name, in the order of their arrival: which of them gets it, and what the others are told.
//!
//! They are decided as if each had come after the one before was carried out, but nothing is started that would be
//! replaced at once: the last `replace` starts its child, and everybody before it is answered with that one.

use std::collections::BTreeSet;

use procbroker_protocol::create::IfExists;

use crate::attempt::{Claim, Waiting};
use crate::authorize;
use crate::config::Config;

/// Creates that want one name.
#[derive(Debug, Default)]
pub(crate) struct Rivals(Vec<Waiting>);

impl Rivals {
    /// Finds the create whose child would hold the name in the end if all were carried out one after the other.
    pub(crate) fn winner(&self, config: &Config) -> Option<usize> {
        let mut holder: Option<(usize, u32)> = None;
        let mut requests = BTreeSet::new();
        for (index, waiting) in self.0.iter().enumerate() {
            let Waiting { uid, attempt, .. } = waiting;
            // A retry is in the place of the request itself.
            let request = waiting.request().filter(|_| attempt.replaces());
            if request.is_some_and(|request| !requests.insert(request)) {
                continue;
            }
            let wins = match (attempt.claim, holder) {
                (Claim::Own(_) | Claim::Yielded, None) => true,
                (Claim::Own(IfExists::Replace), Some((_, before))) => {
                    authorize::may_act_on(config, *uid, before)
                }
                (Claim::Own(IfExists::Reuse | IfExists::Fail) | Claim::Yielded, Some(_))
                | (Claim::Superseded, _) => false,
            };
            if wins {
                holder = Some((index, *uid));
            }
        }
        holder.map(|(index, _)| index)
    }

    /// Finds the winner of those that `may_start`: who would have the name and may not start waits on, and is no rival.
    pub(crate) fn winner_of(
        &mut self,
        config: &Config,
        may_start: impl Fn(&Waiting) -> bool,
    ) -> Option<usize> {
        while let Some(index) = self.winner(config) {
            if self.0.get(index).is_some_and(&may_start) {
                return Some(index);
            }
            self.0.remove(index);
        }
        None
    }

    /// Takes the create out that is decided about first.
    pub(crate) fn remove(&mut self, index: usize) -> Waiting {
        self.0.remove(index)
    }

    /// Has the first `count` creates reuse what was started in the place of theirs, and their retries with them.
    pub(crate) fn yield_names(&mut self, count: usize) {
        let first = self.0.iter().take(count).filter(|waiting| waiting.attempt.replaces());
        let yielding: Vec<_> = first.filter_map(Waiting::request).collect();
        for (index, waiting) in self.0.iter_mut().enumerate() {
            let is_retry = waiting.request().is_some_and(|request| yielding.contains(&request));
            if index < count || is_retry {
                waiting.attempt.yield_name();
            }
        }
    }
}

impl FromIterator<Waiting> for Rivals {
    fn from_iter<T: IntoIterator<Item = Waiting>>(waiting: T) -> Self {
        Self(waiting.into_iter().collect())
    }
}

impl IntoIterator for Rivals {
    type Item = Waiting;
    type IntoIter = std::vec::IntoIter<Waiting>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::tests::{attempt, config};
    use crate::ids::{Call, ConnectionId};
    use uuid::Uuid;

    fn rivals<const N: usize>(claims: [(u32, Claim, Option<u128>); N]) -> Rivals {
        let waiting = claims.into_iter().zip(1..).map(|((uid, claim, request), number)| {
            let mut attempt =
                attempt(number.into(), |params| params.request_id = request.map(Uuid::from_u128));
            attempt.claim = claim;
            Waiting { call: Call { connection: ConnectionId(1), number }, uid, attempt }
        });
        waiting.collect()
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
        assert_eq!(rivals.winner(&config()), Some(1));
        rivals.remove(1);
        rivals.yield_names(1);
        let claims: Vec<_> = rivals.into_iter().map(|waiting| waiting.attempt.claim).collect();
        assert_eq!(claims, [Claim::Yielded; 2]);
    }

    #[test]
    fn who_may_not_start_is_no_rival() {
        let mut rivals = rivals([(7, REPLACE, None), (8, FAIL, None), (7, REPLACE, None)]);
        let winner = rivals.winner_of(&config(), |waiting| waiting.call.number == 2);
        assert_eq!(winner, Some(0));
        assert_eq!(rivals.into_iter().map(|waiting| waiting.call.number).collect::<Vec<_>>(), [2]);
    }
}
