//! `upgrade`: asks the broker to become the program in its place, and waits until that serves.

use std::path::PathBuf;
use std::time::Duration;

use procbroker_client::{Broker, Upgrade};
use procbroker_protocol::Response;
use procbroker_protocol::json_lines::objects::ResultObject;

use super::arguments::UpgradeArguments;
use super::call;
use super::failure::Failure;
use super::print::{Report, Style};

/// How long the program that takes over may take to serve: many children take a second, a slow disk some more.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Has the broker upgraded, and says from which version to which.
pub(super) fn upgrade(socket: Option<PathBuf>, arguments: &UpgradeArguments) -> Result<Report, Failure> {
    let upgrade = call::runtime()?.block_on(async {
        let mut builder = Broker::builder().connect_timeout(START_PATIENCE);
        if let Some(socket) = socket {
            builder = builder.socket(socket);
        }
        Ok::<_, Failure>(builder.connect().await?.upgrade().await?)
    })?;
    report(&upgrade, Style::of_standard_output(arguments.print))
}

fn report(upgrade: &Upgrade, style: Style) -> Result<Report, Failure> {
    let Upgrade { before, after } = upgrade;
    match style {
        Style::Json => {
            let status = Response::Status(Box::new(after.clone()));
            let line = serde_json::to_string(&ResultObject(&status));
            line.map(|line| Report::done(line + "\n")).map_err(|error| Failure::Output(error.into()))
        }
        Style::Plain | Style::Terminal { .. } => {
            let (from, to, pid) = (&before.version, &after.version, after.pid);
            Ok(Report::done(format!(
                "upgraded from version {from} to {to}; the process is {pid} as before\n"
            )))
        }
    }
}
