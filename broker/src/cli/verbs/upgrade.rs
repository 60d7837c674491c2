//! `upgrade`: asks the broker to become the program in its place, and waits until that serves.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use procbroker_client::{Broker, Upgrade};
use procbroker_protocol::Response;

use crate::cli::ask;
use crate::cli::call;
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::{CommandOutput, Style};

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = "\
Output:
  The version before and the one after it. With --json, the `status` of the
  broker that has taken over.

Examples:
  install -m 755 procbroker /usr/local/bin/procbroker && procbroker upgrade";

/// The arguments of `upgrade`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpgradeArguments {
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

/// How long the program that takes over may take to serve: many children take a second, a slow disk some more.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Has the broker upgraded, and says from which version to which.
pub(in crate::cli) fn upgrade(
    socket: Option<PathBuf>,
    arguments: &UpgradeArguments,
) -> Result<CommandOutput, Failure> {
    let upgrade = call::runtime()?.block_on(async {
        let mut builder = Broker::builder().connect_timeout(START_PATIENCE);
        if let Some(socket) = socket {
            builder = builder.socket(socket);
        }
        Ok::<_, Failure>(builder.connect().await?.upgrade().await?)
    })?;
    report(&upgrade, Style::of_standard_output(arguments.print))
}

fn report(upgrade: &Upgrade, style: Style) -> Result<CommandOutput, Failure> {
    let Upgrade { before, after } = upgrade;
    match style {
        Style::Json => ask::json(&Response::Status(Box::new(after.clone()))).map(CommandOutput::done),
        Style::Plain | Style::Terminal(_) => {
            let (from, to, pid) = (&before.version, &after.version, after.pid);
            Ok(CommandOutput::done(format!(
                "upgraded from version {from} to {to}; the process is {pid} as before\n"
            )))
        }
    }
}
