//! What `logs` answers: all that is kept of an output, its last lines, or those since a time.
//!
//! Where older output is gone, the text begins with the first whole line after it. A line that is so long that
//! its end is not near, and one that nothing follows, is shown from where it is kept.

use procbroker_protocol::Timestamp;

use super::error::LogsError;
use super::output::{KeptStream, OutputSpan};
use super::stamps::Stamps;
use super::text::{first_line, fitting_end, lossy, unfinished};

/// How much is read at a time on the way back from the end, in bytes.
const BLOCK_BYTES: u64 = 64 << 10;

/// A part of an output, up to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// The text; bytes that are not UTF-8 are U+FFFD.
    pub text: String,
    /// Whether output that was asked for is missing, because it is gone, did not fit, or could not be kept.
    pub truncated: bool,
    /// How many bytes of the stream could not be kept.
    pub dropped: u64,
    /// Where the output goes on: the position of the first byte that is not in the text.
    pub next: u64,
    /// How its lines are stamped from there on.
    pub stamps: Stamps,
}

/// Which part of an output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExcerptRange {
    /// The last lines only.
    pub tail: Option<u32>,
    /// Only what was written at this time or later.
    pub since: Option<Timestamp>,
    /// What comes from this position on, instead of the last that fits.
    pub from: Option<u64>,
    /// Whether each line begins with its time.
    pub stamps: Stamps,
    /// Whether it is read on from the end.
    pub continuation: Continuation,
    /// How much room there is for the text as a JSON string, in bytes.
    pub text_bytes_max: usize,
}

/// Whether the output is read on from the end of an excerpt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// No: a character that is cut at the end is shown as U+FFFD.
    Nothing,
    /// Yes: a character that is cut at the end belongs to what follows.
    Follows,
}

/// Reads a part of what is kept. This may wait for the disk.
///
/// # Errors
/// When the system refuses.
pub fn read(kept: &KeptStream, wanted: ExcerptRange) -> Result<Excerpt, LogsError> {
    kept.check()?;
    if let Some(from) = wanted.from {
        return read_on(kept, from, wanted);
    }
    let (first, end) = (kept.first_kept(), kept.end());
    let since = wanted.since.map_or(Ok(0), |time| kept.since(time.as_micros()))?;
    // No byte takes less than one, so what is further back cannot fit.
    let floor = first.max(since).max(end.saturating_sub(wanted.text_bytes_max as u64)).min(end);
    let at_floor = if floor == since && since > first {
        Start { at: floor, cut: Cut::at_time(kept, floor)? }
    } else if floor > 0 {
        Start { at: floor, cut: Cut::Lacking }
    } else {
        Start { at: floor, cut: Cut::Nowhere }
    };
    let start = match wanted.tail {
        None => at_floor,
        Some(lines) => start_of_tail(kept, at_floor, end, lines)?,
    };
    let length = usize::try_from(end.saturating_sub(start.at)).unwrap_or(usize::MAX);
    let found = kept.read(start.at, length)?;
    excerpt(kept, found, start, wanted)
}

/// How much is read at a time of what goes on from a position, in bytes: as a text with times it fits into any answer.
const PAGE_BYTES: usize = 64 << 10;

/// What comes from a position on. Where the output is read on anyway, that is left to whoever does so: it begins there.
fn read_on(kept: &KeptStream, from: u64, wanted: ExcerptRange) -> Result<Excerpt, LogsError> {
    let mut stamps = match wanted.stamps {
        Stamps::Unwanted => Stamps::Unwanted,
        Stamps::LineBegins | Stamps::LineGoesOn => stamps_at(kept, from)?,
    };
    let dropped = kept.dropped();
    match wanted.continuation {
        Continuation::Follows => {
            Ok(Excerpt { text: String::new(), truncated: false, dropped, next: from, stamps })
        }
        Continuation::Nothing => {
            let OutputSpan { at, mut bytes } = kept.read(from, PAGE_BYTES)?;
            let is_end = at.saturating_add(bytes.len() as u64) == kept.end();
            if !is_end {
                bytes.truncate(bytes.len().saturating_sub(unfinished(&bytes)));
            }
            let next = at.saturating_add(bytes.len() as u64);
            let truncated = at != from;
            let skipped = if truncated { first_line(&bytes) } else { 0 };
            bytes.drain(..skipped);
            if truncated {
                stamps.skip();
            }
            let text = lossy(stamps.stamp(kept, at.saturating_add(skipped as u64), bytes)?);
            Ok(Excerpt { text, truncated, dropped, next, stamps })
        }
    }
}

