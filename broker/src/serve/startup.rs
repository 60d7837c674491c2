//! Everything that has to be in place before the first client: settings, locks, sockets, facilities.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use interprocess::local_socket::tokio::Listener;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UnixSocketListener;
use procbroker_core::{AccountsFailure, Config};
use procbroker_protocol::create::Account;
use procbroker_protocol::socket_path::{self, Place};
use procbroker_protocol::{Containment as ContainmentKind, Timestamp};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::ServeError;
use crate::cli::{ContainmentChoice, ServeArguments};
use crate::driver::{FromThread, Hands, Outboxes};
use crate::os::containment::Containment;
use crate::os::environment::Surroundings;
use crate::os::facilities::{self, Found};
use crate::os::limits::{Nofile, raise_nofile};
use crate::os::notify::ServiceOwner;
use crate::os::reaper::{Backlog, Reaper};
use crate::os::socket::{self, SocketFile, SocketOptions};
use crate::os::state_dir::StateDir;
use crate::os::{accounts, activation};
use crate::spawners::Spawners;

/// A broker that is ready to be put together.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) machine: Machine,
    pub(super) sockets: Sockets,
    pub(super) places: Places,
}

/// Where a broker is to be found, for its log.
pub(super) struct Places {
    pub(super) sockets: String,
    pub(super) state_dir: String,
}

/// What the machine has lent: found once at start, used by the driver.
pub(super) struct Machine {
    found: Found,
    nofile: Nofile,
    state: StateDir,
    socket: PathBuf,
}

/// The listening sockets.
pub(super) enum Sockets {
    /// Made by the broker itself.
    Own {
        listener: UnixListener,
        /// Removes the file when the broker ends.
        _file: SocketFile,
    },
    /// Passed by systemd, which keeps them when the broker ends.
    Passed { listeners: Vec<UnixListener> },
}

/// Takes everything that a broker needs, or says what is missing.
pub(super) fn prepare(arguments: &ServeArguments) -> Result<Prepared, ServeError> {
    // First of all: it changes the environment, which no other thread may read meanwhile.
    let passed = activation::passed_sockets()?;
    let uid = nix::unistd::geteuid().as_raw();
    let allow_users = resolve("--allow-user", &arguments.allow_user, accounts::user_id)?;
    let allow_groups = resolve("--allow-group", &arguments.allow_group, accounts::group_id)?;
    let variable = |name: &str| std::env::var_os(name);
    let state_place = match &arguments.state_dir {
        Some(path) => Place::given(path.clone()),
        None => socket_path::state_dir(uid, variable),
    };
    let state = StateDir::open(&state_place)?;
    let (sockets, socket) = sockets(arguments, passed, uid)?;
    let nofile = raise_nofile()?;
    let mut found = facilities::probe()?;
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
        bounds: arguments.bounds(),
        shutdown_timeout: arguments.shutdown_timeout,
        exit_when_idle: arguments.exit_when_idle,
        containment: found.containment,
        facilities: found.facilities.clone(),
    };
    let places =
        Places { sockets: socket.display().to_string(), state_dir: state.path().display().to_string() };
    Ok(Prepared { config, machine: Machine { found, nofile, state, socket }, sockets, places })
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

/// The sockets to listen on, and the path that children are told.
fn sockets(
    arguments: &ServeArguments,
    passed: Vec<activation::PassedSocket>,
    uid: u32,
) -> Result<(Sockets, PathBuf), ServeError> {
    if let Some(first) = passed.first() {
        let path = arguments.socket.clone().or_else(|| {
            first.listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from))
        });
        let listeners = passed.into_iter().map(|socket| socket.listener).collect();
        // Children start in folders of their own, where a relative path would mean another file.
        let path = path.and_then(|path| std::path::absolute(path).ok()).unwrap_or_default();
        return Ok((Sockets::Passed { listeners }, path));
    }
    let place = match &arguments.socket {
        Some(path) => Place::given(path.clone()),
        None => socket_path::broker_socket(uid, |name: &str| std::env::var_os(name)),
    };
    let group = match &arguments.socket_group {
        Some(account) => resolve("--socket-group", std::slice::from_ref(account), accounts::group_id)?.pop(),
        None => None,
    };
    let (listener, file) = socket::listen_at(&SocketOptions { place, mode: arguments.socket_mode, group })?;
    let path = file.path().to_path_buf();
    Ok((Sockets::Own { listener, _file: file }, path))
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
            Ok(())
        }
    }
}

impl Machine {
    /// What the driver acts with. Threads are started only here, when nothing can fail any more but they.
    pub(super) fn hands(self, threads: mpsc::Sender<FromThread>) -> Result<Hands, ServeError> {
        let Self { found, nofile, state, socket } = self;
        let Found { spawn, inheritance, cgroups, .. } = found;
        let reaper = Reaper::new(&inheritance)?;
        let walked = threads.clone();
        // A thread of the edge may wait for its turn. The driver that has gone needs no report any more.
        let report = Box::new(move |input| drop(walked.blocking_send(FromThread::Input(input))));
        let containment = Containment::new(inheritance, cgroups, report)?;
        let deliver = Arc::new(move |outcome| drop(threads.blocking_send(FromThread::Spawned(outcome))));
        let logs = state.logs().clone();
        let spawners = Spawners::start(spawn, logs.clone(), deliver).map_err(ServeError::Spawners)?;
        Ok(Hands {
            outboxes: Outboxes::new(),
            spawners,
            reaper,
            containment,
            surroundings: Surroundings::new(socket, logs.clone(), nofile),
            logs,
            former: VecDeque::new(),
            state,
            owner: ServiceOwner,
            in_flight: 0,
            backlog: Backlog::Nothing,
            reaped: Vec::new(),
        })
    }
}

impl Sockets {
    /// Who made them, as `status` shows it.
    fn activation(&self) -> &'static str {
        match self {
            Self::Own { .. } => "broker",
            Self::Passed { .. } => "systemd",
        }
    }

    /// The sockets for the event loop.
    pub(super) fn listeners(&self) -> Result<Vec<Listener>, ServeError> {
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
