//! Whether what shows that a child is ready, and well, can be found out.

use std::time::Duration;

use procbroker_protocol::create::{Check, Probe, Ready, StandardError, StandardOutput};
use procbroker_protocol::{CreateParams, Error};

use super::{command, invalid, text};

/// The shortest pause between two tries: more would only load the machine.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Checks `ready` and `watchdog`.
pub(super) fn check(params: &CreateParams) -> Result<(), Error> {
    watchdog(params)?;
    match &params.ready {
        Ready::Spawn | Ready::Notify => Ok(()),
        Ready::Probe(Probe { interval, .. }) if *interval < INTERVAL_MIN => {
            Err(invalid("ready.interval", "it is at least 10 milliseconds"))
        }
        Ready::Probe(Probe { check: Check::Log(_), .. }) if !keeps_output(params) => {
            let reason = "none of its output is kept, so that no line of it can be looked for; leave stdout at log, or \
                          set stderr to log";
            Err(invalid("ready.log", reason))
        }
        Ready::Probe(Probe { check, .. }) => probe(check),
    }
}

/// Whether anything that the child writes comes to its log.
fn keeps_output(params: &CreateParams) -> bool {
    params.stdout == StandardOutput::Log || params.stderr == StandardError::Log
}

/// The words that a probe has executed.
pub(super) fn words(ready: &Ready) -> &[String] {
    match ready {
        Ready::Probe(Probe { check: Check::Command(command), .. }) => command,
        Ready::Probe(_) | Ready::Spawn | Ready::Notify => &[],
    }
}

fn watchdog(params: &CreateParams) -> Result<(), Error> {
    match params.watchdog {
        Some(_) if params.ready != Ready::Notify => {
            Err(invalid("watchdog", "it needs a child that tells how it is: give ready: notify with it"))
        }
        Some(time) if time < INTERVAL_MIN => Err(invalid("watchdog", "it is at least 10 milliseconds")),
        Some(_) | None => Ok(()),
    }
}

fn probe(check: &Check) -> Result<(), Error> {
    match check {
        Check::Unix(path) => {
            text("ready.unix", path)?;
            if !path.starts_with('/') {
                let reason = format!("{path:?} is not an absolute path; give one that starts with /");
                return Err(invalid("ready.unix", &reason));
            }
            if path.len() > SOCKET_PATH_BYTES_MAX {
                let bytes = path.len();
                let reason =
                    format!("it has {bytes} bytes, and a socket's path at most {SOCKET_PATH_BYTES_MAX}");
                return Err(invalid("ready.unix", &reason));
            }
            Ok(())
        }
        Check::Log(wanted) if wanted.is_empty() => {
            Err(invalid("ready.log", "it is empty, and every line contains that"))
        }
        Check::Log(wanted) if wanted.contains('\n') => {
            Err(invalid("ready.log", "it has more than one line, and no line contains that"))
        }
        Check::Tcp(_) | Check::Log(_) => Ok(()),
        Check::Command(words) => command("ready.command", words),
    }
}
