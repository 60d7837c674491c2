//! How results are shown: as tables and lines on a terminal, as fields between tabs elsewhere.

pub(super) mod elapsed;
pub(super) mod escape;
pub(super) mod sheet;
mod style;
pub(super) mod table;
pub(super) mod words;

use super::command_status::CommandStatus;
pub(super) use style::{Screen, Style};

/// What a command prints, and its exit status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// For standard output.
    pub(super) result: String,
    /// For standard error: one line, without its end.
    pub(super) note: Option<String>,
    /// The exit status.
    pub(super) status: CommandStatus,
}

impl Report {
    /// A result and nothing else.
    pub(super) fn done(result: String) -> Self {
        Self { result, note: None, status: CommandStatus::Done }
    }

    /// Nothing to show, and one line that says so.
    pub(super) fn nothing(note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..Self::done(String::new()) }
    }
}
