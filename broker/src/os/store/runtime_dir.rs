//! The broker's runtime folder, for what a crash of the broker leaves and a reboot does not need.
//!
//! It is beside the socket, as a rule on a file system in memory. The state folder keeps a note of where it is, with a key
//! that is in the folder as well: a broker that is started with another socket, after a crash, goes on in the folder of the
//! one before it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::fstat;
use thiserror::Error;
use uuid::Uuid;

use crate::os::host::folder::FolderOrigin;
use crate::os::host::own_folder::{self, OwnError, OwnFolder};
use crate::os::journal::{Abandoned, Survivor};
use crate::os::process::identity::BootId;
use crate::os::process::probation;

/// The file in the state folder that says where the runtime folder is.
pub(super) const NOTE: &str = "runtime";

/// The file in the runtime folder that says whose it is.
const OWNER: &str = "owner";

/// The file in a runtime folder that was there before any broker used it: it is not the broker's to remove.
const FOUND: &str = "found";

/// A note on its way to its name.
const DRAFT: &str = "runtime.new";

/// Bytes of a note, at most: a key, and a path.
const NOTE_BYTES_MAX: u64 = 8 << 10;

/// How long the lock of a folder is asked for that somebody else has.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How long is rested before it is asked for again.
const LOCK_REST: Duration = Duration::from_millis(1);

/// Where the runtime folder is to be, unless a broker that crashed has left one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeDirChoice {
    /// There, and nowhere else.
    Given(PathBuf),
    /// There, or under a similar name where another broker's is.
    Usual(PathBuf),
}

/// A runtime folder that is this broker's. It is removed at the end, if a broker has made it and nothing is left in it.
#[derive(Debug)]
pub struct RuntimeDir {
    folder: OwnFolder,
    state: OwnFolder,
}

/// There is no runtime folder to be had.
#[derive(Debug, Error)]
pub enum RuntimeDirError {
    /// It cannot be made or used.
    #[error("no runtime folder can be had: {0}; or give another one with --runtime-dir")]
    Unusable(#[from] OwnError),
    /// There is something in it that no broker has made.
    #[error(
        "the runtime folder {path} is not the broker's alone: {entry} is in it; give an empty one with --runtime-dir"
    )]
    Shared {
        /// The runtime folder.
        path: PathBuf,
        /// What is in it.
        entry: String,
    },
    /// It is the folder of another broker, be it running or not.
    #[error(
        "the runtime folder {path} belongs to the broker with the state folder {state}; give another one with --runtime-dir"
    )]
    Taken {
        /// The runtime folder.
        path: PathBuf,
        /// The state folder of the other one.
        state: PathBuf,
    },
    /// Somebody holds its lock.
    #[error(
        "the runtime folder {path} is in use by another broker, or by a process that one was about to start when it ended; \
         end that, or give another folder with --runtime-dir"
    )]
    Locked {
        /// The runtime folder.
        path: PathBuf,
    },
    /// The broker whose folder it was is gone with its state, and its children are not.
    #[error(
        "the runtime folder {path} is that of a broker whose state folder {state} is gone, and children of it may live, such \
         as process {}; put that state folder back and start a broker with it, or end those children, or give another \
         folder with --runtime-dir", survivor.pid
    )]
    Inhabited {
        /// The runtime folder.
        path: PathBuf,
        /// Where the state was.
        state: PathBuf,
        /// What may be of one of its children.
        survivor: Survivor,
    },
    /// It cannot be told whether anybody lives who belongs to it.
    #[error(
        "cannot tell whether children of the broker live whose runtime folder {path} was: {source}; mount proc, and raise \
         the limit on open files (ulimit -n), or give another folder with --runtime-dir"
    )]
    Unknown {
        /// The runtime folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// That a runtime folder and a state folder belong together: it is in both of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    key: Uuid,
    path: PathBuf,
}

impl RuntimeDir {
    /// Opens the folder that an earlier broker with this state folder has left, or makes one, closed to all others.
    ///
    /// # Errors
    /// When it is not to be trusted, when it is another broker's, or when the system refuses.
    pub fn open(wanted: &RuntimeDirChoice, state: &Path) -> Result<Self, RuntimeDirError> {
        let state = OwnFolder::open(state)?;
        if let Some(folder) = left(&state)? {
            // The lock of the state folder says that no broker has it. A process that an earlier one was about to start may
            // hold on to it, and is found by what is in the folder.
            let _held_or_not = try_lock(&folder)?;
            return Ok(Self { folder, state });
        }
        let key = Uuid::new_v4();
        let folder = match wanted {
            RuntimeDirChoice::Given(path) => claim(path, &state)?,
            RuntimeDirChoice::Usual(path) => match claim(path, &state) {
                Err(RuntimeDirError::Taken { path: taken, state: other }) => {
                    if let Some(remark) = left_behind(&taken, &other) {
                        tracing::warn!("{remark}");
                    }
                    let mut name = path.clone().into_os_string();
                    name.push(format!("-{:08x}", key.as_fields().0));
                    claim(Path::new(&name), &state)?
                }
                claimed_or_not => claimed_or_not?,
            },
        };
        // In this order: whoever finds the folder can ask the state folder whether it is wanted still.
        Note { key, path: folder.path().to_owned() }.write(&state, NOTE)?;
        Note { key, path: state.path().to_owned() }.write(&folder, OWNER)?;
        Ok(Self { folder, state })
    }

