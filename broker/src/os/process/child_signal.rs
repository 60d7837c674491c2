//! Tells that children have ended, without a signal handler: a thousand ends at once interrupt nothing, and are told once.
#![expect(unsafe_code, reason = "tokio takes an owned descriptor on trust, and an action can be a handler")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// SIGCHLD of this process, read from a descriptor (`signalfd(2)`).
///
/// Every thread has to block the signal for as long as this lives.
#[derive(Debug)]
pub struct ChildSignal(AsyncFd<Source>);

/// What the event loop waits for.
#[derive(Debug)]
struct Source(SignalFd);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl ChildSignal {
    /// Makes the descriptor. To be called in the event loop.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let source = SignalFd::with_flags(&Self::mask(), flags)?;
        // SAFETY: the source owns its descriptor, lives in what is registered, and is closed after it.
        let source = unsafe { AsyncFd::register_with_interest(Source(source), Interest::READABLE) };
        Ok(Self(source.map_err(io::Error::from)?))
    }

    /// Gives the signal its default action: to be called before there is any child. Whoever ignores it when it executes this
    /// program leaves it ignored (`execve(2)`), and the kernel then keeps no end of a child to be told or asked for
    /// (`wait(2)`).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn restore_default() -> Result<(), Errno> {
        // SAFETY: the default action runs no code of this program.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
    }

    /// The set of this signal alone: what every thread blocks.
    #[must_use]
    pub fn mask() -> SigSet {
        SigSet::from(Signal::SIGCHLD)
    }

    /// Ready when some child has ended since it was ready last. It wakes up nobody once the event loop has ended.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.0.poll_read_ready(context) {
            Poll::Ready(Ok(mut ready)) => {
                // The next signal is a new event. It is pending once at most, so that one reading takes all there is.
                ready.clear_ready();
                let _ = self.0.get_ref().0.read_signal();
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn each_signal_that_comes_after_the_last_was_told_is_told_too() {
        // For this thread alone: another one of the tests, which does not block it, would take it away.
        let work = || {
            ChildSignal::mask().thread_block().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let ended = ChildSignal::new().unwrap();
                for _ in 0..3 {
                    raise(Signal::SIGCHLD).unwrap();
                    raise(Signal::SIGCHLD).unwrap();
                    poll_fn(|context| ended.poll(context)).await;
                    assert!(poll_fn(|context| Poll::Ready(ended.poll(context))).await.is_pending());
                }
            });
        };
        std::thread::spawn(work).join().unwrap();
    }
}
