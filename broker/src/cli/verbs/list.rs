//! `list`: shows children, the oldest first.

use std::sync::Arc;

use clap::Args;
use glob::Pattern;
use procbroker_protocol::request::ListParams;
use procbroker_protocol::{Child, ChildState, Field, Request, Response};

use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen, table};
use crate::cli::values::{Choice, glob, map, one_of, pair};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker list --label pool=render --name 'render-*'
  procbroker list --state backoff,ended
  procbroker list --usage --json | jq '.children[] | {name, usage}'
  procbroker list --quiet | wc -l";

/// The words of `--state`.
const STATES: &[Choice<ChildState>] = &[
    Choice { word: "starting", value: ChildState::Starting, help: "Not ready yet" },
    Choice { word: "running", value: ChildState::Running, help: "Ready" },
    Choice { word: "stopping", value: ChildState::Stopping, help: "Asked to end" },
    Choice { word: "cleaning", value: ChildState::Cleaning, help: "Gone, and being cleaned up after" },
    Choice { word: "backoff", value: ChildState::Backoff, help: "Waiting to be started again" },
    Choice { word: "ended", value: ChildState::Ended, help: "Gone and cleaned up" },
];

/// The arguments of `list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArguments {
    /// Only children with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Only children whose name has this pattern, such as 'render-*' (quoted, so that the shell leaves it alone)
    ///
    /// `*` stands for any text, `?` for one character, `[a-c]` for one of some.
    #[arg(long, value_name = "PATTERN", value_parser = glob)]
    name: Option<Pattern>,
    /// Only children in this state; may be repeated, or given as a list with commas
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = one_of(STATES))]
    state: Vec<ChildState>,
    /// Ended children too, with how they ended
    #[arg(long, short)]
    all: bool,
    /// What each uses with its descendants, too: the processor time so far, and the memory
    ///
    /// On a terminal the columns CPU and MEMORY; in a pipe two more at the end of each line, seconds and bytes; with --json
    /// all of `usage`. What cannot be told is left out: for want of a control group, for instance.
    #[arg(long, conflicts_with = "quiet")]
    usage: bool,
    /// Print ids alone, one a line
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    print: PrintArguments,
}

impl ListArguments {
    /// Whether ended children are shown too: those who ask for them by their state need not say so twice.
    fn with_ended(&self) -> bool {
        self.all || self.state.contains(&ChildState::Ended)
    }

    /// Whether a child has the name and the state that are asked for, which the broker does not look at.
    fn is_wanted(&self, child: &Child) -> bool {
        let has_name =
            |pattern: &Pattern| child.name.as_ref().is_some_and(|name| pattern.matches(name.as_str()));
        self.name.as_ref().is_none_or(has_name)
            && (self.state.is_empty() || self.state.contains(&child.state))
    }

    /// What to say when there are no such children.
    fn none(&self) -> &'static str {
        if self.name.is_some() {
            return if self.state.is_empty() {
                "no child has such a name"
            } else {
                "no child in such a state has such a name"
            };
        }
        if !self.state.is_empty() {
            return "no child is in such a state";
        }
        match (self.label.is_empty(), self.all) {
            (true, false) => "no child is alive; start one with 'procbroker create -- COMMAND'",
            (true, true) => "no child is alive, and none has ended lately",
            (false, false) => "no live child has these labels",
            (false, true) => "no child has these labels, alive or ended lately",
        }
    }
}

impl Ask for ListArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let labels = map("--label", &self.label).map_err(|error| Failure::usage(&error))?;
        // What they use is told to those who ask for it by name alone.
        let fields = self.usage.then(|| Field::ALL.iter().copied().collect());
        Ok(vec![Request::List(ListParams { labels, all: self.with_ended(), fields })])
    }

    fn choose(&self, answer: Response) -> Response {
        let mut children = match answer {
            Response::Children(children) => children,
            Response::PartialChildren(children) => match children.into_whole() {
                Ok(children) => children,
                Err(children) => return Response::PartialChildren(children),
            },
            other => return other,
        };
        children.retain(|child| self.is_wanted(child));
        Response::Children(children)
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        let children = children_of(answer)?;
        Ok(match (self.quiet, self.usage) {
            (true, _) => ids(children),
            (false, true) => table::lines_with_usage(children),
            (false, false) => table::lines(children),
        })
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        let children = children_of(answer)?;
        if self.quiet {
            return Ok(CommandOutput::done(ids(children)));
        }
        if children.is_empty() {
            return Ok(CommandOutput::nothing(self.none()));
        }
        Ok(CommandOutput::done(table::table(children, self.with_ended(), screen)))
    }
}

fn ids(children: &[Arc<Child>]) -> String {
    children.iter().map(|child| child.id.to_string() + "\n").collect()
}
