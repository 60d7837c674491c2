//! The broker's own log: where its lines go, and how they look.

mod harmless_lines;
mod journal;
mod lines;

use std::io::{self, IsTerminal as _, Write as _};

use crate::cli::{LogFormat, LogLevel};
use crate::os::service::journal as native;
use harmless_lines::{Form, HarmlessLines};
use journal::{JournalLog, JournalSink};
use lines::{Guard, LogWriter};

/// Sends the log to standard error, from a thread of its own; to the journal itself where that is what standard error leads
/// to. It is written out when the guard is dropped.
///
/// # Errors
/// When the system has no thread to give.
pub(super) fn to_standard_error(level: LogLevel, format: LogFormat) -> io::Result<Guard> {
    let is_journal = native::takes(io::stderr());
    if format == LogFormat::Text
        && is_journal
        && let Ok(journal) = JournalSink::at(native::SOCKET.into())
    {
        let (lines, guard) = LogWriter::to(journal)?;
        // It fails only when a log is there already.
        let _ = tracing::subscriber::set_global_default(JournalLog::new(level.filter(), lines));
        return Ok(guard);
    }
    let (lines, guard) = LogWriter::to(io::stderr())?;
    let is_coloured = io::stderr().is_terminal();
    let form = match format {
        LogFormat::Json => Form::Json,
        LogFormat::Text if is_coloured => Form::Coloured,
        LogFormat::Text => Form::Text,
    };
    let lines = HarmlessLines { lines, form };
    let log = tracing_subscriber::fmt().with_max_level(level.filter()).with_writer(lines);
    // It fails only when a log is there already.
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let log = log.with_target(false).with_ansi(is_coloured);
            // The journal has the time already.
            if is_journal { log.without_time().try_init() } else { log.try_init() }
        }
    };
    Ok(guard)
}

/// Writes what the broker has failed with, in the form of the log, whatever the log lets through and whether there is one.
pub(super) fn last_word(format: LogFormat, message: &str) {
    match format {
        LogFormat::Json => {
            let log = tracing_subscriber::fmt().with_writer(io::stderr).json().flatten_event(true).finish();
            tracing::subscriber::with_default(log, || tracing::error!("{message}"));
        }
        LogFormat::Text => {
            // The priority of an error, as the journal takes it from a line (sd-daemon(3)).
            let priority = if native::takes(io::stderr()) { "<3>" } else { "" };
            let message = message.replace('\n', &format!("\n{priority}"));
            let text = format!("{priority}procbroker: {message}\n");
            // Whoever has closed standard error has seen enough.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}
