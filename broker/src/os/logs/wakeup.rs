//! Wakes the log thread, once for all orders that it has not looked at so far.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// An event that an edge-triggered epoll waits for.
///
/// Whoever raises it has sent an order before; whoever clears it looks at the orders after.
#[derive(Debug)]
pub(super) struct Wakeup {
    counter: EventFd,
    /// Whether it was raised, and not cleared.
    is_raised: AtomicBool,
}

impl Wakeup {
    /// Makes one that is not raised.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn new() -> Result<Self, Errno> {
        let counter = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { counter, is_raised: AtomicBool::new(false) })
    }

    /// Raises it, unless it is already.
    pub(super) fn raise(&self) {
        if !self.is_raised.swap(true, Ordering::SeqCst) {
            // Nobody ever takes anything from the counter, for which 64 bits are enough: each addition is an event.
            let _ = self.counter.write(1);
        }
    }

    /// Clears it. What is ordered from now on raises it again.
    pub(super) fn clear(&self) {
        self.is_raised.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}
