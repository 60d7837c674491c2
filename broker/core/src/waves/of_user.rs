//! The waves of one user: which of its children are stopped next, and what part of the time they have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procbroker_protocol::ChildId;

use super::Rank;
use super::budget::scale;
use crate::time::Instant;

/// The waves of a user that are not over, in the order in which they are stopped.
#[derive(Debug, Default)]
pub(super) struct UserWaves {
    waves: BTreeMap<Rank, Wave>,
    /// The wave that is being stopped.
    current: Option<Rank>,
    /// When that is given up: the next one does not wait any longer for what no kill ends.
    given_up_at: Option<Instant>,
    /// What was left of waves that were given up.
    given_up: BTreeSet<ChildId>,
}

/// The children of one rank.
#[derive(Debug, Default)]
struct Wave {
    left: BTreeSet<ChildId>,
    /// What the steps and the cleanup of the most patient of them add up to.
    need: Duration,
}

impl Wave {
    /// Nobody gets more for asking for more than there is, and nobody anything who has gone.
    fn wish(&self, left: Duration) -> Duration {
        if self.left.is_empty() { Duration::ZERO } else { self.need.min(left) }
    }
}

impl UserWaves {
    /// Takes in a child that would like so much time.
    pub(super) fn add(&mut self, rank: Rank, child: ChildId, need: Duration) {
        let wave = self.waves.entry(rank).or_default();
        wave.left.insert(child);
        wave.need = wave.need.max(need);
    }

    /// Takes a child off its wave.
    pub(super) fn leave(&mut self, rank: Rank, child: ChildId) {
        if let Some(wave) = self.waves.get_mut(&rank) {
            wave.left.remove(&child);
        }
        self.given_up.remove(&child);
    }

    /// Whether nothing is left that is waited for.
    pub(super) fn is_over(&self) -> bool {
        self.waves.is_empty() && self.given_up.is_empty()
    }

    /// Sets when the wave that is being stopped is given up.
    pub(super) fn give_up_at(&mut self, at: Instant) {
        self.given_up_at = Some(at);
    }

    /// Returns when the wave that is being stopped is given up.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.given_up_at
    }

    /// Goes on without what is left of the wave that is being stopped.
    pub(super) fn give_up(&mut self) {
        self.given_up_at = None;
        if let Some(wave) = self.current.and_then(|rank| self.waves.get_mut(&rank)) {
            self.given_up.append(&mut wave.left);
        }
    }

    /// Returns the wave that is being stopped.
    pub(super) fn current(&self) -> Option<Rank> {
        self.current
    }

    /// Whether children of the wave that is being stopped are left.
    pub(super) fn is_in_wave(&self) -> bool {
        let wave = self.current.and_then(|rank| self.waves.get(&rank));
        wave.is_some_and(|wave| !wave.left.is_empty())
    }

    /// Goes on to the next wave of which something is left, if there is one.
    pub(super) fn next(&mut self) -> Option<Rank> {
        if let Some(over) = self.current {
            self.waves.remove(&over);
        }
        self.given_up_at = None;
        while let Some(first) = self.waves.first_entry().filter(|first| first.get().left.is_empty()) {
            first.remove();
        }
        self.current = self.waves.keys().next().copied();
        self.current
    }

    /// Takes in what children need by now: a destroy may have begun with other steps since, and some of the time may be over.
    pub(super) fn look_again(&mut self, rank: Rank, need: impl Fn(ChildId) -> Option<Duration>) {
        if let Some(wave) = self.waves.get_mut(&rank) {
            wave.need = wave.left.iter().filter_map(|id| need(*id)).max().unwrap_or_default();
        }
    }

    /// Returns the children that are left of a wave.
    pub(super) fn left(&self, rank: Rank) -> Vec<ChildId> {
        self.waves.get(&rank).map(|wave| wave.left.iter().copied().collect()).unwrap_or_default()
    }

    /// Returns what a wave would like.
    pub(super) fn need(&self, rank: Rank) -> Duration {
        self.waves.get(&rank).map(|wave| wave.need).unwrap_or_default()
    }

    /// Returns what a wave would like of so much time.
    pub(super) fn wish(&self, rank: Rank, left: Duration) -> Duration {
        self.waves.get(&rank).map(|wave| wave.wish(left)).unwrap_or_default()
    }

    /// Returns what all waves together would like, each of so much time.
    pub(super) fn wanted(&self, left: Duration) -> Duration {
        self.waves.values().fold(Duration::ZERO, |sum, wave| sum.saturating_add(wave.wish(left)))
    }

    /// Returns the part of so much time that a wave has: what it would like, as far as all can have that.
    pub(super) fn share(&self, rank: Rank, left: Duration) -> Duration {
        let (wish, wanted) = (self.wish(rank, left), self.wanted(left));
        if wanted > left { scale(wish, left, wanted) } else { wish }
    }
}
