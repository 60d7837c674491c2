//! `destroy`: stops children, and waits until they are gone and cleaned up.

use clap::Args;
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::DestroyParams;
use procbroker_protocol::{Request, Response};

use super::targets::TargetArguments;
use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::progress::{Awaited, End};
use crate::cli::values::stop_step;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = durations!(
    "

Examples:
  procbroker destroy render-42
  procbroker destroy render-42 render-43 render-44
  procbroker destroy --label pool=render --stop SIGINT:2s
  procbroker destroy --all --no-wait"
);

/// The arguments of `destroy`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DestroyArguments {
    #[command(flatten)]
    targets: TargetArguments,
    /// The steps of the stop, instead of each child's own; see `create --help`
    #[arg(long, value_name = "SIGNAL[:GRACE]", value_delimiter = ',', value_parser = stop_step)]
    stop: Vec<StopStep>,
    /// Answer as soon as the stop has begun
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for DestroyArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let stop = if self.stop.is_empty() { None } else { Some(self.stop.clone()) };
        let destroy =
            |target| Request::Destroy(DestroyParams { target, stop: stop.clone(), no_wait: self.no_wait });
        Ok(self.targets.targets()?.into_iter().map(destroy).collect())
    }

    fn awaited(&self) -> Option<Awaited> {
        let targets = self.targets.targets().ok().filter(|_| !self.no_wait)?;
        let steps = Some(self.stop.clone()).filter(|steps| !steps.is_empty());
        let goes_on = "the stop goes on; 'procbroker list' shows how far it is";
        Some(Awaited { targets, end: End::Stopped(steps), goes_on })
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        children_of(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        let children = children_of(answer)?;
        if children.is_empty() {
            return Ok(CommandOutput::nothing("no live child matches; nothing was destroyed"));
        }
        Ok(CommandOutput::done(table::table(children, true, screen)))
    }
}
