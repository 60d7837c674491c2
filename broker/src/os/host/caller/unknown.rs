//! What an error says of a process that was to be looked into.

use std::io;

use nix::errno::Errno;
use procbroker_core::{CallerUnknown, Shortage};

/// What an error of a file below `/proc` says of the process.
pub(super) fn refused(error: io::Error) -> CallerUnknown {
    Errno::try_from(error).map_or(CallerUnknown::Closed, unknown)
}

/// What an error says of a process that was to be looked into.
pub(super) fn unknown(errno: Errno) -> CallerUnknown {
    match errno {
        Errno::ENOENT | Errno::ESRCH => CallerUnknown::Gone,
        Errno::EMFILE => CallerUnknown::Short(Shortage::Descriptors),
        Errno::ENFILE => CallerUnknown::Short(Shortage::Files),
        Errno::ENOMEM => CallerUnknown::Short(Shortage::Memory),
        _ => CallerUnknown::Closed,
    }
}
