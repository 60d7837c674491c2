//! The exit status of the command, and which failure means which.

use std::process::ExitCode;

use procbroker_protocol::{ErrorKind, ExitStatus};

/// How the command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandStatus {
    /// What was asked for is done: exit status 0.
    Done,
    /// It failed in a way that is none of the others.
    Failed,
    /// The command line, or parameters that the broker refused.
    Usage,
    /// There is no such child.
    NotFound,
    /// The name is taken, or a limit is exceeded.
    Taken,
    /// No broker listens there.
    NoBroker,
    /// The caller may not do this.
    Denied,
    /// It took longer than it was given.
    TimedOut,
    /// Whoever waited has typed Ctrl-C: 128 and the number of SIGINT, as in a shell.
    Interrupted,
    /// The exit status of a child that was waited for, passed on.
    Child(u8),
}

impl CommandStatus {
    /// The exit status of a child as a shell has it: its code, or 128 and the number of the signal that ended it. One
    /// that is not known counts as failed.
    pub(super) fn of_child(exit: ExitStatus) -> Self {
        match exit {
            ExitStatus::Code(code) => Self::Child(u8::try_from(code & 0xFF).unwrap_or(u8::MAX)),
            ExitStatus::Signal(signal) => {
                let number = u8::try_from(signal.number()).unwrap_or(u8::MAX);
                Self::Child(number.saturating_add(128))
            }
            ExitStatus::Unknown => Self::Failed,
        }
    }

    /// The number that the command exits with.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Taken => 4,
            Self::NoBroker => 5,
            Self::Denied => 6,
            Self::TimedOut => 7,
            Self::Interrupted => 130,
            Self::Child(code) => code,
        }
    }
}

impl From<CommandStatus> for ExitCode {
    fn from(status: CommandStatus) -> Self {
        Self::from(status.code())
    }
}

impl From<&ErrorKind> for CommandStatus {
    fn from(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidParams => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::NameTaken(_) | ErrorKind::LimitExceeded => Self::Taken,
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::Timeout(_) => Self::TimedOut,
            ErrorKind::ParseError
            | ErrorKind::InvalidRequest
            | ErrorKind::MethodNotFound
            | ErrorKind::SpawnFailed(_)
            | ErrorKind::StartFailed { .. }
            | ErrorKind::ShuttingDown
            | ErrorKind::Overloaded
            | ErrorKind::Unsupported
            | ErrorKind::Internal => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::error::SpawnFailure;
    use procbroker_protocol::{Exit, ExitReason, Signal, Timestamp};

    use super::*;

    #[test]
    fn every_kind_of_error_has_its_exit_status() {
        let spawn = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() };
        let exit = Exit::new(ExitStatus::Code(1), ExitReason::StartFailed, Timestamp::default());
        let cases = [
            (ErrorKind::ParseError, 1),
            (ErrorKind::InvalidRequest, 1),
            (ErrorKind::MethodNotFound, 1),
            (ErrorKind::InvalidParams, 2),
            (ErrorKind::NameTaken(None), 4),
            (ErrorKind::NotFound, 3),
            (ErrorKind::PermissionDenied, 6),
            (ErrorKind::LimitExceeded, 4),
            (ErrorKind::SpawnFailed(spawn), 1),
            (ErrorKind::StartFailed { exit: Box::new(exit), log_tail: String::new() }, 1),
            (ErrorKind::ShuttingDown, 1),
            (ErrorKind::Timeout(None), 7),
            (ErrorKind::Overloaded, 1),
            (ErrorKind::Unsupported, 1),
            (ErrorKind::Internal, 1),
        ];
        for (kind, status) in cases {
            assert_eq!(CommandStatus::from(&kind).code(), status, "{kind}");
        }
        assert_eq!(CommandStatus::NoBroker.code(), 5);
    }

    #[test]
    fn the_exit_status_of_a_child_is_passed_on_as_a_shell_does() {
        let cases = [
            (ExitStatus::Code(0), 0),
            (ExitStatus::Code(42), 42),
            (ExitStatus::Signal(Signal::KILL), 137),
            (ExitStatus::Unknown, 1),
        ];
        for (exit, code) in cases {
            assert_eq!(CommandStatus::of_child(exit).code(), code, "{exit:?}");
        }
    }
}
