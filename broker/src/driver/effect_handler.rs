//! Everything with which the driver carries out what the core orders, in one struct.

use std::sync::Arc;

use nix::unistd::Uid;
use procbroker_core::{Run, RunAs};
use tokio::sync::mpsc;

use super::clients::Clients;
use super::records::Records;
use crate::blocking_pool::BlockingPool;
use crate::flagged_accounts::{AccountFlags, FlaggedAccounts};
use crate::follower::Followers;
use crate::messages::FromThread;
use crate::os::host::nofile::Nofile;
use crate::os::host::terminal::ForegroundJob;
use crate::os::logs::LogHandle;
use crate::os::process::anchor_watch::AnchorWatch;
use crate::os::process::reaper::{Backlog, Reaped, Reaper};
use crate::os::service::fd_store::FdStore;
use crate::os::service::notices::{Notices, Rest};
use crate::os::service::notify::OwnWords;
use crate::os::spawn::environment::ChildEnvironment;
use crate::os::spawn::{LaunchOutcome, Launcher, SpawnPlan};
use crate::os::store::runtime_dir::RuntimeDir;
use crate::os::store::state_dir::StateDir;
use crate::os::tree::ProcessTrees;
use crate::prober::Prober;
use crate::upgrade::Program;

/// What carries out the effects that the core orders.
#[derive(Debug)]
pub struct EffectHandler {
    /// The clients, by connection.
    pub clients: Clients,
    /// Does what may block.
    pub pool: BlockingPool,
    /// Starts processes, and tells of each whether it got to its program.
    pub launcher: Launcher<LaunchTag>,
    /// Reaps the processes that have ended, and says how.
    pub reaper: Reaper,
    /// Watches the processes that the lives of children hang on.
    pub anchors: AnchorWatch,
    /// Signals and finds what belongs to children.
    pub containment: ProcessTrees,
    /// The main command that has the broker's terminal, if there is one.
    pub job: ForegroundJob,
    /// What children find around them.
    pub child_environment: ChildEnvironment,
    /// Keeps what children write.
    pub logs: LogHandle,
    /// Asks children whether they are ready.
    pub prober: Prober,
    /// Clients that are sent what children write.
    pub followers: Followers,
    /// What outlives the broker.
    pub records: Records,
    /// Processes that systemd keeps hold of, should the broker be killed.
    pub fd_store: FdStore,
    /// The folder for what a crash leaves. It is given up before the state folder, which has a note of it.
    pub runtime: RuntimeDir,
    /// The folder that the broker has for itself as long as it lives.
    pub state: StateDir,
    /// The limit on open files that children get.
    pub nofile: Nofile,
    /// The accounts that are looked up again for a program that takes over.
    pub account_flags: Arc<AccountFlags>,
    /// Those, as they were found when a program was asked last whether it can take over.
    pub accounts: Option<FlaggedAccounts>,
    /// The program that takes over in an upgrade.
    pub program: Arc<Program>,
    /// Where other threads report to.
    pub threads: mpsc::Sender<FromThread>,
    /// Who owns the broker's service, if anybody does.
    pub owner: OwnWords,
    /// Whether the reaper has more than one batch could take.
    pub backlog: Backlog,
    /// Hears what children tell of themselves.
    pub notices: Notices,
    /// Whether they have told more than could be taken in at a time.
    pub unheard: Rest,
    /// How many answers wait for what their children use.
    pub measuring: usize,
    /// Room for what is reaped at a time.
    pub reaped: Vec<Reaped>,
    /// Room for what has come of launches at a time.
    pub launch_outcomes: Vec<LaunchOutcome<LaunchTag>>,
    /// What processes were started with that have their programs now.
    pub spent: Vec<SpawnPlan>,
}

/// What a process is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchTag {
    pub(super) run: Run,
    pub(super) output: KeptOutput,
}

/// How much the output of a process matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptOutput {
    /// It is not started without.
    Needed,
    /// It is started all the same.
    Wanted,
    /// It has none: it could not be kept.
    Missing,
    /// It has none: nobody reads what a command says that finds out whether a child is ready.
    None,
}

/// Whose the processes of a child are, where they are not the broker's own user's.
#[must_use]
pub fn user(run_as: &RunAs) -> Option<Uid> {
    match run_as {
        RunAs::Broker => None,
        RunAs::User { uid, .. } => Some(Uid::from_raw(*uid)),
    }
}