/// Whether a line begins at a position, or goes on.
fn stamps_at(kept: &KeptStream, at: u64) -> Result<Stamps, LogsError> {
    let Some(before) = at.checked_sub(1) else { return Ok(Stamps::LineBegins) };
    let found = kept.read(before, 1)?;
    // Where it is gone, nothing goes on.
    let goes_on = found.at == before && found.bytes.first().is_some_and(|byte| *byte != b'\n');
    Ok(if goes_on { Stamps::LineGoesOn } else { Stamps::LineBegins })
}

/// Where an excerpt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    at: u64,
    cut: Cut,
}

/// What is before the beginning of an excerpt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Nothing that was asked for: it begins with a line.
    Nowhere,
    /// Something that was asked for, and is missing.
    Lacking,
    /// The beginning of a line that is older than was asked for.
    OlderLine,
}

impl Cut {
    /// What is before the first byte of a time.
    fn at_time(kept: &KeptStream, at: u64) -> Result<Self, LogsError> {
        let before = kept.read(at.saturating_sub(1), 1)?;
        Ok(if before.bytes == b"\n" { Self::Nowhere } else { Self::OlderLine })
    }
}

/// Goes back from the end of an output until it has seen so many lines, or the floor.
fn start_of_tail(kept: &KeptStream, floor: Start, end: u64, lines: u32) -> Result<Start, LogsError> {
    if lines == 0 {
        return Ok(Start { at: end, cut: Cut::Nowhere });
    }
    let mut missing = lines;
    let mut to = end;
    while to > floor.at {
        let from = to.saturating_sub(BLOCK_BYTES).max(floor.at);
        let length = usize::try_from(to - from).unwrap_or(usize::MAX);
        let OutputSpan { at, bytes } = kept.read(from, length)?;
        for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = at.saturating_add(index as u64).saturating_add(1);
            // The end of the last line begins no other one.
            if after == end {
                continue;
            }
            missing -= 1;
            if missing == 0 {
                return Ok(Start { at: after, cut: Cut::Nowhere });
            }
        }
        if at > from {
            // It has gone meanwhile.
            return Ok(Start { at, cut: Cut::Lacking });
        }
        to = from;
    }
    Ok(floor)
}

