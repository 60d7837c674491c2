//! The `procbroker` program.

use std::process::ExitCode;

use procbroker::cli::Program;
use procbroker::serve::{read_record, serve};

fn main() -> ExitCode {
    procbroker::cli::main(&Program { serve, read_record })
}
