//! Sockets that the broker was started with: systemd's `LISTEN_FDS` (`sd_listen_fds(3)`).

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};
use thiserror::Error;

/// The first of the descriptors.
const FIRST: usize = 3;

/// A socket to serve. It has close-on-exec and does not block.
#[derive(Debug)]
pub struct PassedSocket {
    /// Its name in `LISTEN_FDNAMES`: that of the socket unit, unless that says otherwise.
    pub name: Option<String>,
    /// The socket.
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
        /// Its number.
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

/// Takes over the sockets that were passed to this process: none where it was not started that way, or where
/// `LISTEN_PID` names another process. To be called once, before there is another thread.
///
/// # Errors
/// When one of them is anything else than a listening Unix stream socket.
pub fn passed_sockets() -> Result<Vec<PassedSocket>, ActivationError> {
    let variable = |name| env::var(name).ok();
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let Some(number) = variable("LISTEN_FDS") else { return Ok(Vec::new()) };
    if number.parse::<u16>().is_err() {
        return Err(ActivationError::Number(number));
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    // It removes LISTEN_PID and LISTEN_FDS from the environment.
    let mut passed = ListenFd::from_env();
    (0..passed.len()).map(|index| take(&mut passed, index, names.next())).collect()
}

fn take(passed: &mut ListenFd, index: usize, name: Option<String>) -> Result<PassedSocket, ActivationError> {
    let name = name.filter(|name| !name.is_empty());
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