    /// The folder that an earlier program of this process has passed: it is the very same, whatever is at its path by now.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn passed(path: PathBuf, folder: OwnedFd, state: &OwnFolder) -> Result<Self, RuntimeDirError> {
        let folder = OwnFolder::passed(path, folder);
        // An earlier version has not locked it; any other has done so with this very descriptor.
        let _held_or_not = try_lock(&folder)?;
        Ok(Self { folder, state: state.try_clone()? })
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the open folder, by which its entries are reached.
    #[must_use]
    pub fn folder(&self) -> &OwnFolder {
        &self.folder
    }

    /// A folder in it, made where it is missing. One that is empty is removed with the runtime folder.
    ///
    /// # Errors
    /// When something else is in its place, or the system refuses.
    pub fn subfolder(&self, name: &str) -> Result<OwnFolder, RuntimeDirError> {
        Ok(self.folder.subfolder(name)?)
    }

    /// Removes what brokers have made, and the note of it, if nothing is left in the folder.
    fn remove_if_empty(&self) -> Result<(), OwnError> {
        for name in self.folder.entries()?.iter().filter(|name| ![OWNER, FOUND].contains(&name.as_str())) {
            // What is no folder, or not empty, stays, and so does this one.
            if self.folder.remove_folder(name).is_err() {
                return Ok(());
            }
        }
        let refused = |source: nix::Error| OwnError::Refused {
            attempt: "remove",
            path: self.path().to_owned(),
            source: source.into(),
        };
        let own = fstat(&self.folder).map_err(refused)?;
        self.folder.remove(OWNER)?;
        if self.folder.has_file(FOUND)? {
            self.folder.remove(FOUND)?;
            return self.state.remove(NOTE);
        }
        if own_folder::place_of(self.path())? == (own.st_dev, own.st_ino) {
            std::fs::remove_dir(self.path()).map_err(|source| OwnError::Refused {
                attempt: "remove",
                path: self.path().to_owned(),
                source,
            })?;
        }
        self.state.remove(NOTE)
    }
}

impl AsFd for RuntimeDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if probation::is_on() {
            return;
        }
        if let Err(error) = self.remove_if_empty() {
            tracing::debug!(%error, "the runtime folder stays, and the next broker goes on in it");
        }
    }
}

/// Whether the runtime folder that belongs to this state folder, if there is one, is the broker's own.
pub(super) fn check(state: &OwnFolder) -> Result<(), RuntimeDirError> {
    left(state).map(drop)
}

