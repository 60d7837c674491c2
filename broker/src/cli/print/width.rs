//! Texts that fit the columns of a terminal, in which a character takes none, one or two.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What stands at the end of a text that was cut.
const ELLIPSIS: char = '…';

/// The text, cut where it would be wider than so many columns.
pub(in crate::cli) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut left = columns.saturating_sub(1);
    for character in text.chars() {
        let width = character.width().unwrap_or(0);
        let Some(rest) = left.checked_sub(width) else { break };
        left = rest;
        kept.push(character);
    }
    if columns > 0 {
        kept.push(ELLIPSIS);
    }
    kept
}

/// Texts on as few lines as take them, with two spaces between; each comes with its width in columns.
pub(in crate::cli) fn packed(texts: impl Iterator<Item = (String, usize)>, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut taken = 0;
    for (text, width) in texts {
        match lines.last_mut() {
            Some(line) if taken + 2 + width <= columns => {
                line.push_str("  ");
                line.push_str(&text);
                taken += 2 + width;
            }
            Some(_) | None => {
                lines.push(text);
                taken = width;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_what_it_takes_on_a_terminal() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
        assert_eq!(cut("東京タワー", 10), "東京タワー");
        assert_eq!(cut("東京タワー", 9), "東京タワ…");
        assert_eq!(cut("東京タワー", 8), "東京タ…");
        assert_eq!(cut("e\u{301}clair", 6), "e\u{301}clair");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
        for columns in 0..12 {
            assert!(cut("a東b京c\u{301}タワー", columns).width() <= columns, "{columns}");
        }
    }

    #[test]
    fn texts_share_a_line_while_they_fit() {
        let pack = |columns| packed(["aa", "bb", "cc"].map(|text| (text.to_owned(), 2)).into_iter(), columns);
        assert_eq!(pack(10), ["aa  bb  cc"]);
        assert_eq!(pack(9), ["aa  bb", "cc"]);
        assert_eq!(pack(1), ["aa", "bb", "cc"]);
    }
}
