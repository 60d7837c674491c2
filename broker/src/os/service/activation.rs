//! What the broker was started with: systemd's `LISTEN_FDS` (`sd_listen_fds(3)`), that is sockets, and what an
//! earlier broker left in the fd store.
#![expect(unsafe_code, reason = "descriptors are passed as numbers")]

use std::env;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};
use thiserror::Error;

use crate::os::service::fd_store::StoredQueue;

/// The first of the descriptors.
const FIRST: usize = 3;

/// What the owner of the service has passed to the broker.
#[derive(Debug, Default)]
pub struct Passed {
    /// The sockets to serve.
    pub sockets: Vec<PassedSocket>,
    /// What an earlier broker left in the fd store.
    pub kept: StoredQueue,
}

/// A socket to serve. It has close-on-exec and does not block.
#[derive(Debug)]
pub struct PassedSocket {
    /// Its name in `LISTEN_FDNAMES`: that of the socket unit, unless that says otherwise.
    pub name: Option<String>,
    /// The socket, which listens already.
    pub listener: UnixListener,
}

/// The broker was started with something that it cannot serve.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// One of the descriptors is no listening Unix stream socket.
    #[error(
        "descriptor {descriptor} ({name}) was passed by LISTEN_FDS and cannot be served: {source}; the socket unit \
         has to say ListenStream= with a path, and Accept=no"
    )]
    Unusable {
        /// The number of the descriptor, the first being 3.
        descriptor: usize,
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The number of descriptors is none.
    #[error("LISTEN_FDS is {0:?}, which is no number of descriptors")]
    Number(String),
}

/// Takes over what was passed to this process: nothing where it was not started that way, or where `LISTEN_PID`
/// names another process. To be called once, before there is another thread.
///
/// # Errors
/// When one of the descriptors is neither a listening Unix stream socket nor of the fd store.
pub fn passed() -> Result<Passed, ActivationError> {
    let variable = |name| env::var(name).ok();
    let mut taken = Passed::default();
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(taken);
    }
    let Some(number) = variable("LISTEN_FDS") else { return Ok(taken) };
    if number.parse::<u16>().is_err() {
        return Err(ActivationError::Number(number));
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    // It removes LISTEN_PID and LISTEN_FDS from the environment.
    let mut passed = ListenFd::from_env();
    for index in 0..passed.len() {
        match names.next().filter(|name| !name.is_empty()) {
            Some(name) if StoredQueue::knows(name) => {
                if let Some(descriptor) = take_stored(&mut passed, index) {
                    taken.kept.take(name, descriptor);
                }
            }
            name => taken.sockets.push(take_socket(&mut passed, index, name.map(str::to_owned))?),
        }
    }
    Ok(taken)
}

fn take_stored(passed: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    let descriptor = passed.take_raw_fd(index).ok().flatten()?;
    // SAFETY: systemd opened it for this process, and it is taken once, as `passed` sees to.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn take_socket(
    passed: &mut ListenFd,
    index: usize,
    name: Option<String>,
) -> Result<PassedSocket, ActivationError> {
    let listener = passed.take_unix_listener(index).and_then(|listener| {
        let listener = listener.ok_or(io::ErrorKind::NotFound)?;
        if !getsockopt(&listener.as_fd(), sockopt::AcceptConn)? {
            return Err(io::Error::other("it does not listen"));
        }
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match listener {
        Ok(listener) => Ok(PassedSocket { name, listener }),
        Err(source) => Err(ActivationError::Unusable {
            descriptor: FIRST + index,
            name: name.unwrap_or_else(|| "unnamed".to_owned()),
            source,
        }),
    }
}

#[cfg(test)]
mod tests;
