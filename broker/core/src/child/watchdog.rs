//! The watchdog: a child that is ready says again and again that it is well, and is ended when it does not.

use std::time::Duration;

use crate::limits::{STOOD_STILL_AFTER, WATCHDOG_LEFT_MIN};
use crate::notice::Notice;
use crate::record::Departure;
use crate::time::Instant;

/// What an earlier broker has left of the watchdog of a child that was ready.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WatchLeft {
    /// Whether the child has said that it is about to end.
    pub(super) departure: Departure,
    /// How long it has left to say that it is well, where that is known.
    pub(super) time: Option<Duration>,
}

/// What is to be heard from a child that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watchdog {
    /// Nothing: nobody asked for it, or it is about to end by itself.
    Off,
    /// That it is well, by then.
    On {
        /// When it counts as hung.
        by: Instant,
        /// How long after its last word that is.
        period: Duration,
    },
    /// The same, put off once: the broker did not run when it was to be heard, and perhaps the child did not either.
    PutOff {
        /// When it counts as hung.
        by: Instant,
        /// How long after its last word it does else.
        period: Duration,
    },
    /// Nothing more: it counts as hung.
    Bitten,
}

impl Watchdog {
    /// Begins to watch a child.
    pub(super) fn begin(period: Option<Duration>, now: Instant) -> Self {
        match period {
            None => Self::Off,
            Some(period) => Self::On { by: now.plus(period), period },
        }
    }

    /// Goes on watching a child that was ready under an earlier program, which has left it so much of its time. After a crash
    /// there is a whole period again: what the child has said meanwhile may be lost.
    pub(super) fn resume(period: Option<Duration>, left: WatchLeft, now: Instant) -> Self {
        match (period, left.departure, left.time) {
            (None, _, _) | (Some(_), Departure::Announced, _) => Self::Off,
            (Some(period), Departure::Unannounced, left) => {
                let left = left.map_or(period, |left| left.max(WATCHDOG_LEFT_MIN).min(period));
                Self::On { by: now.plus(left), period }
            }
        }
    }

    /// Returns how long the child has left to say that it is well, where that is to be heard.
    pub(super) fn left(self, now: Instant) -> Option<Duration> {
        match self {
            Self::On { by, .. } | Self::PutOff { by, .. } => Some(by.since(now)),
            Self::Off | Self::Bitten => None,
        }
    }

    /// Returns whether the child has said that it is about to end, where it was to be watched.
    pub(super) fn departure(self, period: Option<Duration>) -> Departure {
        match (self, period) {
            (Self::Off, Some(_)) => Departure::Announced,
            (Self::Off, None) | (Self::On { .. } | Self::PutOff { .. } | Self::Bitten, _) => {
                Departure::Unannounced
            }
        }
    }

    /// Takes in what the child has told.
    pub(super) fn told(self, notice: &Notice, now: Instant) -> Self {
        match (notice, self) {
            (Notice::Well, Self::On { period, .. } | Self::PutOff { period, .. }) => {
                Self::On { by: now.plus(period), period }
            }
            (Notice::Unwell, Self::On { .. } | Self::PutOff { .. }) => Self::Bitten,
            (Notice::Stopping, Self::On { .. } | Self::PutOff { .. }) => Self::Off,
            (_, unchanged) => unchanged,
        }
    }

    /// Its time may be over. Where the broker is late to see that, there is once more as much as that has cost, within a period.
    pub(super) fn due(self, now: Instant) -> Self {
        match self {
            Self::On { by, period } if now.since(by) > STOOD_STILL_AFTER => {
                let more = now.since(by).max(WATCHDOG_LEFT_MIN).min(period);
                Self::PutOff { by: now.plus(more), period }
            }
            Self::On { by, .. } | Self::PutOff { by, .. } if by <= now => Self::Bitten,
            Self::Off | Self::On { .. } | Self::PutOff { .. } | Self::Bitten => self,
        }
    }
}
