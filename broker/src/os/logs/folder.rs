//! A folder that is the broker's own: everything in it is reached through its descriptor, and by no other way.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::error::LogsError;
use crate::os::host::folder::FolderOrigin;
use crate::os::host::own_folder::{OwnError, check_file};

/// What nobody but the owner may do anything with.
const OWN_FOLDER: Mode = Mode::S_IRWXU;

/// What a file is opened with, beside how it is used. Opening it waits for nobody, whatever it is (fcntl(2), leases).
const CAREFULLY: OFlag =
    OFlag::O_CLOEXEC.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// An open folder; a copy is the same one.
#[derive(Clone, Debug)]
pub(super) struct Folder(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder, and makes it where it is missing; the one above it has to be there.
    ///
    /// # Errors
    /// When it belongs to another user, is a symbolic link or no folder, or when the system refuses.
    pub(super) fn open(path: PathBuf) -> Result<(Self, FolderOrigin), LogsError> {
        let refused = |attempt| {
            let path = path.clone();
            move |errno: Errno| LogsError::new(attempt, path, errno.into())
        };
        let origin = match mkdirat(AT_FDCWD, &path, OWN_FOLDER) {
            Ok(()) => FolderOrigin::Made,
            Err(Errno::EEXIST) => FolderOrigin::Found,
            Err(errno) => return Err(refused("make the folder")(errno)),
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let descriptor = openat(AT_FDCWD, &path, flags, Mode::empty()).map_err(refused("open the folder"))?;
        let found = fstat(&descriptor).map_err(refused("examine"))?;
        if found.st_uid != geteuid().as_raw() {
            return Err(refused("trust another user's folder")(Errno::EPERM));
        }
        fchmod(&descriptor, OWN_FOLDER).map_err(refused("close the folder"))?;
        Ok((Self(Arc::new(Opened { descriptor, path })), origin))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }

    /// Opens a file that is there.
    pub(super) fn open_file(&self, name: &str, how: OFlag) -> Result<OwnedFd, Errno> {
        openat(self.descriptor(), name, how | CAREFULLY, Mode::empty())
    }

    /// Opens a regular file that is the broker's own, under this one name, and that nobody else can write to.
    ///
    /// # Errors
    /// What is wrong with it; else as the system refuses.
    pub(super) fn own_file(&self, name: &str, how: OFlag) -> io::Result<File> {
        let path = self.path().join(name);
        let file = match self.open_file(name, how) {
            Ok(file) => file,
            Err(Errno::ELOOP) => {
                return Err(io::Error::other(OwnError::Untrusted { path, flaw: "is a link" }));
            }
            Err(errno) => return Err(errno.into()),
        };
        check_file(&file, &path).map_err(io::Error::other)?;
        Ok(file.into())
    }

    /// Makes an empty file for the broker alone. One of that name goes.
    pub(super) fn make_file(&self, name: &str) -> io::Result<File> {
        let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | CAREFULLY;
        let attempt = || openat(self.descriptor(), name, how, Mode::S_IRUSR | Mode::S_IWUSR);
        let made = match attempt() {
            Err(Errno::EEXIST) => {
                self.remove(name)?;
                attempt()
            }
            other => other,
        };
        Ok(File::from(made?))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(self.descriptor(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The names of everything in it that are text.
    pub(super) fn names(&self) -> Result<Vec<String>, LogsError> {
        let list = || {
            let again = openat(self.descriptor(), ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            let names = Dir::from_fd(again)?.into_iter().map(|entry| Ok(entry?.file_name().to_owned()));
            names.collect::<Result<Vec<_>, Errno>>()
        };
        let names = list().map_err(|errno| self.refused("list", "", errno.into()))?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// What could not be done, with which file.
    pub(super) fn refused(&self, attempt: &'static str, name: &str, source: io::Error) -> LogsError {
        LogsError::new(attempt, self.path().join(name), source)
    }
}
