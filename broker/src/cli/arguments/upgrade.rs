//! The arguments of `upgrade`, and of what the broker itself asks the other program.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::PrintArguments;

/// The arguments of `upgrade`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpgradeArguments {
    #[command(flatten)]
    pub(in crate::cli) print: PrintArguments,
}

/// The arguments of `can-take-over`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CanTakeOverArguments {
    /// The form in which everything would be handed over
    #[arg(long, value_name = "NUMBER")]
    pub(in crate::cli) form: u32,
    /// The file in which the children are on record
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) record: PathBuf,
    /// The arguments with which the program would be started
    #[arg(last = true)]
    pub(in crate::cli) arguments: Vec<OsString>,
}
