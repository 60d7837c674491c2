//! `shutdown`: stops every child and then the broker.

use std::time::Duration;

use clap::Args;
use procbroker_protocol::request::ShutdownParams;
use procbroker_protocol::response::ShutdownReport;
use procbroker_protocol::{Request, Response, Target, duration};

use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::progress::{Awaited, End};
use crate::cli::values::duration;
use crate::counted;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = durations!("");

/// The arguments of `shutdown`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShutdownArguments {
    /// How long the whole may take before all that is left is killed, instead of the broker's own setting
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for ShutdownArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        Ok(vec![Request::Shutdown(ShutdownParams { timeout: self.timeout })])
    }

    fn awaited(&self) -> Option<Awaited> {
        let goes_on = "the shutdown goes on, until the broker is gone";
        Some(Awaited { targets: vec![Target::All], end: End::ShutDown(self.timeout), goes_on })
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        Ok(table::lines(&report_of(answer)?.children))
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        let ShutdownReport { children, forced, took } = report_of(answer)?;
        let table = if children.is_empty() { String::new() } else { table::table(children, true, screen) };
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let took = duration::display(Duration::from_millis(millis));
        let children = counted::children(children.len());
        let summary = format!("the broker stopped {children} in {took}, {forced} by force\n");
        Ok(CommandOutput::done(table + &summary))
    }
}

fn report_of(answer: &Response) -> Result<&ShutdownReport, Failure> {
    if let Response::ShutDown(report) = answer { Ok(report) } else { Err(Failure::Answer) }
}
