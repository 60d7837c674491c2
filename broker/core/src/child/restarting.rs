//! Restarting: between two runs of a child, in the pause before the next one or on the way to its process.
//!
//! A child that has ended by itself is started again as its policy says: after a pause that doubles with each restart, and
//! that is the first one again after a run that has lasted for the whole `window`. Within any `window` there are at most `max`
//! restarts; what would be one more ends the child, which has given up then.

use std::time::Duration;

use procbroker_protocol::create::{Restart, RestartPolicy};
use procbroker_protocol::{ChildState, Exit, ExitReason, ExitStatus};

use crate::child::common::Common;
use crate::child::launching::Launching;
use crate::child::stopping::Stop;
use crate::effect::{Receipt, Safety};
use crate::limits::{RECORD_AGAIN_AFTER, RESTART_PAUSE_MIN, RESTARTS_COUNTED_MAX};
use crate::orders::Orders;
use crate::record::{Progress, Runs};
use crate::time::Instant;

/// A child between two of its runs.
#[derive(Debug)]
pub(super) struct Restarting {
    /// How the last run ended.
    pub(super) exit: Exit,
    pub(super) stage: RestartStage,
}

/// How far the next run is.
#[derive(Debug)]
pub(super) enum RestartStage {
    /// That it is to come is being recorded: a later broker has to know of it before there is another process.
    Recording {
        /// When it is wanted.
        until: Instant,
    },
    /// That could not be recorded, and is tried again.
    Unrecorded {
        /// When it is wanted.
        until: Instant,
    },
    /// It is not wanted before then.
    Pausing {
        /// When the next run is wanted.
        until: Instant,
    },
    /// It waits for its turn to be started.
    Queued,
    /// Its process is being started.
    Spawning(Launching),
}

/// What comes after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// The next run, after a pause.
    Run {
        /// How long the pause is.
        pause: Duration,
    },
    /// No run follows: the child is cleaned up, and ends.
    End,
    /// The child's end, because it was restarted too often already.
    GivingUp,
}

/// What became of a wish for a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartWish {
    /// It is fulfilled when the child has been restarted so many times, and is ready.
    Granted {
        /// The number of restarts.
        restarts: u32,
    },
    /// The child is on its way to its end, or there.
    TooLate,
}

impl Runs {
    /// A run has begun.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Counts an automatic restart, and returns the pause before it; nothing where that would be one too many.
    pub(super) fn count(&mut self, policy: &Restart, now: Instant) -> Option<Duration> {
        if self.since.is_some_and(|since| now.since(since) >= policy.window) {
            self.pause = None;
        }
        let longest = policy.backoff_max.max(RESTART_PAUSE_MIN);
        let pause = self.pause.unwrap_or(policy.backoff).max(RESTART_PAUSE_MIN).min(longest);
        let at = now.plus(pause);
        self.recent.retain(|earlier| at.since(*earlier) < policy.window);
        if self.recent.len() >= usize::try_from(policy.max).unwrap_or(usize::MAX) {
            return None;
        }
        if self.recent.len() >= RESTARTS_COUNTED_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(at);
        self.pause = Some(pause.saturating_mul(2).min(longest));
        Some(pause)
    }

    /// Somebody has restarted it by hand: what was counted and how long was paused before is forgotten.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
        self.pause = None;
    }
}

/// Whether a policy has a child restarted that ended in this way.
pub(super) fn wants_restart(policy: RestartPolicy, exit: &Exit) -> bool {
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => is_failure(exit),
        RestartPolicy::Always => true,
    }
}

/// Whether a run has failed. One that was ended because it hung, or was not ready in time, has, however orderly it took that.
fn is_failure(exit: &Exit) -> bool {
    match exit.reason {
        ExitReason::Watchdog | ExitReason::StartFailed => true,
        ExitReason::Exited
        | ExitReason::Destroyed
        | ExitReason::Shutdown
        | ExitReason::Replaced
        | ExitReason::Expired
        | ExitReason::OwnerGone
        | ExitReason::BrokerLost => exit.status != ExitStatus::Code(0),
    }
}

impl Restarting {
    pub(super) fn is_pausing(&self) -> bool {
        match self.stage {
            RestartStage::Recording { .. }
            | RestartStage::Unrecorded { .. }
            | RestartStage::Pausing { .. } => true,
            RestartStage::Queued | RestartStage::Spawning(_) => false,
        }
    }

