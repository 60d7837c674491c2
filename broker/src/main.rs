//! The `procbroker` program.

use std::process::ExitCode;

use procbroker::cli::EntryPoints;
use procbroker::serve::{rehearse, serve, turn_back};

fn main() -> ExitCode {
    procbroker::cli::main(&EntryPoints { serve, rehearse, turn_back })
}
