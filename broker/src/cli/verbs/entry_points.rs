//! What the command line calls of the broker in the same program.

use std::path::Path;
use std::process::ExitCode;

use super::serve::ServeArguments;

/// Whether a broker of this program could go on with these arguments and this record, and if not, why.
pub type Rehearse = fn(&ServeArguments, &Path) -> Result<(), String>;

/// What the command line calls of the broker in this program.
#[derive(Clone, Copy, Debug)]
pub struct EntryPoints {
    /// Runs a broker until it is told to stop, and returns the exit status of the program.
    pub serve: fn(&ServeArguments) -> ExitCode,
    /// Looks at what a broker of this program would start with.
    pub rehearse: Rehearse,
    /// Executes the program before this one again, if this was to take over and cannot for this reason.
    pub turn_back: fn(&str),
}
