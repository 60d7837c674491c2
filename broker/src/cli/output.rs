//! What goes to standard output and standard error, and the exit status that follows.

use std::io::{self, Write};

use super::command_status::CommandStatus;
use super::failure::Failure;
use super::print::CommandOutput;

/// Prints what came of a verb, and gives the exit status.
pub(super) fn conclude(json: bool, outcome: Result<CommandOutput, Failure>) -> CommandStatus {
    let written = outcome.and_then(|report| match write_result(&report.result) {
        Ok(()) => Ok(report),
        Err(error) => Err(Failure::Output(error)),
    });
    match written {
        Ok(CommandOutput { result: _, remarks, status }) => {
            complain(&remarks);
            status
        }
        Err(failure) => {
            complain(&failure.report(json));
            failure.status()
        }
    }
}

/// Writes to standard output. A reader that has seen enough, such as head(1), is no failure: SIGPIPE is
/// ignored in Rust programs, so a closed pipe shows as an error here.
fn write_result(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Writes to standard error. When that is closed there is nobody left to tell, and the exit status remains.
pub(super) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
