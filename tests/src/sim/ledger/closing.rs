//! What is known of a shutdown that is under way.

use procbroker_protocol::duration::nanos;
use std::collections::BTreeMap;
use std::time::Duration;

/// The part of the time that is kept for the last kill, as a divisor, and at most so much of it.
const RESERVE_DIVISOR: u64 = 10;
/// See [`RESERVE_DIVISOR`]: at least so much, in nanoseconds, or half of the time.
const RESERVE_MIN: u64 = 250 * 1_000_000;
/// See [`RESERVE_DIVISOR`], in nanoseconds.
const RESERVE_MAX: u64 = 1_000_000_000;

/// How long the cleanups of a hurried shutdown may take together, in nanoseconds.
const HURRIED_CLEANUPS_MAX: u64 = 5_000_000_000;

/// The shortest time that a shutdown takes if it has to, in nanoseconds.
const TIMEOUT_MIN: u64 = 100_000_000;

/// A shutdown.
#[derive(Clone, Debug)]
pub struct Closing {
    /// When it began.
    pub began: u64,
    /// When it is over at the latest.
    pub deadline: u64,
    /// When everything left is killed at the latest.
    pub kill_at: u64,
    /// When a signal that hurries has first asked for it.
    pub told: Option<u64>,
    /// When it was hurried.
    pub hurried: Option<u64>,
    /// The shortest time that was asked for.
    pub timeout: Duration,
    /// How long the most patient child of each user's waves takes, as it was at the beginning.
    pub needs: BTreeMap<u32, BTreeMap<i32, u64>>,
    /// The wave of each user that is being stopped.
    pub waves: BTreeMap<u32, i32>,
    /// When those are not waited for any longer, whatever is left of them.
    pub given_up_at: BTreeMap<u32, u64>,
    /// The last wave of each user that was not: what is left of it and of those before holds nothing up.
    pub given_up: BTreeMap<u32, i32>,
    /// Whether the time has become shorter since those waves began.
    pub tightened: bool,
    /// When the sweep was ordered.
    pub swept: Option<u64>,
    /// Since when everything is killed, cleanups too.
    pub full_since: Option<u64>,
    /// The deadline as it was then.
    pub full_until: u64,
    /// When a sweep was ordered although children were left.
    pub swept_early: Option<u64>,
}

impl Closing {
    /// A shutdown that begins now.
    #[must_use]
    pub fn new(now: u64, timeout: Duration, told: bool) -> Self {
        let (deadline, kill_at) = bounds(now, timeout);
        Self {
            began: now,
            deadline,
            kill_at,
            told: told.then_some(now),
            hurried: None,
            timeout,
            needs: BTreeMap::new(),
            waves: BTreeMap::new(),
            given_up_at: BTreeMap::new(),
            given_up: BTreeMap::new(),
            tightened: false,
            swept: None,
            full_since: None,
            full_until: deadline,
            swept_early: None,
        }
    }

    /// It may take no longer than this from now on.
    pub fn tighten(&mut self, now: u64, timeout: Duration) {
        let (deadline, kill_at) = bounds(now, timeout);
        if deadline < self.deadline {
            self.deadline = deadline;
            self.kill_at = self.kill_at.min(kill_at);
            self.timeout = self.timeout.min(timeout);
            self.tightened = true;
        }
    }

    /// All children are to be killed now.
    pub fn hurry(&mut self, now: u64) {
        if self.hurried.is_none() {
            self.hurried = Some(now);
            if now < self.kill_at {
                self.kill_at = self.kill_at.min(now.saturating_add(HURRIED_CLEANUPS_MAX));
            }
        }
    }

    /// Waves whose time is over are not waited for any longer.
    pub fn give_up(&mut self, now: u64) {
        for (uid, order) in &self.waves {
            if self.given_up_at.get(uid).is_some_and(|at| *at <= now) {
                self.given_up.insert(*uid, *order);
            }
        }
    }

    /// When whatever descends from the broker is to be killed, if children are left by then.
    #[must_use]
    pub fn sweeps_early_at(&self) -> Option<u64> {
        let since = self.full_since?;
        Some(self.deadline.min(since + self.full_until.saturating_sub(since) / 2))
    }

    /// When everything was to be killed last.
    #[must_use]
    pub fn last_call(&self, now: u64) -> Option<u64> {
        if self.kills_cleanups(now) { Some(self.kill_at) } else { self.hurried }
    }

    /// Whether every child that is left is to be killed at once.
    #[must_use]
    pub fn kills(&self, now: u64) -> bool {
        self.hurried.is_some() || self.kills_cleanups(now)
    }

    /// Whether every cleanup is, too.
    #[must_use]
    pub fn kills_cleanups(&self, now: u64) -> bool {
        now >= self.kill_at
    }
}

fn bounds(now: u64, timeout: Duration) -> (u64, u64) {
    let timeout = nanos(timeout).max(TIMEOUT_MIN);
    let deadline = now.saturating_add(timeout);
    (deadline, deadline.saturating_sub(kill_reserve(timeout)))
}

/// The part of so much time that a kill has to do its work.
#[must_use]
pub fn kill_reserve(time: u64) -> u64 {
    let least = (time / 2).min(RESERVE_MIN);
    (time / RESERVE_DIVISOR).max(least).min(RESERVE_MAX)
}
