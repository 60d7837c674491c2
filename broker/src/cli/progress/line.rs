//! One line of what is waited for, as wide as the terminal.

use unicode_width::UnicodeWidthStr as _;

use crate::cli::print::width::cut;

/// The least that is shown of a name, in columns.
const TITLE_WIDTH_MIN: usize = 8;

/// A line of what is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The child that is waited for; empty where it is not one alone.
    pub(super) title: String,
    /// What it is waited for.
    pub(super) what: String,
}

impl Line {
    /// About more than one child, or none.
    pub(super) fn of_several(what: String) -> Self {
        Self { title: String::new(), what }
    }

    /// In so many columns. What it waits for is worth more than the end of a name.
    pub(super) fn fitted(&self, columns: usize) -> String {
        let Self { title, what } = self;
        if title.is_empty() {
            return cut(what, columns);
        }
        let left = columns.saturating_sub(what.width() + 2).max(TITLE_WIDTH_MIN);
        cut(&format!("{}  {what}", cut(title, left)), columns)
    }
}
