//! The folder in which a broker keeps its state and its children's output.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use procbroker_protocol::socket_path::{Origin, Place};
use thiserror::Error;

use super::lock::{Lock, LockError};
use super::logs::{Logs, LogsError};
use super::socket::{FolderError, make_folder};

/// A state folder that is this broker's as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    logs: Logs,
    lock: Lock,
}

/// The folder cannot be used.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// It cannot be made, or is not to be trusted.
    #[error("no state can be kept: {0} with --state-dir")]
    Folder(#[from] FolderError),
    /// Another broker uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The folder of the children's output cannot be made.
    #[error(transparent)]
    Logs(#[from] LogsError),
}

impl StateDir {
    /// Makes the folder, with those above it, where it is missing; closes it to all other users; and locks it.
    ///
    /// # Errors
    /// When it belongs to somebody else, when another broker uses it, or when the system refuses.
    pub fn open(place: &Place) -> Result<Self, StateDirError> {
        Self::open_with(place, |path| {
            Lock::take(&path.join("lock"), &format!("the state folder {}", path.display()))
        })
    }

    /// Takes the folder over with the lock that an earlier program of this process has handed over.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inherited(place: &Place, lock: OwnedFd) -> Result<Self, StateDirError> {
        Self::open_with(place, |path| Ok(Lock::inherited(&path.join("lock"), lock)))
    }

    fn open_with(
        place: &Place,
        lock: impl FnOnce(&Path) -> Result<Lock, LockError>,
    ) -> Result<Self, StateDirError> {
        let path = place.path.as_path();
        // The state of the machine's broker is nobody's to read either.
        let origin = if place.origin == Origin::System { Origin::User } else { place.origin };
        make_folder(path, origin)?;
        close_to_others(path)?;
        let lock = lock(path)?;
        let logs = Logs::open(path.join("logs"))?;
        Ok(Self { path: path.to_owned(), logs, lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file in which the children are on record.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// What is locked.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The children's output.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }
}

/// A folder that was there before may have been made with another mode.
fn close_to_others(path: &Path) -> Result<(), FolderError> {
    let refused = |attempt| move |source| FolderError::Refused { attempt, path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(refused("read"))?;
    if found.uid() != geteuid().as_raw() {
        return Err(FolderError::Untrusted { path: path.to_owned(), flaw: "belongs to another user" });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(refused("close"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &Path) -> Place {
        Place { path: path.to_owned(), origin: Origin::User }
    }

    #[test]
    fn a_state_folder_is_made_closed_to_others_and_used_by_one_broker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let state = StateDir::open(&place(&path)).unwrap();
        for made in [state.path(), &path.join("logs"), &folder.path().join("a")] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700, "{}", made.display());
        }
        let error = StateDir::open(&place(&path)).unwrap_err();
        assert!(matches!(error, StateDirError::Lock(LockError::Held { .. })));
        assert!(error.to_string().contains("already has the state folder"), "{error}");
        drop(state);
        drop(StateDir::open(&place(&path)).unwrap());
    }

    #[test]
    fn a_state_folder_that_was_open_to_others_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        drop(StateDir::open(&place(folder.path())).unwrap());
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_state_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = StateDir::open(&place(&folder.path().join("file/state"))).unwrap_err().to_string();
        assert!(error.contains("file/state") && error.contains("--state-dir"), "{error}");
    }
}
