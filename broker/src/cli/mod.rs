//! The command line: arguments in, one request to the broker, a table or a line out, and an exit status.
//!
//! Start-up is kept light, for scripts that run it often: one thread, one connection, one request.

mod access;
mod ask;
mod call;
mod command_status;
mod failure;
#[cfg(test)]
mod fake_broker;
mod print;
mod progress;
mod reader;
mod size;
mod usage;
mod values;
mod verbs;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

pub use size::ByteSize;
pub use verbs::{
    BoundArguments, ContainmentChoice, LogFormat, LogLevel, MainArguments, ServeArguments,
    WRITE_BY_OTHERS_THAN_THE_OWNER,
};

use command_status::CommandStatus;
use failure::Failure;
use print::Report;
use verbs::CommandLine;

/// Whether a broker of this program could go on with these arguments and this record, and if not, why.
pub type Rehearse = fn(&ServeArguments, &Path) -> Result<(), String>;

/// What the command line calls of the broker in this program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Runs the broker.
    pub serve: fn(&ServeArguments) -> ExitCode,
    /// Looks at what a broker of this program would start with.
    pub rehearse: Rehearse,
    /// Executes the program before this one again, if this was to take over and cannot for this reason.
    pub turn_back: fn(&str),
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main(program: &Program) -> ExitCode {
    match CommandLine::try_parse() {
        Ok(line) => line.carry_out(program),
        Err(error) => {
            (program.turn_back)(&usage::message(&error));
            usage::answer(&error).into()
        }
    }
}

/// Prints what came of a verb, and gives the exit status.
fn conclude(json: bool, outcome: Result<Report, Failure>) -> CommandStatus {
    let written = outcome.and_then(|report| match write_result(&report.result) {
        Ok(()) => Ok(report),
        Err(error) => Err(Failure::Output(error)),
    });
    match written {
        Ok(Report { result: _, remarks, status }) => {
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
fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
