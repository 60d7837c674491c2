//! Everything that has to be in place before the first client: settings, locks, sockets, facilities.

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use interprocess::local_socket::tokio::Listener;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UnixSocketListener;
use nix::sys::stat::{Mode, umask};
use procbroker_core::{
    AccountsFailure, Broker, Config, EventHistory, Finding, Input, Intent, Kinship, MainCommand, Members,
    Pid, Progress, Recovered, Role, Run, RunAs,
};
use procbroker_protocol::create::{Account, CreateParams, Ready, StandardError, StandardOutput, Umask};
use procbroker_protocol::socket_path::{self, Place};
use procbroker_protocol::{ChildId, Containment as ContainmentKind, Timestamp};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{ServeError, bounds, passed_with_flags};
use crate::blocking_pool::BlockingPool;
use crate::cli::{ContainmentChoice, MainArguments, ServeArguments};
use crate::driver::{Clients, Fact, FromThread, Hands, Records, user};
use crate::follower::Followers;
use crate::inbox;
use crate::os::environment::Surroundings;
use crate::os::host::accounts;
use crate::os::host::nofile::{Nofile, raise_nofile};
use crate::os::host::socket::{self, SocketFile, SocketOptions};
use crate::os::host::terminal::Job;
use crate::os::journal::{self, Host, Store};
use crate::os::logs::pipes::Pipes;
use crate::os::logs::{LogBounds, LogSettings, Logs, Remembered};
use crate::os::notices::{self, Notices, Rest};
use crate::os::own::OwnError;
use crate::os::process::anchor_watch::AnchorWatch;
use crate::os::process::identity::BootId;
use crate::os::process::reaper::{Backlog, Reaper};
use crate::os::runtime_dir::{RuntimeDir, RuntimeDirError, Wanted};
use crate::os::service::activation;
use crate::os::service::activation::Passed;
use crate::os::service::fd_store::{FdStore, Kept};
use crate::os::service::notify::ServiceOwner;
use crate::os::spawn::Launcher;
use crate::os::state_dir::StateDir;
use crate::os::tree::Containment;
use crate::os::tree::cgroup;
use crate::prober::Prober;
use crate::recovery::{self, PreviousBroker, PreviousRecord, TakenOver, processes};
use crate::serve::facilities::{self, Found};
use crate::transit::Transit;
use crate::upgrade::{self, Inherited, Program};

/// The folder of the children's pipes, in the runtime folder.
const PIPES: &str = "output";

/// A broker that is ready to be put together.
pub(crate) struct Prepared {
    pub(crate) config: Config,
    pub(crate) machine: Machine,
    pub(crate) sockets: Sockets,
    pub(crate) places: Places,
    /// Where metrics are fetched, if they are to be.
    pub(crate) metrics: Option<TcpListener>,
    /// Whether the main command has the broker's own standard input.
    pub(crate) interactive: bool,
    /// The events that an earlier program of this process has told of.
    pub(crate) events: Option<EventHistory>,
}

/// Where a broker is to be found, for its log.
pub(crate) struct Places {
    pub(crate) sockets: String,
    pub(crate) state_dir: String,
}

/// What the machine has lent: found once at start, used by the driver.
pub(crate) struct Machine {
    found: Found,
    nofile: Nofile,
    runtime: RuntimeDir,
    state: StateDir,
    socket: PathBuf,
    program: Program,
    store: Store,
    former: PreviousRecord,
    /// Processes that an earlier program of this process has handed over.
    processes: BTreeMap<ChildId, OwnedFd>,
    /// What systemd has kept for this broker.
    kept: Kept,
    previous: PreviousBroker,
    log_bounds: LogBounds,
    /// Keeps open what waits in the pipes of children, until the log thread has opened them itself.
    outputs: Vec<OwnedFd>,
    pipes: Pipes,
}

/// The listening sockets.
pub(crate) enum Sockets {
    /// Made by the broker itself.
    Own {
        listener: UnixListener,
        /// Removes the file when the broker ends.
        file: SocketFile,
    },
    /// Passed by systemd, which keeps them when the broker ends.
    Passed { listeners: Vec<UnixListener> },
}

