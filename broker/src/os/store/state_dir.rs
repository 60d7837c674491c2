//! The folder in which a broker keeps its state and its children's output.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use procbroker_core::Pid;
use procbroker_protocol::socket_path::{Origin, Place};
use thiserror::Error;

use super::runtime_dir::{self, NOTE, RuntimeDirError};
use crate::os::host::folder::{FolderError, make_folder};
use crate::os::host::lock::{self, Lock, LockError};
use crate::os::host::own_folder::{OwnError, OwnFolder};

/// The file that a broker locks.
const LOCK: &str = "lock";

/// The folder of the children's output.
const LOGS: &str = "logs";

/// The file in which the children are on record.
const RECORD: &str = "state.db";

/// A state folder that is this broker's as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    folder: OwnFolder,
    lock: Lock,
    /// The folders that were missing, it and those above it, the deepest first.
    made: Vec<PathBuf>,
}

/// A broker that was killed and is not gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DyingBroker {
    /// Its process.
    pub pid: Pid,
    /// Its runtime folder.
    pub runtime: PathBuf,
}

/// The folder cannot be used.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// It cannot be made, or is not to be trusted.
    #[error("no state can be kept: {0} with --state-dir")]
    Folder(#[from] FolderError),
    /// Something in it is not the broker's own.
    #[error("no state can be kept: {0}; or give another folder with --state-dir")]
    NotOwn(#[from] OwnError),
    /// It is of use to others, too.
    #[error(
        "no state can be kept in {path}: others can write to it, and {entry} in it is not the broker's; give a folder of \
         its own with --state-dir"
    )]
    Shared {
        /// The state folder.
        path: PathBuf,
        /// Something in it that the broker has not made.
        entry: String,
    },
    /// It is of use to others, too, and what is in it need not be what the broker has left there.
    #[error(
        "no state can be kept: {path} is not to be trusted: others can write to it (its mode is {mode:04o}), and could have \
         put anything in the place of what is in it; close it with 'chmod 700' once you know that all of it is the \
         broker's, or give another folder with --state-dir"
    )]
    Open {
        /// The state folder.
        path: PathBuf,
        /// The bits of its mode.
        mode: u32,
    },
    /// The runtime folder that belongs to it cannot be gone on with.
    #[error(transparent)]
    Runtime(#[from] RuntimeDirError),
    /// Another broker uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl StateDir {
    /// Makes the folder, with those above it, where it is missing; closes it to all other users, unless it holds
    /// something else as well; and locks it. What is in it is acted on, so that all of it has to be the broker's own, and
    /// nobody else may have been able to write to it, unless it is empty.
    ///
    /// # Errors
    /// When it, or something in it, belongs to somebody else, is a link, or can be written to by others; when another broker
    /// uses it; or when the system refuses.
    pub fn open(place: &Place) -> Result<Self, StateDirError> {
        let state = Self::open_with(place, Before::Nobody, |path| {
            Lock::take(&path.join(LOCK), &format!("the state folder {}", path.display()), "--state-dir")
                .map_err(StateDirError::from)
        })?;
        check_logs(&state.folder)?;
        Ok(state)
    }

    /// Takes the folder over with the lock that an earlier program of this process has handed over. That others could have
    /// written to it meanwhile, or that an output is not the broker's own, is no reason to leave the children alone: whoever
    /// asks for such an output is told.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn inherited(place: &Place, lock: OwnedFd) -> Result<Self, StateDirError> {
        Self::open_with(place, Before::Program, |path| Ok(Lock::inherited(&path.join(LOCK), lock)))
    }

    /// The folder that an earlier program of this process has passed, with its lock: it is the very same, whatever is at its
    /// path by now. What others have done to it since it was [checked](Self::check) is no reason to leave the children alone;
    /// it is closed to them, as [inherited](Self::inherited) is.
    #[must_use]
    pub fn passed(path: PathBuf, folder: OwnedFd, lock: OwnedFd) -> Self {
        let lock = Lock::inherited(&path.join(LOCK), lock);
        let state = Self { folder: OwnFolder::passed(path, folder), lock, made: Vec::new() };
        if let Err(error) = state.close_passed() {
            tracing::error!("the state folder stays as it is: {error}");
        }
        state
    }

    fn close_passed(&self) -> Result<(), StateDirError> {
        self.check_in_place()?;
        check_entries(&self.folder)?;
        close_to_others(self.path(), Before::Program)
    }

    /// Whether everything of the broker's in this folder, and in the runtime folder that belongs to it, is its own, as it
    /// has to be at a start. Nothing is changed, and the broker that they belong to may go on.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is no such folder.
    pub fn check(path: &Path) -> Result<(), StateDirError> {
        let folder = OwnFolder::open(path)?;
        check_entries(&folder)?;
        openness(path, Before::Nobody)?;
        check_logs(&folder)?;
        Ok(runtime_dir::check(&folder)?)
    }

    /// What a broker has left of itself with this folder, if it was killed and is not gone: it stays, with its lock, for as long
    /// as the kernel keeps one of its threads.
    #[must_use]
    pub fn left(place: &Place) -> Option<DyingBroker> {
        let folder = OwnFolder::open(&std::path::absolute(&place.path).ok()?).ok()?;
        let pid = lock::left_by(&folder.file(LOCK, OFlag::O_RDONLY).ok()?)?;
        let runtime = runtime_dir::left(&folder).ok()??.path().to_owned();
        Some(DyingBroker { pid, runtime })
    }

    fn open_with(
        place: &Place,
        before: Before,
        lock: impl FnOnce(&Path) -> Result<Lock, StateDirError>,
    ) -> Result<Self, StateDirError> {
        // It is shown to clients, to whom a relative path would mean another folder.
        let refused = |source| FolderError::Refused { attempt: "find", path: place.path.clone(), source };
        let path = &std::path::absolute(&place.path).map_err(refused)?;
        // The state of the machine's broker is nobody's to read either.
        let origin = if place.origin == Origin::System { Origin::User } else { place.origin };
        let made = path.ancestors().take_while(|folder| fs::symlink_metadata(folder).is_err());
        let made = made.map(Path::to_owned).collect();
        make_folder(path, origin)?;
        let folder = OwnFolder::open(path)?;
        // What others put there before is looked at, and refused, before anything is changed; once more when nobody can put
        // anything there any more.
        check_entries(&folder)?;
        close_to_others(path, before)?;
        check_entries(&folder)?;
        let lock = lock(path)?;
        Ok(Self { folder, lock, made })
    }

    /// Lets go of it for a broker that does not start after all: what was missing before, and is empty, is removed again.
    pub fn abandon(self) {
        let Self { folder, lock, made } = self;
        // Its file is removed with it.
        drop((lock, folder));
        for folder in made {
            // One that is not empty is somebody else's by now, and so are those above it.
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    /// Returns the open folder, by which its entries are reached.
    #[must_use]
    pub fn folder(&self) -> &OwnFolder {
        &self.folder
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file in which the children are on record.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.path().join(RECORD)
    }

    /// Whether the path still leads to this folder, as it did when what is opened by its path was opened.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_in_place(&self) -> Result<(), StateDirError> {
        Ok(self.folder.check_in_place()?)
    }

    /// Returns the descriptor of its lock, which stays held as long as that is open anywhere.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// The folder of the children's output.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path().join(LOGS)
    }
}

