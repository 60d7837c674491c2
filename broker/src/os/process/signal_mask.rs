//! Holds all signals back from a thread for a while.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

/// All signals, held back from this thread as long as this lives. Other threads of the broker take none at any time.
#[derive(Debug)]
pub struct HeldBack(SigSet);

impl HeldBack {
    /// Holds them back from now on, also over an `execve(2)`.
    ///
    /// # Errors
    /// Those of `pthread_sigmask(3)`, none of which is known to come.
    pub fn begin() -> Result<Self, Errno> {
        SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map(Self)
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        // What came meanwhile is delivered now.
        let _ = self.0.thread_set_mask();
    }
}
