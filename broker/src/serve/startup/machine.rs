//! What the machine has lent, and what the driver carries out effects with.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procbroker_core::{
    Broker, Finding, HandedOver, Input, Intent, Kinship, Members, Pid, Progress, Recovered, Role, Run, RunAs,
};
use procbroker_protocol::ChildId;
use procbroker_protocol::create::Ready;
use tokio::sync::mpsc;

use crate::blocking_pool::BlockingPool;
use crate::driver::{Clients, EffectHandler, Records, user};
use crate::flagged_accounts::AccountFlags;
use crate::follower::Followers;
use crate::inbox;
use crate::messages::{Fact, FromThread};
use crate::os::host::disposal::Disposals;
use crate::os::host::nofile::Nofile;
use crate::os::host::terminal::ForegroundJob;
use crate::os::journal::{Host, Store};
use crate::os::logs::pipes::Pipes;
use crate::os::logs::{Destination, LogBounds, LogHandle, LogSettings, Remembered};
use crate::os::process::anchor_watch::AnchorWatch;
use crate::os::process::identity::BootId;
use crate::os::process::reaper::{Backlog, Reaper};
use crate::os::process::whereabouts::Whereabouts;
use crate::os::service::fd_store::{FdStore, StoredQueue};
use crate::os::service::notices::{self, Notices, Rest};
use crate::os::service::notify::OwnWords;
use crate::os::spawn::environment::ChildEnvironment;
use crate::os::spawn::{Launcher, PathLooks};
use crate::os::store::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::os::store::state_dir::StateDir;
use crate::os::tree::ProcessTrees;
use crate::prober::Prober;
use crate::recovery::{self, OnRecord, PreviousBroker, PreviousRecord, TakenOver};
use crate::serve::error::ServeError;
use crate::serve::facilities::ProbedFacilities;
use crate::transit::Transit;
use crate::upgrade::Program;

/// What the machine has lent: found once at start, used by the driver.
pub(crate) struct Machine {
    pub(super) found: ProbedFacilities,
    pub(super) nofile: Nofile,
    pub(super) runtime: RuntimeDir,
    pub(super) state: StateDir,
    pub(super) socket: PathBuf,
    pub(super) program: Program,
    /// The accounts to be looked up again for a program that takes over.
    pub(super) account_flags: AccountFlags,
    pub(super) store: Store,
    pub(super) former: PreviousRecord,
    /// Processes that an earlier program of this process has handed over.
    pub(super) processes: BTreeMap<ChildId, Arc<OwnedFd>>,
    /// What systemd has kept for this broker.
    pub(super) kept: StoredQueue,
    pub(super) previous: PreviousBroker,
    pub(super) log_bounds: LogBounds,
    /// Where lines of children go beside what is kept.
    pub(super) forward: Option<Destination>,
    /// Keeps open what waits in the pipes of children, until the log thread has opened them itself.
    pub(super) outputs: Vec<Arc<OwnedFd>>,
    /// What an earlier program has told of children beside what is on record.
    pub(super) handed_over: BTreeMap<ChildId, HandedOver>,
    pub(super) pipes: Pipes,
}

impl Machine {
    /// What the driver acts with, and what is on record of children that it has to take over. Threads are started only
    /// here, when nothing can fail any more but they.
    pub(crate) fn effect_handler(
        self,
        threads: mpsc::Sender<FromThread>,
        facts: inbox::Sender<Fact>,
        (pool, transit, disposals): (BlockingPool, Transit, Disposals),
    ) -> Result<(EffectHandler, TakenOver), ServeError> {
        let Self {
            found,
            nofile,
            runtime,
            state,
            socket,
            program,
            account_flags,
            store,
            former,
            mut processes,
            kept,
            previous,
            log_bounds,
            forward,
            outputs,
            handed_over,
            pipes,
        } = self;
        let ProbedFacilities { spawn, inheritance, cgroups, .. } = found;
        // Before there are thousands of descriptors: each child copies those below its slot's.
        let launcher = Launcher::new(spawn).map_err(ServeError::Launcher)?;
        let looks = PathLooks::new(spawn).map_err(ServeError::Launcher)?;
        let (mut fd_store, kept) = FdStore::open(kept);
        for (run, pidfd) in kept.processes {
            // Its next one is stored as this broker counts it.
            fd_store.remove(run);
            processes.insert(run.child, Arc::new(pidfd));
        }
        let boot = BootId::current()?;
        let now = (boot, previous);
        let mut processes = recovery::find(&former.children, former.boot, processes, &pipes, now)?;
        let commands = recovery::probes(&former.children, former.boot, &pipes, now);
        let asking: Vec<Run> = commands.iter().map(|(run, _)| *run).collect();
        processes.extend(commands);
        let mut reaper = Reaper::new(&inheritance)?;
        let report = sender(&threads);
        let mut containment = ProcessTrees::new(inheritance, cgroups, pipes.clone(), Box::new(report))?;
        let owners = (&mut reaper, &mut containment, &mut fd_store);
        let recovered = adopt(&processes, asking, (former.children, handed_over), owners);
        restore_bounds(&containment, &recovered);
        let (sockets, outputs) = outputs.into_iter().partition(|output| notices::is_socket(output));
        let mut notices =
            Notices::open(runtime.folder(), sockets, disposals).map_err(RuntimeDirError::from)?;
        hear_again(&mut notices, (&runtime, &mut fd_store, kept.sockets), &recovered);
        let host = Host { boot, cgroup_folder: containment.cgroup_folder().map(Path::to_owned) };
        let records = Records::start(store, &host, threads.clone())?;
        let anchors = AnchorWatch::new().map_err(ServeError::Anchors)?;
        // Last: what it has moved when another start fails would be there twice.
        let logs = LogHandle::start(LogSettings {
            folder: state.logs(),
            pipes: pipes.clone(),
            bounds: log_bounds,
            forward,
            children: recovered.iter().map(remembered).collect(),
            inherited: outputs,
        })?;
        let prober = Prober::new(&logs, looks, pool.clone(), facts.clone());
        let handler = EffectHandler {
            clients: Clients::new(transit.clone()),
            pool: pool.clone(),
            launcher,
            reaper,
            anchors,
            containment,
            job: ForegroundJob::default(),
            child_environment: ChildEnvironment::new(socket, pipes, nofile),
            prober,
            followers: Followers::new(&logs, pool, transit, facts),
            logs,
            records,
            fd_store,
            runtime,
            state,
            nofile,
            program: Arc::new(program),
            account_flags: Arc::new(account_flags),
            accounts: None,
            threads,
            owner: OwnWords::new(),
            backlog: Backlog::More,
            notices,
            unheard: Rest::Nothing,
            measuring: 0,
            reaped: Vec::new(),
            launch_outcomes: Vec::new(),
            spent: Vec::new(),
        };
        Ok((handler, (recovered, former.answers)))
    }
}

