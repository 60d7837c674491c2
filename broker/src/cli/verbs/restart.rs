//! `restart`: stops children and starts them again.

use clap::Args;
use procbroker_protocol::request::ManyParams;
use procbroker_protocol::{Child, ChildState, Request, Response, Target};

use super::targets::TargetArguments;
use crate::cli::ask::{Ask, Verdict, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::words::{condition, title};
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

    fn verdict(&self, answer: &Response) -> Verdict {
        why_not_back(answer).map_or(Verdict::Done, |why| Verdict::Failed { why })
    }
}

/// Says which children that were to be running again are not, if there are such.
pub(super) fn why_not_back(answer: &Response) -> Option<String> {
    let children = children_of(answer).unwrap_or_default();
    let lines: Vec<String> = children.iter().filter_map(|child| not_back(child)).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Says of a child that was to be running again why it is not, if it is not.
fn not_back(child: &Child) -> Option<String> {
    let (title, condition) = (title(child), condition(child));
    match child.state {
        ChildState::Running => None,
        ChildState::Ended => Some(format!("{title} has not come back: {condition}")),
        ChildState::Backoff => {
            Some(format!("{title} is not ready; its restart policy starts it again later: {condition}"))
        }
        ChildState::Starting | ChildState::Stopping | ChildState::Cleaning => {
            Some(format!("{title} is not ready: {condition}"))
        }
    }
}
