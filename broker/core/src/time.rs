//! Time as the core sees it: told from outside with every input, never asked for.

use procbroker_protocol::{Span, Timestamp};

use crate::limits::KILL_AGAIN_AFTER;

/// A moment of monotonic time: nanoseconds since some start that never changes within a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
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

    /// The moment that is `span` later, or the last one of all.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.as_nanos()))
    }

    /// The moment that is `span` earlier, or the first one of all.
    #[must_use]
    pub fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.as_nanos()))
    }

    /// How long it is from `earlier` to here; nothing when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span::from_nanos(self.0.saturating_sub(earlier.0))
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
    /// What the wall clock will show at a moment that is not over, as far as nobody sets it.
    pub(crate) fn wall_at(self, instant: Instant) -> Timestamp {
        let microseconds = instant.since(self.instant).as_nanos() / NANOS_PER_MICRO;
        Timestamp::from_micros(self.wall.as_micros().saturating_add(microseconds))
    }

    /// The moment at which the wall clock shows, or showed, this. One that was before the first of all is that one.
    pub(crate) fn instant_at(self, wall: Timestamp) -> Instant {
        let span = |later: Timestamp, earlier: Timestamp| {
            let microseconds = later.as_micros().saturating_sub(earlier.as_micros());
            Span::from_nanos(microseconds.saturating_mul(NANOS_PER_MICRO))
        };
        if wall >= self.wall {
            self.instant.plus(span(wall, self.wall))
        } else {
            self.instant.minus(span(self.wall, wall))
        }
    }
}

const NANOS_PER_MICRO: u64 = 1_000;

/// Returns the next pause between two kills, which is twice the last one, up to a bound.
pub(crate) fn doubled(pause: Span) -> Span {
    Span::from_nanos(pause.as_nanos().saturating_mul(2)).min(KILL_AGAIN_AFTER)
}
