//! What is known of a live upgrade that is under way.

use procbroker_protocol::duration::nanos;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// None is.
    #[default]
    None,
    /// It was asked for, and the other program is to be asked at once.
    Wanted,
    /// The other program is being asked.
    Checking,
    /// It can take over, as soon as nothing is in the air.
    AwaitingLaunches {
        /// Since when.
        since: u64,
    },
    /// It is taking over.
    HandingOver,
    /// It has come to nothing, in this turn.
    Refused,
}

impl Upgrade {
    /// Whether one is under way.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        match self {
            Self::Wanted | Self::Checking | Self::AwaitingLaunches { .. } | Self::HandingOver => true,
            Self::None | Self::Refused => false,
        }
    }

    /// Whether processes that have not got to their programs are killed for it.
    #[must_use]
    pub fn is_clearing(self, now: u64) -> bool {
        match self {
            Self::AwaitingLaunches { since } => {
                now >= since.saturating_add(nanos(procbroker_core::LAUNCH_MOMENT_IN_AN_UPGRADE))
            }
            Self::None | Self::Wanted | Self::Checking | Self::HandingOver | Self::Refused => false,
        }
    }

    /// Whether nothing is to be started because of it.
    #[must_use]
    pub fn holds_spawns(self) -> bool {
        match self {
            Self::AwaitingLaunches { .. } | Self::HandingOver => true,
            Self::None | Self::Wanted | Self::Checking | Self::Refused => false,
        }
    }
}
