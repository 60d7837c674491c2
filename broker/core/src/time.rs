//! Time as the core sees it: told from outside with every input, never asked for.

use std::time::Duration;

use procbroker_protocol::Timestamp;
use procbroker_protocol::duration::nanos;
use serde::{Deserialize, Serialize};

use crate::limits::KILL_AGAIN_AFTER;

/// A moment: nanoseconds since the machine was started, those of a suspension among them (`CLOCK_BOOTTIME`).
///
/// It means the same to every broker of one boot, and nobody can set the clock that it is read from: deadlines go on record
/// as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(u64);

impl Instant {
    /// The moment that many nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment that is so much later, or the last one of all.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }

    /// The moment that is so much earlier, or the first one of all.
    #[must_use]
    pub fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(time)))
    }

    /// The moment that is so much earlier; `None` where that was before the first one of all.
    #[must_use]
    pub(crate) fn checked_minus(self, time: Duration) -> Option<Self> {
        self.0.checked_sub(nanos(time)).map(Self)
    }

    /// How long it is from `earlier` to here; nothing when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For deadlines: never goes back.
    pub instant: Instant,
    /// For people: what the wall clock shows.
    pub wall: Timestamp,
}

impl Now {
    /// The moment at which the wall clock shows, or showed, this. One that was before the first of all is that one.
    pub(crate) fn instant_at(self, wall: Timestamp) -> Instant {
        let between = |later: Timestamp, earlier: Timestamp| {
            Duration::from_micros(later.as_micros().saturating_sub(earlier.as_micros()))
        };
        if wall >= self.wall {
            self.instant.plus(between(wall, self.wall))
        } else {
            self.instant.minus(between(self.wall, wall))
        }
    }
}

/// Returns the next pause between two kills, which is twice the last one, up to a bound.
pub(crate) fn doubled(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(KILL_AGAIN_AFTER)
}