    pub(super) fn is_spawning(&self) -> bool {
        self.launching().is_some()
    }

    /// Whether it is to be stopped as soon as it runs.
    pub(super) fn stop(&self) -> Option<&Stop> {
        self.launching()?.stop.as_ref()
    }

    /// Whether the launch of its process was cut short for another broker, and nobody wants it to end.
    pub(super) fn is_put_off(&self) -> bool {
        self.launching().is_some_and(Launching::is_put_off)
    }

    /// Whether its process was killed on the way to its program.
    pub(super) fn was_killed(&self) -> bool {
        self.launching().is_some_and(|launching| launching.killed.is_some())
    }

    fn launching(&self) -> Option<&Launching> {
        match &self.stage {
            RestartStage::Spawning(launching) => Some(launching),
            RestartStage::Recording { .. }
            | RestartStage::Unrecorded { .. }
            | RestartStage::Pausing { .. }
            | RestartStage::Queued => None,
        }
    }

    /// Takes what is known of the launch of a process that has come to its end.
    pub(super) fn take_launching(&mut self) -> Launching {
        match &mut self.stage {
            RestartStage::Spawning(launching) => std::mem::take(launching),
            RestartStage::Recording { .. }
            | RestartStage::Unrecorded { .. }
            | RestartStage::Pausing { .. }
            | RestartStage::Queued => Launching::default(),
        }
    }

    /// Brings what clients see in step with it.
    pub(super) fn show(&self, common: &mut Common) {
        let state = match self.stage {
            RestartStage::Recording { .. }
            | RestartStage::Unrecorded { .. }
            | RestartStage::Pausing { .. } => ChildState::Backoff,
            RestartStage::Queued | RestartStage::Spawning(_) => ChildState::Starting,
        };
        common.show(state, None, Some(self.exit.clone()));
    }

    /// Returns what a later broker has to know to go on from here.
    pub(super) fn progress(&self, common: &Common) -> Progress {
        let until = match self.stage {
            RestartStage::Recording { until }
            | RestartStage::Unrecorded { until }
            | RestartStage::Pausing { until } => until,
            // Whatever is found of the process, it was due by then.
            RestartStage::Queued | RestartStage::Spawning(_) => Instant::default(),
        };
        let (started_at, exit, runs) = (common.view().started_at, self.exit.clone(), common.runs().clone());
        let unwanted = self.stop().map(|stop| (stop.reason, stop.steps.clone()));
        Progress::Restarting { started_at, exit, until, unwanted, runs }
    }

    /// Its record is safe, or cannot be written.
    pub(super) fn recorded(&mut self, is_safe: bool, common: &mut Common, orders: &mut Orders<'_>) {
        let now = orders.now.instant;
        match self.stage {
            RestartStage::Recording { until } if is_safe && until <= now => self.enqueue(common, orders),
            RestartStage::Recording { until } if is_safe => {
                self.stage = RestartStage::Pausing { until };
                common.set_due(Some(until), orders);
            }
            RestartStage::Recording { until } => {
                self.stage = RestartStage::Unrecorded { until };
                common.set_due(Some(now.plus(RECORD_AGAIN_AFTER)), orders);
            }
            RestartStage::Unrecorded { .. }
            | RestartStage::Pausing { .. }
            | RestartStage::Queued
            | RestartStage::Spawning(_) => {}
        }
    }

    /// Has it recorded that the next run is to come.
    pub(super) fn record(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        match self.stage {
            RestartStage::Unrecorded { until } => {
                self.stage = RestartStage::Recording { until };
                common.record(self.progress(common), Safety::Process, Receipt::Wanted, orders);
            }
            RestartStage::Recording { .. }
            | RestartStage::Pausing { .. }
            | RestartStage::Queued
            | RestartStage::Spawning(_) => {}
        }
    }

    /// Ends its pause now.
    pub(super) fn hurry(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        match &mut self.stage {
            RestartStage::Recording { until } | RestartStage::Unrecorded { until } => {
                *until = orders.now.instant;
            }
            RestartStage::Pausing { .. } => self.enqueue(common, orders),
            RestartStage::Queued | RestartStage::Spawning(_) => {}
        }
    }

    /// Has it take its place among those that wait for their turn.
    pub(super) fn enqueue(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        self.stage = RestartStage::Queued;
        common.set_due(None, orders);
        self.show(common);
        orders.enqueue(common.uid(), common.id());
    }
}
