//! What a reader is sent for a line: an entry of the journal, or a message to syslog.
//!
//! The journal takes fields (its native protocol), syslog one text in the form that C libraries send to `/dev/log`:
//! RFC 3164 without the name of the host.

use std::time::SystemTime;

use procbroker_protocol::request::LogStream;

use super::author::Author;
use super::destination::LineReader;
use crate::os::host::local_time::stamp;
use crate::os::logs::stream::StreamId;
use crate::os::service::journal::{DAEMON, LINE_BYTES_MAX, append_field};

/// With what stands in front of it, such a line is no more than syslog daemons take, which is 8 KiB.
const SYSLOG_LINE_BYTES_MAX: usize = 7 << 10;

/// The journal ignores a field with a longer name.
const FIELD_NAME_BYTES_MAX: usize = 64;

/// How serious a line on standard output is: informational.
const OF_STDOUT: u8 = 6;

/// And one on standard error: a warning. Most programs write all their messages there, so that it is no error.
const OF_STDERR: u8 = 4;

/// How long a line may be.
pub(super) fn line_bytes_max(reader: LineReader) -> usize {
    match reader {
        LineReader::Journal => LINE_BYTES_MAX,
        LineReader::Syslog => SYSLOG_LINE_BYTES_MAX,
    }
}

/// Writes entries one after the other.
#[derive(Debug)]
pub(super) struct Composer {
    reader: LineReader,
    entry: Vec<u8>,
    /// So much of the entry is the same for all lines of one author.
    common: usize,
    /// How serious a line is that says nothing of it.
    level: u8,
    /// What names the author in a message to syslog.
    tag: String,
}

impl Composer {
    pub(super) fn new(reader: LineReader) -> Self {
        Self { reader, entry: Vec::new(), common: 0, level: OF_STDOUT, tag: String::new() }
    }

    /// Lines of this stream follow.
    pub(super) fn begin(&mut self, id: StreamId, author: &Author) {
        self.entry.clear();
        self.level = match id.stream {
            LogStream::Stdout => OF_STDOUT,
            LogStream::Stderr => OF_STDERR,
        };
        match self.reader {
            LineReader::Journal => common_fields(&mut self.entry, id, author),
            LineReader::Syslog => self.tag = tag(author),
        }
        self.common = self.entry.len();
    }

    /// What is sent for a line; nothing for one in which there is nothing.
    pub(super) fn compose(&mut self, line: &[u8], now: SystemTime) -> Option<&[u8]> {
        let (level, message) = match line {
            // What systemd takes from the output of services (sd-daemon(3)).
            [b'<', digit @ b'0'..=b'7', b'>', message @ ..] => (digit - b'0', message),
            _ => (self.level, line),
        };
        if message.is_empty() {
            return None;
        }
        self.entry.truncate(self.common);
        match self.reader {
            LineReader::Journal => {
                append_field(&mut self.entry, "PRIORITY", level.to_string().as_bytes());
                append_field(&mut self.entry, "MESSAGE", message);
            }
            LineReader::Syslog => {
                let head = format!("<{}>{} {}: ", DAEMON << 3 | level, stamp(now), self.tag);
                self.entry.extend_from_slice(head.as_bytes());
                self.entry.extend_from_slice(message);
            }
        }
        Some(&self.entry)
    }
}

/// The child's name, or else its program's.
fn identifier(author: &Author) -> &str {
    if let Some(name) = &author.params.name {
        return name.as_str();
    }
    let program = author.params.command.first().map_or("", String::as_str);
    program.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(program)
}

/// The author, as the beginning of a message has it: `NAME[PID]`.
fn tag(author: &Author) -> String {
    let takes = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '/' | '+');
    let name: String = identifier(author).chars().map(|c| if takes(c) { c } else { '_' }).collect();
    match author.pid {
        Some(pid) => format!("{name}[{pid}]"),
        None => name,
    }
}

fn common_fields(entry: &mut Vec<u8>, id: StreamId, author: &Author) {
    let stream = match id.stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    append_field(entry, "SYSLOG_IDENTIFIER", identifier(author).as_bytes());
    append_field(entry, "SYSLOG_FACILITY", DAEMON.to_string().as_bytes());
    append_field(entry, "PROCBROKER_CHILD_ID", id.child.to_string().as_bytes());
    if let Some(name) = &author.params.name {
        append_field(entry, "PROCBROKER_CHILD_NAME", name.as_str().as_bytes());
    }
    append_field(entry, "PROCBROKER_STREAM", stream.as_bytes());
    if let Some(pid) = author.pid {
        // The journal adds what it finds out about that process (systemd.journal-fields(7)).
        append_field(entry, "OBJECT_PID", pid.to_string().as_bytes());
    }
    for (key, value) in &author.params.labels {
        append_field(entry, &label_field(key), value.as_bytes());
    }
}

