//! SIGWINCH that a process has sent, told from that of a terminal whose size has changed.
#![expect(unsafe_code, reason = "the event loop takes a descriptor on trust")]

use std::io;
use std::task::{Context, Poll, ready};

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `si_code` of a signal that the kernel sends itself (`sigaction(2)`).
const FROM_KERNEL: i32 = 0x80;

/// SIGWINCH, as it comes to this process. It has to stay blocked in every thread.
#[derive(Debug)]
pub struct WindowSignals(AsyncFd<SignalFd>);

impl WindowSignals {
    /// The set of it alone.
    #[must_use]
    pub fn set() -> SigSet {
        SigSet::from(Signal::SIGWINCH)
    }

    /// Takes it over. To be called in the event loop.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn take_over() -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&Self::set(), flags)?;
        // SAFETY: it owns its descriptor, lives in what is registered, and is closed after it.
        let signals = unsafe { AsyncFd::register_with_interest(signals, Interest::READABLE) };
        Ok(Self(signals.map_err(io::Error::from)?))
    }

    /// Waits until a process has sent one. What a terminal sends to its foreground is passed over.
    ///
    /// # Errors
    /// When the event loop has ended, or the system refuses.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            match self.0.get_ref().read_signal()? {
                Some(signal) if signal.ssi_code != FROM_KERNEL => return Poll::Ready(Ok(())),
                Some(_) => {}
                None => ready.clear_ready(),
            }
        }
    }
}
