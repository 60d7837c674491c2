//! What `logs` answers: all that is kept of an output, or its last lines.
//!
//! Where older output was released, the text begins with the first whole line after it. A line that is so long that
//! its end is not near, and one that nothing follows, is shown from where it is kept.

use std::path::Path;

use super::LogsError;
use super::output::{Found, OutputFile};
use super::text::{first_line, fitting_end, lossy, unfinished};

/// How much is read at a time on the way back from the end, in bytes.
const BLOCK_BYTES: u64 = 64 << 10;

/// A part of an output, up to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The text; bytes that are not UTF-8 are U+FFFD.
    pub text: String,
    /// Whether older output that was asked for is missing, because it was released or because it did not fit.
    pub truncated: bool,
    /// Where the output goes on: the position of the first byte that is not in the text.
    pub next: u64,
}

/// Whether the output is read on from the end of an excerpt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// No: a character that is cut at the end is shown as U+FFFD.
    Nothing,
    /// Yes: a character that is cut at the end belongs to what follows.
    Follows,
}

/// Reads the last `tail` lines of an output, or all that is kept, as far as it takes at most `text_bytes_max` as a JSON
/// string. A file that is not there is empty. This may wait for the disk.
///
/// # Errors
/// When the system refuses.
pub fn read(
    path: &Path,
    tail: Option<u32>,
    continuation: Continuation,
    text_bytes_max: usize,
) -> Result<Excerpt, LogsError> {
    let Some(output) = OutputFile::open(path)? else { return Ok(Excerpt::default()) };
    let end = output.end()?;
    // No byte takes less than one, so what is further back cannot fit.
    let floor = output.first_kept(0)?.max(end.saturating_sub(text_bytes_max as u64)).min(end);
    let start = match tail {
        None => Start::cut_at(floor),
        Some(lines) => start_of_tail(&output, floor, end, lines)?,
    };
    let length = usize::try_from(end.saturating_sub(start.at)).unwrap_or(usize::MAX);
    let found = output.read(start.at, length)?;
    Ok(found.map_or_else(Excerpt::default, |found| excerpt(found, start, continuation, text_bytes_max)))
}

/// Where an excerpt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    at: u64,
    /// Whether something that was asked for is before it.
    lacking: bool,
}

impl Start {
    /// Where nothing is kept before.
    fn cut_at(at: u64) -> Self {
        Self { at, lacking: at > 0 }
    }
}

/// Goes back from the end of an output until it has seen so many lines, or the floor.
fn start_of_tail(output: &OutputFile, floor: u64, end: u64, lines: u32) -> Result<Start, LogsError> {
    if lines == 0 {
        return Ok(Start { at: end, lacking: false });
    }
    let mut missing = lines;
    let mut to = end;
    while to > floor {
        let from = to.saturating_sub(BLOCK_BYTES).max(floor);
        let length = usize::try_from(to - from).unwrap_or(usize::MAX);
        let Some(Found { at, bytes }) = output.read(from, length)? else { break };
        for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = at.saturating_add(index as u64).saturating_add(1);
            // The end of the last line begins no other one.
            if after == end {
                continue;
            }
            missing -= 1;
            if missing == 0 {
                return Ok(Start { at: after, lacking: false });
            }
        }
        if at > from {
            // It was released meanwhile.
            return Ok(Start::cut_at(at));
        }
        to = from;
    }
    Ok(Start::cut_at(floor))
}

