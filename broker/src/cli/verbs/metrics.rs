//! `metrics`: what the broker has counted, as Prometheus reads it.

use clap::Args;
use procbroker_protocol::request::NoParams;
use procbroker_protocol::{Request, Response};

use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker metrics | grep ^procbroker_children
  procbroker metrics > /var/lib/node_exporter/procbroker.prom";

/// The arguments of `metrics`.
#[derive(Debug, Args)]
pub(in crate::cli) struct MetricsArguments {
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for MetricsArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        Ok(vec![Request::Metrics(NoParams {})])
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        if let Response::Metrics(metrics) = answer { Ok(metrics.text.clone()) } else { Err(Failure::Answer) }
    }

    fn human(&self, answer: &Response, _: Screen) -> Result<CommandOutput, Failure> {
        self.plain(answer).map(CommandOutput::done)
    }
}