/// Who had the folder until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nobody, or a broker that is gone.
    Nobody,
    /// An earlier program of this process.
    Program,
}

/// Whether everything of the broker's in its folder is its own.
fn check_entries(folder: &OwnFolder) -> Result<(), StateDirError> {
    for name in folder.entries()?.iter().filter(|name| is_brokers(name)) {
        if name == LOGS {
            folder.folder(name)?.check_own()?;
        } else {
            folder.has_file(name)?;
        }
    }
    Ok(())
}

/// Whether every output that is kept is the broker's own.
fn check_logs(folder: &OwnFolder) -> Result<(), StateDirError> {
    match folder.folder(LOGS) {
        Ok(logs) => Ok(logs.check_entries()?),
        Err(error) if error.is_absence() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the broker, or SQLite for it, makes something of that name: SQLite's have the record's name and an ending, drafts
/// have endings too.
fn is_brokers(name: &str) -> bool {
    name == LOCK || name == LOGS || name.starts_with(NOTE) || name.starts_with(RECORD)
}

/// A folder that was there before may have been made with another mode, such as one that was mounted. One that is not the
/// broker's alone stays as it is: what the broker keeps there is closed to others by itself.
fn close_to_others(path: &Path, before: Before) -> Result<(), StateDirError> {
    match openness(path, before)? {
        Openness::ToBeClosed => fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|source| FolderError::Refused { attempt: "close", path: path.to_owned(), source })?,
        Openness::Right => {}
    }
    Ok(())
}

/// Whether others may enter the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Openness {
    /// No more than they are to.
    Right,
    /// They may, and there is no reason that they should.
    ToBeClosed,
}

