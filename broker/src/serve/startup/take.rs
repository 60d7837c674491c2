//! Takes what only one broker can have: from the machine, or from an earlier program of this process.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procbroker_core::HandedOver;
use procbroker_protocol::ChildId;
use procbroker_protocol::socket_path::Place;

use super::accounts;
use super::make_way::make_way;
use super::sockets;
use crate::cli::ServeArguments;
use crate::flagged_accounts::{AccountFlags, FlaggedAccounts};
use crate::os::host::listening::Sockets;
use crate::os::host::nofile::{Nofile, raise_nofile};
use crate::os::host::own_folder::OwnError;
use crate::os::host::socket::RUNTIME_FOLDER_ENDING;
use crate::os::service::activation::Passed;
use crate::os::service::fd_store::StoredQueue;
use crate::os::store::runtime_dir::{RuntimeDir, RuntimeDirChoice, RuntimeDirError};
use crate::os::store::state_dir::StateDir;
use crate::serve::error::ServeError;
use crate::upgrade::Inherited;

/// What only one broker can have, and what comes with it.
pub(super) struct Taken {
    pub(super) state: StateDir,
    pub(super) runtime: RuntimeDir,
    pub(super) sockets: Sockets,
    /// The path that children are told.
    pub(super) socket: PathBuf,
    pub(super) nofile: Nofile,
    /// The folder of control groups, where an earlier program has handed it over.
    pub(super) folder: Option<OwnedFd>,
    pub(super) processes: BTreeMap<ChildId, Arc<OwnedFd>>,
    pub(super) outputs: Vec<Arc<OwnedFd>>,
    /// What an earlier program has told of children beside what is on record.
    pub(super) handed_over: BTreeMap<ChildId, HandedOver>,
    pub(super) kept: StoredQueue,
    pub(super) accounts: FlaggedAccounts,
    pub(super) account_flags: AccountFlags,
}

/// Takes it from the machine.
pub(super) fn from_machine(
    arguments: &ServeArguments,
    state: &Place,
    passed: Passed,
    uid: u32,
) -> Result<Taken, ServeError> {
    let Passed { sockets: passed, kept } = passed;
    let listeners: Vec<UnixListener> = passed.into_iter().map(|socket| socket.listener).collect();
    let makes_socket = listeners.is_empty();
    let account_flags =
        if makes_socket { accounts::with_socket(arguments) } else { accounts::of_those_allowed(arguments) };
    let accounts = account_flags.look_up()?;
    make_way(state);
    let state = StateDir::open(state)?;
    let (sockets, socket) = match sockets::sockets(arguments, listeners, uid, &accounts) {
        Ok(listening) => listening,
        Err(error) => {
            // Whoever has the socket has a state folder of its own.
            state.abandon();
            return Err(error);
        }
    };
    let runtime = RuntimeDir::open(&runtime_place(arguments, &socket, &state)?, state.path())?;
    Ok(Taken {
        state,
        runtime,
        sockets,
        socket,
        nofile: raise_nofile()?,
        folder: None,
        processes: BTreeMap::new(),
        outputs: Vec::new(),
        handed_over: BTreeMap::new(),
        kept,
        accounts,
        account_flags,
    })
}

/// Takes it from an earlier program, which has found out before that all of it can be had. One of an older version has not
/// passed everything: that is looked for as at any start.
pub(super) fn from_predecessor(
    arguments: &ServeArguments,
    state: &Place,
    inherited: Inherited,
) -> Result<Taken, ServeError> {
    let Inherited {
        listeners,
        socket,
        state_lock,
        state_folder,
        runtime_folder,
        cgroup_folder,
        processes,
        outputs,
        nofile,
        kept,
        accounts: found,
        events: _,
        handed_over,
        counters: _,
        beginning: _,
    } = inherited;
    let account_flags = if socket.is_some() {
        accounts::with_socket(arguments)
    } else {
        accounts::of_those_allowed(arguments)
    };
    let accounts = found.map_or_else(|| account_flags.look_up(), Ok)?;
    let state = match state_folder {
        Some((path, folder)) => StateDir::passed(path, folder, state_lock),
        None => StateDir::inherited(state, state_lock)?,
    };
    let listeners = listeners.into_iter().map(UnixListener::from).collect();
    let (sockets, socket) = match socket {
        Some(own) => sockets::inherited_sockets(arguments, own, listeners, accounts.socket_group)?,
        None => sockets::passed_sockets(arguments, listeners),
    };
    let runtime = match runtime_folder {
        Some((path, folder)) => RuntimeDir::passed(path, folder, state.folder())?,
        None => RuntimeDir::open(&runtime_place(arguments, &socket, &state)?, state.path())?,
    };
    let kept = kept.map_or_else(StoredQueue::default, |[read, write]| StoredQueue::from_ends(read, write));
    Ok(Taken {
        state,
        runtime,
        sockets,
        socket,
        nofile,
        folder: cgroup_folder,
        processes,
        outputs,
        handed_over,
        kept,
        accounts,
        account_flags,
    })
}

/// Where the runtime folder is to be: beside the socket, or with the state where the socket has no path.
fn runtime_place(
    arguments: &ServeArguments,
    socket: &Path,
    state: &StateDir,
) -> Result<RuntimeDirChoice, ServeError> {
    if let Some(path) = &arguments.runtime_dir {
        let refused = |source| OwnError::Refused { attempt: "find", path: path.clone(), source };
        // It is noted for a later broker, which may be started in another folder.
        return Ok(RuntimeDirChoice::Given(
            std::path::absolute(path).map_err(refused).map_err(RuntimeDirError::from)?,
        ));
    }
    if socket.as_os_str().is_empty() {
        return Ok(RuntimeDirChoice::Usual(state.path().join("runtime.d")));
    }
    let mut name = socket.as_os_str().to_owned();
    name.push(RUNTIME_FOLDER_ENDING);
    Ok(RuntimeDirChoice::Usual(name.into()))
}