/// Takes everything that a broker needs, or says what is missing.
pub(crate) fn prepare(arguments: &ServeArguments) -> Result<Prepared, ServeError> {
    // First of all: it changes the environment, which no other thread may read meanwhile.
    let passed = activation::passed()?;
    let program = Program::own().map_err(ServeError::Program)?;
    let mut inherited = upgrade::inherited()?;
    let events = inherited.as_mut().and_then(|inherited| inherited.events.take());
    let previous = if inherited.is_some() { PreviousBroker::HandedOver } else { PreviousBroker::Ended };
    let metrics = metrics_socket(arguments, previous)?;
    let uid = nix::unistd::geteuid().as_raw();
    let allow_users = resolve("--allow-user", &arguments.allow_user, accounts::user_id)?;
    let allow_groups = resolve("--allow-group", &arguments.allow_group, accounts::group_id)?;
    let state_place = match &arguments.state_dir {
        Some(path) => Place::given(path.clone()),
        None => socket_path::state_dir(uid, |name: &str| std::env::var_os(name)),
    };
    let Taken { state, sockets, socket, nofile, folder, processes, outputs, kept } =
        take(arguments, &state_place, passed, inherited, uid)?;
    let runtime = RuntimeDir::open(&runtime_place(arguments, &socket, &state)?, state.path())?;
    let (store, stored) = match previous {
        PreviousBroker::Ended => journal::open(&state.record(), runtime.folder())?,
        PreviousBroker::HandedOver => journal::go_on(&state.record(), runtime.folder())?,
    };
    // SQLite opens its files by their paths.
    state.check_in_place()?;
    let former = PreviousRecord::read(stored, &state.record())?;
    let groups = former.cgroup_folder.clone().map(|path| cgroup::PreviousFolder { path, folder });
    let leaf = if arguments.leaf_group { cgroup::Leaf::Enter } else { cgroup::Leaf::Stay };
    let mut found = facilities::probe(groups, leaf)?;
    choose_containment(arguments.containment, &mut found)?;
    sockets.activation().clone_into(&mut found.facilities.activation);
    found.facilities.state_dir = state.path().display().to_string();
    let config = Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        instance: Uuid::new_v4(),
        started_at: Timestamp::from(SystemTime::now()),
        broker_uid: uid,
        allow_users,
        allow_groups,
        bounds: bounds::within(arguments.bounds(), nofile),
        shutdown_timeout: arguments.shutdown_timeout,
        exit_when_idle: arguments.exit_when_idle,
        main: arguments.main.as_ref().map(main_command).transpose()?,
        log_folder: state.logs().display().to_string(),
        containment: found.containment,
        lacking: found.offer.lacking.clone(),
        facilities: found.facilities.clone(),
    };
    let places =
        Places { sockets: socket.display().to_string(), state_dir: state.path().display().to_string() };
    let pipes = Pipes::open(runtime.path().join(PIPES))?;
    let log_bounds =
        LogBounds { per_child: arguments.log_bytes.bytes(), in_all: arguments.log_total.bytes() };
    let machine = Machine {
        found,
        nofile,
        runtime,
        state,
        socket,
        program,
        store,
        former,
        processes,
        kept,
        previous,
        log_bounds,
        outputs,
        pipes,
    };
    let interactive = arguments.is_interactive();
    Ok(Prepared { config, machine, sockets, places, metrics, interactive, events })
}

/// Where metrics are fetched. A program that takes over does without when the address is not to be had any more: it has
/// children to look after.
fn metrics_socket(
    arguments: &ServeArguments,
    previous: PreviousBroker,
) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = arguments.metrics else { return Ok(None) };
    match (TcpListener::bind(address), previous) {
        (Ok(socket), _) => Ok(Some(socket)),
        (Err(source), PreviousBroker::Ended) => Err(ServeError::Metrics { address, source }),
        (Err(error), PreviousBroker::HandedOver) => {
            tracing::error!(%address, %error, "metrics cannot be served any more");
            Ok(None)
        }
    }
}

/// The main command, with the surroundings of this program itself.
fn main_command(main: &MainArguments) -> Result<MainCommand, ServeError> {
    let cwd = std::env::current_dir().map_err(ServeError::WorkingFolder)?;
    let cwd = cwd.into_os_string().into_string().map_err(|cwd| {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{} is not UTF-8", cwd.display()));
        ServeError::WorkingFolder(source)
    })?;
    let mut params = CreateParams::new(main.command.clone());
    params.cwd = Some(cwd);
    params.umask = own_umask();
    params.stdout = StandardOutput::Inherit;
    params.stderr = StandardError::Inherit;
    params.stop.clone_from(&main.stop);
    let id = ChildId::from_uuid(Uuid::now_v7());
    Ok(MainCommand { id, params: Arc::new(params), stop_scope: main.stop_scope })
}