fn openness(path: &Path, before: Before) -> Result<Openness, StateDirError> {
    let refused = |attempt| move |source| FolderError::Refused { attempt, path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(refused("read"))?;
    if found.uid() != geteuid().as_raw() {
        return Err(FolderError::Untrusted { path: path.to_owned(), flaw: "belongs to another user" }.into());
    }
    let is_closed = found.mode().trailing_zeros() >= 6;
    if is_closed {
        return Ok(Openness::Right);
    }
    let was_open = found.mode() & 0o022 != 0;
    match foreign_entry(path).map_err(refused("read"))? {
        None if was_open && before == Before::Nobody && has_entries(path).map_err(refused("read"))? => {
            Err(StateDirError::Open { path: path.to_owned(), mode: found.mode() & 0o7777 })
        }
        None => Ok(Openness::ToBeClosed),
        // Who can write to it can put another file in the place of the broker's.
        Some(entry) if was_open => Err(StateDirError::Shared { path: path.to_owned(), entry }),
        Some(_) => Ok(Openness::Right),
    }
}

/// Whether there is anything in a folder.
fn has_entries(path: &Path) -> std::io::Result<bool> {
    Ok(fs::read_dir(path)?.next().transpose()?.is_some())
}

/// Something in a folder that no broker has made.
fn foreign_entry(path: &Path) -> std::io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !is_brokers(&name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
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
        for made in [state.path(), &folder.path().join("a")] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700, "{}", made.display());
        }
        let error = StateDir::open(&place(&path)).unwrap_err();
        assert!(matches!(error, StateDirError::Lock(LockError::Held { .. })));
        assert!(error.to_string().contains("already has the state folder"), "{error}");
        assert!(error.to_string().ends_with("give this one another place with --state-dir"), "{error}");
        drop(state);
        drop(StateDir::open(&place(&path)).unwrap());
    }

    #[test]
    fn a_state_folder_that_others_could_not_write_to_or_that_is_empty_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let opened = |mode| fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        // As it is made, or mounted, for the broker; then as one that a broker has used.
        for mode in [0o777, 0o755, 0o711] {
            opened(mode);
            drop(StateDir::open(&place(folder.path())).unwrap());
            assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700, "{mode:o}");
        }
        fs::write(folder.path().join(RECORD), "").unwrap();
        for mode in [0o777, 0o1777, 0o770, 0o702] {
            opened(mode);
            let error = StateDir::open(&place(folder.path())).unwrap_err().to_string();
            assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
            assert!(error.contains(&format!("{mode:04o}")) && error.contains("--state-dir"), "{error}");
            assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o7777, mode);
            // It is no folder to begin an upgrade with.
            assert_eq!(StateDir::check(folder.path()).unwrap_err().to_string(), error);
            assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o7777, mode);
        }
        // Whoever has children already goes on.
        let lock = fs::File::create(folder.path().join(LOCK)).unwrap();
        drop(StateDir::inherited(&place(folder.path()), lock.into()).unwrap());
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        StateDir::check(folder.path()).unwrap();
        opened(0o777);
        let lock = fs::File::create(folder.path().join(LOCK)).unwrap();
        let opened_before = fs::File::open(folder.path()).unwrap();
        drop(StateDir::passed(folder.path().to_owned(), opened_before.into(), lock.into()));
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_a_dying_broker_has_left_is_found_with_its_runtime_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(StateDir::left(&place(&path)), None, "there is no such folder");
        let state = StateDir::open(&place(&path)).unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::new(dead.id()).unwrap();
        dead.wait().unwrap();
        fs::write(path.join(LOCK), format!("{pid}\n")).unwrap();
        assert_eq!(StateDir::left(&place(&path)), None, "there is no runtime folder");
        let runtime = folder.path().join("runtime");
        let choice = runtime_dir::RuntimeDirChoice::Given(runtime.clone());
        let opened = runtime_dir::RuntimeDir::open(&choice, &path).unwrap();
        assert_eq!(StateDir::left(&place(&path)), Some(DyingBroker { pid, runtime }));
        fs::write(path.join(LOCK), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(StateDir::left(&place(&path)), None, "that broker lives");
        drop((opened, state));
        assert_eq!(StateDir::left(&place(&path)), None, "nobody holds the lock");
    }

    #[test]
    fn an_output_that_is_not_the_brokers_own_is_refused_unless_children_wait() {
        let folder = tempfile::tempdir().unwrap();
        drop(StateDir::open(&place(folder.path())).unwrap());
        let logs = folder.path().join(LOGS);
        fs::create_dir(&logs).unwrap();
        fs::write(logs.join("one.out"), "").unwrap();
        drop(StateDir::open(&place(folder.path())).unwrap());
        std::os::unix::fs::symlink("/etc/passwd", logs.join("two.out")).unwrap();
        let error = StateDir::open(&place(folder.path())).unwrap_err().to_string();
        assert!(error.contains("logs/two.out is not to be trusted: it is a link"), "{error}");
        assert!(error.contains("--state-dir"), "{error}");
        assert_eq!(StateDir::check(folder.path()).unwrap_err().to_string(), error);
        let lock = fs::File::create(folder.path().join(LOCK)).unwrap();
        drop(StateDir::inherited(&place(folder.path()), lock.into()).unwrap());
    }

    #[test]
    fn a_folder_that_holds_something_else_is_not_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("other"), "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let state = StateDir::open(&place(folder.path())).unwrap();
        assert_eq!(mode(folder.path()), 0o755);
        assert_eq!(mode(&folder.path().join(LOCK)), 0o600);
        drop(state);
        for open in [0o1777, 0o770, 0o702] {
            fs::set_permissions(folder.path(), Permissions::from_mode(open)).unwrap();
            let error = StateDir::open(&place(folder.path())).unwrap_err().to_string();
            assert!(error.contains("other in it is not") && error.contains("--state-dir"), "{error}");
            assert_eq!(mode(folder.path()), open);
        }
    }

    #[test]
    fn a_state_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = StateDir::open(&place(&folder.path().join("file/state"))).unwrap_err().to_string();
        assert!(error.contains("file/state") && error.contains("--state-dir"), "{error}");
    }
}
