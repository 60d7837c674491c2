//! The listening sockets: made by the broker, or passed by systemd.

use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use interprocess::local_socket::tokio::Listener;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UnixSocketListener;

use crate::causes::with_causes;
use crate::os::host::exposed_socket::refuse_rights;
use crate::os::host::socket::{SocketFile, SocketOptions};

/// The sockets that the broker listens at: its own, or those that it was passed.
#[derive(Debug)]
pub enum Sockets {
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
    Passed {
        /// All that were passed.
        listeners: Vec<UnixListener>,
    },
}

impl Sockets {
    /// Who made them, as `status` shows it.
    #[must_use]
    pub fn activation(&self) -> &'static str {
        match self {
            Self::Own { .. } => "broker",
            Self::Passed { .. } => "systemd",
        }
    }

    /// The sockets themselves, to be handed over.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.all().iter().map(AsFd::as_fd).collect()
    }

    fn all(&self) -> &[UnixListener] {
        match self {
            Self::Own { listeners, .. } | Self::Passed { listeners } => listeners,
        }
    }

    /// Makes the file of an own socket anew where it is gone: nobody could connect to the program that takes over. One
    /// that cannot be made leaves everything as it is.
    pub fn make_anew_if_gone(&mut self) {
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
    #[must_use]
    pub fn own(&self) -> Option<(&Path, BorrowedFd<'_>)> {
        match self {
            Self::Own { file, .. } => Some((file.path(), file.lock())),
            Self::Passed { .. } => None,
        }
    }

    /// Gives them up at the end of this process, which closes them: who has connected and was not taken in may have sent along
    /// what would hold up whoever closes it earlier.
    pub fn leave(self) {
        let (Self::Own { listeners, .. } | Self::Passed { listeners }) = self;
        for listener in listeners {
            let _ = listener.into_raw_fd();
        }
    }

    /// The sockets for the event loop.
    ///
    /// # Errors
    /// When the system has no descriptor left for one.
    pub fn listeners(&self) -> std::io::Result<Vec<Listener>> {
        self.all().iter().map(listen).collect()
    }
}

fn listen(listener: &UnixListener) -> std::io::Result<Listener> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    // The descriptors of those who wait there already are for their connections to look after.
    let _ = refuse_rights(&listener);
    UnixSocketListener::try_from(OwnedFd::from(listener)).map(Listener::from)
}
