//! Which signals the broker ignores and catches, for its children to have them otherwise.
#![expect(unsafe_code, reason = "the C library hides the two signals that it uses itself")]

use std::ptr;

/// The highest signal number of the kernel: a set of signals is 64 bits wide, signal 1 being the lowest.
pub(super) const HIGHEST: usize = 64;
/// Bytes of a set.
pub(super) const SET_BYTES: usize = size_of::<u64>();

/// A set of signals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SignalSet(pub(super) u64);

impl SignalSet {
    /// Those whose disposition can be changed.
    pub(super) const CHANGEABLE: Self =
        Self(!(Self::bit(libc::SIGKILL as usize) | Self::bit(libc::SIGSTOP as usize)));

    /// Those that this process ignores.
    pub(super) fn ignored() -> Self {
        let ignores = |&signal: &usize| {
            // The kernel's `struct sigaction` begins with the handler.
            let mut action = [0_usize; 4];
            let none = ptr::null::<usize>();
            // SAFETY: it writes one action, which has this size, and changes nothing.
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, &raw mut action, SET_BYTES) };
            action.first() == Some(&libc::SIG_IGN)
        };
        Self((1..=HIGHEST).filter(ignores).map(Self::bit).fold(0, |set, bit| set | bit))
    }

    /// Whether a signal, from 1 to [`HIGHEST`], is in the set.
    pub(super) const fn contains(self, signal: usize) -> bool {
        self.0 & Self::bit(signal) != 0
    }

    const fn bit(signal: usize) -> u64 {
        1 << (signal.wrapping_sub(1) % HIGHEST)
    }
}

/// Every signal is blocked in this thread; the mask comes back when this is dropped.
pub(super) struct SignalsBlocked {
    before: SignalSet,
}

impl SignalsBlocked {
    pub(super) fn all() -> Self {
        let mut before = SignalSet(0);
        set_mask(SignalSet(u64::MAX), Some(&mut before));
        Self { before }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        set_mask(self.before, None);
    }
}

/// It cannot fail: its arguments are valid.
fn set_mask(mask: SignalSet, before: Option<&mut SignalSet>) {
    let before = before.map_or(ptr::null_mut(), |before| &raw mut before.0);
    // SAFETY: it reads one set and writes one, where it is wanted.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask.0, before, SET_BYTES)
    };
}
