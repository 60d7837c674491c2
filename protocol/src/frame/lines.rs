//! Lines of the textual encoding, each ended by LF or CR LF; blank ones are skipped.

use memchr::memchr;

use super::backlog::Backlog;
use super::{Framed, LINE_HEAD_BYTES_MAX};

/// Cuts a stream into lines.
#[derive(Debug)]
pub struct Lines {
    cap: usize,
    backlog: Backlog,
    /// How many of the backlog's bytes are known to hold no line's end.
    scanned: usize,
    /// Whether the rest of an oversize line is being dropped.
    skipping: bool,
}

impl Lines {
    /// A framer for lines of at most `cap` bytes, without their ends.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { cap, backlog: Backlog::default(), scanned: 0, skipping: false }
    }

    /// Takes bytes as they came from the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        if self.skipping {
            let Some(end) = memchr(b'\n', chunk) else { return };
            self.skipping = false;
            rest = chunk.get(end + 1..).unwrap_or_default();
        }
        // One more than the cap: the CR of the longest line, whose LF is still to come.
        self.backlog.append(rest, self.cap.saturating_add(1));
    }

    /// The next line that is there, if any.
    pub fn next_message(&mut self) -> Option<Framed<'_>> {
        loop {
            self.backlog.reclaim();
            let unread = self.backlog.unread();
            let Some(offset) = memchr(b'\n', unread.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = unread.len();
                let length = without_return(unread).len();
                return if length > self.cap { Some(self.skip_begun()) } else { None };
            };
            let end = self.scanned + offset;
            self.scanned = 0;
            let line = without_return(unread.get(..end).unwrap_or_default());
            let length = line.len();
            if length <= self.cap && line.trim_ascii().is_empty() {
                self.backlog.lend(end + 1);
                continue;
            }
            return Some(shown(self.cap, length, self.backlog.lend(end + 1)));
        }
    }

    /// Takes note of the end of the stream: what is left is a line too, as a JSON object says itself where
    /// it ends. To be called when [`next_message`](Self::next_message) has nothing more.
    pub fn finish(&mut self) -> Option<Framed<'_>> {
        self.backlog.reclaim();
        self.scanned = 0;
        let line = without_return(self.backlog.unread());
        let (length, blank) = (line.len(), line.trim_ascii().is_empty());
        let line = self.backlog.lend(usize::MAX);
        if blank { None } else { Some(shown(self.cap, length, line)) }
    }

    /// Whether a line has begun and not ended: the time for which that may last is bounded by who reads.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.skipping || !self.backlog.unread().is_empty()
    }

    /// How many bytes are kept of what is not complete, or not taken yet.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.backlog.unread().len()
    }

    /// Drops the beginning of a line that is over the cap already, and shows how it began.
    fn skip_begun(&mut self) -> Framed<'_> {
        self.skipping = true;
        self.scanned = 0;
        shown(self.cap, usize::MAX, self.backlog.lend(usize::MAX))
    }
}

/// What there is to say of a line of this length that begins with these bytes.
fn shown(cap: usize, length: usize, bytes: &[u8]) -> Framed<'_> {
    if length > cap {
        // The same whatever the pieces in which the line came.
        let head = bytes.get(..cap.min(LINE_HEAD_BYTES_MAX)).unwrap_or_default();
        Framed::Oversize { length: cap.saturating_add(1), head }
    } else {
        Framed::Message(bytes.get(..length).unwrap_or_default())
    }
}

/// A line without the CR at its end.
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_line_ends_are_taken_and_blank_lines_skipped() {
        let mut lines = Lines::new(8);
        lines.push(b"\n\r\n  \t\none\r\ntwo\n\n3");
        assert_eq!(lines.next_message(), Some(Framed::Message(b"one")));
        assert_eq!(lines.next_message(), Some(Framed::Message(b"two")));
        assert_eq!(lines.next_message(), None);
        assert!(lines.is_partial());
        lines.push(b"\n");
        assert_eq!(lines.next_message(), Some(Framed::Message(b"3")));
        assert_eq!(lines.next_message(), None);
        assert!(!lines.is_partial());
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let mut lines = Lines::new(8);
        lines.push(b"one\ntwo\r");
        assert_eq!(lines.next_message(), Some(Framed::Message(b"one")));
        assert_eq!(lines.next_message(), None);
        assert_eq!(lines.finish(), Some(Framed::Message(b"two")));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_line_of_exactly_the_cap_is_taken_with_either_end() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\r");
        assert_eq!(lines.next_message(), None);
        lines.push(b"\n1234\n");
        assert_eq!(lines.next_message(), Some(Framed::Message(b"1234")));
        assert_eq!(lines.next_message(), Some(Framed::Message(b"1234")));
        lines.push(b"12345");
        assert_eq!(lines.next_message(), Some(Framed::Oversize { length: 5, head: b"1234" }));
    }

    #[test]
    fn an_oversize_line_is_reported_once_and_skipped_to_its_end() {
        let mut lines = Lines::new(64);
        lines.push(&[b'x'; 65]);
        assert_eq!(lines.next_message(), Some(Framed::Oversize { length: 65, head: &[b'x'; 64] }));
        for _ in 0..1000 {
            lines.push(&[b'x'; 4096]);
            assert_eq!(lines.next_message(), None);
        }
        assert!(lines.is_partial());
        assert!(lines.backlog.capacity() <= 4096);
        lines.push(b"x\nafter\n");
        assert_eq!(lines.next_message(), Some(Framed::Message(b"after")));
        lines.push(&[b'y'; 100]);
        assert!(matches!(lines.next_message(), Some(Framed::Oversize { .. })));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_last_line_over_the_cap_is_oversize_too() {
        let mut lines = Lines::new(2);
        lines.push(b"123");
        assert_eq!(lines.finish(), Some(Framed::Oversize { length: 3, head: b"12" }));
    }
}
