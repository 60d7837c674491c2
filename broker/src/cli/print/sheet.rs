//! A sheet: everything about one thing, a line for each fact.

use std::fmt::Write as _;

use comfy_table::{ColumnConstraint, Row};
use procbroker_protocol::Timestamp;

use super::elapsed;
use super::style::Screen;
use super::words::ABSENT;

/// How many columns stand between a key and its value.
const GAP: u16 = 2;

/// One fact: the path of its JSON member, its value where there is one, and what helps people to read it.
pub(in crate::cli) struct Fact {
    key: &'static str,
    value: Option<String>,
    remark: Option<String>,
}

impl Fact {
    pub(in crate::cli) fn new(key: &'static str, value: impl ToString) -> Self {
        Self::maybe(key, Some(value))
    }

    pub(in crate::cli) fn maybe(key: &'static str, value: Option<impl ToString>) -> Self {
        Self { key, value: value.map(|value| value.to_string()), remark: None }
    }

    /// A moment, with how long ago it was when that is asked for.
    pub(in crate::cli) fn moment(key: &'static str, at: Option<Timestamp>, now: Option<Timestamp>) -> Self {
        let remark = at.zip(now).map(|(at, now)| format!("{} ago", elapsed::between(at, now)));
        Self { remark, ..Self::maybe(key, at) }
    }
}

/// Lines of key, tab, value: all of them, with `-` for a value that is absent.
pub(in crate::cli) fn lines(facts: &[Fact]) -> String {
    let mut out = String::new();
    for Fact { key, value, remark: _ } in facts {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{key}\t{}", value.as_deref().unwrap_or(ABSENT));
    }
    out
}

/// The least that is shown of a value beside its key, in columns. Where that is too much, it stands below the key.
const VALUE_WIDTH_MIN: usize = 24;

/// A table of the facts that are there.
pub(in crate::cli) fn table(facts: &[Fact], screen: Screen) -> String {
    let keys = facts.iter().map(|fact| fact.key.len()).max().unwrap_or(0);
    let beside = keys + usize::from(GAP) + VALUE_WIDTH_MIN <= usize::from(screen.width);
    let mut out = String::new();
    let mut table = screen.table();
    for Fact { key, value, remark } in facts {
        let Some(value) = value else { continue };
        let remark = remark.as_ref().map_or_else(String::new, |remark| format!(" ({remark})"));
        if beside {
            table.add_row(Row::from([(*key).to_owned(), format!("{value}{remark}")]));
        } else {
            // A terminal breaks a long value better than a column of a few characters.
            // Writing to a string does not fail.
            let _ = writeln!(out, "{key}\n  {value}{remark}");
        }
    }
    if !beside {
        return out;
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, GAP)).set_constraint(ColumnConstraint::ContentWidth);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_padding((0, 0));
    }
    table.trim_fmt() + "\n"
}
