//! The command line: arguments in, one request to the broker, a table or a line out, and an exit status.
//!
//! Start-up is kept light, for scripts that run it often: one thread, one connection, one request.

mod arguments;
mod ask;
mod call;
mod events;
mod examples;
mod failure;
#[cfg(test)]
mod fake_broker;
mod logs;
mod pages;
mod print;
mod reader;
mod status;
mod take_over;
mod upgrade;
mod usage;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use procbroker_protocol::Timestamp;

pub use arguments::{BoundArguments, ByteSize, ContainmentChoice, LogLevel, MainArguments, ServeArguments};

use arguments::{Ask, CommandLine, Verb};
use failure::Failure;
use print::{Report, Style};
use status::CommandStatus;

/// Whether a broker of this program can make sense of a record, and if not, why.
pub type ReadRecord = fn(&Path) -> Result<(), String>;

/// Reads the command line and does what it says; `serve` runs the broker.
#[must_use]
pub fn main(serve: fn(&ServeArguments) -> ExitCode, read_record: ReadRecord) -> ExitCode {
    match CommandLine::try_parse() {
        Ok(CommandLine { socket, verb }) => match verb {
            Verb::Serve(arguments) => serve(&ServeArguments { socket, ..*arguments }),
            Verb::Run(arguments) => serve(&ServeArguments { socket, ..arguments.into_serve() }),
            Verb::Ask(ask) => conclude(ask.print().json, self::ask(socket, &ask)).into(),
            Verb::Logs(arguments) => logs::show(socket, &arguments).into(),
            Verb::Events(arguments) => events::show(socket, &arguments).into(),
            Verb::Upgrade(arguments) => {
                conclude(arguments.print.json, upgrade::upgrade(socket, &arguments)).into()
            }
            Verb::CanTakeOver(arguments) => {
                conclude(false, take_over::can_take_over(&arguments, read_record)).into()
            }
            Verb::Completions(arguments) => {
                conclude(false, Ok(Report::done(pages::completions(arguments.shell)))).into()
            }
            Verb::Man(arguments) => {
                conclude(false, pages::manual(arguments.verb.as_deref()).map(Report::done)).into()
            }
        },
        Err(error) => usage::answer(&error).into(),
    }
}

/// Sends the request of a verb, and shows the answer.
fn ask(socket: Option<PathBuf>, ask: &Ask) -> Result<Report, Failure> {
    let response = call::call(socket, ask.request()?)?;
    let style = Style::of_standard_output(ask.print());
    print::report(ask.view(), &response, style, Timestamp::from(SystemTime::now()))
}

/// Prints what came of a verb, and gives the exit status.
fn conclude(json: bool, outcome: Result<Report, Failure>) -> CommandStatus {
    let written = outcome.and_then(|report| match write_result(&report.result) {
        Ok(()) => Ok(report),
        Err(error) => Err(Failure::Output(error)),
    });
    match written {
        Ok(Report { result: _, note, status }) => {
            if let Some(note) = note {
                complain(&format!("procbroker: {note}\n"));
            }
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
