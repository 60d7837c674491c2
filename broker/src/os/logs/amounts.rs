//! How much output is kept and was dropped in all, for whoever asks at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Two numbers that the log thread alone sets, once it has begun.
#[derive(Debug, Default)]
pub struct Amounts {
    kept: AtomicU64,
    dropped: AtomicU64,
}

impl Amounts {
    /// Returns how many bytes all kept output takes on the disk.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Returns how many bytes could not be kept since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// So many bytes are kept now.
    pub(super) fn keep(&self, bytes: u64) {
        self.kept.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes more could not be kept.
    pub fn drop_more(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Ordering::Relaxed);
    }
}
