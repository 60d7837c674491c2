//! Gives SQLite's shared memory back the length that it had: touching it beyond its file's end, after somebody has cut that,
//! would end the broker by SIGBUS (mmap(2)).
//!
//! It is looked at before each write. Who cuts it in the very midst of one is not forestalled.
//!
//! What is cut is lost all the same, and is nothing that matters: where SQLite finds zeros it makes the index anew from the
//! log (`walIndexRecover` in its `wal.c`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::truncate;

use super::wal::beside;

/// The file, as long as it has ever been seen.
#[derive(Clone, Debug)]
pub(super) struct SharedMemory {
    path: PathBuf,
    bytes: Arc<AtomicU64>,
}

impl SharedMemory {
    /// That of this state file.
    pub(super) fn of(state: &Path) -> Self {
        let memory = Self { path: beside(state, "-shm"), bytes: Arc::default() };
        memory.note();
        memory
    }

    /// Takes note of how long it is by now: it grows with the log.
    pub(super) fn note(&self) {
        self.bytes.fetch_max(self.length().unwrap_or(0), Ordering::Relaxed);
    }

    /// Before anything is read from it: makes it as long as it was. One that was removed is mapped still.
    pub(super) fn mend(&self) {
        let was = self.bytes.load(Ordering::Relaxed);
        let Some(length) = self.length().filter(|length| *length < was) else { return };
        // By its path: to open and close it would give up the locks that SQLite holds on it (fcntl_locking(2)).
        let mended = i64::try_from(was).ok().map(|bytes| truncate(&self.path, bytes));
        match mended {
            Some(Ok(())) => tracing::warn!(path = %self.path.display(), length, was,
                "somebody has cut the index of the state file's log, which is made anew; leave it alone while the broker runs"),
            Some(Err(errno)) => tracing::error!(path = %self.path.display(), %errno,
                "somebody has cut the index of the state file's log, and it cannot be made as long as it was"),
            None => {}
        }
    }

    fn length(&self) -> Option<u64> {
        fs::symlink_metadata(&self.path).ok().filter(fs::Metadata::is_file).map(|found| found.len())
    }
}