/// The name of the field of a label.
fn label_field(key: &str) -> String {
    let key = key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "PROCBROKER_LABEL_".chars().chain(key).take(FIELD_NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use procbroker_core::Pid;
    use procbroker_protocol::{ChildId, CreateParams};
    use uuid::Uuid;

    use super::*;

    const ID: &str = "00000000-0000-0000-0000-000000000007";

    fn stream(stream: LogStream) -> StreamId {
        StreamId { child: ChildId::from_uuid(Uuid::from_u128(7)), stream }
    }

    fn author(program: &str, name: Option<&str>, pid: Option<u32>, labels: &[(&str, &str)]) -> Author {
        let mut params = CreateParams::new(vec![program.to_owned()]);
        params.name = name.map(|name| name.parse().unwrap());
        params.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Author::new(0, Arc::new(params), pid.and_then(Pid::new))
    }

    fn composed(reader: LineReader, id: StreamId, author: &Author, line: &[u8]) -> Option<Vec<u8>> {
        let mut composer = Composer::new(reader);
        composer.begin(id, author);
        composer.compose(line, SystemTime::UNIX_EPOCH + Duration::from_hours(24)).map(<[u8]>::to_vec)
    }

    #[test]
    fn an_entry_of_the_journal_says_who_has_written_the_line_and_where() {
        let long = "x".repeat(70);
        let labels = [("pool", "render"), ("app.kind/x-y", "two\nlines"), (long.as_str(), "")];
        let author = author("/usr/bin/render", Some("render-42"), Some(4242), &labels);
        let entry = composed(LineReader::Journal, stream(LogStream::Stdout), &author, b"hello \xe2\x82\xac");
        let expected = [
            format!("SYSLOG_IDENTIFIER=render-42\nSYSLOG_FACILITY=3\nPROCBROKER_CHILD_ID={ID}\n").as_bytes(),
            b"PROCBROKER_CHILD_NAME=render-42\nPROCBROKER_STREAM=stdout\nOBJECT_PID=4242\n",
            b"PROCBROKER_LABEL_APP_KIND_X_Y\n\x09\0\0\0\0\0\0\0two\nlines\nPROCBROKER_LABEL_POOL=render\n",
            format!("PROCBROKER_LABEL_{}=\n", "X".repeat(47)).as_bytes(),
            b"PRIORITY=6\nMESSAGE=hello \xe2\x82\xac\n",
        ]
        .concat();
        assert_eq!(String::from_utf8(entry.unwrap()), String::from_utf8(expected));
    }

    #[test]
    fn bytes_that_are_no_text_have_their_length_in_front() {
        let author = author("/opt/odd name/", None, None, &[]);
        let entry =
            composed(LineReader::Journal, stream(LogStream::Stderr), &author, b"\xff\x00\xfe").unwrap();
        let expected = [
            format!("SYSLOG_IDENTIFIER=/opt/odd name/\nSYSLOG_FACILITY=3\nPROCBROKER_CHILD_ID={ID}\n")
                .as_bytes(),
            b"PROCBROKER_STREAM=stderr\nPRIORITY=4\nMESSAGE\n\x03\0\0\0\0\0\0\0\xff\x00\xfe\n",
        ]
        .concat();
        assert_eq!(entry, expected, "{}", entry.escape_ascii());
    }

    #[test]
    fn a_line_may_say_itself_how_serious_it_is_and_an_empty_one_says_nothing() {
        let author = author("one", None, None, &[]);
        let ends = |line: &[u8], end: &str| {
            let entry = composed(LineReader::Journal, stream(LogStream::Stderr), &author, line).unwrap();
            assert!(entry.ends_with(end.as_bytes()), "{}", entry.escape_ascii());
        };
        ends(b"<3>it failed", "PRIORITY=3\nMESSAGE=it failed\n");
        ends(b"<7> it goes on", "PRIORITY=7\nMESSAGE= it goes on\n");
        for line in ["<8>no level", "<33>neither", "<3 nor this", " <3>nor this"] {
            ends(line.as_bytes(), &format!("PRIORITY=4\nMESSAGE={line}\n"));
        }
        for line in [&b""[..], b"<3>"] {
            assert_eq!(composed(LineReader::Journal, stream(LogStream::Stdout), &author, line), None);
        }
    }

    #[test]
    fn a_message_to_syslog_has_its_level_its_time_and_its_author() {
        let told = |name: Option<&str>, pid, stream_of, line: &[u8]| {
            let author = author("/usr/bin/odd [name]", name, pid, &[("pool", "render")]);
            let message = composed(LineReader::Syslog, stream(stream_of), &author, line).unwrap();
            String::from_utf8(message).unwrap()
        };
        let time = stamp(SystemTime::UNIX_EPOCH + Duration::from_hours(24));
        let named = told(Some("web:1"), Some(7), LogStream::Stdout, b"hello");
        assert_eq!(named, format!("<30>{time} web_1[7]: hello"));
        let nameless = told(None, None, LogStream::Stderr, b"hello");
        assert_eq!(nameless, format!("<28>{time} odd__name_: hello"));
        assert_eq!(told(None, None, LogStream::Stderr, b"<0>over"), format!("<24>{time} odd__name_: over"));
    }
}
