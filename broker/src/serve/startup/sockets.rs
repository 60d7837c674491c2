//! Where to listen, as the flags of `serve` and systemd say.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use procbroker_protocol::socket_path::{self, Place};

use super::kept_out;
use crate::cli::ServeArguments;
use crate::flagged_accounts::FlaggedAccounts;
use crate::os::host::listening::Sockets;
use crate::os::host::socket::{self, SocketFile, SocketOptions};
use crate::serve::error::ServeError;
use crate::serve::passed_with_flags;

/// Sockets that were passed, and the path that children are told.
pub(super) fn passed_sockets(arguments: &ServeArguments, listeners: Vec<UnixListener>) -> (Sockets, PathBuf) {
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
pub(super) fn sockets(
    arguments: &ServeArguments,
    passed: Vec<UnixListener>,
    uid: u32,
    accounts: &FlaggedAccounts,
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
    if arguments.allows_in_vain() {
        tracing::warn!(
            mode = %format_args!("{:03o}", arguments.socket_mode),
            "--allow-user and --allow-group let nobody in while only its owner may write to the socket; \
             open it with --socket-mode 660 and --socket-group, or with --socket-mode 666"
        );
    } else {
        let socket_group = accounts.socket_group.unwrap_or_else(|| nix::unistd::getegid().as_raw());
        for line in kept_out::lines(arguments, accounts, socket_group) {
            tracing::warn!("{line}");
        }
    }
    let options = SocketOptions { place, mode: arguments.socket_mode, group: accounts.socket_group };
    let (listener, file) = socket::listen_at(&options)?;
    let path = file.path().to_path_buf();
    Ok((Sockets::Own { listeners: vec![listener], file, options }, path))
}

/// The sockets that the program before this one has made, and the path that children are told.
pub(super) fn inherited_sockets(
    arguments: &ServeArguments,
    (path, lock): (PathBuf, OwnedFd),
    listeners: Vec<UnixListener>,
    group: Option<u32>,
) -> Result<(Sockets, PathBuf), ServeError> {
    if listeners.is_empty() {
        return Err(ServeError::NoSocket);
    }
    let file = SocketFile::inherited(&path, lock);
    let options = SocketOptions { place: Place::given(path.clone()), mode: arguments.socket_mode, group };
    Ok((Sockets::Own { listeners, file, options }, path))
}
