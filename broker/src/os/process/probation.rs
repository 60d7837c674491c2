//! Whether this program has only begun to take over from another one in the same process.
//!
//! As long as it has, the other one may be executed again and go on with all that it has handed over: so nothing of
//! that is removed, whatever becomes of this program. It is one fact about the whole process, as what is handed over is
//! the process's.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(false);

/// From now on what ends in this program leaves its files where they are.
pub fn begin() {
    IS_ON.store(true, Ordering::SeqCst);
}

/// This program serves: what it has taken over is its own.
pub fn pass() {
    IS_ON.store(false, Ordering::SeqCst);
}

/// Whether another program may go on with what this one has.
#[must_use]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::SeqCst)
}
