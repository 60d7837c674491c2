//! The terminal that the broker was started in, which `run --interactive` lends to its main command.
#![expect(unsafe_code, reason = "tcgetpgrp(3) and tcsetpgrp(3) on a descriptor that may be closed")]

use nix::errno::Errno;
use nix::unistd::getpgrp;

/// Whether standard input is the terminal of this process's own session.
#[must_use]
pub fn is_own() -> bool {
    // SAFETY: it takes a number.
    let group = unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) };
    group >= 0
}

/// Takes the foreground back, for whoever started the broker. SIGTTOU has to be blocked (`tcsetpgrp(3)`).
///
/// # Errors
/// When standard input is not the terminal of this session any more.
pub fn take_back() -> Result<(), Errno> {
    // SAFETY: it takes numbers.
    let result = unsafe { libc::tcsetpgrp(libc::STDIN_FILENO, getpgrp().as_raw()) };
    Errno::result(result).map(drop)
}
