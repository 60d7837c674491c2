//! How much of a text an error repeats: its beginning tells which one is meant, and more costs its reader and the broker.

use std::borrow::Cow;

/// Letters of a refused text that an error repeats at most.
const LETTERS_MAX: usize = 200;

/// Returns the text, or its beginning with an ellipsis where it is long.
pub(crate) fn beginning(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LETTERS_MAX) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_repeated_by_its_beginning() {
        let text = "ä".repeat(LETTERS_MAX);
        assert_eq!(beginning(&text), text);
        assert_eq!(beginning(&format!("{text}b")), format!("{text}…"));
        assert_eq!(beginning(""), "");
    }
}
