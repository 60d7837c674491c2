//! Who reads the result: a person at a terminal, or a program.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::SystemTime;

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use procbroker_protocol::Timestamp;

use super::arguments::PrintArguments;

/// The width of a terminal that does not tell its own.
const WIDTH_UNKNOWN: u16 = 80;

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Style {
    /// The object of the wire, in one line of JSON.
    Json,
    /// Fields with tabs between them, for other programs.
    Plain,
    /// Tables and lines for people.
    Terminal(Screen),
}

/// What a person sees the result on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Screen {
    /// The columns of the terminal.
    pub(in crate::cli) width: u16,
    /// Whether to use colours.
    pub(in crate::cli) colours: bool,
    /// The time that ages are told from.
    pub(in crate::cli) now: Timestamp,
}

impl Style {
    /// The style for what standard output is.
    pub(in crate::cli) fn of_standard_output(print: PrintArguments) -> Self {
        if print.json {
            Self::Json
        } else if std::io::stdout().is_terminal() {
            let width = Table::new().width().filter(|width| *width > 0).unwrap_or(WIDTH_UNKNOWN);
            let colours = wants_colours(|name| std::env::var_os(name));
            Self::Terminal(Screen { width, colours, now: Timestamp::from(SystemTime::now()) })
        } else {
            Self::Plain
        }
    }
}

impl Screen {
    /// An empty table without lines, as wide as the terminal.
    pub(super) fn table(self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.force_no_tty().set_width(self.width);
        if self.colours {
            table.enforce_styling();
        }
        table
    }
}

/// The text in a colour, where colours are wanted.
pub(super) fn painted(text: &str, colour: Color, screen: Screen) -> String {
    let mut table = screen.table();
    table.add_row([Cell::new(text).fg(colour)]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 0)).set_constraint(ColumnConstraint::ContentWidth);
    }
    table.trim_fmt()
}

/// Whether a terminal gets colours: not where `NO_COLOR` is set to anything (no-color.org), and not a dumb one.
fn wants_colours(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && variable("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_left_out_where_they_are_not_wanted() {
        let with = |pairs: &'static [(&str, &str)]| {
            wants_colours(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert!(with(&[("TERM", "xterm")]));
        assert!(with(&[("TERM", "xterm"), ("NO_COLOR", "")]));
        assert!(!with(&[("TERM", "xterm"), ("NO_COLOR", "1")]));
        assert!(!with(&[("TERM", "dumb")]));
        assert!(!with(&[]));
    }
}
