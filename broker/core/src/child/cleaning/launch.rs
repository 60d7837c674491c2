//! How an attempt at a cleanup is started: one that cannot be for a shortage is tried again, and one that does not get to its
//! program is killed.

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::error::SpawnFailure;

use super::{Cleaning, CleaningStage, Fate, Remains};
use crate::child::common::Common;
use crate::child::launching::is_kill;
use crate::child::next::Next;
use crate::child::not_started::StartAttempt;
use crate::effect::{Effect, Purpose, Receipt, Report, Safety};
use crate::limits::{LAUNCH_MOMENT, SHORTAGE_PAUSE_MAX};
use crate::orders::Orders;

/// Whether the process of a cleanup is left to get to its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CleanupLaunch {
    /// It has its time to get there.
    Wanted,
    /// It was killed, since its time was over.
    Late,
    /// It was killed, since another program is to take over: the attempt is put off.
    PutOff,
}

impl Cleaning {
    /// It is its turn to be started.
    pub(in crate::child) fn spawn(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        match self.stage {
            CleaningStage::Queued => {
                // Its time begins here: its program may be one that takes for ever to be executed.
                let timeout =
                    common.params().cleanup.as_ref().map_or(Duration::ZERO, |cleanup| cleanup.timeout);
                let until = orders.now.instant.plus(timeout);
                let launched_by = until.max(orders.now.instant.plus(LAUNCH_MOMENT));
                self.stage = CleaningStage::Spawning { until, launched_by, launch: CleanupLaunch::Wanted };
                self.follow_bound(common, orders);
                let purpose = Purpose::Cleanup { exit: self.exit.clone() };
                orders.order(Effect::Spawn { run: common.run(), order: Arc::clone(common.order()), purpose });
            }
            CleaningStage::Recording
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => {}
        }
    }

    /// Its program was executed: its time runs on.
    pub(in crate::child) fn spawned(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        let (until, launch) = match self.stage {
            CleaningStage::Spawning { until, launch, .. } => (until, launch),
            // It was started by an earlier program, and its time runs on.
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => {
                let timeout = common.params().cleanup.as_ref().map(|cleanup| cleanup.timeout);
                let anew = || orders.now.instant.plus(timeout.unwrap_or_default());
                (self.handed_over_until.unwrap_or_else(anew), CleanupLaunch::Wanted)
            }
        };
        self.stage = CleaningStage::Running { until };
        self.record(Safety::Process, Receipt::NotWanted, common, orders);
        match (self.fate, launch) {
            (Fate::Finish, CleanupLaunch::Wanted) => self.follow_bound(common, orders),
            // It got to its program as it was killed, and is begun anew.
            (Fate::Finish, CleanupLaunch::PutOff) => self.kill(Remains::Interrupted, common, orders),
            (Fate::Finish, CleanupLaunch::Late) | (Fate::Leave, _) => {
                self.kill(Remains::Process, common, orders);
            }
        }
    }

    /// It could not be started in its time, or for the sake of others.
    pub(super) fn kill_launch(&mut self, launch: CleanupLaunch, common: &Common, orders: &mut Orders<'_>) {
        match &mut self.stage {
            CleaningStage::Spawning { launch: before @ CleanupLaunch::Wanted, .. } => {
                *before = launch;
                orders.order(Effect::Kill { run: common.run() });
            }
            CleaningStage::Recording
            | CleaningStage::Queued
            | CleaningStage::Spawning { .. }
            | CleaningStage::Short { .. }
            | CleaningStage::Running { .. }
            | CleaningStage::Killing { .. }
            | CleaningStage::Closing { .. }
            | CleaningStage::Left => {}
        }
    }

    /// Another program is to take over, and the launch of an attempt keeps it from that.
    pub(in crate::child) fn put_off_launch(&mut self, common: &Common, orders: &mut Orders<'_>) {
        self.kill_launch(CleanupLaunch::PutOff, common, orders);
    }

    /// It could not be started.
    pub(in crate::child) fn spawn_failed(
        &mut self,
        common: &mut Common,
        failure: &SpawnFailure,
        orders: &mut Orders<'_>,
    ) -> Next {
        orders.order(Effect::Release { run: common.run() });
        if is_kill(failure) && self.fate == Fate::Leave {
            return self.is_left(common, orders);
        }
        if is_kill(failure)
            && matches!(self.stage, CleaningStage::Spawning { launch: CleanupLaunch::PutOff, .. })
        {
            self.try_again(common, orders);
            return Next::Nothing;
        }
        let attempt = StartAttempt::cleanup(common.order());
        let message = format!("cannot start {}: {}", attempt.program(), attempt.why(failure, None));
        let child = Arc::clone(common.view());
        orders.order(Effect::Report(Report::CleanupFailed { child, message }));
        if is_shortage(failure) {
            return self.try_again_later(common, orders);
        }
        self.conclude(None, common, orders)
    }

    /// A shortage is no outcome: it passes, and what the child held is still to be released.
    fn try_again_later(&mut self, common: &mut Common, orders: &mut Orders<'_>) -> Next {
        if self.fate == Fate::Leave {
            return self.is_left(common, orders);
        }
        self.stage = CleaningStage::Short { again: orders.now.instant.plus(self.pause) };
        self.pause = self.pause.saturating_mul(2).min(SHORTAGE_PAUSE_MAX);
        self.follow_bound(common, orders);
        Next::Nothing
    }

    pub(super) fn try_again(&mut self, common: &mut Common, orders: &mut Orders<'_>) {
        self.stage = CleaningStage::Queued;
        orders.enqueue(common.uid(), common.id());
        self.follow_bound(common, orders);
    }
}

/// Whether what failed may not fail in a moment: there is too little of something (EAGAIN, EMFILE, ENFILE, ENOMEM, ENOSPC).
fn is_shortage(failure: &SpawnFailure) -> bool {
    ["EAGAIN", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC"].contains(&failure.errno_name.as_str())
}
