//! Output as text: UTF-8 in pieces that may be cut anywhere, and what a text takes in a message.

/// How far the end of a line is looked for that has lost its beginning, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Turns pieces of output into text. A character that is cut at the end of a piece waits for its rest; what is not
/// UTF-8 becomes U+FFFD.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// The beginning of a character: at most three bytes.
    begun: Vec<u8>,
}

impl Decoder {
    /// The text of the next piece.
    pub fn decode(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(piece);
        self.begun = bytes.split_off(bytes.len().saturating_sub(unfinished(&bytes)));
        lossy(bytes)
    }

    /// How many bytes wait for what follows.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.begun.len() as u64
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> String {
        lossy(std::mem::take(&mut self.begun))
    }
}

/// The bytes as text; what is not UTF-8 becomes U+FFFD.
pub(super) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// How many bytes at the end are the beginning of a character whose rest is missing.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    // A character has at most four bytes.
    for length in 1..=bytes.len().min(3) {
        let Some(end) = bytes.get(bytes.len() - length..) else { return 0 };
        if end.first().is_some_and(|byte| is_continuation(*byte)) {
            continue;
        }
        let missing = std::str::from_utf8(end).is_err_and(|error| error.error_len().is_none());
        return if missing { length } else { 0 };
    }
    0
}

/// Whether a byte is in the middle of a character.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Where, in output that begins anywhere, the first whole line begins, or else the first whole character.
#[must_use]
pub fn first_line(bytes: &[u8]) -> usize {
    let line_end = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
    match line_end.map(|index| index.saturating_add(1)) {
        Some(line) if line < bytes.len() => line,
        // A character has at most three bytes after its first.
        Some(_) | None => bytes.iter().take(3).take_while(|byte| is_continuation(**byte)).count(),
    }
}

/// Where the longest end of a text begins that takes at most so many bytes in JSON, which no other encoding exceeds.
pub(super) fn fitting_end(text: &str, cost_max: usize) -> usize {
    let mut left = cost_max;
    for (index, byte) in text.bytes().enumerate().rev() {
        let Some(rest) = left.checked_sub(cost(byte)) else {
            let after = index.saturating_add(1);
            return (after..=text.len()).find(|index| text.is_char_boundary(*index)).unwrap_or(text.len());
        };
        left = rest;
    }
    0
}

/// Returns the last of a text: at most so many lines, and whole ones as long as one fits, in at most so many bytes of JSON.
pub fn last_lines(text: &str, lines_max: u32, cost_max: usize) -> &str {
    let from = text.lines().count().saturating_sub(lines_max as usize);
    let skipped: usize = text.split_inclusive('\n').take(from).map(str::len).sum();
    let text = text.get(skipped..).unwrap_or_default();
    let (before, text) = text.split_at(fitting_end(text, cost_max));
    let is_whole = before.is_empty() || before.ends_with('\n');
    if is_whole { text } else { text.get(first_line(text.as_bytes())..).unwrap_or_default() }
}

/// What a byte takes within a JSON string, in bytes (RFC 8259, section 7; as short as it may be).
fn cost(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\x08' | b'\t' | b'\n' | b'\x0c' | b'\r' => 2,
        0..=0x1f => 6,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_comes_whole_with_the_next_piece() {
        let text = "aé€𝄞z";
        for cut in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            let mut decoder = Decoder::default();
            let pieces = [decoder.decode(first), decoder.decode(second), decoder.finish()];
            assert_eq!(pieces.concat(), text, "{cut}");
            assert!(!pieces.concat().contains('\u{fffd}') && pieces[2].is_empty(), "{cut}");
        }
    }

    #[test]
    fn single_bytes_are_put_together_too() {
        let mut decoder = Decoder::default();
        let text: String = "é€𝄞".bytes().map(|byte| decoder.decode(&[byte])).collect();
        assert_eq!(text + &decoder.finish(), "é€𝄞");
    }

    #[test]
    fn what_is_not_utf_8_is_replaced_at_once_and_what_stays_unfinished_at_the_end() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(b"a\xffb\x80\x80\x80\x80"), "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(decoder.decode(b"c\xe2\x82"), "c");
        assert_eq!(decoder.finish(), "\u{fffd}");
        assert_eq!(decoder.finish(), "");
    }

    #[test]
    fn a_line_that_has_lost_its_beginning_is_skipped_unless_nothing_follows_it() {
        assert_eq!(first_line(b"nd\nthird\n"), 3);
        assert_eq!(first_line(b"nd\n"), 0);
        assert_eq!(first_line("\u{20ac}a".as_bytes().get(1..).unwrap()), 2);
        let long = [vec![b'x'; LINE_BYTES_MAX], b"\nnext".to_vec()].concat();
        assert_eq!((first_line(&long), first_line(&long[1..])), (0, LINE_BYTES_MAX));
    }

    #[test]
    fn the_cost_of_a_text_is_what_json_takes() {
        let text: String = (0..=0x2ff).filter_map(char::from_u32).chain(['\u{fffd}', '𝄞']).collect();
        let json = serde_json::to_string(&text).unwrap().len() - 2;
        assert_eq!(fitting_end(&text, json), 0);
        assert_eq!(fitting_end(&text, json - 1), 1);
        assert_eq!(fitting_end(&text, 0), text.len());
    }

    #[test]
    fn the_last_of_a_text_is_whole_lines_within_both_bounds() {
        let text = "one\ntwo\nthree\n";
        let last = |lines, cost| last_lines(text, lines, cost);
        assert_eq!((last(9, 99), last(2, 99), last(0, 99)), (text, "two\nthree\n", ""));
        // A newline takes two bytes.
        assert_eq!((last(9, 12), last(9, 11), last(9, 4)), ("two\nthree\n", "three\n", "ee\n"));
        assert_eq!(last_lines("a\nb", 1, 99), "b");
    }

    #[test]
    fn an_end_of_a_text_begins_with_a_character() {
        let text = "€€";
        let ends = [0, 1, 2, 3, 4, 5, 6].map(|cost| fitting_end(text, cost));
        assert_eq!(ends, [6, 6, 6, 3, 3, 3, 0]);
    }
}
