//! How far a child is, as it is put on record, for a later broker to go on from.

use procbroker_protocol::create::Lifetime;

use crate::child::launching::Launching;
use crate::child::{Child, Phase, Stop};
use crate::effect::{Receipt, Safety};
use crate::orders::Orders;
use crate::record::{HandedOver, Progress, RecordedLease};
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
        self.common.set_lease(RecordedLease::Until(until));
        self.record_lease(orders);
    }

    /// Has it recorded what it hangs on now. That matters for one that is being stopped, too: it may run again by its policy.
    fn record_lease(&self, orders: &mut Orders<'_>) {
        if self.is_ending() {
            self.record_again(orders);
        } else {
            self.record_progress(Safety::Process, Receipt::NotWanted, orders);
        }
    }

    /// Has what it hangs on recorded, where a record of its own has not told that.
    pub(crate) fn record_again(&self, orders: &mut Orders<'_>) {
        match &self.phase {
            Phase::Stopping(_) | Phase::Restarting(_) => {
                self.record_progress(Safety::Process, Receipt::NotWanted, orders);
            }
            // These are recorded as they are taken over, or there is nothing that it matters for.
            Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Cleaning(_)
            | Phase::Ended => {}
        }
    }

    /// A connection holds it again, if it lives by its connections: it does not linger any more.
    pub(crate) fn is_held(&mut self, orders: &mut Orders<'_>) {
        let lingers =
            self.params().lifetime == Lifetime::Connection && *self.common.lease() != RecordedLease::None;
        if lingers {
            self.common.set_lease(RecordedLease::None);
            self.record_lease(orders);
        }
    }

    /// Returns what the next program is told in an upgrade beside what is on record.
    pub(crate) fn handed_over(&self, now: Instant) -> HandedOver {
        let status_text = self.view().status_text.clone();
        let told = HandedOver { status_text, ..HandedOver::default() };
        match &self.phase {
            Phase::Running { watchdog, .. } => HandedOver { watchdog_left: watchdog.left(now), ..told },
            Phase::Cleaning(cleaning) => {
                let (cleanup_attempts, cleanup_until) = (cleaning.begun_before(), cleaning.until(now));
                HandedOver { cleanup_attempts, cleanup_until, ..told }
            }
            Phase::Recording { .. }
            | Phase::Queued
            | Phase::Spawning(_)
            | Phase::Starting { .. }
            | Phase::Stopping(_)
            | Phase::Restarting(_)
            | Phase::Ended => told,
        }
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
            Phase::Running { watchdog, .. } => {
                let departure = watchdog.departure(self.params().watchdog);
                Progress::Running { started_at: started_at?, runs: self.common.runs().clone(), departure }
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
