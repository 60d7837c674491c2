//! Why an upgrade fails, and the way out.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

use super::handover::FORMAT;

/// Why this program is not replaced, or cannot take over.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The manifest cannot be made.
    #[error("cannot make the manifest of what is handed over: {0}; see the limits on memory and open files")]
    Pack(#[source] io::Error),
    /// This program cannot be kept for the case that the new one fails.
    #[error(
        "cannot open /proc/self/exe, which is executed again if the new program fails: {0}; see that /proc is mounted"
    )]
    KeepProgram(#[source] io::Error),
    /// A descriptor cannot be kept open.
    #[error("cannot keep descriptor {descriptor} open for the new program: {errno}")]
    Keep {
        /// The number of the descriptor.
        descriptor: RawFd,
        /// What the system said.
        errno: Errno,
    },
    /// The new program cannot be executed.
    #[error("cannot execute {program}: {errno}; check the program and its permissions")]
    Execute {
        /// The path of the new program.
        program: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// The program that has handed over cannot be executed again.
    #[error("cannot execute the former program again: {errno}")]
    Return {
        /// What the system said.
        errno: Errno,
    },
    /// What was handed over to this program makes no sense.
    #[error("this program was to take over from another one, and cannot make out what it was given: {0}")]
    Unpack(#[source] io::Error),
    /// It comes from a program that is too different.
    #[error(
        "this program was to take over from one that hands over in form {0}; it knows form {FORMAT} only"
    )]
    Format(u32),
}
