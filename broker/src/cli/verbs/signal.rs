//! `signal`: sends a signal to a child.

use clap::Args;
use procbroker_protocol::request::{Scope, SignalParams};
use procbroker_protocol::{Request, Response, Signal, Target};

use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::values::{Choice, one_of, signal, target};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker signal render-42 HUP
  procbroker signal render-42 -9 --scope all";

/// The words of `--scope`.
const SCOPES: &[Choice<Scope>] = &[
    Choice { word: "main", value: Scope::Main, help: "The process that the broker started" },
    Choice { word: "group", value: Scope::Group, help: "Its process group" },
    Choice { word: "all", value: Scope::All, help: "Everything that descends from it" },
];

/// The arguments of `signal`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SignalArguments {
    /// The child, by id or name
    #[arg(value_parser = target)]
    target: Target,
    /// The signal, by name (SIGHUP or HUP) or number, or as kill(1) takes it (-9)
    #[arg(value_parser = signal, allow_hyphen_values = true)]
    signal: Signal,
    /// Which of its processes get it
    #[arg(long, value_name = "SCOPE", default_value = "main", value_parser = one_of(SCOPES))]
    scope: Scope,
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for SignalArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let Self { target, signal, scope, print: _ } = self;
        Ok(vec![Request::Signal(SignalParams { target: target.clone(), signal: *signal, scope: *scope })])
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        children_of(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        let children = children_of(answer)?;
        if children.is_empty() {
            return Ok(CommandOutput::nothing("no live child matches; no signal was sent"));
        }
        Ok(CommandOutput::done(table::table(children, false, screen)))
    }
}
