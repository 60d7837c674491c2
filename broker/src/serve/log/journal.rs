//! The log as the journal likes it: an entry a line, with a priority and with the line's fields as fields.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::lines::{LineBatch, LogWriter, Sink};
use crate::harmless::escaped;
use crate::os::service::journal::{DAEMON, LINE_BYTES_MAX, append_field};

/// What the journal's entries are told by (`journalctl -t`).
const IDENTIFIER: &str = "procbroker";

pub(super) struct JournalLog {
    level: LevelFilter,
    lines: LogWriter,
}

impl JournalLog {
    pub(super) fn new(level: LevelFilter, lines: LogWriter) -> Self {
        Self { level, lines }
    }
}

/// There are no spans.
impl Subscriber for JournalLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        self.lines.push(&parts.entry(*event.metadata().level(), event.metadata().target()));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What a line consists of.
#[derive(Debug, Default)]
struct Parts {
    message: String,
    /// Its fields as people read them.
    text: String,
    /// And in the form of the journal.
    fields: Vec<u8>,
}

impl Parts {
    fn add(&mut self, field: &Field, value: &str) {
        // What a child has written is found by `PROCBROKER_CHILD_NAME`, which is not among these: what is said of it is found
        // by `PROCBROKER_CHILD`.
        let name = format!("PROCBROKER_{}", field.name().to_ascii_uppercase());
        append_field(&mut self.fields, &name, cut(value).as_bytes());
    }

    fn entry(mut self, level: Level, target: &str) -> Vec<u8> {
        self.message.push_str(&self.text);
        let mut entry = Vec::with_capacity(256 + self.message.len() + self.fields.len());
        // What it says, and not its fields, is shown to people.
        append_field(&mut entry, "MESSAGE", cut(&escaped(&self.message)).as_bytes());
        append_field(&mut entry, "PRIORITY", priority(level).to_string().as_bytes());
        append_field(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER.as_bytes());
        append_field(&mut entry, "SYSLOG_FACILITY", DAEMON.to_string().as_bytes());
        append_field(&mut entry, "PROCBROKER_TARGET", target.as_bytes());
        entry.append(&mut self.fields);
        entry
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            // A string takes all that is written to it.
            let _ = write!(self.text, " {}={value:?}", field.name());
            self.add(field, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message.push_str(&value);
        } else {
            // A string takes all that is written to it.
            let _ = write!(self.text, " {}={value}", field.name());
            self.add(field, &value);
        }
    }
}

/// The severity as syslog counts it (RFC 5424, 6.2.1).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The beginning of a value: an entry has to fit into one datagram.
fn cut(value: &str) -> &str {
    let mut end = value.len().min(LINE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// Sends entries to the journal. It waits for it, as for whoever reads a log slowly.
pub(super) struct JournalSink {
    path: PathBuf,
    socket: UnixDatagram,
    /// How many entries nobody took.
    lost: u64,
}

impl JournalSink {
    /// The journal that listens there.
    ///
    /// # Errors
    /// When nobody does.
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(&path)?;
        // The journal may be started anew, so it is sent to by its path.
        Ok(Self { path, socket: UnixDatagram::unbound()?, lost: 0 })
    }

    fn send(&mut self, entry: &[u8]) {
        if self.lost > 0 {
            let mut parts = Parts::default();
            let lost = self.lost;
            // A string takes all that is written to it.
            let _ = write!(
                parts.message,
                "{lost} lines of the log were lost here: they came faster than they were read"
            );
            if self.socket.send_to(&parts.entry(Level::WARN, "log"), &self.path).is_ok() {
                self.lost = 0;
            }
        }
        if self.socket.send_to(entry, &self.path).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }
}

impl Sink for JournalSink {
    fn write(&mut self, batch: &LineBatch) {
        for entry in batch.each() {
            self.send(entry);
        }
        self.lost = self.lost.saturating_add(batch.lost());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01900000-0000-7000-8000-000000000001";

    /// What the journal gets for what is logged while this is done.
    fn entries(level: LevelFilter, work: impl FnOnce()) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let listening = UnixDatagram::bind(&path).unwrap();
        let (lines, guard) = LogWriter::to(JournalSink::at(path).unwrap()).unwrap();
        tracing::subscriber::with_default(JournalLog::new(level, lines), work);
        drop(guard);
        listening.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 17];
        let mut entries = Vec::new();
        while let Ok(length) = listening.recv(&mut buffer) {
            entries.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        entries
    }

    #[test]
    fn an_entry_has_a_priority_and_the_fields_of_its_line() {
        let entries = entries(LevelFilter::INFO, || {
            tracing::warn!(target: "audit", uid = 33_u32, child = %"web", id = %ID, method = "signal", "audit: asked");
            tracing::debug!("too much");
            tracing::error!(child = %ID, "two\nlines");
        });
        assert_eq!(entries.len(), 2, "{entries:#?}");
        let message = format!("MESSAGE=audit: asked uid=33 child=web id={ID} method=\"signal\"\n");
        let common = "PRIORITY=4\nSYSLOG_IDENTIFIER=procbroker\nSYSLOG_FACILITY=3\nPROCBROKER_TARGET=audit\n";
        let fields = format!(
            "PROCBROKER_UID=33\nPROCBROKER_CHILD=web\nPROCBROKER_ID={ID}\nPROCBROKER_METHOD=signal\n"
        );
        assert_eq!(entries[0], format!("{message}{common}{fields}"));
        assert!(entries[1].starts_with("MESSAGE=two\\nlines child="), "{:?}", entries[1]);
        assert!(entries[1].contains("PRIORITY=3\n"), "{:?}", entries[1]);
        assert!(entries[1].ends_with(&format!("\nPROCBROKER_CHILD={ID}\n")), "{:?}", entries[1]);
    }

    #[test]
    fn a_line_that_is_too_long_for_a_datagram_is_cut_and_not_lost() {
        let entries = entries(LevelFilter::INFO, || tracing::info!("{}", "é".repeat(LINE_BYTES_MAX)));
        assert_eq!(entries.len(), 1);
        let message = entries[0].strip_prefix("MESSAGE=").unwrap().lines().next().unwrap();
        assert_eq!(message, "é".repeat(LINE_BYTES_MAX / 2));
    }

    #[test]
    fn what_nobody_took_is_counted_when_somebody_reads_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(JournalSink::at(path.clone()).is_err(), "nobody listens");
        std::fs::remove_file(&path).unwrap();
        let first = UnixDatagram::bind(&path).unwrap();
        let mut journal = JournalSink::at(path.clone()).unwrap();
        drop(first);
        std::fs::remove_file(&path).unwrap();
        journal.send(b"MESSAGE=one\n");
        journal.send(b"MESSAGE=two\n");
        let second = UnixDatagram::bind(&path).unwrap();
        journal.send(b"MESSAGE=three\n");
        let mut buffer = [0; 4096];
        let length = second.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"MESSAGE=2 lines of the log were lost here"));
        let length = second.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"MESSAGE=three\n");
    }
}
