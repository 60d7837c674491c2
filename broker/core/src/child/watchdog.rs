//! The watchdog: a child that is ready says again and again that it is well, and is ended when it does not.

use std::time::Duration;

use crate::notice::Notice;
use crate::time::Instant;

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

    /// Takes in what the child has told.
    pub(super) fn told(self, notice: &Notice, now: Instant) -> Self {
        match (notice, self) {
            (Notice::Well, Self::On { period, .. }) => Self::On { by: now.plus(period), period },
            (Notice::Unwell, Self::On { .. }) => Self::Bitten,
            (Notice::Stopping, Self::On { .. }) => Self::Off,
            (_, unchanged) => unchanged,
        }
    }

    /// Its time may be over.
    pub(super) fn due(self, now: Instant) -> Self {
        match self {
            Self::On { by, .. } if by <= now => Self::Bitten,
            Self::Off | Self::On { .. } | Self::Bitten => self,
        }
    }
}
