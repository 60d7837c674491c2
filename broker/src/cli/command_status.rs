//! The exit status of the command, and which failure means which.

use std::process::ExitCode;

use procbroker_protocol::ErrorKind;

/// How the command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CommandStatus {
    /// Done.
    Done = 0,
    /// It failed in a way that is none of the others.
    Failed = 1,
    /// The command line, or parameters that the broker refused.
    Usage = 2,
    /// There is no such child.
    NotFound = 3,
    /// The name is taken, or a limit is exceeded.
    Taken = 4,
    /// No broker listens there.
    NoBroker = 5,
    /// The caller may not do this.
    Denied = 6,
    /// It took longer than it was given.
    TimedOut = 7,
}

impl From<CommandStatus> for ExitCode {
    fn from(status: CommandStatus) -> Self {
        Self::from(status as u8)
    }
}

impl From<&ErrorKind> for CommandStatus {
    fn from(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidParams => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::NameTaken | ErrorKind::LimitExceeded => Self::Taken,
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::Timeout => Self::TimedOut,
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
    use procbroker_protocol::{Exit, ExitReason, ExitStatus, Timestamp};

    use super::*;

    #[test]
    fn every_kind_of_error_has_its_exit_status() {
        let spawn = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() };
        let exit = Exit {
            status: ExitStatus::Code(1),
            reason: ExitReason::StartFailed,
            forced: false,
            steps: Vec::new(),
            at: Timestamp::default(),
        };
        let cases = [
            (ErrorKind::ParseError, 1),
            (ErrorKind::InvalidRequest, 1),
            (ErrorKind::MethodNotFound, 1),
            (ErrorKind::InvalidParams, 2),
            (ErrorKind::NameTaken, 4),
            (ErrorKind::NotFound, 3),
            (ErrorKind::PermissionDenied, 6),
            (ErrorKind::LimitExceeded, 4),
            (ErrorKind::SpawnFailed(spawn), 1),
            (ErrorKind::StartFailed { exit: Box::new(exit), log_tail: String::new() }, 1),
            (ErrorKind::ShuttingDown, 1),
            (ErrorKind::Timeout, 7),
            (ErrorKind::Overloaded, 1),
            (ErrorKind::Unsupported, 1),
            (ErrorKind::Internal, 1),
        ];
        for (kind, status) in cases {
            assert_eq!(CommandStatus::from(&kind) as u8, status, "{kind}");
        }
        assert_eq!(CommandStatus::NoBroker as u8, 5);
    }
}