/// The mask of this process. It can only be read by setting it (umask(2)): no file is made meanwhile.
fn own_umask() -> Umask {
    let own = umask(Mode::from_bits_truncate(0o077));
    umask(own);
    Umask::from_bits(u16::try_from(own.bits()).unwrap_or_default())
}

/// What only one broker can have, and what comes with it.
struct Taken {
    state: StateDir,
    sockets: Sockets,
    /// The path that children are told.
    socket: PathBuf,
    nofile: Nofile,
    /// The folder of control groups, where an earlier program has handed it over.
    folder: Option<OwnedFd>,
    processes: BTreeMap<ChildId, OwnedFd>,
    outputs: Vec<OwnedFd>,
    kept: Kept,
}

/// Takes the state folder, the sockets and the descriptors, from the machine or from an earlier program of this process.
fn take(
    arguments: &ServeArguments,
    state: &Place,
    passed: Passed,
    inherited: Option<Inherited>,
    uid: u32,
) -> Result<Taken, ServeError> {
    let Some(inherited) = inherited else {
        let state = StateDir::open(state)?;
        let Passed { sockets: passed, kept } = passed;
        let listeners = passed.into_iter().map(|socket| socket.listener).collect();
        let (sockets, socket) = sockets(arguments, listeners, uid)?;
        let (nofile, processes, outputs) = (raise_nofile()?, BTreeMap::new(), Vec::new());
        return Ok(Taken { state, sockets, socket, nofile, folder: None, processes, outputs, kept });
    };
    let Inherited {
        listeners,
        socket,
        state_lock,
        cgroup_folder,
        processes,
        outputs,
        nofile,
        kept,
        events: _,
    } = inherited;
    let state = StateDir::inherited(state, state_lock)?;
    let mut listeners = listeners.into_iter().map(UnixListener::from);
    let (sockets, socket) = match socket {
        Some((path, lock)) => {
            let file = SocketFile::inherited(&path, lock)?;
            let listener = listeners.next().ok_or(ServeError::NoSocket)?;
            (Sockets::Own { listener, file }, path)
        }
        None => passed_sockets(arguments, listeners.collect()),
    };
    let kept = kept.map_or_else(Kept::default, |[read, write]| Kept::from_ends(read, write));
    Ok(Taken { state, sockets, socket, nofile, folder: cgroup_folder, processes, outputs, kept })
}

/// Where the runtime folder is to be: beside the socket, or with the state where the socket has no path.
fn runtime_place(arguments: &ServeArguments, socket: &Path, state: &StateDir) -> Result<Wanted, ServeError> {
    if let Some(path) = &arguments.runtime_dir {
        let refused = |source| OwnError::Refused { attempt: "find", path: path.clone(), source };
        // It is noted for a later broker, which may be started in another folder.
        return Ok(Wanted::Given(std::path::absolute(path).map_err(refused).map_err(RuntimeDirError::from)?));
    }
    if socket.as_os_str().is_empty() {
        return Ok(Wanted::Usual(state.path().join("runtime.d")));
    }
    let mut name = socket.as_os_str().to_owned();
    name.push(".d");
    Ok(Wanted::Usual(name.into()))
}

/// The ids of accounts that a flag names.
fn resolve(
    flag: &'static str,
    accounts: &[Account],
    look_up: fn(&Account) -> Result<u32, AccountsFailure>,
) -> Result<Vec<u32>, ServeError> {
    let id = |account: &Account| {
        look_up(account).map_err(|failure| ServeError::Account {
            flag,
            account: account.clone(),
            failure: Box::new(failure),
        })
    };
    accounts.iter().map(id).collect()
}

/// Sockets that were passed, and the path that children are told.
fn passed_sockets(arguments: &ServeArguments, listeners: Vec<UnixListener>) -> (Sockets, PathBuf) {
    let own_path = |listener: &UnixListener| {
        listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from))
    };
    // Children start in folders of their own, where a relative path would mean another file.
    let absolute = |path: PathBuf| std::path::absolute(path).ok();
    let named = arguments.socket.clone().and_then(absolute);
    let mut served = listeners.iter().filter_map(own_path).filter_map(absolute).peekable();
    let first = served.peek().cloned();
    // A path that was given chooses among those that are served; nobody listens at another one.
    let chosen = served.find(|path| Some(path) == named.as_ref());
    let path = chosen.or(first).or(named).unwrap_or_default();
    (Sockets::Passed { listeners }, path)
}

