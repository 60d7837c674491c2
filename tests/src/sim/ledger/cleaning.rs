//! What is known of the cleanup of one child.

use procbroker_core::{Incarnation, Members};
use procbroker_protocol::{Cleaned, ExitStatus};

/// The cleanup of a child of which nothing is left.
#[derive(Clone, Debug)]
pub struct Cleaning {
    /// How many attempts were begun.
    pub attempts: u32,
    /// Which process the last one has, or what it left.
    pub incarnation: Incarnation,
    /// How far it is.
    pub stage: Stage,
    /// What was left of it, as the broker last heard.
    pub members: Members,
    /// When SIGKILL was ordered first, and last.
    pub killed: Option<(u64, u64)>,
    /// When it could not be started for a shortage: it is tried again.
    pub short: Option<u64>,
    /// Whether it was killed before its own time was over.
    pub cut_short: bool,
    /// Whether it was killed on the way to its program, for another program that takes over.
    pub put_off: bool,
    /// When it was given back its turn for that.
    pub turned_back: Option<u64>,
    /// Whether an attempt that got to its program just then is begun anew.
    pub is_excused: bool,
}

/// How far a cleanup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The next attempt is to be recorded at once.
    Due,
    /// That an attempt begins is being recorded.
    Recording,
    /// It was, or could not be.
    Recorded,
    /// Its spawn was ordered.
    Ordered {
        /// When.
        since: u64,
    },
    /// Its process is there.
    Running {
        /// Since when its time is running.
        since: u64,
    },
    /// Its process has ended, or never was.
    Over {
        /// How.
        status: Option<ExitStatus>,
        /// Whether it was given free, since nothing is left of it.
        released: bool,
    },
    /// An earlier broker began it, and what there is of it has to go first.
    Interrupted {
        /// Whether its process is gone.
        gone: bool,
    },
    /// Its outcome is being recorded.
    Closing {
        /// The outcome.
        cleaned: Cleaned,
    },
    /// The outcome was recorded, or could not be.
    Closed {
        /// The outcome.
        cleaned: Cleaned,
    },
    /// It is left to the next broker.
    Left,
}

impl Cleaning {
    /// One that has to begin.
    #[must_use]
    pub fn due(attempts: u32) -> Self {
        Self {
            attempts,
            incarnation: Incarnation::FIRST,
            stage: Stage::Due,
            members: Members::Nothing,
            killed: None,
            short: None,
            cut_short: false,
            put_off: false,
            turned_back: None,
            is_excused: false,
        }
    }

    /// Whether an attempt is to be begun, which was not so far.
    #[must_use]
    pub fn waits(&self) -> bool {
        match self.stage {
            Stage::Recording | Stage::Recorded => true,
            Stage::Due
            | Stage::Ordered { .. }
            | Stage::Running { .. }
            | Stage::Over { .. }
            | Stage::Interrupted { .. }
            | Stage::Closing { .. }
            | Stage::Closed { .. }
            | Stage::Left => false,
        }
    }

    /// Whether something of it may be there.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        match self.stage {
            Stage::Running { .. } | Stage::Interrupted { .. } => true,
            Stage::Over { released, .. } => !released,
            Stage::Due
            | Stage::Recording
            | Stage::Recorded
            | Stage::Ordered { .. }
            | Stage::Closing { .. }
            | Stage::Closed { .. }
            | Stage::Left => false,
        }
    }

    /// Whether nothing is left of what there was.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let gone = match self.stage {
            Stage::Over { .. } => true,
            Stage::Interrupted { gone } => gone,
            Stage::Due
            | Stage::Recording
            | Stage::Recorded
            | Stage::Ordered { .. }
            | Stage::Running { .. }
            | Stage::Closing { .. }
            | Stage::Closed { .. }
            | Stage::Left => false,
        };
        gone && self.members == Members::Nothing
    }
}
