//! `wait`: waits until a child has ended, or is ready.

use std::time::Duration;

use clap::Args;
use procbroker_protocol::request::{Until, WaitParams};
use procbroker_protocol::{ChildState, Request, Response, Target, duration};

use super::PrintArguments;
use crate::cli::ask::{Ask, Verdict, child_of};
use crate::cli::failure::Failure;
use crate::cli::print::words::{condition, title};
use crate::cli::print::{Report, Screen, table};
use crate::cli::values::{Choice, one_of, target};

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

    fn request(&self) -> Result<Request, Failure> {
        let Self { target, until, timeout, print: _ } = self;
        Ok(Request::Wait(WaitParams { target: target.clone(), until: *until, timeout: *timeout }))
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        if let Response::Child(child) = answer {
            Ok(table::lines(std::slice::from_ref(child)))
        } else {
            Err(Failure::Answer)
        }
    }

    fn human(&self, answer: &Response, _: Screen) -> Result<Report, Failure> {
        let child = child_of(answer)?;
        Ok(Report::done(format!("{}: {}\n", title(child), condition(child))))
    }

    fn verdict(&self, answer: &Response) -> Verdict {
        match (self.until, answer) {
            (Until::Ready, Response::Child(child)) if child.state == ChildState::Ended => {
                Verdict::Failed { why: format!("{} has ended, so it is not ready", title(child)) }
            }
            (Until::Ready | Until::Ended, _) => Verdict::Done,
        }
    }
}