/// The sockets to listen on, and the path that children are told.
fn sockets(
    arguments: &ServeArguments,
    passed: Vec<UnixListener>,
    uid: u32,
) -> Result<(Sockets, PathBuf), ServeError> {
    if !passed.is_empty() {
        let (sockets, path) = passed_sockets(arguments, passed);
        passed_with_flags::warn(arguments, &path);
        return Ok((sockets, path));
    }
    let place = match &arguments.socket {
        Some(path) => Place::given(path.clone()),
        None => socket_path::broker_socket(uid, |name: &str| std::env::var_os(name)),
    };
    let group = match &arguments.socket_group {
        Some(account) => resolve("--socket-group", std::slice::from_ref(account), accounts::group_id)?.pop(),
        None => None,
    };
    if arguments.allows_in_vain() {
        tracing::warn!(
            mode = %format_args!("{:03o}", arguments.socket_mode),
            "--allow-user and --allow-group let nobody in while only its owner may write to the socket; \
             open it with --socket-mode 660 and --socket-group, or with --socket-mode 666"
        );
    }
    let (listener, file) = socket::listen_at(&SocketOptions { place, mode: arguments.socket_mode, group })?;
    let path = file.path().to_path_buf();
    Ok((Sockets::Own { listener, file }, path))
}

/// Goes without control groups, or does not start without them, as the flag says.
fn choose_containment(choice: ContainmentChoice, found: &mut Found) -> Result<(), ServeError> {
    match choice {
        ContainmentChoice::Auto => Ok(()),
        ContainmentChoice::Cgroup if found.cgroups.is_some() => Ok(()),
        ContainmentChoice::Cgroup => Err(ServeError::NoCgroup { reason: found.facilities.cgroup.clone() }),
        ContainmentChoice::Subreaper => {
            found.cgroups = None;
            found.containment = ContainmentKind::Subreaper;
            "subreaper".clone_into(&mut found.facilities.containment);
            "not used: --containment subreaper".clone_into(&mut found.facilities.cgroup);
            found.offer = cgroup::Offer::nothing("control groups are not used (--containment subreaper)");
            found.facilities.controllers = found.offer.shown();
            Ok(())
        }
    }
}

impl Machine {
    /// What the driver acts with, and what is on record of children that it has to take over. Threads are started only
    /// here, when nothing can fail any more but they.
    pub(crate) fn hands(
        self,
        threads: mpsc::Sender<FromThread>,
        facts: inbox::Sender<Fact>,
        (pool, transit): (BlockingPool, Transit),
    ) -> Result<(Hands, TakenOver), ServeError> {
        let Self {
            found,
            nofile,
            runtime,
            state,
            socket,
            program,
            store,
            former,
            mut processes,
            kept,
            previous,
            log_bounds,
            outputs,
            pipes,
        } = self;
        let Found { spawn, inheritance, cgroups, .. } = found;
        // Before there are thousands of descriptors: each child copies those below its slot's.
        let launcher = Launcher::new(spawn).map_err(ServeError::Launcher)?;
        let (mut fd_store, kept) = FdStore::open(kept);
        for (run, pidfd) in kept {
            // Its next one is stored as this broker counts it.
            fd_store.remove(run);
            processes.insert(run.child, pidfd);
        }
        let mut processes = recovery::find(&former.children, former.boot, processes, &pipes, previous)?;
        let commands = recovery::probes(&former.children, former.boot, previous)?;
        let asked: Vec<Run> = commands.iter().map(|(run, _)| *run).collect();
        processes.extend(commands);
        let mut reaper = Reaper::new(&inheritance)?;
        let report = sender(&threads);
        let mut containment = Containment::new(inheritance, cgroups, Box::new(report))?;
        for (run, process) in &processes {
            reaper.adopt(*run, process);
            if let processes::Whereabouts::Process { pidfd, .. } = process {
                fd_store.store(*run, pidfd.as_fd());
            }
        }
        let left = containment.adopt_all(&processes);
        // Of most nothing is left.
        let is_gone = |run: &Run| left.get(run).is_none_or(|members| *members == Members::Nothing);
        asked.into_iter().filter(is_gone).for_each(|run| containment.release(run));
        let out_of_memory = containment.out_of_memory(&processes);
        let recovered = recovery::findings(former.children, &processes, &left, &out_of_memory);
        restore_bounds(&containment, &recovered);
        let (sockets, outputs) = outputs.into_iter().partition(notices::is_socket);
        let mut notices = Notices::open(&runtime, sockets)?;
        hear_again(&mut notices, &runtime, &recovered);
        let logs = Logs::start(LogSettings {
            folder: state.logs(),
            pipes: pipes.clone(),
            bounds: log_bounds,
            children: recovered.iter().map(remembered).collect(),
            inherited: outputs,
        })?;
        let host =
            Host { boot: BootId::current()?, cgroup_folder: containment.cgroup_folder().map(Path::to_owned) };
        let records = Records::start(store, &host, threads.clone())?;
        let prober = Prober::new(&logs, pool.clone(), facts.clone());
        let hands = Hands {
            clients: Clients::new(transit.clone()),
            pool: pool.clone(),
            launcher,
            reaper,
            anchors: AnchorWatch::new().map_err(ServeError::Anchors)?,
            containment,
            job: Job::default(),
            surroundings: Surroundings::new(socket, pipes, nofile),
            prober,
            followers: Followers::new(&logs, pool, transit, facts),
            logs,
            records,
            fd_store,
            runtime,
            state,
            nofile,
            program: Arc::new(program),
            threads,
            owner: ServiceOwner,
            backlog: Backlog::More,
            notices,
            unheard: Rest::Nothing,
            told: Vec::new(),
            measuring: 0,
            reaped: Vec::new(),
            landed: Vec::new(),
            spent: Vec::new(),
        };
        Ok((hands, (recovered, former.answers)))
    }
}

