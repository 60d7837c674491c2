//! The words for a child, its end and its state that several verbs use.

use procbroker_protocol::{Child, ExitStatus};

/// What stands in the place of a value that is absent.
pub(in crate::cli) const ABSENT: &str = "-";

/// The name of a child, or its id when it has none: either is a target.
pub(in crate::cli) fn title(child: &Child) -> String {
    child.name.as_ref().map_or_else(|| child.id.to_string(), ToString::to_string)
}

/// How its main process ended, in one word.
pub(in crate::cli) fn exit_word(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => code.to_string(),
        ExitStatus::Signal(signal) => signal.to_string(),
        ExitStatus::Unknown => "unknown".to_owned(),
    }
}

/// The state of a child, with its pid while it has one and with how it ended once it has.
pub(in crate::cli) fn condition(child: &Child) -> String {
    match (&child.exit, child.pid) {
        (Some(exit), None) => {
            let forced = if exit.forced { ", by force" } else { "" };
            format!("{}, {} ({}{forced})", child.state.as_str(), exit.status, exit.reason.as_str())
        }
        (_, Some(pid)) => format!("{}, pid {pid}", child.state.as_str()),
        (None, None) => child.state.as_str().to_owned(),
    }
}

/// A value between tabs, or the sign that there is none.
pub(in crate::cli) fn or_absent(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), ToString::to_string)
}
