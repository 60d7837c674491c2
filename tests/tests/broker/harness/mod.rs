//! What the tests need to run a broker of their own, talk to it, and see what it leaves behind.

mod broker;
pub(crate) mod children;
mod command_line;
mod ending;
mod fifo;
mod frames;
mod json;
mod leftovers;
mod orphans;
mod process;
mod program;
mod record;
mod service_owner;
mod setup;

use std::time::Duration;

use nix::unistd::geteuid;

pub(crate) use broker::TestBroker;
pub(crate) use command_line::Said;
pub(crate) use ending::{Ended, await_end};
pub(crate) use fifo::Fifo;
pub(crate) use frames::FrameClient;
pub(crate) use json::{JsonClient, Refused, result_of};
pub(crate) use leftovers::{broker_group, kill_tagged, tagged_environments, tagged_processes};
pub(crate) use orphans::{adopt_orphans, await_death, await_zombie, reap};
pub(crate) use process::Process;
pub(crate) use program::{procbroker, procbroker_in};
pub(crate) use record::Record;
pub(crate) use service_owner::ServiceOwner;
pub(crate) use setup::Setup;

/// After so long without the awaited event a test fails. Nothing takes half of it, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A user and group that own nothing here, and need no entry in any database.
pub(crate) const STRANGER: u32 = 64_001;

/// A second one of that kind.
pub(crate) const OTHER_STRANGER: u32 = 64_002;

/// A user whom no other test acts as, nor the same one of another run at the same time. Its number is one that containers
/// have, too.
pub(crate) fn user_of_this_process() -> u32 {
    32_768 + std::process::id() % 30_000
}

/// Whether the test may act as several users. It says so when not, because a skipped check should be seen.
pub(crate) fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can act as several users");
    }
    root
}
