//! What is written of a child beyond the broker's own life.

use crate::child::launching::Launching;
use crate::child::{Child, Phase, Stop};
use crate::effect::{Receipt, Safety};
use crate::orders::Orders;
use crate::record::Progress;
use crate::time::{Instant, Now};

impl Child {
    /// Has its progress recorded, if there is more to tell than its intent.
    pub(super) fn record_progress(&self, safety: Safety, receipt: Receipt, orders: &mut Orders<'_>) {
        if let Some(progress) = self.progress(orders.now) {
            self.common.record(progress, safety, receipt, orders);
        }
    }

    /// Has it expire then, and a later broker know of it as soon as there is more on record than its intent.
    pub(crate) fn expires_at(&mut self, until: Instant, orders: &mut Orders<'_>) {
        self.common.expires_at(until);
        self.record_progress(Safety::Process, Receipt::NotWanted, orders);
    }

    /// Returns what a later broker has to know to go on from here; nothing more than the intent before there is a
    /// process.
    fn progress(&self, now: Now) -> Option<Progress> {
        let view = self.view();
        let started_at = view.started_at;
        Some(match &self.phase {
            Phase::Recording { cancelled: stop } | Phase::Spawning(Launching { stop, .. }) => {
                let Stop { reason, steps, kill_by: _ } = stop.clone()?;
                Progress::Unwanted { reason, steps }
            }
            Phase::Queued => return None,
            Phase::Starting { .. } => {
                let (ready_by, runs) = (self.common.ready_by()?, self.common.runs().clone());
                Progress::Starting { started_at: started_at?, ready_by, runs }
            }
            Phase::Running { .. } => {
                Progress::Running { started_at: started_at?, runs: self.common.runs().clone() }
            }
            Phase::Restarting(restarting) => restarting.progress(&self.common),
            Phase::Stopping(stopping) => stopping.progress(&self.common, now),
            Phase::Cleaning(cleaning) => cleaning.progress(&self.common, now),
            Phase::Ended => Progress::Ended {
                started_at,
                exit: view.exit.clone()?,
                cleanup: view.cleanup.clone(),
                at: now.wall,
                restarts: view.restarts,
                unready: self.common.unready(),
            },
        })
    }
}
