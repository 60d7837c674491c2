//! Command lines as people type them, with nothing in them that steers a terminal.

use std::fmt::Write as _;

use procbroker_protocol::{Field, Fields};

pub(in crate::cli) use crate::harmless::escaped;
use crate::harmless::{is_steering, push_escape};

/// A line of JSON that says the same with an escape for every steering character: these can stand in strings alone.
pub(in crate::cli) fn escaped_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_steering(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
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
    fn no_control_character_is_left_whatever_the_text() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        assert!(!escaped(&all).chars().any(is_steering));
        assert!(!line(&[&all, &all]).chars().any(is_steering));
    }

    #[test]
    fn json_says_the_same_without_what_steers_a_terminal() {
        let all: String = (0..=0x2fff).chain(0xe0000..=0xe007f).filter_map(char::from_u32).collect();
        let line = escaped_json(&serde_json::to_string(&[&all]).unwrap());
        assert!(!line.chars().any(is_steering));
        assert_eq!(serde_json::from_str::<Vec<String>>(&line).unwrap(), [all]);
        assert_eq!(escaped_json("[\"grün \u{9b}2J\u{e0041}\"]"), "[\"grün \\u009b2J\\udb40\\udc41\"]");
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