/// Gives the processes of an earlier broker to who reaps, signals and keeps them from now on, and says what is found of each
/// child. `asking` are the runs that asked a child whether it is ready: they are over.
fn adopt(
    processes: &recovery::Processes,
    asking: Vec<Run>,
    (children, handed_over): (Vec<OnRecord>, BTreeMap<ChildId, HandedOver>),
    (reaper, containment, fd_store): (&mut Reaper, &mut ProcessTrees, &mut FdStore),
) -> Vec<Recovered> {
    for (run, process) in processes {
        reaper.adopt(*run, process);
        if let Whereabouts::Process { pidfd, .. } = process {
            fd_store.store(*run, pidfd.as_fd());
        }
    }
    let left = containment.adopt_all(processes);
    // Of most nothing is left.
    let is_gone = |run: &Run| left.get(run).is_none_or(|members| *members == Members::Nothing);
    asking.into_iter().filter(is_gone).for_each(|run| containment.release(run));
    let out_of_memory = containment.out_of_memory(processes);
    recovery::findings(children, processes, &left, &out_of_memory, handed_over)
}

/// The process of a main command that an earlier program of this process has started, and that is its child still.
pub(crate) fn own_main(recovered: &[Recovered]) -> Option<Pid> {
    recovered.iter().find_map(|child| match child.finding {
        Finding::Process { pid, kinship: Kinship::Own, .. } if child.intent.role == Role::Main => Some(pid),
        Finding::Process { .. }
        | Finding::Unexecuted { .. }
        | Finding::Gone { .. }
        | Finding::NeverStarted
        | Finding::Rebooted => None,
    })
}

/// Sees to it that the living children of an earlier broker keep to their bounds.
fn restore_bounds(containment: &ProcessTrees, recovered: &[Recovered]) {
    for child in recovered {
        let is_there = matches!(child.finding, Finding::Process { .. });
        let is_cleanup = matches!(child.progress, Some(Progress::Cleaning { .. } | Progress::Ended { .. }));
        let id = child.intent.id;
        let Some(resources) = child.intent.params.resources.as_ref().filter(|_| is_there && !is_cleanup)
        else {
            continue;
        };
        if let Err(errno) = containment.restore_bounds(Broker::recovered_run(id), resources) {
            tracing::error!(child = %id, %errno, "a child goes on without some of its bounds (resources)");
        }
    }
}

/// Goes on hearing the children of an earlier broker that tell how they are.
fn hear_again(
    notices: &mut Notices,
    (runtime, fd_store, mut held): (&RuntimeDir, &mut FdStore, BTreeMap<ChildId, OwnedFd>),
    recovered: &[Recovered],
) {
    for child in recovered {
        let Intent { id, params, run_as, .. } = &child.intent;
        let is_there = matches!(child.finding, Finding::Process { .. });
        let is_cleanup = matches!(child.progress, Some(Progress::Cleaning { .. } | Progress::Ended { .. }));
        if !is_there || is_cleanup || params.ready != Ready::Notify {
            continue;
        }
        if let Some(socket) = held.remove(id) {
            notices.take(*id, socket);
        }
        match notices.open_for(*id, runtime, user(run_as)) {
            Ok(_) => {
                notices.hear(Broker::recovered_run(*id));
                if let Some(socket) = notices.socket(*id) {
                    fd_store.store_socket(*id, socket);
                }
            }
            Err(errno) => tracing::error!(child = %id, %errno, "a child cannot be heard any more"),
        }
    }
    for child in held.into_keys() {
        fd_store.remove_socket(child);
    }
    notices.tidy();
}

/// Takes the reports of a thread to the driver. The thread may wait for its turn; a driver that has gone needs no report
/// any more.
fn sender(threads: &mpsc::Sender<FromThread>) -> impl Fn(Input) + Send + Sync + 'static {
    let threads = threads.clone();
    move |input| drop(threads.blocking_send(FromThread::Input(input)))
}

/// What the log thread knows of a child that an earlier broker has left.
fn remembered(child: &Recovered) -> Remembered {
    let user = match &child.intent.run_as {
        RunAs::Broker => nix::unistd::geteuid().as_raw(),
        RunAs::User { uid, .. } => *uid,
    };
    let has_ended = child.progress.as_ref().is_some_and(|progress| progress.ended_at().is_some());
    let pid = match child.finding {
        Finding::Process { pid, .. } => Some(pid),
        Finding::Gone { .. } | Finding::Unexecuted { .. } | Finding::NeverStarted | Finding::Rebooted => None,
    };
    let params = Arc::clone(&child.intent.params);
    Remembered { child: child.intent.id, user, has_ended, params, pid }
}