fn excerpt(
    kept: &KeptStream,
    found: OutputSpan,
    start: Start,
    wanted: ExcerptRange,
) -> Result<Excerpt, LogsError> {
    let OutputSpan { mut at, mut bytes } = found;
    let lacking = start.cut == Cut::Lacking || at > start.at;
    match wanted.continuation {
        Continuation::Nothing => {}
        Continuation::Follows => bytes.truncate(bytes.len().saturating_sub(unfinished(&bytes))),
    }
    let next = at.saturating_add(bytes.len() as u64);
    let skipped = match start.cut {
        Cut::OlderLine => bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1),
        Cut::Nowhere | Cut::Lacking if lacking => first_line(&bytes),
        Cut::Nowhere | Cut::Lacking => 0,
    };
    bytes.drain(..skipped);
    at = at.saturating_add(skipped as u64);
    let mut stamps = wanted.stamps;
    let mut text = lossy(stamps.stamp(kept, at, bytes)?);
    let fitting = fitting_end(&text, wanted.text_bytes_max);
    if fitting > 0 {
        text.drain(..fitting);
        text.drain(..first_line(text.as_bytes()));
    }
    let dropped = kept.dropped();
    let truncated = lacking || fitting > 0 || dropped > 0;
    Ok(Excerpt { text, truncated, dropped, next, stamps })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use procbroker_protocol::ChildId;
    use procbroker_protocol::request::LogStream;
    use uuid::Uuid;

    use super::*;
    use crate::os::logs::folder::Folder;
    use crate::os::logs::output::Part;
    use crate::os::logs::stream::StreamId;
    use crate::os::logs::times::TimeMark;

    const ROOM: usize = 64 << 20;

    const ID: StreamId =
        StreamId { child: ChildId::from_uuid(Uuid::from_u128(1)), stream: LogStream::Stdout };

    /// Output in segments of this length.
    struct Output {
        folder: tempfile::TempDir,
        kept: KeptStream,
    }

    impl Output {
        fn of(bytes: &[u8]) -> Self {
            Self::in_segments_of(bytes.len().max(1), bytes)
        }

        fn in_segments_of(length: usize, bytes: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (opened, _) = Folder::open(folder.path().join("logs")).unwrap();
            let mut kept = KeptStream::nothing(opened, ID);
            for segment in bytes.chunks(length) {
                let (start, at) = (kept.end, 1_000_000 * kept.parts.len() as u64);
                fs::write(folder.path().join("logs").join(ID.segment_name(start)), segment).unwrap();
                let first = TimeMark { offset: start, at, dropped: 0 };
                kept.parts.push(Part { start, length: segment.len() as u64, first, is_timed: false });
                kept.end += segment.len() as u64;
            }
            Self { folder, kept }
        }

        /// Removes the oldest segment.
        fn release(&mut self) -> &Self {
            let gone = self.kept.parts.remove(0);
            fs::remove_file(self.folder.path().join("logs").join(ID.segment_name(gone.start))).unwrap();
            self
        }

        fn read(&self, tail: Option<u32>, continuation: Continuation, text_bytes_max: usize) -> Excerpt {
            let stamps = Stamps::Unwanted;
            read(
                &self.kept,
                ExcerptRange { tail, since: None, from: None, stamps, continuation, text_bytes_max },
            )
            .unwrap()
        }

        fn from(&self, position: u64, stamps: Stamps, continuation: Continuation) -> Excerpt {
            let from = Some(position);
            let wanted =
                ExcerptRange { tail: None, since: None, from, stamps, continuation, text_bytes_max: ROOM };
            read(&self.kept, wanted).unwrap()
        }

        fn since(&self, seconds: u64, stamps: Stamps) -> (String, bool) {
            let since = Some(Timestamp::from_micros(1_000_000 * seconds));
            let continuation = Continuation::Nothing;
            let wanted =
                ExcerptRange { tail: None, since, from: None, stamps, continuation, text_bytes_max: ROOM };
            let excerpt = read(&self.kept, wanted).unwrap();
            (excerpt.text, excerpt.truncated)
        }

        fn tail(&self, lines: u32) -> (String, bool) {
            let excerpt = self.read(Some(lines), Continuation::Nothing, ROOM);
            (excerpt.text, excerpt.truncated)
        }
    }

    fn numbered(lines: std::ops::Range<u32>) -> String {
        lines.map(|number| format!("line {number:08}\n")).collect::<Vec<_>>().concat()
    }

    fn whole(text: &str) -> (String, bool) {
        (text.to_owned(), false)
    }

    #[test]
    fn a_stream_of_which_nothing_is_kept_has_no_text() {
        assert_eq!(Output::of(b"").read(Some(3), Continuation::Follows, ROOM), Excerpt::default());
    }

    #[test]
    fn everything_is_given_where_nothing_was_released() {
        let text = numbered(0..10_000);
        let excerpt = Output::of(text.as_bytes()).read(None, Continuation::Follows, ROOM);
        assert_eq!(excerpt, Excerpt { next: text.len() as u64, text, ..Excerpt::default() });
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
        let output = Output::in_segments_of(100_001, numbered(0..50_000).as_bytes());
        assert_eq!(output.tail(20_000), whole(&numbered(30_000..50_000)));
        let long = format!("first\n{}\nlast\n", "x".repeat(300_000));
        assert_eq!(Output::of(long.as_bytes()).tail(2), whole(&long["first\n".len()..]));
    }

    #[test]
    fn after_what_was_released_the_text_begins_with_a_whole_line() {
        let mut output = Output::in_segments_of(1 << 20, numbered(0..100_000).as_bytes());
        let (text, truncated) = output.release().tail(u32::MAX);
        assert!(truncated && text == numbered(74_899..100_000), "{:?}", text.lines().next());
        let all = output.read(None, Continuation::Nothing, ROOM);
        assert_eq!((all.text, all.truncated, all.next), (text, true, 1_400_000));
        assert_eq!(output.tail(3), whole(&numbered(99_997..100_000)));
    }

    #[test]
    fn a_line_that_has_lost_its_beginning_and_is_the_only_one_is_shown() {
        let text = "\u{20ac}".repeat(500_000);
        let mut output = Output::in_segments_of(1 << 20, text.as_bytes());
        let excerpt = output.release().read(None, Continuation::Nothing, ROOM);
        assert!(excerpt.truncated && !excerpt.text.is_empty());
        assert!(excerpt.text.chars().all(|character| character == '\u{20ac}'));
    }

    #[test]
    fn output_that_is_gone_entirely_is_truncated_to_nothing() {
        let mut output = Output::of(&vec![b'a'; 1 << 20]);
        let expected = Excerpt { truncated: true, next: 1 << 20, ..Excerpt::default() };
        assert_eq!(output.release().read(None, Continuation::Nothing, ROOM), expected);
    }

    #[test]
    fn what_goes_while_it_is_read_is_missing_and_nothing_else() {
        let output = Output::in_segments_of(6, b"first\nother\nthird\n");
        fs::remove_file(output.folder.path().join("logs").join(ID.segment_name(6))).unwrap();
        // What is before a gap is not shown: it would look as if nothing was between.
        let (text, _) = output.tail(2);
        assert_eq!(text, "third\n");
    }

    #[test]
    fn what_could_not_be_kept_is_counted_and_missing() {
        let mut output = Output::of(b"one\n");
        output.kept.dropped = 7;
        let expected =
            Excerpt { text: "one\n".to_owned(), truncated: true, dropped: 7, next: 4, ..Excerpt::default() };
        assert_eq!(output.read(None, Continuation::Nothing, ROOM), expected);
    }

    #[test]
    fn only_whole_lines_since_a_time_are_shown() {
        // The second segment, of second 1, begins within a line; the third with one.
        let output = Output::in_segments_of(6, b"first\nsecond\nthi\nlast\n");
        for (seconds, expected) in
            [(0, "first\nsecond\nthi\nlast\n"), (1, "second\nthi\nlast\n"), (2, "thi\nlast\n"), (9, "")]
        {
            assert_eq!(output.since(seconds, Stamps::Unwanted), whole(expected), "{seconds}");
        }
        let stamped = "1970-01-01T00:00:02.000000Z thi\n1970-01-01T00:00:02.000000Z last\n";
        assert_eq!(output.since(2, Stamps::LineBegins), whole(stamped));
    }

    #[test]
    fn what_goes_on_from_a_position_comes_page_by_page_and_is_all_that_was_written() {
        let text = "\u{20ac}uro\n".repeat(50_000);
        let output = Output::in_segments_of(100_003, text.as_bytes());
        let (mut read, mut position) = (String::new(), 0);
        loop {
            let page = output.from(position, Stamps::Unwanted, Continuation::Nothing);
            assert!(!page.truncated && page.text.len() <= PAGE_BYTES);
            if page.text.is_empty() {
                break;
            }
            read.push_str(&page.text);
            position = page.next;
        }
        assert_eq!((read == text, position), (true, text.len() as u64));
    }

    #[test]
    fn a_position_whose_output_is_gone_or_was_never_there_is_told_as_missed() {
        let mut output = Output::in_segments_of(6, b"first\nsecond\nthi\n");
        output.release();
        let gone = output.from(3, Stamps::Unwanted, Continuation::Nothing);
        assert_eq!((gone.text.as_str(), gone.truncated, gone.next), ("thi\n", true, 17));
        let beyond = output.from(99, Stamps::Unwanted, Continuation::Nothing);
        assert_eq!((beyond.text.as_str(), beyond.truncated, beyond.next), ("", true, 17));
    }

    #[test]
    fn a_line_that_goes_on_from_a_position_gets_no_second_time() {
        let output = Output::of(b"one\ntwo\n");
        for (position, stamps) in [
            (0, Stamps::LineBegins),
            (2, Stamps::LineGoesOn),
            (3, Stamps::LineGoesOn),
            (4, Stamps::LineBegins),
        ] {
            let begun = output.from(position, Stamps::LineBegins, Continuation::Follows);
            assert_eq!((begun.text.as_str(), begun.next, begun.stamps), ("", position, stamps), "{position}");
        }
        let rest = output.from(2, Stamps::LineBegins, Continuation::Nothing).text;
        assert_eq!(rest, "e\n1970-01-01T00:00:00.000000Z two\n");
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_whole_lines() {
        let output = Output::of("\u{1}\u{1}\nab\ncd\n".as_bytes());
        for (room, expected) in [(22, "\u{1}\u{1}\nab\ncd\n"), (21, "ab\ncd\n"), (7, "cd\n"), (4, "cd\n")] {
            let Excerpt { text, truncated, next, .. } = output.read(None, Continuation::Nothing, room);
            assert_eq!((text.as_str(), truncated, next), (expected, room < 22, 9), "{room}");
        }
    }

    #[test]
    fn a_character_that_is_cut_at_the_end_is_left_for_what_follows() {
        let output = Output::of(b"ab\xe2\x82");
        let followed = output.read(None, Continuation::Follows, ROOM);
        assert_eq!(followed, Excerpt { text: "ab".to_owned(), next: 2, ..Excerpt::default() });
        assert_eq!(output.tail(9), whole("ab\u{fffd}"));
    }
}
