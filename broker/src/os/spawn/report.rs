//! What a child says that does not get to its program: which step failed, and with which error.
#![expect(unsafe_code, reason = "memory that a child shares")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::errno::Errno;

use super::failure::{SpawnError, Step};
use super::memory::{Shareable, Shared};
use crate::limits::SLOTS;

/// What a child writes if it does not get to its program.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct StepReport {
    /// The [`Step`] that failed; 0 for none.
    step: AtomicU32,
    /// The error number of that step.
    errno: AtomicI32,
}

/// Those of all slots, in pages which a child in a copy of the memory shares as well.
#[derive(Debug)]
pub(super) struct StepReports([StepReport; SLOTS]);

// SAFETY: atomic integers, for which zero is a value.
unsafe impl Shareable for StepReports {}

impl StepReport {
    /// Records a failure; the child's last word.
    fn refuse(&self, step: Step, errno: Errno) {
        self.errno.store(errno as i32, Ordering::Relaxed);
        self.step.store(step as u32, Ordering::Release);
    }

    /// Takes what the child recorded.
    fn failure(&self) -> Option<SpawnError> {
        let step = Step::from_discriminant(self.step.load(Ordering::Acquire))?;
        Some(SpawnError::refused(step, Errno::from_raw(self.errno.load(Ordering::Relaxed))))
    }
}

/// Where one child reports.
#[derive(Clone, Debug)]
pub(super) struct ReportTo {
    reports: Arc<Shared<StepReports>>,
    slot: usize,
}

impl ReportTo {
    /// The place of the child in this slot.
    pub(super) fn of_slot(slot: usize, reports: &Arc<Shared<StepReports>>) -> Self {
        Self { reports: Arc::clone(reports), slot }
    }

    /// What the child has recorded, if it has recorded anything.
    pub(super) fn failure(&self) -> Option<SpawnError> {
        self.report().and_then(StepReport::failure)
    }

    fn report(&self) -> Option<&StepReport> {
        self.reports.get().0.get(self.slot)
    }

    /// Records a failure; the child's last word.
    pub(super) fn refuse(&self, step: Step, errno: Errno) {
        if let Some(report) = self.report() {
            report.refuse(step, errno);
        }
    }

    /// Forgets what the child before has recorded.
    pub(super) fn begin(&self) {
        if let Some(report) = self.report() {
            report.step.store(0, Ordering::Relaxed);
        }
    }
}
