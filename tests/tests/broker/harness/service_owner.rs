//! The other end of `NOTIFY_SOCKET`, where systemd would be.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::PATIENCE;

/// Receives what a service says about itself (`sd_notify(3)`).
#[derive(Debug)]
pub(crate) struct ServiceOwner {
    socket: UnixDatagram,
    path: PathBuf,
}

impl ServiceOwner {
    pub(crate) fn listen(path: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).expect("a socket for notifications");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        Self { socket, path }
    }

    /// For `NOTIFY_SOCKET`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the service says something that begins so, such as `READY=1`. False if `lifeline`, which the
    /// service holds the other end of, is closed before.
    #[must_use]
    pub(crate) fn hears(&self, word: &str, lifeline: BorrowedFd<'_>) -> bool {
        loop {
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(lifeline, PollFlags::empty()),
            ];
            let timeout = PollTimeout::try_from(PATIENCE).unwrap();
            assert!(poll(&mut fds, timeout).unwrap() > 0, "{word} did not come");
            if fds[0].any().unwrap_or(false) {
                let mut message = [0; 4096];
                let length = self.socket.recv(&mut message).unwrap();
                if String::from_utf8_lossy(&message[..length]).lines().any(|line| line.starts_with(word)) {
                    return true;
                }
            } else {
                return false;
            }
        }
    }
}
