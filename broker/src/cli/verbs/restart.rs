//! `restart`: stops children and starts them again.

use clap::Args;
use procbroker_protocol::request::ManyParams;
use procbroker_protocol::{Request, Response, Target};

use super::targets::TargetArguments;
use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::progress::{Awaited, End};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker restart render-42
  procbroker restart --label pool=render
  procbroker restart --label pool=web --in-turn";

/// The arguments of `restart`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestartArguments {
    #[command(flatten)]
    targets: TargetArguments,
    /// One after the other, each when the one before it is ready again; after one that fails no more
    #[arg(long)]
    in_turn: bool,
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for RestartArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let restart = |target| Request::Restart(ManyParams { target });
        Ok(self.targets.targets()?.into_iter().map(restart).collect())
    }

    fn in_turn(&self) -> Result<Option<Vec<Target>>, Failure> {
        if self.in_turn { self.targets.targets().map(Some) } else { Ok(None) }
    }

    fn awaited(&self) -> Option<Awaited> {
        // One after the other, no request is for all of them: what is left is not restarted by itself.
        let targets = self.targets.targets().ok().filter(|_| !self.in_turn)?;
        let goes_on = "the restart goes on; 'procbroker list' shows how far it is";
        Some(Awaited { targets, end: End::Restarted, goes_on })
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        children_of(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        let children = children_of(answer)?;
        if children.is_empty() {
            return Ok(CommandOutput::nothing("no live child matches; nothing was restarted"));
        }
        Ok(CommandOutput::done(table::table(children, false, screen)))
    }
}
