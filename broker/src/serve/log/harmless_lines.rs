//! Makes each line of the log harmless to whoever reads it: what clients and children have named stands in it as text alone.

use std::borrow::Cow;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use super::lines::LogWriter;
use crate::harmless::{is_steering, push_escape, push_json_escape};

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Text for people.
    Text,
    /// The same with colours, whose escape sequences the formatter writes; it escapes all others itself.
    Coloured,
    /// An object for programs.
    Json,
}

/// What lines of a form are written to.
#[derive(Clone, Debug)]
pub(super) struct HarmlessLines {
    pub(super) lines: LogWriter,
    pub(super) form: Form,
}

impl Write for HarmlessLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.push(&harmless(self.form, line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for HarmlessLines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A line with its end, in which nothing else ends a line or steers a terminal.
fn harmless(form: Form, line: &[u8]) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(line);
    let body = text.strip_suffix('\n').unwrap_or(&text);
    let is_meant = |character| character == '\x1b' && form == Form::Coloured;
    let is_steering = |character| is_steering(character) && !is_meant(character);
    if !body.contains(is_steering) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 16);
    for character in body.chars() {
        match form {
            _ if !is_steering(character) => out.push(character),
            Form::Text | Form::Coloured => push_escape(&mut out, character),
            Form::Json => push_json_escape(&mut out, character),
        }
    }
    out.push('\n');
    Cow::Owned(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, line: &str) -> String {
        String::from_utf8(harmless(form, line.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn no_line_begins_within_a_line_and_nothing_turns_its_text_around() {
        let line = "INFO a\nINFO forged \u{202e}\u{2028}\u{9b}2J é\n";
        let expected = "INFO a\\nINFO forged \\u202e\\u2028\\u009b2J é\n";
        assert_eq!(written(Form::Text, line), expected);
        assert_eq!(written(Form::Coloured, line), expected);
        assert_eq!(written(Form::Text, "\x1b[2J\n"), "\\x1b[2J\n");
    }

    #[test]
    fn a_harmless_line_is_written_as_it_is() {
        for form in [Form::Text, Form::Coloured, Form::Json] {
            assert_eq!(written(form, "INFO grün 東京 {}\n"), "INFO grün 東京 {}\n");
        }
        assert_eq!(written(Form::Coloured, "\x1b[32mINFO\x1b[0m a\n"), "\x1b[32mINFO\x1b[0m a\n");
    }

    #[test]
    fn an_object_says_the_same_after_it() {
        let value = serde_json::json!({"message": "a\nb \u{202e}\u{e0041}é"});
        let line = written(Form::Json, &format!("{value}\n"));
        assert!(!line.contains(['\u{202e}', '\u{e0041}']), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }
}
