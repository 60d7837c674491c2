//! Children: a table of them for people, a line for each for programs.

use std::fmt::Write as _;
use std::sync::Arc;

use comfy_table::{Cell, Color, ColumnConstraint, Row, Table, Width};
use procbroker_protocol::{Child, ChildState, Exit, Timestamp};

use super::elapsed;
use super::escape::command_line;
use super::style::Screen;
use super::words::{ABSENT, exit_word, or_absent, title};

/// One line for each child, its fields between tabs. The fields and their order are documented in the help.
pub(in crate::cli) fn lines(children: &[Arc<Child>]) -> String {
    let mut out = String::new();
    for child in children {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            child.id,
            child.name.as_ref().map_or(ABSENT, |name| name.as_str()),
            child.state.as_str(),
            or_absent(child.pid.as_ref()),
            or_absent(child.started_at.as_ref()),
            child.restarts,
            child.exit.as_ref().map_or_else(|| ABSENT.to_owned(), |exit| exit_word(exit.status)),
            command_line(&child.command),
        );
    }
    out
}

/// The table of children. Rows have one line each: the command is cut where the terminal ends.
pub(in crate::cli) fn table(children: &[Arc<Child>], exits: bool, screen: Screen) -> String {
    let mut table = screen.table();
    let mut header = vec!["NAME", "STATE", "PID", "UPTIME", "RESTARTS"];
    if exits {
        header.push("EXIT");
    }
    header.push("COMMAND");
    let command_column = header.len().saturating_sub(1);
    table.set_header(header);
    for child in children {
        table.add_row(row(child, exits, screen.now));
    }
    arrange(&mut table, command_column);
    table.trim_fmt() + "\n"
}

fn row(child: &Child, exits: bool, now: Timestamp) -> Row {
    let mut row = Row::new();
    row.max_height(1);
    row.add_cell(Cell::new(title(child)));
    row.add_cell(Cell::new(child.state.as_str()).fg(colour(child.state)));
    row.add_cell(Cell::new(or_absent(child.pid.as_ref())));
    row.add_cell(Cell::new(uptime(child, now)));
    row.add_cell(Cell::new(child.restarts));
    if exits {
        let exit = child.exit.as_ref();
        row.add_cell(Cell::new(exit.map_or_else(|| ABSENT.to_owned(), |exit| exit_cell(exit, now))));
    }
    // A command is cut at the last column that fits, not at the last word.
    row.add_cell(Cell::new(command_line(&child.command)).set_delimiter('\n'));
    row
}

/// The least that is shown of a command, as wide as its heading, however narrow the terminal.
const COMMAND_WIDTH_MIN: Width = Width::Fixed(7);

/// Every column is as wide as what is in it, and the command gets what is left of the terminal.
fn arrange(table: &mut Table, command_column: usize) {
    for (index, column) in table.column_iter_mut().enumerate() {
        if index == command_column {
            column.set_padding((0, 0)).set_constraint(ColumnConstraint::LowerBoundary(COMMAND_WIDTH_MIN));
        } else {
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

fn colour(state: ChildState) -> Color {
    match state {
        ChildState::Running => Color::Green,
        ChildState::Starting | ChildState::Stopping | ChildState::Cleaning | ChildState::Backoff => {
            Color::Yellow
        }
        ChildState::Ended => Color::DarkGrey,
    }
}

/// How long its process has run; nothing when it has none.
fn uptime(child: &Child, now: Timestamp) -> String {
    match (child.pid, child.started_at) {
        (Some(_), Some(started_at)) => elapsed::between(started_at, now),
        (None, _) | (_, None) => ABSENT.to_owned(),
    }
}

fn exit_cell(exit: &Exit, now: Timestamp) -> String {
    let forced = if exit.forced { ", forced" } else { "" };
    let ago = elapsed::between(exit.at, now);
    format!("{} ({}{forced}) {ago} ago", exit_word(exit.status), exit.reason.as_str())
}
