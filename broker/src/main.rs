//! The `procbroker` program.

use std::process::ExitCode;

use procbroker::cli::Program;
use procbroker::serve::{rehearse, serve, turn_back};

fn main() -> ExitCode {
    procbroker::cli::main(&Program { serve, rehearse, turn_back })
}
