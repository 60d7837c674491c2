//! The broker's own socket: its folder, its lock, its file and who may connect.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, setfsgid};
use procbroker_protocol::socket_path::{Origin, PATH_BYTES_MAX, Place};
use thiserror::Error;

use super::folder::{FolderError, make_folder};
use crate::os::host::lock::{Lock, LockError};

/// Where and how to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The path, and what it follows from.
    pub place: Place,
    /// The mode of the file: to connect takes the right to write.
    pub mode: u32,
    /// The group of the file, if it is not to be the broker's own.
    pub group: Option<u32>,
}

/// The file of a socket that the broker listens at. It is removed at the end, unless it is another by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Declared last, so that it is given up last.
    lock: Lock,
}

/// The broker cannot listen.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The path does not fit.
    #[error("the socket's path {path} has {} bytes, and a Unix socket's path has at most {PATH_BYTES_MAX}; give a shorter one with --socket", path.as_os_str().len())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Its folder is not to be trusted, or cannot be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Another broker listens there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Something else is in its place.
    #[error("{path} exists and is no socket; remove it, or give another path with --socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {attempt} the socket {path}: {source}")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Listens: when this returns, the file is there with its mode, and who may connect can.
///
/// The folder is made where it is missing: 0755 for the machine's socket and for a named one that others may use,
/// else 0700. What a broker that is gone
/// has left in the socket's place is replaced. The listener has close-on-exec and does not block.
///
/// # Errors
/// When another broker listens there, or the system refuses.
pub fn listen_at(options: &SocketOptions) -> Result<(UnixListener, SocketFile), SocketError> {
    // Children are told the path, and have other working directories.
    let path = std::path::absolute(&options.place.path).unwrap_or_else(|_| options.place.path.clone());
    let path = path.as_path();
    let address = (path.as_os_str().len() <= PATH_BYTES_MAX).then(|| UnixAddr::new(path));
    let address =
        address.and_then(Result::ok).ok_or_else(|| SocketError::TooLong { path: path.to_owned() })?;
    if let Some(folder) = path.parent() {
        // A folder that only the broker's user enters would make the socket's own mode useless.
        let is_shared = options.mode & 0o077 != 0 && options.place.origin == Origin::Named;
        let origin = if is_shared { Origin::System } else { options.place.origin };
        make_folder(folder, origin)?;
    }
    let lock = Lock::take(&lock_path(path), &format!("the socket {}", path.display()))?;
    remove_stale(path)?;
    let refused = |attempt| {
        let path = path.to_owned();
        move |errno: Errno| SocketError::Refused { attempt, path, source: errno.into() }
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(refused("create"))?;
    bind_for(&listener, &address, options).map_err(refused("bind"))?;
    let file = SocketFile::note(path, lock)?;
    // Nobody can connect before it listens.
    open_to(path, options)?;
    listen(&listener, Backlog::MAXCONN).map_err(refused("listen at"))?;
    Ok((UnixListener::from(listener), file))
}

/// Makes the file with its mode and its group from its first moment: those who come back right after a crash of the
/// broker are not refused by it.
///
/// A group that the broker may not make files for, though it is a member (`setfsgid(2)`), the file gets afterwards.
fn bind_for(listener: &OwnedFd, address: &UnixAddr, options: &SocketOptions) -> Result<(), Errno> {
    let mask = umask(Mode::from_bits_truncate(!options.mode & 0o777));
    let group = options.group.map(|group| setfsgid(Gid::from_raw(group)));
    let bound = bind(listener.as_raw_fd(), address);
    if let Some(group) = group {
        setfsgid(group);
    }
    umask(mask);
    bound
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let refused = |source| SocketError::Refused { attempt: "replace", path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(refused),
        Ok(_) => Err(SocketError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

/// Gives the file its group and then its mode, so that the mode never is that of another group.
fn open_to(path: &Path, options: &SocketOptions) -> Result<(), SocketError> {
    let refused = |attempt| move |source| SocketError::Refused { attempt, path: path.to_owned(), source };
    if let Some(group) = options.group {
        chown(path, None, Some(group)).map_err(refused("set the group of"))?;
    }
    fs::set_permissions(path, Permissions::from_mode(options.mode)).map_err(refused("set the mode of"))
}

impl SocketFile {
    fn note(path: &Path, lock: Lock) -> Result<Self, SocketError> {
        let found = fs::symlink_metadata(path);
        let found = found.map_err(|source| SocketError::Refused {
            attempt: "find",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino(), lock })
    }

    /// The file of a socket that an earlier program of this process has made and handed over.
    ///
    /// # Errors
    /// When the file is gone: then nobody can connect any more.
    pub fn inherited(path: &Path, lock: OwnedFd) -> Result<Self, SocketError> {
        Self::note(path, Lock::inherited(&lock_path(path), lock))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is locked beside it.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode)) {
            let _ignored = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
