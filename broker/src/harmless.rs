//! Texts of others, made harmless: no character of a child's command line, labels or output, and none of what a client names,
//! steers a terminal, begins a line of its own in a log or looks like something else than it is.

use std::fmt::Write as _;

/// Whether a character does something else than stand there. Those are, by the categories of Unicode: controls (Cc: C0, DEL and
/// C1), separators of lines and paragraphs (Zl, Zp), formats (Cf: invisible ones, tags, and those that turn the direction of the
/// text around), what is private or no character (Co, noncharacters), and others that fonts show nothing of.
pub(crate) fn is_steering(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    character.is_control() || is_format(character) || is_unseen(character) || is_private(character)
}

/// Zl, Zp and Cf, as of Unicode 17.
fn is_format(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Letters and marks that fonts show nothing of (`Default_Ignorable_Code_Point`). A variation selector of a symbol is none.
fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{3164}'
            | '\u{ffa0}'
    )
}

/// Those of which nobody but a font says what they look like, and those that are none.
fn is_private(character: char) -> bool {
    let is_noncharacter = u32::from(character) & 0xfffe == 0xfffe;
    is_noncharacter
        || matches!(character, '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{f0000}'..='\u{10ffff}')
}

/// The text with every steering character written as an escape, such as `\n` or `\x1b`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_steering(character) { push_escape(&mut out, character) } else { out.push(character) }
    }
    out
}

/// Writes an escape that bash and zsh read in `$'...'`, and of a character beyond ASCII and within the first plane JSON too.
pub(crate) fn push_escape(out: &mut String, character: char) {
    let code = u32::from(character);
    // Writing to a string does not fail.
    let _ = match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        _ if code < 0x80 => write!(out, "\\x{code:02x}"),
        _ if code <= 0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// Writes the escape of a character in a string of JSON (RFC 8259, 7).
pub(crate) fn push_json_escape(out: &mut String, character: char) {
    let mut units = [0; 2];
    for unit in character.encode_utf16(&mut units) {
        // Writing to a string does not fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(escaped("a\x1b[31mb\tc\r\nd\x07\x7f"), "a\\x1b[31mb\\tc\\r\\nd\\x07\\x7f");
        assert_eq!(escaped("\u{9b}2J \u{202e}txt.exe \u{200b}"), "\\u009b2J \\u202etxt.exe \\u200b");
        assert_eq!(escaped("\u{e0041}"), "\\U000e0041");
        assert_eq!(escaped("grün 東京 'x' \\n ☎\u{fe0f} नमस्ते"), "grün 東京 'x' \\n ☎\u{fe0f} नमस्ते");
    }

    #[test]
    fn every_category_that_can_deceive_is_escaped() {
        let all = || (0..=0x0010_ffff).filter_map(char::from_u32);
        for (category, pattern) in [
            ("controls", r"\p{Cc}"),
            ("formats", r"\p{Cf}"),
            ("separators of lines and paragraphs", r"[\p{Zl}\p{Zp}]"),
            ("private", r"\p{Co}"),
            ("bidirectional controls", r"\p{Bidi_Control}"),
            ("default ignorables", r"[\p{Default_Ignorable_Code_Point}--\p{Variation_Selector}]"),
        ] {
            let class = class(pattern);
            let missed: Vec<char> = all().filter(|c| class(*c) && !is_steering(*c)).collect();
            assert_eq!(missed, Vec::<char>::new(), "{category}");
        }
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for pattern in [r"\p{Lu}", r"\p{Ll}", r"\p{Nd}", r"\p{P}", r"\p{Sm}", r"\p{Sc}", r"\p{So}", r"\p{Zs}"]
        {
            let class = class(pattern);
            let spoilt: Vec<char> = (0..=0x0010_ffff)
                .filter_map(char::from_u32)
                .filter(|c| class(*c) && is_steering(*c))
                .collect();
            assert_eq!(spoilt, Vec::<char>::new(), "{pattern}");
        }
    }

    /// What a class of characters holds, by the tables of a regular expression.
    fn class(pattern: &str) -> impl Fn(char) -> bool {
        let hir = regex_syntax::Parser::new().parse(pattern).unwrap();
        let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) = hir.into_kind()
        else {
            panic!("{pattern} is no class")
        };
        move |character| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&character))
    }

    #[test]
    fn the_escape_in_json_is_read_back_as_the_character() {
        for character in ['\n', '\u{9b}', '\u{202e}', '\u{e0041}'] {
            let mut json = "\"".to_owned();
            push_json_escape(&mut json, character);
            assert_eq!(serde_json::from_str::<String>(&(json + "\"")).unwrap(), character.to_string());
        }
    }
}
