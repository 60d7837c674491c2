//! How much is told while a verb waits.

use std::io::IsTerminal as _;

/// What somebody who sits there is told meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Remarks {
    /// How it goes, and what goes on after Ctrl-C.
    All,
    /// What goes on after Ctrl-C.
    GoesOn,
}

/// What is told, if somebody sits there.
pub(in crate::cli) fn told(json: bool) -> Option<Remarks> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let told = if json || dumb { Remarks::GoesOn } else { Remarks::All };
    std::io::stderr().is_terminal().then_some(told)
}
