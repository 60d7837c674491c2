//! `wait`: waits until a child has ended, or is ready.

use std::time::Duration;

use clap::Args;
use procbroker_protocol::request::{Until, WaitParams};
use procbroker_protocol::{ChildState, Request, Response, Target, duration};

use crate::cli::ask::{Ask, Verdict, child_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::words::{condition, title};
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::progress::{Awaited, End};
use crate::cli::values::{Choice, one_of, target};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker wait render-42 --timeout 1m
  procbroker wait server --until ready
  procbroker wait job --exit-code || echo \"the job failed with status $?\"";

/// The words of `--until`.
const UNTIL: &[Choice<Until>] = &[
    Choice { word: "ready", value: Until::Ready, help: "It is ready, or has ended before it was" },
    Choice { word: "ended", value: Until::Ended, help: "It and its descendants are gone and cleaned up" },
];

/// The arguments of `wait`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    /// What to wait for
    #[arg(long, value_name = "STATE", default_value = "ended", value_parser = one_of(UNTIL))]
    until: Until,
    /// Exit with the child's own exit status: its code, or 128 and the number of the signal that ended it
    ///
    /// An error of this command has its own exit status, which can be the same number: 3 where there is no such child.
    #[arg(long)]
    exit_code: bool,
    /// How long to wait [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for WaitArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let Self { target, until, timeout, exit_code, print: _ } = self;
        if *exit_code && *until == Until::Ready {
            let message = "--exit-code waits for the end of the child; leave out --until ready".to_owned();
            return Err(Failure::Usage { message });
        }
        Ok(vec![Request::Wait(WaitParams { target: target.clone(), until: *until, timeout: *timeout })])
    }

    fn awaited(&self) -> Option<Awaited> {
        let goes_on = "the child goes on: nothing was stopped";
        let end = End::Seen(self.timeout);
        Some(Awaited { targets: vec![self.target.clone()], end, goes_on })
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        if let Response::Child(child) = answer {
            Ok(table::lines(std::slice::from_ref(child)))
        } else {
            Err(Failure::Answer)
        }
    }

    fn human(&self, answer: &Response, _: Screen) -> Result<CommandOutput, Failure> {
        let child = child_of(answer)?;
        Ok(CommandOutput::done(format!("{}: {}\n", title(child), condition(child))))
    }

    fn verdict(&self, answer: &Response) -> Verdict {
        match (self.until, answer) {
            (Until::Ready, Response::Child(child)) if child.state == ChildState::Ended => {
                Verdict::Failed { why: format!("{} has ended, so it is not ready", title(child)) }
            }
            (Until::Ended, Response::Child(child)) if self.exit_code => {
                child.exit.as_ref().map_or(Verdict::Done, |exit| Verdict::Ended(exit.status))
            }
            (Until::Ready | Until::Ended, _) => Verdict::Done,
        }
    }
}
