//! How much output is kept and was lost in all, for whoever asks at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that the threads set through which output goes, once they have begun.
#[derive(Debug, Default)]
pub struct Amounts {
    kept: AtomicU64,
    dropped: AtomicU64,
    lost_lines: AtomicU64,
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

    /// Returns how many lines could not be passed on since the start.
    #[must_use]
    pub fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Ordering::Relaxed)
    }

    /// So many lines more could not be passed on.
    pub fn lose_lines(&self, lines: u64) {
        self.lost_lines.fetch_add(lines, Ordering::Relaxed);
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
