//! A sheet: everything about one thing, a line for each fact.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{ColumnConstraint, Row};
use procbroker_protocol::{Timestamp, duration};

use super::elapsed;
use super::style::Screen;
use super::words::ABSENT;

/// How many columns stand between a key and its value.
const GAP: u16 = 2;

/// One fact: the path of its JSON member, its value where there is one, and what helps people to read it.
pub(in crate::cli) struct SheetRow {
    key: &'static str,
    value: Option<String>,
    /// The value in the words of people, where it has others.
    spoken: Option<String>,
    remark: Option<String>,
}

impl SheetRow {
    pub(in crate::cli) fn new(key: &'static str, value: impl ToString) -> Self {
        Self::maybe(key, Some(value))
    }

    pub(in crate::cli) fn maybe(key: &'static str, value: Option<impl ToString>) -> Self {
        Self { key, value: value.map(|value| value.to_string()), spoken: None, remark: None }
    }

    /// A number of bytes: for people in KiB and larger.
    pub(in crate::cli) fn bytes(key: &'static str, bytes: Option<u64>) -> Self {
        Self { spoken: bytes.map(self::bytes), ..Self::maybe(key, bytes) }
    }

    /// A length of time: for people in its units, and for programs in seconds, as on the wire.
    pub(in crate::cli) fn lasting(key: &'static str, time: Option<Duration>) -> Self {
        let spoken = time.map(|time| duration::display(time).to_string());
        Self { spoken, ..Self::maybe(key, time.map(seconds)) }
    }

    /// A moment, with how long ago it was when that is asked for.
    pub(in crate::cli) fn moment(key: &'static str, at: Option<Timestamp>, now: Option<Timestamp>) -> Self {
        let remark = at.zip(now).map(|(at, now)| format!("{} ago", elapsed::between(at, now)));
        Self { remark, ..Self::maybe(key, at) }
    }
}

/// A number of bytes, in the largest unit of which there is one, with one decimal where it says something.
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some((unit, shift)) =
        units.iter().zip((10_u32..).step_by(10)).take_while(|(_, shift)| bytes >> shift > 0).last()
    else {
        return format!("{bytes} B");
    };
    let (whole, rest) = (bytes >> shift, bytes & ((1 << shift) - 1));
    // The rest has few bits more than the unit before.
    let tenth = (u128::from(rest) * 10) >> shift;
    if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") }
}

/// A length of time as a number of seconds, with as many decimals as it takes.
pub(super) fn seconds(time: Duration) -> String {
    let (whole, nanos) = (time.as_secs(), time.subsec_nanos());
    let decimals = format!("{nanos:09}");
    let decimals = decimals.trim_end_matches('0');
    if decimals.is_empty() { whole.to_string() } else { format!("{whole}.{decimals}") }
}

/// Lines of key, tab, value: all of them, with `-` for a value that is absent.
pub(in crate::cli) fn lines(facts: &[SheetRow]) -> String {
    let mut out = String::new();
    for SheetRow { key, value, spoken: _, remark: _ } in facts {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{key}\t{}", value.as_deref().unwrap_or(ABSENT));
    }
    out
}

/// The least that is shown of a value beside its key, in columns. Where that is too much, it stands below the key.
const VALUE_WIDTH_MIN: usize = 24;

/// A table of the facts that are there.
pub(in crate::cli) fn table(facts: &[SheetRow], screen: Screen) -> String {
    let keys = facts.iter().map(|fact| fact.key.len()).max().unwrap_or(0);
    let beside = keys + usize::from(GAP) + VALUE_WIDTH_MIN <= usize::from(screen.width);
    let mut out = String::new();
    let mut table = screen.table();
    for SheetRow { key, value, spoken, remark } in facts {
        let Some(value) = spoken.as_ref().or(value.as_ref()) else { continue };
        let remark = remark.as_ref().map_or_else(String::new, |remark| format!(" ({remark})"));
        if beside {
            table.add_row(Row::from([(*key).to_owned(), format!("{value}{remark}")]));
        } else {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{key}\n{}", below(&format!("{value}{remark}"), screen));
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

/// A value below its key, on as many lines as it takes.
fn below(value: &str, screen: Screen) -> String {
    let mut table = screen.table();
    table.add_row([value]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((GAP, 0));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_sizes_in_the_largest_unit_and_programs_in_bytes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_855_488, "1.7 MiB"),
            (256 << 20, "256 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(self::bytes(bytes), text);
        }
        let facts = [SheetRow::bytes("usage.memory", Some(2048)), SheetRow::bytes("usage.memory_peak", None)];
        assert_eq!(lines(&facts), "usage.memory\t2048\nusage.memory_peak\t-\n");
        let screen = Screen { width: 80, colours: false, now: Timestamp::default() };
        assert_eq!(table(&facts, screen), "usage.memory  2 KiB\n");
    }

    #[test]
    fn people_read_times_in_their_units_and_programs_in_seconds() {
        let cases =
            [(0, "0"), (1, "0.001"), (250, "0.25"), (1_500, "1.5"), (60_000, "60"), (90_010, "90.01")];
        for (millis, text) in cases {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
        let facts = [SheetRow::lasting("usage.cpu", Some(Duration::from_millis(61_250)))];
        assert_eq!(lines(&facts), "usage.cpu\t61.25\n");
        let screen = Screen { width: 80, colours: false, now: Timestamp::default() };
        assert_eq!(table(&facts, screen), "usage.cpu  1m 1s 250ms\n");
    }

    #[test]
    fn a_value_that_is_wider_than_the_terminal_goes_on_below() {
        let long = "one two ".repeat(20) + &"x".repeat(100);
        let facts = [SheetRow::new("limits.max_kept_bytes_per_user", long), SheetRow::new("state", "ended")];
        for width in [20, 40, 80] {
            let screen = Screen { width, colours: false, now: Timestamp::default() };
            let text = table(&facts, screen);
            // The key itself is not broken.
            let lines = text.lines().filter(|line| !line.starts_with("limits"));
            assert!(lines.clone().all(|line| line.len() <= usize::from(width)), "{width}:\n{text}");
            assert_eq!(text.matches('x').count(), 101, "{text}");
        }
        let screen = Screen { width: 40, colours: false, now: Timestamp::default() };
        assert!(table(&facts, screen).ends_with("\nstate\n  ended\n"));
    }
}
