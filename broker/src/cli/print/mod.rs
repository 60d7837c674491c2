//! How results are shown: as tables and lines on a terminal, as fields between tabs elsewhere.

mod arguments;
pub(super) mod elapsed;
pub(super) mod escape;
pub(super) mod sheet;
mod style;
pub(super) mod table;
mod users;
pub(super) mod width;
pub(super) mod words;

use super::command_status::CommandStatus;
pub(super) use arguments::PrintArguments;
pub(super) use style::{Screen, Style};

/// What a command prints, and its exit status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommandOutput {
    /// What goes to standard output.
    pub(super) result: String,
    /// For standard error: whole lines.
    pub(super) remarks: String,
    pub(super) status: CommandStatus,
}

impl CommandOutput {
    /// A result and nothing else.
    pub(super) fn done(result: String) -> Self {
        Self { result, remarks: String::new(), status: CommandStatus::Done }
    }

    /// Nothing to show, and one line that says so.
    pub(super) fn nothing(remark: &str) -> Self {
        Self::done(String::new()).with_remark(remark)
    }

    /// This, and one line more on standard error.
    pub(super) fn with_remark(mut self, remark: &str) -> Self {
        self.remarks.push_str("procbroker: ");
        self.remarks.push_str(remark);
        self.remarks.push('\n');
        self
    }
}