/// The folder that an earlier broker has left, if it is there still.
pub(super) fn left(state: &OwnFolder) -> Result<Option<OwnFolder>, RuntimeDirError> {
    let Some(note) = Note::read(state, NOTE)? else { return Ok(None) };
    let folder = match OwnFolder::open(&note.path) {
        Ok(folder) => folder,
        // It was in memory, and the machine or the container was started anew.
        Err(error) if error.is_absence() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    folder.check_passable()?;
    let owner = Note::read(&folder, OWNER)?;
    Ok(owner.filter(|owner| owner.key == note.key).map(|_| folder))
}

/// Makes a folder, or takes one that is nobody else's.
fn claim(path: &Path, state: &OwnFolder) -> Result<OwnFolder, RuntimeDirError> {
    let origin = make(path).map_err(|source| OwnError::Refused {
        attempt: "make the folder",
        path: path.to_owned(),
        source,
    })?;
    let folder = OwnFolder::open(path)?;
    folder.check_passable()?;
    let owner = Note::read(&folder, OWNER)?;
    if !lock(&folder)? {
        // What belongs to this state is not to be done without.
        return Err(match owner {
            Some(owner) if owner.path != state.path() => {
                RuntimeDirError::Taken { path: path.to_owned(), state: owner.path }
            }
            Some(_) | None => RuntimeDirError::Locked { path: path.to_owned() },
        });
    }
    match owner {
        None => match folder.entries()?.into_iter().find(|name| ![DRAFT, FOUND].contains(&name.as_str())) {
            None => {
                match origin {
                    FolderOrigin::Made => {}
                    // Before it is the broker's by its note.
                    FolderOrigin::Found => drop(folder.file(FOUND, OFlag::O_WRONLY | OFlag::O_CREAT)?),
                }
                Ok(folder)
            }
            Some(entry) => Err(RuntimeDirError::Shared { path: path.to_owned(), entry }),
        },
        // The note of it was lost.
        Some(owner) if owner.path == state.path() => Ok(folder),
        Some(owner) if is_in_use(&owner) => {
            Err(RuntimeDirError::Taken { path: path.to_owned(), state: owner.path })
        }
        // Nobody goes on with what the other broker has left: its state is gone.
        Some(owner) => {
            let unknown = |source| RuntimeDirError::Unknown { path: path.to_owned(), source };
            let boot = BootId::current().map_err(|error| unknown(io::Error::other(error)))?;
            let survivor = Abandoned::read(&folder, boot)?.survivor().map_err(unknown)?;
            if let Some(survivor) = survivor {
                return Err(RuntimeDirError::Inhabited {
                    path: path.to_owned(),
                    state: owner.path,
                    survivor,
                });
            }
            clear(&folder)?;
            Ok(folder)
        }
    }
}

/// Says what a broker with another state folder has left in a runtime folder, if it is gone: this one knows nothing of its
/// children, and finds none of them.
fn left_behind(path: &Path, state: &Path) -> Option<String> {
    let folder = OwnFolder::open(path).ok()?;
    if !try_lock(&folder).ok()? {
        // That broker lives, at another socket.
        return None;
    }
    // What cannot be told is left out: the record of them is there all the same.
    let survivor = BootId::current()
        .ok()
        .and_then(|boot| Abandoned::read(&folder, boot).ok())
        .and_then(|left| left.survivor().ok().flatten());
    let alive = survivor
        .map_or_else(String::new, |survivor| format!(", such as process {}, which lives", survivor.pid));
    Some(format!(
        "{path} is what a broker with the state folder {state} has left that did not end in order; its children are not known \
         to this broker{alive}, and their cleanups do not run: stop this one, and start it with --state-dir {state} to go on \
         with them",
        path = path.display(),
        state = state.display(),
    ))
}

/// Locks a folder for as long as its descriptor, or a copy of that, is open: a broker that lives has it, whatever has become
/// of its state folder. Says whether it was to be had. A broker that was killed may leave it, for a moment, to what it was
/// about to start.
fn lock(folder: &OwnFolder) -> Result<bool, OwnError> {
    let began = Instant::now();
    loop {
        let is_held = try_lock(folder)?;
        if is_held || began.elapsed() >= LOCK_PATIENCE {
            return Ok(is_held);
        }
        std::thread::sleep(LOCK_REST);
    }
}

fn try_lock(folder: &OwnFolder) -> Result<bool, OwnError> {
    let refused = |source| OwnError::Refused { attempt: "lock", path: folder.path().to_owned(), source };
    // The lock belongs to what both descriptors refer to (flock(2)).
    let copy = File::from(folder.as_fd().try_clone_to_owned().map_err(refused)?);
    match copy.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

/// Makes a folder, and those above it, closed to all others. What is there already has to be looked at.
fn make(path: &Path) -> io::Result<FolderOrigin> {
    let mut one = DirBuilder::new();
    one.mode(0o700);
    match one.create(path) {
        Ok(()) => Ok(FolderOrigin::Made),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(FolderOrigin::Found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            one.recursive(true).create(path).map(|()| FolderOrigin::Made)
        }
        Err(error) => Err(error),
    }
}

/// Whether the state folder that a runtime folder names still holds on to it. Where that cannot be told, it does.
fn is_in_use(owner: &Note) -> bool {
    let note = match OwnFolder::open(&owner.path) {
        Ok(state) => Note::read(&state, NOTE),
        Err(error) => Err(error),
    };
    match note {
        Ok(note) => note.is_some_and(|note| note.key == owner.key),
        Err(error) => !error.is_absence(),
    }
}

/// Removes what a broker has left: files, and folders of files.
fn clear(folder: &OwnFolder) -> Result<(), OwnError> {
    for name in folder.entries()?.into_iter().filter(|name| name != FOUND) {
        if folder.remove(&name).is_ok() {
            continue;
        }
        let inner = folder.subfolder(&name)?;
        for name in inner.entries()? {
            inner.remove(&name)?;
        }
        folder.remove_folder(&name)?;
    }
    Ok(())
}

impl Note {
    /// The note that is in a folder, if there is a whole one.
    fn read(folder: &OwnFolder, name: &str) -> Result<Option<Self>, OwnError> {
        if !folder.has_file(name)? {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let file = folder.file(name, OFlag::O_RDONLY)?;
        file.take(NOTE_BYTES_MAX).read_to_end(&mut bytes).map_err(|source| OwnError::Refused {
            attempt: "read",
            path: folder.path().join(name),
            source,
        })?;
        Ok(Self::parse(&bytes))
    }

    /// A key on one line, and the path in the rest.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (key, path) = bytes.split_at_checked(uuid::fmt::Hyphenated::LENGTH)?;
        let key = Uuid::try_parse_ascii(key).ok()?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.strip_prefix(b"\n")?.to_vec()));
        Some(Self { key, path })
    }

    /// Puts it in a folder, in the place of another one, whole or not at all.
    fn write(&self, folder: &OwnFolder, name: &str) -> Result<(), OwnError> {
        let refused = |source| OwnError::Refused { attempt: "write", path: folder.path().join(name), source };
        folder.remove(DRAFT)?;
        let mut file = folder.file(DRAFT, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
        let text = [format!("{}\n", self.key).as_bytes(), self.path.as_os_str().as_bytes()].concat();
        file.write_all(&text).map_err(refused)?;
        renameat(folder, DRAFT, folder, name).map_err(|errno| refused(errno.into()))
    }
}

#[cfg(test)]
mod tests;