fn excerpt(found: Found, start: Start, continuation: Continuation, text_bytes_max: usize) -> Excerpt {
    let Found { at, mut bytes } = found;
    let mut truncated = start.lacking || at > start.at;
    match continuation {
        Continuation::Nothing => {}
        Continuation::Follows => bytes.truncate(bytes.len().saturating_sub(unfinished(&bytes))),
    }
    let next = at.saturating_add(bytes.len() as u64);
    if truncated {
        bytes.drain(..first_line(&bytes));
    }
    let mut text = lossy(bytes);
    let fitting = fitting_end(&text, text_bytes_max);
    if fitting > 0 {
        truncated = true;
        text.drain(..fitting);
        text.drain(..first_line(text.as_bytes()));
    }
    Excerpt { text, truncated, next }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use nix::fcntl::{FallocateFlags, fallocate};

    use super::*;

    const ROOM: usize = 64 << 20;

    struct Output {
        folder: tempfile::TempDir,
    }

    impl Output {
        fn of(bytes: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.out"), bytes).unwrap();
            Self { folder }
        }

        fn release(&self, length: u64) -> &Self {
            let file = File::options().write(true).open(self.folder.path().join("a.out")).unwrap();
            let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&file, mode, 0, i64::try_from(length).unwrap()).unwrap();
            self
        }

        fn read(&self, tail: Option<u32>, continuation: Continuation, text_bytes_max: usize) -> Excerpt {
            read(&self.folder.path().join("a.out"), tail, continuation, text_bytes_max).unwrap()
        }

        fn tail(&self, lines: u32) -> (String, bool) {
            let Excerpt { text, truncated, next: _ } = self.read(Some(lines), Continuation::Nothing, ROOM);
            (text, truncated)
        }
    }

    fn numbered(lines: std::ops::Range<u32>) -> String {
        lines.map(|number| format!("line {number:08}\n")).collect::<Vec<_>>().concat()
    }

    fn whole(text: &str) -> (String, bool) {
        (text.to_owned(), false)
    }

    #[test]
    fn a_file_that_is_not_there_or_empty_has_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let none = read(&folder.path().join("a.out"), None, Continuation::Nothing, ROOM).unwrap();
        assert_eq!(none, Excerpt::default());
        assert_eq!(Output::of(b"").read(Some(3), Continuation::Follows, ROOM), Excerpt::default());
    }

    #[test]
    fn everything_is_given_where_nothing_was_released() {
        let text = numbered(0..10_000);
        let excerpt = Output::of(text.as_bytes()).read(None, Continuation::Follows, ROOM);
        assert_eq!(excerpt, Excerpt { next: text.len() as u64, text, truncated: false });
    }

    #[test]
    fn a_tail_is_so_many_lines_with_or_without_the_end_of_the_last() {
        for (content, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc", 0, ""),
            ("a\nb\n", 3, "a\nb\n"),
            ("\n\n\n", 2, "\n\n"),
            ("a", 1, "a"),
        ] {
            assert_eq!(Output::of(content.as_bytes()).tail(lines), whole(expected), "{content:?} {lines}");
        }
    }

    #[test]
    fn a_tail_may_span_many_blocks_and_a_line_too() {
        let output = Output::of(numbered(0..50_000).as_bytes());
        assert_eq!(output.tail(20_000), whole(&numbered(30_000..50_000)));
        let long = format!("first\n{}\nlast\n", "x".repeat(300_000));
        assert_eq!(Output::of(long.as_bytes()).tail(2), whole(&long["first\n".len()..]));
    }

    #[test]
    fn after_what_was_released_the_text_begins_with_a_whole_line() {
        let output = Output::of(numbered(0..100_000).as_bytes());
        let (text, truncated) = output.release(1 << 20).tail(u32::MAX);
        assert!(truncated && text == numbered(74_899..100_000), "{:?}", text.lines().next());
        let all = output.read(None, Continuation::Nothing, ROOM);
        assert_eq!((all.text, all.truncated, all.next), (text, true, 1_400_000));
        assert_eq!(output.tail(3), whole(&numbered(99_997..100_000)));
    }

    #[test]
    fn a_line_that_has_lost_its_beginning_and_is_the_only_one_is_shown() {
        let text = "\u{20ac}".repeat(500_000);
        let excerpt = Output::of(text.as_bytes()).release(1 << 20).read(None, Continuation::Nothing, ROOM);
        assert!(excerpt.truncated && !excerpt.text.is_empty());
        assert!(excerpt.text.chars().all(|character| character == '\u{20ac}'));
    }

    #[test]
    fn output_that_was_released_entirely_is_truncated_to_nothing() {
        let excerpt =
            Output::of(&vec![b'a'; 1 << 20]).release(1 << 20).read(None, Continuation::Nothing, ROOM);
        assert_eq!(excerpt, Excerpt { text: String::new(), truncated: true, next: 1 << 20 });
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_whole_lines() {
        let output = Output::of("\u{1}\u{1}\nab\ncd\n".as_bytes());
        for (room, expected) in [(22, "\u{1}\u{1}\nab\ncd\n"), (21, "ab\ncd\n"), (7, "cd\n"), (4, "cd\n")] {
            let Excerpt { text, truncated, next } = output.read(None, Continuation::Nothing, room);
            assert_eq!((text.as_str(), truncated, next), (expected, room < 22, 9), "{room}");
        }
    }

    #[test]
    fn a_character_that_is_cut_at_the_end_is_left_for_what_follows() {
        let output = Output::of(b"ab\xe2\x82");
        let followed = output.read(None, Continuation::Follows, ROOM);
        assert_eq!(followed, Excerpt { text: "ab".to_owned(), truncated: false, next: 2 });
        assert_eq!(output.tail(9), whole("ab\u{fffd}"));
    }
}
