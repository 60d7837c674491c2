//! The `procbroker` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    procbroker::cli::main(procbroker::serve::serve, procbroker::serve::read_record)
}
