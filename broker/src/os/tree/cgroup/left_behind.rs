//! Folders of brokers that are gone: one is taken over with the children in it, empty ones are removed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::fstat;

use super::tree::{DEPTH_MAX, FOLDER_PREFIX, is_populated, remove_tree, subgroups};

/// How long the lock of an earlier broker's folder is asked for.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How long is rested before it is asked for again.
const LOCK_REST: Duration = Duration::from_millis(1);

/// The folder of an earlier broker, in which children may live.
#[derive(Debug)]
pub struct PreviousFolder {
    /// Where the record says that it was.
    pub path: PathBuf,
    /// The folder as it is open and locked, if this process had it before it executed its program anew.
    pub folder: Option<OwnedFd>,
}

impl PreviousFolder {
    /// None when it is gone, or when somebody else has it.
    pub(super) fn lock(&self) -> Option<Flock<File>> {
        let is_folder = |name: &OsStr| name.as_bytes().starts_with(FOLDER_PREFIX.as_bytes());
        self.path.file_name().is_some_and(is_folder).then_some(())?;
        let at_path = File::open(&self.path).ok()?;
        let file = match self.folder.as_ref().map(OwnedFd::try_clone) {
            None => at_path,
            Some(passed) => {
                let passed = File::from(passed.ok()?);
                let is_same = fstat(&passed).ok()?.st_ino == fstat(&at_path).ok()?.st_ino;
                is_same.then_some(passed)?
            }
        };
        lock_soon(file).ok()
    }
}

/// Locks a broker's folder. Another broker that looks for folders to remove has the lock for a moment.
pub(super) fn lock_soon(folder: File) -> Result<Flock<File>, Errno> {
    let began = Instant::now();
    let mut folder = folder;
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, Errno::EWOULDBLOCK)) if began.elapsed() < LOCK_PATIENCE => {
                folder = unlocked;
                std::thread::sleep(LOCK_REST);
            }
            Err((_, errno)) => return Err(errno),
        }
    }
}

/// Removes the groups below a broker's folder, as far as nothing lives in them, and then the folder, which is at this path.
/// Returns whether it is gone.
#[must_use]
pub fn remove_folder(folder: BorrowedFd<'_>, path: &Path) -> bool {
    for name in subgroups(folder) {
        remove_tree(folder, &name, DEPTH_MAX);
    }
    fs::remove_dir(path).is_ok() || !path.exists()
}

/// Removes the folders of brokers that are gone: those that nobody has locked, and that are empty.
pub(super) fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(FOLDER_PREFIX.as_bytes()) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        let Ok(folder) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) else { continue };
        // A next broker may go on with it, which tells by the numbers of groups which are in use.
        if is_populated(folder.as_fd(), "cgroup.events") {
            continue;
        }
        for name in subgroups(folder.as_fd()) {
            remove_tree(folder.as_fd(), &name, DEPTH_MAX);
        }
        let _ignored = fs::remove_dir(entry.path());
    }
}
