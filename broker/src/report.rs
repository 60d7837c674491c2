//! Writes what the core reports into the broker's log, a line for people for each.

use std::fmt::Display;
use std::time::Duration;

use procbroker_core::Report;
use procbroker_protocol::{Child, ChildId, Exit, Field, duration};
use tracing::field::{DisplayValue, display};
use tracing::{debug, info, warn};

use crate::counted;
use crate::limits::LOG_TEXT_CHARS_MAX;

/// Writes the line of a report.
pub fn write(report: &Report) {
    match report {
        Report::Started { child } => {
            info!(child = %label(child), pid = child.pid, command = command(child), id = id(child), "started");
        }
        Report::StartFailed { child, message } => {
            warn!(child = %label(child), command = command(child), id = id(child), "not started: {message}");
        }
        Report::ProbeFailed { child, message } => {
            warn!(child = %label(child), id = id(child), "not found ready: {message}");
        }
        Report::Restarting { child, pause } => {
            let exit = child.exit.as_ref();
            let status = exit.map_or_else(|| "unknown".to_owned(), |exit| exit.status.to_string());
            let pause = duration::display(*pause);
            let oom = want_of_memory(exit);
            info!(child = %label(child), %status, restarts = child.restarts, %pause, id = id(child), "ended{oom}, and is started again");
        }
        Report::Ended { child } => {
            let exit = child.exit.as_ref();
            let status = exit.map_or_else(|| "unknown".to_owned(), |exit| exit.status.to_string());
            let reason = exit.map_or("unknown", |exit| exit.reason.as_str());
            let oom = want_of_memory(exit);
            if exit.is_some_and(|exit| exit.gave_up) {
                let restarts = counted::counted(child.restarts, "restart", "restarts");
                warn!(child = %label(child), %status, %reason, id = id(child), "ended{oom}, gave up after {restarts}");
            } else {
                info!(child = %label(child), %status, %reason, id = id(child), "ended{oom}");
            }
        }
        Report::CleanupFailed { child, message } => {
            warn!(child = %label(child), id = id(child), "the cleanup failed: {message}");
        }
        Report::CleanupLeft { child } => {
            warn!(child = %label(child), id = id(child), "the cleanup is not over; it is run again at the next start");
        }
        Report::Recovered { alive, ended, void } => {
            if (*alive, *ended) != (0, 0) {
                info!(
                    "taken over from an earlier broker: {alive} that live, {ended} that have ended meanwhile"
                );
            }
            if *void > 0 {
                let were = counted::counted(*void, "child was", "children were");
                info!("{were} about to be started and never started");
            }
        }
        Report::UpgradeRefused { message } => warn!("not upgraded: {message}"),
        Report::HandingOver => info!("handing over to the new program"),
        Report::Forced { child } => {
            let steps = child.exit.as_ref().map_or_else(String::new, |exit| {
                exit.steps.iter().map(|step| step.signal.to_string()).collect::<Vec<_>>().join(",")
            });
            warn!(child = %label(child), command = command(child), %steps, id = id(child), "did not end by itself and was killed");
        }
        Report::ShuttingDown { children, timeout } => {
            info!(children, timeout = %duration::display(*timeout), "shutting down");
        }
        Report::Hurried { children } => warn!(children, "told again to stop; killing what is left"),
        Report::ShutDown { children, forced, left: 0, took } => {
            let (children, took) = (counted::children(*children), whole(*took));
            info!("shut down: {children} ended, {forced} of them killed, in {took}");
        }
        Report::ShutDown { children, forced, left, took } => {
            let (children, took) = (counted::children(*children), whole(*took));
            let left = counted::counted(*left, "process", "processes");
            warn!(
                "shut down at the deadline: {children} ended, {forced} of them killed, {left} could not be ended, in \
                 {took}"
            );
        }
        Report::Idle => debug!("nothing to do; exiting as --exit-when-idle says"),
    }
}

/// What is added to the word of an end.
fn want_of_memory(exit: Option<&Exit>) -> &'static str {
    if exit.is_some_and(|exit| exit.oom) { " for want of memory" } else { "" }
}

/// The name of a child if it has one, else its id.
fn label(child: &Child) -> String {
    child.name.as_ref().map_or_else(|| child.id.to_string(), ToString::to_string)
}

/// Its id, where the line calls it by its name.
fn id(child: &Child) -> Option<DisplayValue<ChildId>> {
    child.name.is_some().then(|| display(child.id))
}

/// The beginning of the command line, with an ellipsis where it goes on. The form of the log escapes what could disturb its
/// reader.
fn command(child: &Child) -> String {
    let length: usize = child.command.iter().map(|argument| argument.len() + 1).sum();
    let mut line = String::with_capacity(length.min(LOG_TEXT_CHARS_MAX));
    let separated = child.command.iter().enumerate().map(|(index, argument)| (index > 0, argument));
    let mut characters =
        separated.flat_map(|(is_next, argument)| is_next.then_some(' ').into_iter().chain(argument.chars()));
    line.extend(characters.by_ref().take(LOG_TEXT_CHARS_MAX));
    if characters.next().is_some() || child.shortened.contains(Field::Command) {
        line.push_str(" …");
    }
    line
}

/// A duration to the millisecond, which is what people read.
fn whole(took: Duration) -> impl Display {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    duration::display(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use procbroker_protocol::{ExitReason, ExitStatus, Timestamp};

    use super::*;
    use crate::captured_log::captured;

    fn child() -> Child {
        serde_json::from_value(serde_json::json!({
            "id": "01900000-0000-7000-8000-000000000001", "name": "web", "labels": {}, "command": ["true"],
            "pid": null, "owner": {"uid": 33, "gid": 33}, "state": "ended", "created_at": Timestamp::default(),
            "started_at": null, "restarts": 3, "lifetime": "broker", "stop_order": 0, "exit": null,
            "cleanup": null, "containment": "cgroup", "status_text": null,
        }))
        .unwrap()
    }

    fn ended(gave_up: bool) -> Report {
        let mut child = child();
        let exit = Exit::new(ExitStatus::Code(3), ExitReason::Exited, Timestamp::default());
        child.exit = Some(Exit { gave_up, ..exit });
        Report::Ended { child: Arc::new(child) }
    }

    #[test]
    fn a_child_that_is_given_up_is_a_warning_with_the_number_of_its_restarts() {
        let line = captured(|| write(&ended(true)));
        assert!(line.contains("WARN") && line.contains("ended, gave up after 3 restarts"), "{line}");
        let line = captured(|| write(&ended(false)));
        assert!(line.contains("INFO") && !line.contains("gave up"), "{line}");
    }

    #[test]
    fn a_line_repeats_the_beginning_of_a_long_command_alone() {
        let line = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            command(&Child { command: words, ..child() })
        };
        assert_eq!(line(&["printf", "a b", ""]), "printf a b ");
        let fits = "é".repeat(LOG_TEXT_CHARS_MAX - 2);
        assert_eq!(line(&["x", &fits]), format!("x {fits}"));
        assert_eq!(line(&["x", &fits, ""]), format!("x {fits} …"));
        assert_eq!(line(&["x", &"é".repeat(20_000)]), format!("x {fits} …"));
    }
}
