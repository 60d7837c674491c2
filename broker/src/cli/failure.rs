//! What can go wrong in a command, its exit status, and the line that says so.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use procbroker_client::Error as ClientError;
use procbroker_protocol::ErrorKind;
use procbroker_protocol::error::Error as BrokerError;
use procbroker_protocol::json_lines::objects::ErrorObject;
use thiserror::Error;

use super::access;
use super::command_status::CommandStatus;
use super::flags::in_words_of_flags;
use super::print::escape::{escaped, escaped_json};
use crate::causes::with_causes;

/// Why a command failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The command line makes no sense, in a way that shows only after it was read.
    #[error("{message}")]
    Usage {
        /// What is wrong with it.
        message: String,
    },
    /// This program cannot take over from a running broker.
    #[error("{message}")]
    TakeOver {
        /// What it answered, on one line.
        message: String,
    },
    /// Something that the command needs of its own machine is missing.
    #[error("{attempted}")]
    Machine {
        /// What was attempted, as it stands after "cannot".
        attempted: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The broker refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It was done, and what came of it could not be written.
    #[error("the request was carried out, but its result cannot be written to standard output")]
    Output(#[source] io::Error),
    /// The broker went away while its answer was being followed.
    #[error(
        "the broker was stopped or replaced while the output was followed; run this again to see what came after"
    )]
    Interrupted,
    /// Whoever waited has typed Ctrl-C.
    #[error("{goes_on}")]
    GivenUp {
        /// What goes on all the same.
        goes_on: Cow<'static, str>,
    },
    /// The broker answered something that belongs to another request.
    #[error("the broker answered with something else than was asked for; are both of one version?")]
    Answer,
}

impl Failure {
    /// A command line that makes no sense.
    pub(super) fn usage(error: &dyn std::error::Error) -> Self {
        Self::Usage { message: with_causes(error) }
    }

    /// The exit status that stands for it.
    pub(super) fn status(&self) -> CommandStatus {
        match self {
            Self::Usage { .. } => CommandStatus::Usage,
            Self::TakeOver { .. }
            | Self::Machine { .. }
            | Self::Output(_)
            | Self::Interrupted
            | Self::Answer => CommandStatus::Failed,
            Self::GivenUp { .. } => CommandStatus::Interrupted,
            Self::Client(error) => client_status(error),
        }
    }

    /// What stands on standard error: one line, and below it what a child that failed to start has written.
    pub(super) fn report(&self, json: bool) -> String {
        if json { self.object() } else { self.text() }
    }

    /// What is said of it, in one line that steers no terminal.
    pub(super) fn line(&self) -> String {
        escaped(&self.message())
    }

    fn text(&self) -> String {
        let mut text = format!("procbroker: {}\n", escaped(&self.message()));
        if let Some(ErrorKind::StartFailed { log_tail, .. }) = self.answer().map(|error| &error.kind) {
            for line in log_tail.lines() {
                let _ = writeln!(text, "  | {}", escaped(line));
            }
        }
        text
    }

    /// What is said of it on the command line.
    fn message(&self) -> String {
        match self {
            Self::Client(ClientError::Broker(error)) => in_words_of_flags(&error.kind, &error.message),
            Self::Client(ClientError::NoAccess { socket, source: _ }) => access::refusal(socket),
            Self::Client(_)
            | Self::Usage { .. }
            | Self::TakeOver { .. }
            | Self::Machine { .. }
            | Self::Output(_)
            | Self::Interrupted
            | Self::GivenUp { .. }
            | Self::Answer => with_causes(self),
        }
    }

    fn object(&self) -> String {
        let object = match self.answer() {
            Some(error) => serde_json::to_string(&ErrorObject(error)),
            None => serde_json::to_string(&serde_json::json!({ "message": self.message() })),
        };
        // Texts and numbers always have a JSON form.
        object.map_or_else(|_| self.text(), |line| escaped_json(&line) + "\n")
    }

    /// The broker's own answer, where it gave one.
    fn answer(&self) -> Option<&BrokerError> {
        match self {
            Self::Client(ClientError::Broker(error) | ClientError::Refused { error, .. }) => Some(error),
            Self::Client(_)
            | Self::Usage { .. }
            | Self::TakeOver { .. }
            | Self::Machine { .. }
            | Self::Output(_)
            | Self::Interrupted
            | Self::GivenUp { .. }
            | Self::Answer => None,
        }
    }
}

