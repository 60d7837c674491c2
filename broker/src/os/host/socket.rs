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
use nix::unistd::{Gid, geteuid, setfsgid};
use procbroker_protocol::socket_path::{Origin, PATH_BYTES_MAX, Place};
use thiserror::Error;

use super::folder::{FolderError, make_folder};
use crate::os::host::exposed_socket::refuse_rights;
use crate::os::host::lock::{Lock, LockError};
use crate::os::host::own_folder;
use crate::os::process::probation;

/// What the usual name of a runtime folder has that the path of the socket has not.
pub const RUNTIME_FOLDER_ENDING: &str = ".d";

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
    /// The device and the inode, unless it was gone already when it was handed over.
    found: Option<(u64, u64)>,
    /// Declared last, so that it is given up last.
    lock: Lock,
}

/// The broker cannot listen.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The path does not fit.
    #[error("the socket's path {path} has {} bytes, and a Unix socket's path has at most {PATH_BYTES_MAX}; give a shorter one with --socket", path.as_os_str().len())]
    TooLong {
        /// The path of the socket.
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
        /// The path of the socket.
        path: PathBuf,
    },
    /// The system refused what was attempted.
    #[error("cannot {attempt} the socket {path}: {source}")]
    Refused {
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// What the system said.
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
    make_folder_of(path, options)?;
    if let Some(danger) = path.parent().and_then(danger_of) {
        let path = path.display();
        tracing::warn!(
            "others can put a socket of their own in the place of {path}: {danger}; choose another folder (--socket)"
        );
    }
    let lock = take_lock(path)?;
    remove_stale(path)?;
    let listener = stream_socket(path)?;
    bind_for(&listener, &address, options).map_err(refused("bind", path))?;
    let file = SocketFile::note(path, lock)?;
    // Nobody can connect before it listens.
    open_to(path, options)?;
    listen(&listener, Backlog::MAXCONN).map_err(refused("listen at", path))?;
    Ok((UnixListener::from(listener), file))
}

fn refused(attempt: &'static str, path: &Path) -> impl FnOnce(Errno) -> SocketError {
    let path = path.to_owned();
    move |errno| SocketError::Refused { attempt, path, source: errno.into() }
}

fn make_folder_of(path: &Path, options: &SocketOptions) -> Result<(), SocketError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    // A folder that only the broker's user enters would make the socket's own mode useless.
    let is_shared = options.mode & 0o077 != 0 && options.place.origin == Origin::Named;
    let origin = if is_shared { Origin::System } else { options.place.origin };
    Ok(make_folder(folder, origin)?)
}

/// Why others than root and the broker's user can exchange what is in a folder, if they can.
fn danger_of(folder: &Path) -> Option<String> {
    let found = fs::metadata(folder).ok()?;
    let (is_everybodys, is_sticky) = (found.mode() & 0o002 != 0, found.mode() & 0o1000 != 0);
    let folder = folder.display();
    if ![0, geteuid().as_raw()].contains(&found.uid()) {
        Some(format!("{folder} belongs to user {}", found.uid()))
    } else if is_everybodys && !is_sticky {
        Some(format!("everybody may write to {folder} (mode {:03o})", found.mode() & 0o777))
    } else {
        None
    }
}

fn take_lock(path: &Path) -> Result<Lock, LockError> {
    Lock::take(&lock_path(path), &format!("the socket {}", path.display()), "--socket")
}

fn stream_socket(path: &Path) -> Result<OwnedFd, SocketError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket =
        socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(refused("create", path))?;
    // Before anybody can connect.
    let _ = refuse_rights(&socket);
    Ok(socket)
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
        Ok(Self { path: path.to_owned(), found: Some((found.dev(), found.ino())), lock })
    }

    /// The file of a socket that an earlier program of this process has made and handed over.
    #[must_use]
    pub fn inherited(path: &Path, lock: OwnedFd) -> Self {
        let lock = Lock::inherited(&lock_path(path), lock);
        let found = fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket());
        Self { path: path.to_owned(), found: found.map(|found| (found.dev(), found.ino())), lock }
    }

    /// Makes the file, and the lock beside it, where they are gone, with another socket that listens there. What else is in
    /// their place stays.
    ///
    /// # Errors
    /// When another broker listens there, or the system refuses.
    pub fn make_anew_if_gone(
        &mut self,
        options: &SocketOptions,
    ) -> Result<Option<UnixListener>, SocketError> {
        let path = self.path.clone();
        let is_gone = fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if !is_gone {
            return Ok(None);
        }
        make_folder_of(&path, options)?;
        if !self.lock.is_in_place() {
            self.lock = take_lock(&path)?;
        }
        let address = UnixAddr::new(path.as_path()).map_err(refused("bind", &path))?;
        let listener = stream_socket(&path)?;
        // Its mode and its group come after it: to change the umask, and with it that of other threads, is for the start.
        bind(listener.as_raw_fd(), &address).map_err(refused("bind", &path))?;
        let found = own_folder::place_of(&path).map_err(LockError::from)?;
        self.found = Some(found);
        open_to(&path, options)?;
        listen(&listener, Backlog::MAXCONN).map_err(refused("listen at", &path))?;
        Ok(Some(UnixListener::from(listener)))
    }

    /// Returns the path of the socket.
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
        let is_own = found.is_ok_and(|found| Some((found.dev(), found.ino())) == self.found);
        if is_own && !probation::is_on() {
            let _ignored = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
