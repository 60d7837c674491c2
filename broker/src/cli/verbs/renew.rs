//! `renew`: gives children with a time to live their whole time again.

use clap::Args;
use procbroker_protocol::request::ManyParams;
use procbroker_protocol::{Request, Response};

use super::targets::TargetArguments;
use crate::cli::ask::{Ask, children_of};
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Screen, table};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Examples:
  procbroker create --name job --lifetime ttl:1m -- ./job
  procbroker renew job";

/// The arguments of `renew`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RenewArguments {
    #[command(flatten)]
    targets: TargetArguments,
    #[command(flatten)]
    print: PrintArguments,
}

impl Ask for RenewArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let renew = |target| Request::Renew(ManyParams { target });
        Ok(self.targets.targets()?.into_iter().map(renew).collect())
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        children_of(answer).map(table::lines)
    }

    fn human(&self, answer: &Response, screen: Screen) -> Result<CommandOutput, Failure> {
        let children = children_of(answer)?;
        if children.is_empty() {
            return Ok(CommandOutput::nothing("no live child matches; nothing was renewed"));
        }
        Ok(CommandOutput::done(table::table(children, false, screen)))
    }
}
