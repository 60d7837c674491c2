//! `destroy`: stops children, and waits until they are gone and cleaned up.

use clap::{ArgGroup, Args};
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::DestroyParams;
use procbroker_protocol::{Request, Response, Target};

use super::PrintArguments;
use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::{Report, Screen, table};
use crate::cli::values::{map, pair, stop_step, target};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker destroy render-42
  procbroker destroy --label pool=render --stop SIGINT:2s
  procbroker destroy --all --no-wait";

/// The arguments of `destroy`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["target", "label", "all"]))]
pub(in crate::cli) struct DestroyArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Option<Target>,
    /// Every live child with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Every live child that you may act on
    #[arg(long)]
    all: bool,
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

    fn request(&self) -> Result<Request, Failure> {
        let target = match &self.target {
            Some(target) => target.clone(),
            None if self.all => Target::All,
            None => Target::Labels(map("--label", &self.label).map_err(|error| Failure::usage(&error))?),
        };
        let stop = if self.stop.is_empty() { None } else { Some(self.stop.clone()) };
        Ok(Request::Destroy(DestroyParams { target, stop, no_wait: self.no_wait }))
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        children_of(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<Report, Failure> {
        let children = children_of(answer)?;
        if children.is_empty() {
            return Ok(Report::nothing("no live child matches; nothing was destroyed"));
        }
        Ok(Report::done(table::table(children, true, screen)))
    }
}
