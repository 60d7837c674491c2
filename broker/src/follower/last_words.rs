//! The last of what a child wrote, for the answer that tells of its failed start: the lines of both streams in the order in
//! which they came, where they are kept apart.

use procbroker_core::LastWords;
use procbroker_protocol::ChildId;
use procbroker_protocol::request::LogStream;

use super::reader::OutputReader;
use crate::limits::{LOG_TAIL_BYTES_MAX, LOG_TAIL_LINES};
use crate::os::logs::stamps::Stamps;
use crate::os::logs::text::last_lines;
use crate::os::logs::{Continuation, ExcerptRange, LogHandle, StreamId};

/// How many bytes the time before a line takes, with the space behind it.
const STAMP_BYTES: usize = 28;

/// Reads it, as far as it can be read.
pub(super) async fn read(
    child: ChildId,
    kept_in: LastWords,
    logs: &LogHandle,
    reader: &OutputReader,
) -> String {
    let of = |stream| StreamId { child, stream };
    match kept_in {
        LastWords::In(stream) => tail(of(stream), Stamps::Unwanted, logs, reader).await,
        LastWords::InBoth => {
            let stdout = tail(of(LogStream::Stdout), Stamps::LineBegins, logs, reader).await;
            let stderr = tail(of(LogStream::Stderr), Stamps::LineBegins, logs, reader).await;
            last_lines(&merged(&stdout, &stderr), LOG_TAIL_LINES, LOG_TAIL_BYTES_MAX).to_owned()
        }
    }
}

/// The last of one stream.
async fn tail(id: StreamId, stamps: Stamps, logs: &LogHandle, reader: &OutputReader) -> String {
    let Some(kept) = logs.kept(id).await else { return String::new() };
    let stamps_bytes = match stamps {
        Stamps::Unwanted => 0,
        Stamps::LineBegins | Stamps::LineGoesOn => LOG_TAIL_LINES as usize * STAMP_BYTES,
    };
    let wanted = ExcerptRange {
        tail: Some(LOG_TAIL_LINES),
        since: None,
        from: None,
        stamps,
        continuation: Continuation::Nothing,
        text_bytes_max: LOG_TAIL_BYTES_MAX + stamps_bytes,
    };
    reader.excerpt(kept, wanted).await.map(|excerpt| excerpt.text).unwrap_or_default()
}

/// The lines of both streams by their times, without them. Of those that came within a moment, what was written to the standard
/// output is the first: an error comes last as a rule.
fn merged(stdout: &str, stderr: &str) -> String {
    let mut lines: Vec<(&str, &str)> =
        [stdout, stderr].iter().flat_map(|text| text.split_inclusive('\n')).map(unstamped).collect();
    // All times are of one form, and of one length, in which they are in the order of their letters.
    lines.sort_by_key(|(time, _)| *time);
    let mut text = String::with_capacity(stdout.len() + stderr.len());
    for (_, line) in lines {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(line);
    }
    text
}

/// The time of a line, and the rest of it. One that is so long that its beginning is cut off has no time, and is the last of its
/// stream.
fn unstamped(line: &str) -> (&str, &str) {
    match line.split_at_checked(STAMP_BYTES) {
        Some((stamp, rest)) if stamp.ends_with("Z ") => (stamp, rest),
        Some(_) | None => (LATEST, line),
    }
}

/// What comes after every time.
const LATEST: &str = "~";

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(lines: &[(u32, &str)]) -> String {
        let stamped = |(second, line): &(u32, &str)| format!("1970-01-01T00:00:0{second}.000000Z {line}\n");
        lines.iter().map(stamped).collect::<Vec<String>>().concat()
    }

    #[test]
    fn lines_of_both_streams_come_in_their_order_and_errors_last() {
        let stdout = stamped(&[(1, "reading the table"), (2, "no  such row"), (4, "")]);
        let stderr = stamped(&[(0, "a warning"), (2, "bad luck"), (3, "giving up")]);
        let expected = "a warning\nreading the table\nno  such row\nbad luck\ngiving up\n\n";
        assert_eq!(merged(&stdout, &stderr), expected);
    }

    #[test]
    fn one_stream_alone_is_what_it_is() {
        let text = stamped(&[(1, "one"), (2, "two")]);
        assert_eq!(
            (merged(&text, ""), merged("", &text)),
            ("one\ntwo\n".to_owned(), "one\ntwo\n".to_owned())
        );
        assert_eq!(merged("", ""), "");
    }

    #[test]
    fn a_line_that_is_not_finished_goes_on_with_no_other() {
        let stdout = stamped(&[(1, "password: ")]);
        let stdout = stdout.trim_end_matches('\n');
        assert_eq!(merged(stdout, &stamped(&[(2, "no terminal")])), "password: \nno terminal\n");
        assert_eq!(merged(stdout, ""), "password: ");
        let windows = stamped(&[(1, "one\r"), (2, "two\r")]);
        assert_eq!(merged(&windows, ""), "one\r\ntwo\r\n");
    }

    #[test]
    fn a_line_without_its_beginning_is_the_last() {
        let long = "x ".repeat(40);
        assert_eq!(merged(&stamped(&[(9, "one")]), &long), format!("one\n{long}"));
    }

    #[test]
    fn a_stamp_is_as_long_as_it_is_said_to_be() {
        assert_eq!(stamped(&[(0, "")]).len(), STAMP_BYTES + 1);
    }
}
