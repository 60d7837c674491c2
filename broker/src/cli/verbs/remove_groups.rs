//! `remove-groups`: removes the empty control groups that a broker leaves behind when it exits.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::print::CommandOutput;
use crate::os::tree::cgroup;

/// How long it is tried to remove what has just become empty; what is left then, the next broker removes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long is rested before it is tried again.
const REST: Duration = Duration::from_millis(5);

/// The arguments of `remove-groups`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveGroupsArguments {
    /// The folder of the broker's groups, which is standard input too
    #[arg(value_name = "PATH")]
    folder: PathBuf,
}

/// Removes what is below standard input, as far as nothing lives in it, and then the folder.
pub(in crate::cli) fn remove_groups(arguments: &RemoveGroupsArguments) -> CommandOutput {
    let began = Instant::now();
    // A group stays populated until its last process has left the processor for good.
    while !cgroup::remove_folder(io::stdin().as_fd(), &arguments.folder) && began.elapsed() < PATIENCE {
        thread::sleep(REST);
    }
    CommandOutput::done(String::new())
}
