//! The broker's own log: where its lines go, and how they look.

mod lines;

use std::io::{self, IsTerminal as _, Write as _};

use crate::cli::{LogFormat, LogLevel};
use lines::{Guard, Lines};

/// Sends the log to standard error, from a thread of its own. It is written out when the guard is dropped.
///
/// # Errors
/// When the system has no thread to give.
pub(super) fn to_standard_error(level: LogLevel, format: LogFormat) -> io::Result<Guard> {
    let (lines, guard) = Lines::to(io::stderr())?;
    let log = tracing_subscriber::fmt().with_max_level(level.filter()).with_writer(lines);
    // It fails only when a log is there already.
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let log = log.with_target(false).with_ansi(io::stderr().is_terminal());
            // Under systemd the journal has the time already.
            if std::env::var_os("JOURNAL_STREAM").is_some() {
                log.without_time().try_init()
            } else {
                log.try_init()
            }
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
            // Whoever has closed standard error has seen enough.
            let _ = io::stderr().write_all(format!("procbroker: {message}\n").as_bytes());
        }
    }
}
