//! What the broker answers when something could not be done.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::child::{ChildId, ChildState, Exit, ExitStatus};

/// A refusal or failure: its kind for programs, its message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind, with the facts that belong to it.
    pub kind: ErrorKind,
    /// What was attempted, on what, and what to do.
    pub message: String,
}

/// The kinds of errors.
///
/// The order of the variants is part of the binary encoding: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The message is not JSON.
    ParseError,
    /// The message is JSON or a frame, and no request.
    InvalidRequest,
    /// There is no such method.
    MethodNotFound,
    /// The parameters are not those of the method.
    InvalidParams,
    /// A live child holds the name: this one, where the caller may see it.
    NameTaken(Option<Holder>),
    /// There is no such child, or it is not the caller's to see.
    NotFound,
    /// The caller may not do this.
    PermissionDenied,
    /// A bound on children or messages is reached.
    LimitExceeded,
    /// The process could not be started.
    SpawnFailed(SpawnFailure),
    /// The child ended before it was ready.
    StartFailed {
        /// How it ended.
        exit: Box<Exit>,
        /// The last of what it wrote.
        log_tail: String,
    },
    /// The broker is shutting down and starts nothing any more.
    ShuttingDown,
    /// It took longer than the caller wanted to wait, or a child longer than it had to get ready: then with why the last
    /// command that was to find it ready has not, where that is known.
    Timeout(Option<Box<ProbeFailure>>),
    /// The broker has too much to do for this caller.
    Overloaded,
    /// This broker, or this machine, does not offer it.
    Unsupported,
    /// The broker itself failed.
    Internal,
}

/// The child that holds a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its id.
    pub id: ChildId,
    /// Where it is in its life.
    pub state: ChildState,
}

/// Where and why starting a process failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnFailure {
    /// The number of the system's error.
    pub errno: i32,
    /// Its name, such as `ENOENT`.
    pub errno_name: String,
    /// The step that failed: `exec`, `cwd`, `user`, `rlimits` and so on.
    pub step: String,
}

/// Why a command has not found a child ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeFailure {
    /// It could not be started.
    NotStarted(SpawnFailure),
    /// It ended in this way.
    Ended(ExitStatus),
    /// It took longer than it may, and was killed.
    TimedOut,
}

impl ErrorKind {
    /// The kind as `data.kind` has it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::InvalidParams => "invalid_params",
            Self::NameTaken(_) => "name_taken",
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::LimitExceeded => "limit_exceeded",
            Self::SpawnFailed(_) => "spawn_failed",
            Self::StartFailed { .. } => "start_failed",
            Self::ShuttingDown => "shutting_down",
            Self::Timeout(_) => "timeout",
            Self::Overloaded => "overloaded",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// The code of the JSON-RPC error: the standard's own, or a small positive number of ours.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::NameTaken(_) => 1,
            Self::NotFound => 2,
            Self::PermissionDenied => 3,
            Self::LimitExceeded => 4,
            Self::SpawnFailed(_) => 5,
            Self::StartFailed { .. } => 6,
            Self::ShuttingDown => 7,
            Self::Timeout(_) => 8,
            Self::Overloaded => 9,
            Self::Unsupported => 10,
            Self::Internal => 11,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Error {
    /// An error of this kind with this message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
