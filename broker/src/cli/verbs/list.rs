//! `list`: shows children, the oldest first.

use std::sync::Arc;

use clap::Args;
use glob::Pattern;
use procbroker_protocol::request::ListParams;
use procbroker_protocol::{Child, Request, Response};

use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{Report, Screen, table};
use crate::cli::values::{glob, map, pair};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker list --label pool=render --name 'render-*'
  procbroker list --all
  procbroker list --quiet | wc -l";

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
    /// Ended children too, with how they ended
    #[arg(long, short)]
    all: bool,
    /// Print ids alone, one a line
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    print: PrintArguments,
}

impl ListArguments {
    /// What to say when there are no such children.
    fn none(&self) -> &'static str {
        if self.name.is_some() {
            return "no child has such a name";
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
        Ok(vec![Request::List(ListParams { labels, all: self.all, fields: None })])
    }

    fn choose(&self, answer: Response) -> Response {
        match (&self.name, answer) {
            (Some(pattern), Response::Children(mut children)) => {
                children
                    .retain(|child| child.name.as_ref().is_some_and(|name| pattern.matches(name.as_str())));
                Response::Children(children)
            }
            (Some(_) | None, answer) => answer,
        }
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        let children = children_of(answer)?;
        Ok(if self.quiet { ids(children) } else { table::lines(children) })
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<Report, Failure> {
        let children = children_of(answer)?;
        if self.quiet {
            return Ok(Report::done(ids(children)));
        }
        if children.is_empty() {
            return Ok(Report::nothing(self.none()));
        }
        Ok(Report::done(table::table(children, self.all, screen)))
    }
}

fn ids(children: &[Arc<Child>]) -> String {
    children.iter().map(|child| child.id.to_string() + "\n").collect()
}
