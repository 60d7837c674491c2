//! Wakes the log thread, once for all orders that it has not looked at so far.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A bell that an edge-triggered epoll waits for.
///
/// Whoever rings has sent an order before; whoever answers looks at the orders after.
#[derive(Debug)]
pub(super) struct Bell {
    counter: EventFd,
    /// Whether it was rung, and not answered.
    rings: AtomicBool,
}

impl Bell {
    /// Makes one that is silent.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn new() -> Result<Self, Errno> {
        let counter = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { counter, rings: AtomicBool::new(false) })
    }

    /// Rings, unless it does already.
    pub(super) fn ring(&self) {
        if !self.rings.swap(true, Ordering::SeqCst) {
            // Nobody ever takes anything from the counter, for which 64 bits are enough: each addition is an event.
            let _ = self.counter.write(1);
        }
    }

    /// Stops the ringing. What is ordered from now on rings again.
    pub(super) fn answer(&self) {
        self.rings.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}
