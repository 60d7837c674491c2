//! What the program is called.

/// The name of the program, in completions and pages.
pub(super) const PROGRAM: &str = "procbroker";