/// The process of a main command that an earlier program of this process has started, and that is its child still.
pub(crate) fn own_main(recovered: &[Recovered]) -> Option<Pid> {
    recovered.iter().find_map(|child| match child.finding {
        Finding::Process { pid, kinship: Kinship::Own } if child.intent.role == Role::Main => Some(pid),
        Finding::Process { .. } | Finding::Gone { .. } | Finding::NeverStarted | Finding::Rebooted => None,
    })
}

/// Sees to it that the living children of an earlier broker keep to their bounds.
fn restore_bounds(containment: &Containment, recovered: &[Recovered]) {
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
fn hear_again(notices: &mut Notices, runtime: &RuntimeDir, recovered: &[Recovered]) {
    for child in recovered {
        let Intent { id, params, run_as, .. } = &child.intent;
        let is_there = matches!(child.finding, Finding::Process { .. });
        let is_cleanup = matches!(child.progress, Some(Progress::Cleaning { .. } | Progress::Ended { .. }));
        if !is_there || is_cleanup || params.ready != Ready::Notify {
            continue;
        }
        match notices.open_for(*id, runtime, user(run_as)) {
            Ok(_) => notices.hear(Broker::recovered_run(*id)),
            Err(errno) => tracing::error!(child = %id, %errno, "a child cannot be heard any more"),
        }
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
    Remembered { child: child.intent.id, user, has_ended }
}

impl Sockets {
    /// Who made them, as `status` shows it.
    fn activation(&self) -> &'static str {
        match self {
            Self::Own { .. } => "broker",
            Self::Passed { .. } => "systemd",
        }
    }

    /// The sockets themselves, to be handed over.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Own { listener, .. } => vec![listener.as_fd()],
            Self::Passed { listeners } => listeners.iter().map(AsFd::as_fd).collect(),
        }
    }

    /// The path and the lock of a socket that the broker made itself.
    pub(crate) fn own(&self) -> Option<(&Path, BorrowedFd<'_>)> {
        match self {
            Self::Own { file, .. } => Some((file.path(), file.lock())),
            Self::Passed { .. } => None,
        }
    }

    /// The sockets for the event loop.
    pub(crate) fn listeners(&self) -> Result<Vec<Listener>, ServeError> {
        let sources: Vec<&UnixListener> = match self {
            Self::Own { listener, .. } => vec![listener],
            Self::Passed { listeners } => listeners.iter().collect(),
        };
        sources.into_iter().map(|listener| listen(listener).map_err(ServeError::Listen)).collect()
    }
}

fn listen(listener: &UnixListener) -> std::io::Result<Listener> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    UnixSocketListener::try_from(OwnedFd::from(listener)).map(Listener::from)
}

impl fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}
