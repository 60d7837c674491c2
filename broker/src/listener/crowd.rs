//! Sees a crowd of clients go: what it has used lies between what is still in use, and the heap would keep it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::limits::CROWD_GONE;

/// How many connections there are.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    open: AtomicUsize,
    /// The most that there were since memory was given back.
    most: AtomicUsize,
    /// Whether it is about to be given back.
    is_due: AtomicBool,
}

impl Crowd {
    pub(super) fn came(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.most.fetch_max(open, Ordering::Relaxed);
    }

    /// One has gone. Says whether memory is to be given back now that many have: once for all of them.
    pub(super) fn went(&self) -> bool {
        let open = self.open.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        let gone = self.most.load(Ordering::Relaxed).saturating_sub(open);
        gone >= CROWD_GONE && !self.is_due.swap(true, Ordering::Relaxed)
    }

    /// It is given back.
    pub(super) fn settled(&self) {
        self.most.store(self.open.load(Ordering::Relaxed), Ordering::Relaxed);
        self.is_due.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_for_each_crowd_that_goes() {
        let crowd = Crowd::default();
        let go = |count: usize| (0..count).filter(|_| crowd.went()).count();
        (0..2 * CROWD_GONE).for_each(|_| crowd.came());
        assert_eq!(go(CROWD_GONE - 1), 0);
        assert_eq!(go(100), 1);
        crowd.settled();
        assert_eq!(go(CROWD_GONE - 99), 0, "too few since");
        (0..CROWD_GONE).for_each(|_| crowd.came());
        assert_eq!(go(CROWD_GONE), 1);
    }
}
