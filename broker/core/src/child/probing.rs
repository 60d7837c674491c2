//! Probing: a child that does not say itself when it is ready is asked, again and again, one question at a time.

use std::time::Duration;

use procbroker_protocol::create::Ready;

use crate::limits::PROBE_PAUSE_MAX;
use crate::time::Instant;

/// How it is found out that a child is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probing {
    /// It says so itself.
    Never,
    /// The next question is asked then.
    Resting {
        /// When the next probe is sent.
        until: Instant,
        /// The pause after it.
        pause: Duration,
    },
    /// A question has been asked.
    Asking {
        /// The pause after it.
        pause: Duration,
    },
}

impl Probing {
    /// Begins with a question at once, where there is one.
    pub(super) fn begin(ready: &Ready, now: Instant) -> Self {
        match ready {
            Ready::Spawn | Ready::Notify => Self::Never,
            Ready::Probe(probe) => Self::Resting { until: now, pause: probe.interval },
        }
    }

    /// Whether a question has been asked and not been answered.
    pub(super) fn is_asking(self) -> bool {
        match self {
            Self::Asking { .. } => true,
            Self::Never | Self::Resting { .. } => false,
        }
    }

    /// The question cannot be asked now: it comes after a pause, as if it had not come so far.
    pub(super) fn put_off(&mut self, now: Instant) {
        if let Self::Asking { pause } = *self {
            *self = Self::Resting { until: now.plus(pause), pause };
        }
    }

    /// When the next question is due.
    pub(super) fn due_at(self) -> Option<Instant> {
        match self {
            Self::Resting { until, .. } => Some(until),
            Self::Never | Self::Asking { .. } => None,
        }
    }

    /// Asks, if it is time to. Answers whether it does.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        match *self {
            Self::Resting { until, pause } if until <= now => {
                *self = Self::Asking { pause };
                true
            }
            Self::Resting { .. } | Self::Never | Self::Asking { .. } => false,
        }
    }

    /// The answer was no: it is asked again after a pause, which doubles.
    pub(super) fn rest(&mut self, now: Instant) {
        if let Self::Asking { pause } = *self {
            let next = pause.saturating_mul(2).min(PROBE_PAUSE_MAX.max(pause));
            *self = Self::Resting { until: now.plus(pause), pause: next };
        }
    }
}
