//! The command line: arguments in, requests to the broker, a table or lines out, and an exit status.
//!
//! Start-up is kept light, for scripts that run it often: most verbs are one thread, one connection, one request.

mod access;
mod ask;
mod call;
mod command_status;
mod failure;
#[cfg(test)]
mod fake_broker;
mod flags;
mod in_turn;
mod output;
mod print;
mod program;
mod progress;
mod reader;
mod size;
mod usage;
mod values;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

pub use size::ByteSize;
pub use verbs::{
    BoundArguments, ChildrenLog, ContainmentChoice, EntryPoints, LogFormat, LogLevel, MainArguments,
    Rehearse, ServeArguments, WRITE_BY_OTHERS_THAN_THE_OWNER,
};

use verbs::CommandLine;

/// Reads the command line and does what it says.
#[must_use]
pub fn main(entry_points: &EntryPoints) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    match CommandLine::read(words.iter().cloned()) {
        Ok(line) => line.carry_out(entry_points),
        Err(error) => {
            (entry_points.turn_back)(&usage::message(&error, &words));
            usage::answer(&error, &words).into()
        }
    }
}
