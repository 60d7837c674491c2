//! The words for a child, its end and its state that several verbs use.

use procbroker_protocol::{Child, Cleaned, Exit, ExitReason, ExitStatus};

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

/// How a child ended, in a few words: `SIGKILL (destroyed, forced), cleanup failed`.
pub(in crate::cli) fn how_ended(exit: &Exit, cleanup: Option<&Cleaned>) -> String {
    format!("{} ({}){}", exit_word(exit.status), why_ended(exit, "forced"), cleanup_word(cleanup))
}

/// The same where there is no room for it: without the reason, which is told in full elsewhere.
pub(in crate::cli) fn how_ended_briefly(exit: &Exit, cleanup: Option<&Cleaned>) -> String {
    let (more, cleanup) = (what_else(exit, "forced").join(", "), cleanup_word(cleanup));
    let more = if more.is_empty() { more } else { format!(" ({more})") };
    format!("{}{more}{cleanup}", exit_word(exit.status))
}

/// Why its main process ended, and what else there is to say of that.
fn why_ended(exit: &Exit, forced: &str) -> String {
    // That it is given up says that it has ended by itself.
    let is_said = exit.gave_up && exit.reason == ExitReason::Exited;
    let reason = (!is_said).then(|| exit.reason.as_str());
    reason.into_iter().chain(what_else(exit, forced)).collect::<Vec<_>>().join(", ")
}

/// What there is to say of an end beside its reason.
fn what_else<'a>(exit: &Exit, forced: &'a str) -> Vec<&'a str> {
    let forced = exit.forced.then_some(forced);
    let oom = exit.oom.then_some("out of memory");
    let gave_up = exit.gave_up.then_some("gave up");
    [gave_up, forced, oom].into_iter().flatten().collect()
}

/// What is added where the cleanup of a child has not released what the child held.
fn cleanup_word(cleanup: Option<&Cleaned>) -> &'static str {
    if cleanup.is_some_and(|cleanup| !cleanup.ok) { ", cleanup failed" } else { "" }
}

/// The state of a child, with its pid while it has one and with how it ended once it has.
pub(in crate::cli) fn condition(child: &Child) -> String {
    match (&child.exit, child.pid) {
        (Some(exit), None) => {
            let (why, cleanup) = (why_ended(exit, "by force"), cleanup_word(child.cleanup.as_ref()));
            format!("{}, {} ({why}){cleanup}", child.state.as_str(), exit.status)
        }
        (_, Some(pid)) => format!("{}, pid {pid}", child.state.as_str()),
        (None, None) => child.state.as_str().to_owned(),
    }
}

/// A value between tabs, or the sign that there is none.
pub(in crate::cli) fn or_absent(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), ToString::to_string)
}
