//! `top`: a live view of the children, with keys to stop, restart and signal them.
//!
//! [`model`] is what is known, [`keys`] what a key makes of it, [`draw`] how it looks, [`terminal`] the terminal itself, and
//! [`session`] asks the broker. The first three are functions of what they are given.

mod draw;
mod job;
mod keys;
mod model;
mod rows;
mod session;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;

use crate::cli::call;
use crate::cli::command_status::CommandStatus;
use crate::cli::failure::Failure;
use crate::cli::output::complain;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Keys:
  arrows, j, k  select a child          /       show only those whose name,
  Enter         show its output                 command or label (key=value)
  e             show its standard               has a text
                error                   o       order by another column
  PgUp, PgDn    a page; of the output,  Ctrl-Z  back to the shell; fg goes on
                while it is shown       ?       help
  s, r          stop it, restart it     q       leave
  x             send it a signal";

/// The arguments of `top`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TopArguments {}

/// Shows the children until whoever looks has seen enough.
pub(in crate::cli) fn show(socket: Option<PathBuf>, _: &TopArguments) -> CommandStatus {
    let shown = check_terminal().and_then(|()| {
        call::runtime()?.block_on(async {
            let broker = call::connect(socket).await?;
            session::run(broker).await
        })
    });
    match shown {
        Ok(status) => status,
        Err(failure) => {
            complain(&failure.report(false));
            failure.status()
        }
    }
}

fn check_terminal() -> Result<(), Failure> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb {
        return Ok(());
    }
    let message =
        "top needs a terminal; 'procbroker list --usage' shows the children once, with what they use"
            .to_owned();
    Err(Failure::Usage { message })
}
