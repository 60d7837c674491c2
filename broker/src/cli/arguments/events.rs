//! The arguments of `events`.

use clap::Args;
use procbroker_protocol::request::EventsParams;

use super::PrintArguments;
use super::values::{ValueError, map, pair};

/// The arguments of `events`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArguments {
    /// The first sequence number wanted [default: only what happens from now on]
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
    /// Only of children with this label; repeated, with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

impl EventsArguments {
    /// The parameters that these arguments ask for.
    pub(in crate::cli) fn params(&self) -> Result<EventsParams, ValueError> {
        let Self { since, label, print: _ } = self;
        Ok(EventsParams { since: *since, labels: map("--label", label)? })
    }
}
