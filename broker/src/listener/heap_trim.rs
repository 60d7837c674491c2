//! Tells when the heap is to be trimmed: when many clients have gone, what they have used lies between what is still in use, and
//! the heap would keep it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::limits::CLOSED_BEFORE_TRIM;

/// Counts connections as they open and close.
#[derive(Debug, Default)]
pub(super) struct TrimTrigger {
    open: AtomicUsize,
    /// The most that were open since the heap was trimmed.
    most: AtomicUsize,
    /// Whether it is about to be trimmed.
    is_due: AtomicBool,
}

impl TrimTrigger {
    pub(super) fn opened(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.most.fetch_max(open, Ordering::Relaxed);
    }

    /// One has closed. Says whether the heap is to be trimmed now that many have: once for all of them.
    pub(super) fn closed(&self) -> bool {
        let open = self.open.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        let gone = self.most.load(Ordering::Relaxed).saturating_sub(open);
        gone >= CLOSED_BEFORE_TRIM && !self.is_due.swap(true, Ordering::Relaxed)
    }

    /// A trim begins: what is counted begins anew.
    pub(super) fn begun(&self) {
        self.most.store(self.open.load(Ordering::Relaxed), Ordering::Relaxed);
        self.is_due.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_trimmed_once_for_many_connections_that_close() {
        let trigger = TrimTrigger::default();
        let go = |count: usize| (0..count).filter(|_| trigger.closed()).count();
        (0..2 * CLOSED_BEFORE_TRIM).for_each(|_| trigger.opened());
        assert_eq!(go(CLOSED_BEFORE_TRIM - 1), 0);
        assert_eq!(go(100), 1);
        trigger.begun();
        assert_eq!(go(CLOSED_BEFORE_TRIM - 99), 0, "too few since");
        (0..CLOSED_BEFORE_TRIM).for_each(|_| trigger.opened());
        assert_eq!(go(CLOSED_BEFORE_TRIM), 1);
    }
}
