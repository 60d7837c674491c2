//! The arguments of `logs`.

use clap::Args;
use procbroker_protocol::Target;
use procbroker_protocol::request::{LogStream, LogsParams};

use super::PrintArguments;
use super::values::{Choice, one_of, target};

/// The words of `--stream`.
const STREAMS: &[Choice<LogStream>] = &[
    Choice { word: "stdout", value: LogStream::Stdout, help: "Standard output" },
    Choice {
        word: "stderr",
        value: LogStream::Stderr,
        help: "Standard error: the same as standard output, unless the child was created with --stderr log",
    },
];

/// The arguments of `logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    /// Only the last so many lines [default: all that is kept]
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Go on with what the child writes, until it has ended
    #[arg(long)]
    follow: bool,
    /// Which of its outputs
    #[arg(long, value_name = "STREAM", default_value = "stdout", value_parser = one_of(STREAMS))]
    stream: LogStream,
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

impl LogsArguments {
    /// The parameters that these arguments ask for.
    pub(in crate::cli) fn params(&self) -> LogsParams {
        let Self { target, tail, follow, stream, print: _ } = self;
        LogsParams { target: target.clone(), stream: *stream, tail: *tail, follow: *follow }
    }
}
