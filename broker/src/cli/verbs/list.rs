//! `list`: shows children, the oldest first.

use clap::Args;
use procbroker_protocol::request::ListParams;
use procbroker_protocol::{Request, Response};

use super::PrintArguments;
use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::{Report, Screen, table};
use crate::cli::values::{map, pair};

/// The arguments of `list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArguments {
    /// Only children with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Ended children too, with how they ended
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    print: PrintArguments,
}

impl ListArguments {
    /// What to say when there are no such children.
    fn none(&self) -> &'static str {
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

    fn request(&self) -> Result<Request, Failure> {
        let labels = map("--label", &self.label).map_err(|error| Failure::usage(&error))?;
        Ok(Request::List(ListParams { labels, all: self.all, fields: None }))
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        children_of(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<Report, Failure> {
        let children = children_of(answer)?;
        if children.is_empty() {
            return Ok(Report::nothing(self.none()));
        }
        Ok(Report::done(table::table(children, self.all, screen)))
    }
}
