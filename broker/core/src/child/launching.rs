//! Launching: a process is on its way to its program. One that does not get there (its file system does not answer, somebody
//! holds a lease on it) is killed by whatever would stop it, after a moment in which every other gets there.

use procbroker_protocol::Timestamp;
use procbroker_protocol::error::SpawnFailure;

use crate::child::stopping::Stop;
use crate::limits::LAUNCH_MOMENT;
use crate::time::Instant;

/// The launch of a main process.
#[derive(Debug, Default)]
pub(super) struct Launching {
    /// The stop that begins as soon as there is something to stop.
    pub(super) stop: Option<Stop>,
    /// When it is killed, if it is to be stopped and has not got to its program.
    pub(super) kill_at: Option<Instant>,
    /// When and why it was killed, if it was.
    pub(super) killed: Option<Killed>,
}

/// A process was killed on the way to its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Killed {
    /// When it got SIGKILL, by the wall clock.
    pub(super) at: Timestamp,
    /// For the sake of what.
    pub(super) reason: KillReason,
}

/// What a process is killed for on the way to its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KillReason {
    /// It is to be stopped.
    Stop,
    /// Another broker takes over, which knows nothing of a process that is on its way.
    TakeOver,
}

impl Launching {
    /// One that an earlier broker has left, and that is to go whatever comes after it.
    pub(super) fn left_behind(stop: Option<Stop>, at: Timestamp) -> Self {
        Self { stop, kill_at: None, killed: Some(Killed { at, reason: KillReason::TakeOver }) }
    }

    /// Returns when it was killed, if it was.
    pub(super) fn killed_at(&self) -> Option<Timestamp> {
        self.killed.map(|killed| killed.at)
    }

    /// Whether it was killed though nobody wants its child to end.
    pub(super) fn is_put_off(&self) -> bool {
        self.stop.is_none() && self.killed.is_some_and(|killed| killed.reason == KillReason::TakeOver)
    }

    /// It is to be stopped: it has a moment to get to its program, and no more time than the stop has.
    pub(super) fn hasten(&mut self, stop: &Stop, now: Instant) {
        let by = stop.kill_by.map_or(now.plus(LAUNCH_MOMENT), |by| by.min(now.plus(LAUNCH_MOMENT)));
        self.kill_at = Some(self.kill_at.map_or(by, |earlier| earlier.min(by)));
    }
}

/// The step at which a process is when it is killed because it does not get to its program.
const KILLED: &str = "killed";

/// Whether a process could not be started because it was killed on the way to its program.
pub(super) fn is_kill(failure: &SpawnFailure) -> bool {
    failure.step == KILLED
}

/// The failure of a process that was killed on the way to its program.
pub(super) fn killed() -> SpawnFailure {
    SpawnFailure { errno: ECANCELED, errno_name: "ECANCELED".to_owned(), step: KILLED.to_owned() }
}

/// The number of ECANCELED, as the edge tells it of those that it has started itself.
const ECANCELED: i32 = 125;