/// The exit status of what the client library reports. Its enum may grow, so the rest is a failure.
fn client_status(error: &ClientError) -> CommandStatus {
    match error {
        ClientError::Broker(error) | ClientError::Refused { error, .. } => CommandStatus::from(&error.kind),
        ClientError::SocketPathTooLong { .. } => CommandStatus::Usage,
        ClientError::NotThere { .. } | ClientError::NoSocket { .. } => CommandStatus::NoBroker,
        ClientError::NoAccess { .. } => CommandStatus::Denied,
        ClientError::Timeout { .. } => CommandStatus::TimedOut,
        _ => CommandStatus::Failed,
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::error::SpawnFailure;
    use procbroker_protocol::{Exit, ExitReason, ExitStatus, Timestamp};

    use super::*;

    fn refused(kind: ErrorKind, message: &str) -> Failure {
        Failure::Client(ClientError::Broker(Box::new(BrokerError::new(kind, message))))
    }

    fn start_failed() -> Failure {
        let exit = Exit::new(ExitStatus::Code(1), ExitReason::StartFailed, Timestamp::default());
        let log_tail = "Traceback:\n\x1b[31mno module\n".to_owned();
        refused(ErrorKind::StartFailed { exit: Box::new(exit), log_tail }, "it ended before it was ready")
    }

    #[test]
    fn a_failure_is_one_line_without_steering_characters() {
        let failure = refused(ErrorKind::NotFound, "there is no child \x1b[31mx\nly");
        assert_eq!(failure.report(false), "procbroker: there is no child \\x1b[31mx\\nly\n");
        assert_eq!(failure.status(), CommandStatus::NotFound);
    }

    #[test]
    fn what_a_child_wrote_before_it_failed_to_start_is_shown_below() {
        let expected = "procbroker: it ended before it was ready\n  | Traceback:\n  | \\x1b[31mno module\n";
        assert_eq!(start_failed().report(false), expected);
    }

    #[test]
    fn json_has_the_wire_error_or_a_message_alone() {
        let spawn = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() };
        let failure = refused(ErrorKind::SpawnFailed(spawn), "cannot start");
        let expected = r#"{"code":5,"message":"cannot start","data":{"kind":"spawn_failed","errno":2,"errno_name":"ENOENT","step":"exec"}}"#;
        assert_eq!(failure.report(true), format!("{expected}\n"));
        let failure = Failure::Usage { message: "\"a\" is given twice".to_owned() };
        assert_eq!(failure.report(true), "{\"message\":\"\\\"a\\\" is given twice\"}\n");
        assert_eq!(start_failed().report(true).lines().count(), 1);
    }

    #[test]
    fn json_steers_no_terminal_either() {
        let exit = Exit::new(ExitStatus::Code(1), ExitReason::StartFailed, Timestamp::default());
        let log_tail = "\u{9b}2J\u{202e}evil\n".to_owned();
        let failure = refused(ErrorKind::StartFailed { exit: Box::new(exit), log_tail }, "it ended");
        let line = failure.report(true);
        assert!(line.contains(r"\u009b2J\u202eevil\n"), "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["data"]["log_tail"], "\u{9b}2J\u{202e}evil\n");
    }

    #[test]
    fn failures_without_an_answer_have_their_exit_status() {
        let socket = || "/none.sock".into();
        let source = || io::Error::from(io::ErrorKind::NotFound);
        let denied = BrokerError::new(ErrorKind::PermissionDenied, "not you");
        let cases = [
            (ClientError::NotThere { socket: socket(), source: source() }, CommandStatus::NoBroker),
            (ClientError::NoSocket { socket: socket(), found: "a folder" }, CommandStatus::NoBroker),
            (ClientError::SocketPathTooLong { socket: socket() }, CommandStatus::Usage),
            (ClientError::NoAccess { socket: socket(), source: source() }, CommandStatus::Denied),
            (ClientError::Refused { socket: socket(), error: Box::new(denied) }, CommandStatus::Denied),
            (
                ClientError::Timeout {
                    waiting_for: "an answer".to_owned(),
                    after: std::time::Duration::ZERO,
                },
                CommandStatus::TimedOut,
            ),
            (ClientError::Protocol { detail: "x".to_owned() }, CommandStatus::Failed),
        ];
        for (error, status) in cases {
            assert_eq!(client_status(&error), status, "{error}");
        }
        assert_eq!(Failure::Output(source()).status(), CommandStatus::Failed);
        assert_eq!(Failure::Answer.status(), CommandStatus::Failed);
    }

    #[test]
    fn parameters_have_the_names_of_their_flags_for_people_and_those_of_the_wire_for_programs() {
        let cases = [
            (
                "invalid parameter if_exists: reuse and replace need a name to look for; give one",
                "invalid value for --if-exists: reuse and replace need a name to look for; give one with --name",
            ),
            ("invalid parameter cleanup.command: it is empty", "invalid value for --cleanup: it is empty"),
            (
                "invalid parameter resources.pids_max: it is 0",
                "invalid value for --resource pids_max: it is 0",
            ),
            ("invalid parameter rlimits: \"x\" is none", "invalid value for --rlimit: \"x\" is none"),
            ("invalid parameter command: it is empty", "invalid value for the command: it is empty"),
            (
                "invalid parameter watchdog: it needs a child that tells how it is: give ready: notify with it",
                "invalid value for --watchdog: it needs a child that tells how it is: give --ready notify with it",
            ),
        ];
        for (wire, shown) in cases {
            let failure = refused(ErrorKind::InvalidParams, wire);
            assert_eq!(failure.report(false), format!("procbroker: {shown}\n"));
            let object: serde_json::Value = serde_json::from_str(&failure.report(true)).unwrap();
            assert_eq!(object["message"], wire);
        }
        let late = refused(ErrorKind::Timeout(None), "not ready within 1s (ready_timeout), and is stopped");
        assert_eq!(late.report(false), "procbroker: not ready within 1s (--ready-timeout), and is stopped\n");
        let denied = SpawnFailure { errno: 1, errno_name: "EPERM".to_owned(), step: "rlimits".to_owned() };
        let refusal =
            refused(ErrorKind::SpawnFailed(denied), "cannot start \"a\": rlimits failed with EPERM (x)");
        let said = "procbroker: cannot start \"a\": setting the limits (--rlimit) failed with EPERM (x)\n";
        assert_eq!(refusal.report(false), said);
    }

    #[test]
    fn every_cause_is_said_once() {
        let source = io::Error::other("the disk is full");
        let text = Failure::Output(source).report(false);
        let expected = "procbroker: the request was carried out, but its result cannot be written to standard output: the disk is full\n";
        assert_eq!(text, expected);
    }
}
