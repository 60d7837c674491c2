//! `remove-groups`: removes the empty control groups that a broker leaves behind when it exits.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use crate::cli::print::Report;
use crate::os::tree::cgroup;

/// The arguments of `remove-groups`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveGroupsArguments {
    /// The folder of the broker's groups, which is standard input too
    #[arg(value_name = "PATH")]
    folder: PathBuf,
}

/// Removes what is below standard input, as far as nothing lives in it, and then the folder.
pub(in crate::cli) fn remove_groups(arguments: &RemoveGroupsArguments) -> Report {
    cgroup::remove_folder(io::stdin().as_fd(), &arguments.folder);
    Report::done(String::new())
}
