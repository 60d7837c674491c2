//! `wait`: waits until children have ended, or are ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use procbroker_protocol::request::{Until, WaitParams};
use procbroker_protocol::{Child, ChildState, Request, Response, Target};

use crate::cli::ask::{Ask, Verdict};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::words::{condition, title};
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::progress::{Awaited, End};
use crate::cli::values::{Choice, duration, map, one_of, one_of_several_targets, pair};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = durations!(
    "

Examples:
  procbroker wait render-42 --timeout 1m
  procbroker wait server --until ready
  procbroker wait render-42 render-43 --timeout 10m
  procbroker wait --label pool=render
  procbroker wait job --exit-code || echo \"the job failed with status $?\""
);

/// The usage of the verb.
pub(super) const USAGE: &str = "procbroker wait [OPTIONS] <TARGET>... | --label <KEY=VALUE>...";

/// The words of `--until`.
const UNTIL: &[Choice<Until>] = &[
    Choice { word: "ready", value: Until::Ready, help: "It is ready, or has ended before it was" },
    Choice { word: "ended", value: Until::Ended, help: "It and its descendants are gone and cleaned up" },
];

/// The arguments of `wait`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("awaited").required(true).args(["target", "label"]))]
pub(in crate::cli) struct WaitArguments {
    /// The children, by id or name
    #[arg(value_parser = one_of_several_targets)]
    target: Vec<Target>,
    /// Every child with this label that lives at the moment; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// What to wait for
    #[arg(long, value_name = "STATE", default_value = "ended", value_parser = one_of(UNTIL))]
    until: Until,
    /// Exit with the exit status of the one child: its code, or 128 and the number of the signal that ended it
    ///
    /// With --until ready, that of a child which has ended before it was ready. An error of this command has its own exit
    /// status, which can be the same number: 3 where there is no such child.
    #[arg(long, conflicts_with = "label")]
    exit_code: bool,
    /// How long to wait, for all of them together [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    print: PrintArguments,
}

impl WaitArguments {
    /// The children that are named, each once.
    fn named(&self) -> Vec<Target> {
        let mut named: Vec<Target> = Vec::new();
        for target in &self.target {
            if !named.contains(target) {
                named.push(target.clone());
            }
        }
        named
    }
}

impl Ask for WaitArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let named = self.named();
        if self.exit_code && named.len() > 1 {
            let message = "--exit-code passes on the exit status of one child; name that alone";
            return Err(Failure::Usage { message: message.to_owned() });
        }
        Ok(self.requests_for(&named))
    }

    fn each_with(&self) -> Result<Option<BTreeMap<String, String>>, Failure> {
        if self.label.is_empty() {
            return Ok(None);
        }
        map("--label", &self.label).map(Some).map_err(|error| Failure::usage(&error))
    }

    fn requests_for(&self, children: &[Target]) -> Vec<Request> {
        let Self { until, timeout, .. } = self;
        let wait = |target: &Target| WaitParams { target: target.clone(), until: *until, timeout: *timeout };
        children.iter().map(wait).map(Request::Wait).collect()
    }

    fn awaited(&self) -> Option<Awaited> {
        let goes_on = if self.is_of_several() {
            "the children go on: nothing was stopped"
        } else {
            "the child goes on: nothing was stopped"
        };
        Some(Awaited { targets: self.named(), end: End::Seen(self.timeout), goes_on })
    }

    fn is_of_several(&self) -> bool {
        !self.label.is_empty() || self.named().len() > 1
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        waited_for(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, _: Screen) -> Result<CommandOutput, Failure> {
        let children = waited_for(answer)?;
        if children.is_empty() {
            return Ok(CommandOutput::nothing("no live child has these labels; nothing was waited for"));
        }
        let line = |child: &Arc<Child>| format!("{}: {}\n", title(child), condition(child));
        Ok(CommandOutput::done(children.iter().map(line).collect()))
    }

    fn verdict(&self, answer: &Response) -> Verdict {
        let children = waited_for(answer).unwrap_or_default();
        match (self.until, children) {
            (Until::Ready | Until::Ended, [child]) if self.exit_code && child.state == ChildState::Ended => {
                child.exit.as_ref().map_or(Verdict::Done, |exit| Verdict::Ended(exit.status))
            }
            (Until::Ended, _) => Verdict::Done,
            (Until::Ready, children) => {
                let ended: Vec<String> = children
                    .iter()
                    .filter(|child| child.state == ChildState::Ended)
                    .map(|child| format!("{} has ended, so it is not ready", title(child)))
                    .collect();
                if ended.is_empty() { Verdict::Done } else { Verdict::Failed { why: ended.join("; ") } }
            }
        }
    }
}

/// The children of an answer to one wait, or to several.
fn waited_for(answer: &Response) -> Result<&[Arc<Child>], Failure> {
    match answer {
        Response::Child(child) => Ok(std::slice::from_ref(child)),
        Response::Children(children) => Ok(children),
        Response::Created(_)
        | Response::Got(_)
        | Response::Logs(_)
        | Response::Subscribed(_)
        | Response::Status(_)
        | Response::ShutDown(_)
        | Response::Upgraded
        | Response::PartialChildren(_)
        | Response::Metrics(_) => Err(Failure::Answer),
    }
}
