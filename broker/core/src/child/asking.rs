//! How far a command is that finds out whether a child is ready.

use std::time::Duration;

use procbroker_protocol::error::ProbeFailure;

use crate::ids::Incarnation;
use crate::time::Instant;

/// The command of a probe, if one is under way.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) stage: AskingStage,
    /// The number of the process of the last one.
    pub(super) incarnation: Incarnation,
    /// When its time is over, or it is killed again.
    pub(super) due: Option<Instant>,
    /// Why the last one that has said no to the present run has.
    pub(super) failure: Option<ProbeFailure>,
}

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskingStage {
    /// There is none.
    Idle,
    /// It waits for its turn to be started.
    Queued,
    /// It is being started.
    Spawning {
        /// Whether it is worth anything still.
        is_wanted: bool,
    },
    /// It runs.
    Running,
    /// What is left of it is being killed.
    Killing {
        /// Whether its process may be there.
        has_process: bool,
        /// What it has found.
        is_ready: bool,
        /// How long it is until it is killed again.
        pause: Duration,
    },
}

impl Asking {
    pub(super) fn new() -> Self {
        Self { stage: AskingStage::Idle, incarnation: Incarnation::FIRST, due: None, failure: None }
    }

    /// Whether one is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.stage != AskingStage::Idle
    }

    /// Whether a process of one may be there.
    pub(super) fn may_have_processes(&self) -> bool {
        match self.stage {
            AskingStage::Idle | AskingStage::Queued => false,
            AskingStage::Spawning { .. } | AskingStage::Running | AskingStage::Killing { .. } => true,
        }
    }
}
