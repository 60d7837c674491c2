//! The listening sockets: made by the broker, or passed by systemd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use interprocess::local_socket::tokio::Listener;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UnixSocketListener;
use procbroker_protocol::socket_path::{self, Place};

use crate::causes::with_causes;
use crate::cli::ServeArguments;
use crate::os::host::socket::{self, SocketFile, SocketOptions};
use crate::serve::{ServeError, passed_with_flags};

/// The listening sockets.
pub(crate) enum Sockets {
    /// Made by the broker itself.
    Own {
        /// First that at the path; before it, the file may have been removed and made anew, and clients wait still.
        listeners: Vec<UnixListener>,
        /// Removes the file when the broker ends.
        file: SocketFile,
        /// How it is made anew.
        options: SocketOptions,
    },
    /// Passed by systemd, which keeps them when the broker ends.
    Passed { listeners: Vec<UnixListener> },
}

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
    group: Option<u32>,
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
    }
    let options = SocketOptions { place, mode: arguments.socket_mode, group };
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

impl Sockets {
    /// Who made them, as `status` shows it.
    pub(super) fn activation(&self) -> &'static str {
        match self {
            Self::Own { .. } => "broker",
            Self::Passed { .. } => "systemd",
        }
    }

    /// The sockets themselves, to be handed over.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.all().iter().map(AsFd::as_fd).collect()
    }

    fn all(&self) -> &[UnixListener] {
        match self {
            Self::Own { listeners, .. } | Self::Passed { listeners } => listeners,
        }
    }

    /// Makes the file of an own socket anew where it is gone: nobody could connect to the program that takes over. One
    /// that cannot be made leaves everything as it is.
    pub(crate) fn make_anew_if_gone(&mut self) {
        let Self::Own { listeners, file, options } = self else { return };
        match file.make_anew_if_gone(options) {
            Ok(Some(listener)) => {
                tracing::warn!(socket = %file.path().display(), "made the socket anew, whose file was gone");
                listeners.insert(0, listener);
            }
            Ok(None) => {}
            Err(error) => {
                let reason = with_causes(&error);
                tracing::error!(
                    "nobody can connect, for the socket's file is gone and not made anew: {reason}"
                );
            }
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
        self.all().iter().map(|listener| listen(listener).map_err(ServeError::Listen)).collect()
    }
}

fn listen(listener: &UnixListener) -> std::io::Result<Listener> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    UnixSocketListener::try_from(OwnedFd::from(listener)).map(Listener::from)
}
