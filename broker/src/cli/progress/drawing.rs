//! The lines that stand on the terminal, in the place of those before.

use std::cell::Cell;
use std::fmt::Write as _;

use terminal_size::{Height, Width, terminal_size_of};

use super::line::Line;
use crate::cli::output::complain;

/// The columns and lines of a terminal that does not tell.
const SIZE_UNKNOWN: (u16, u16) = (80, 24);

/// The lines that stand on the terminal.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    height: Cell<usize>,
}

impl Drawing {
    /// Puts these lines in the place of those before.
    pub(super) fn show(&self, lines: &[Line]) {
        let size = terminal_size_of(std::io::stderr());
        let (columns, rows) = size.map_or(SIZE_UNKNOWN, |(Width(columns), Height(rows))| (columns, rows));
        let mut out = String::new();
        if self.height.get() > 0 {
            // Up to the first of them, and everything from there is erased (ECMA-48: CUU, ED).
            let _ = write!(out, "\r\x1b[{}A\x1b[J", self.height.get());
        }
        // A line at the right edge would wrap, and one above the top can't be reached again.
        let shown = lines.len().min(usize::from(rows).saturating_sub(2));
        for line in lines.iter().take(shown) {
            let _ = writeln!(out, "{}", line.fitted(usize::from(columns).saturating_sub(1)));
        }
        self.height.set(shown);
        complain(&out);
    }
}
