//! Texts of others, made harmless: no character of a child's command line, labels or output steers the terminal.

use std::fmt::Write as _;

use procbroker_protocol::{Field, Fields};

/// Whether a character does something else than stand there: control characters (C0, DEL and C1), line and
/// paragraph separators, and those that are invisible or turn the direction of the text around.
fn is_steering(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with every steering character written as an escape, such as `\n` or `\x1b`.
pub(in crate::cli) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_steering(character) { push_escape(&mut out, character) } else { out.push(character) }
    }
    out
}

/// An escape that bash and zsh read in `$'...'`.
fn push_escape(out: &mut String, character: char) {
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

/// A command line as it could be typed into a shell, in one line.
pub(in crate::cli) fn command_line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

/// A command line of which perhaps only the beginning is known: an ellipsis follows then.
pub(in crate::cli) fn shown_command_line(words: &[String], shortened: Fields) -> String {
    let line = command_line(words);
    if shortened.contains(Field::Command) { line + " …" } else { line }
}

fn shell_word(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte) || byte >= 0x80;
    if word.chars().any(is_steering) {
        let mut out = "$'".to_owned();
        for character in word.chars() {
            match character {
                '\'' | '\\' => out.extend(['\\', character]),
                other if is_steering(other) => push_escape(&mut out, other),
                other => out.push(other),
            }
        }
        out + "'"
    } else if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        command_line(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(escaped("a\x1b[31mb\tc\r\nd\x07\x7f"), "a\\x1b[31mb\\tc\\r\\nd\\x07\\x7f");
        assert_eq!(escaped("\u{9b}2J \u{202e}txt.exe \u{200b}"), "\\u009b2J \\u202etxt.exe \\u200b");
        assert_eq!(escaped("\u{e0041}"), "\\U000e0041");
        assert_eq!(escaped("grün 東京 'x' \\n"), "grün 東京 'x' \\n");
    }

    #[test]
    fn no_control_character_is_left_whatever_the_text() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        assert!(!escaped(&all).chars().any(is_steering));
        assert!(!line(&[&all, &all]).chars().any(is_steering));
    }

    #[test]
    fn a_command_line_that_goes_on_says_so() {
        let words = ["sleep".to_owned()];
        let shortened = [Field::Command].into_iter().collect();
        assert_eq!(shown_command_line(&words, shortened), "sleep …");
        assert_eq!(shown_command_line(&words, [Field::Labels].into_iter().collect()), "sleep");
    }

    #[test]
    fn a_command_line_can_be_typed_again() {
        assert_eq!(line(&["python3", "render.py", "--x=1", "42"]), "python3 render.py --x=1 42");
        assert_eq!(line(&["sh", "-c", "echo it's $HOME", ""]), "sh -c 'echo it'\\''s $HOME' ''");
        assert_eq!(line(&["printf", "a\nb'\\\x1b"]), "printf $'a\\nb\\'\\\\\\x1b'");
        assert_eq!(line(&["~", "#", "grün"]), "'~' '#' grün");
    }

    #[test]
    fn a_shell_reads_back_the_words() {
        let words = ["a b", "it's", "$(x)", "tab\tnew\nline", "\x1b[0m\\'", "*", "", "-n", "\u{202e}é"];
        let script = format!("printf '%s\\0' {}", line(&words));
        let output = std::process::Command::new("bash")
            .env("LC_ALL", "C.UTF-8")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let expected = words.join("\0") + "\0";
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}
