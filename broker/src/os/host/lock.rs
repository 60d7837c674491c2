//! A lock file: who holds it is the only broker for what it guards.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use procbroker_core::Pid;
use thiserror::Error;

use crate::limits::LEFT_LOCK_PATIENCE;
use crate::os::host::own_folder::{self, OwnError};
use crate::os::process::probation;
use crate::os::process::proc;

/// How often a lock file is opened anew because its holder removed it in that moment.
const ROUNDS: usize = 16;

/// How often it is looked whether a lock that a dead broker has left is free.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A lock that is held, by this process and for as long as this lives. The file is removed at the end.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// The lock was not had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another broker holds it.
    #[error(
        "another broker{} already has {guarded} ({path} is locked); stop that one, or give this one another place with {flag}",
        holder.map_or_else(String::new, |pid| format!(", process {pid},"))
    )]
    Held {
        /// What the lock guards.
        guarded: String,
        /// The flag that names another.
        flag: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The broker that wrote its number there.
        holder: Option<u32>,
    },
    /// The file is not the broker's own.
    #[error(transparent)]
    NotOwn(#[from] OwnError),
    /// The file cannot be used.
    #[error("cannot {attempt} the lock file {path}: {source}; the broker needs to write there")]
    File {
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Lock {
    /// Takes a lock, or fails at once when another broker holds it. `guarded` says for what, in a message, and `flag` how to
    /// have another.
    ///
    /// A broker that was killed leaves it to the processes that it was just about to start: each has a copy of it until
    /// it executes its program. These are waited for.
    ///
    /// # Errors
    /// When it is held, or its file cannot be made.
    pub fn take(path: &Path, guarded: &str, flag: &'static str) -> Result<Self, LockError> {
        let patient_until = Instant::now() + LEFT_LOCK_PATIENCE;
        loop {
            match Self::try_take(path, guarded, flag) {
                Err(LockError::Held { holder, .. }) if !lives(holder) && Instant::now() < patient_until => {
                    thread::sleep(LOOK_EVERY);
                }
                taken_or_not => return taken_or_not,
            }
        }
    }

    fn try_take(path: &Path, guarded: &str, flag: &'static str) -> Result<Self, LockError> {
        let failed = |attempt| {
            let path = path.to_owned();
            move |source| LockError::File { attempt, path, source }
        };
        for _ in 0..ROUNDS {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path)
                .map_err(failed("open"))?;
            // It is written to, and its name is not what it may be a link to.
            own_folder::check_file(&file, path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let (guarded, path) = (guarded.to_owned(), path.to_owned());
                    return Err(LockError::Held { guarded, flag, path, holder: holder(&file) });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
            }
            // A holder that ended meanwhile has removed the file that was opened here: then it guards nothing.
            let mut lock = Self { path: path.to_owned(), file };
            if lock.is_in_place() {
                lock.sign().map_err(failed("write"))?;
                return Ok(lock);
            }
        }
        Err(failed("open")(io::ErrorKind::ResourceBusy.into()))
    }

    /// A lock that an earlier program of this process has taken and handed over.
    #[must_use]
    pub fn inherited(path: &Path, file: OwnedFd) -> Self {
        Self { path: path.to_owned(), file: file.into() }
    }

    /// Whether its file is at its path, still.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let (Ok(held), Ok(there)) = (self.file.metadata(), fs::symlink_metadata(&self.path)) else {
            return false;
        };
        (held.dev(), held.ino()) == (there.dev(), there.ino())
    }

    /// Writes over what a former holder has left, so that its room is never given up: on a full disk somebody else would
    /// have it. Whose the lock is can be told without, if with less help to whoever meets it: that is no reason not to start.
    fn sign(&mut self) -> io::Result<()> {
        let line = format!("{}\n", std::process::id());
        match self.file.write_all_at(line.as_bytes(), 0) {
            Ok(()) => self.file.set_len(u64::try_from(line.len()).unwrap_or(u64::MAX)),
            Err(error) if is_want_of_room(&error) => self.file.set_len(0),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Lock {
    /// What is locked: the lock is held as long as any copy of it is open, in whichever process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It is still locked, so that nobody else can take it between the question and the removal.
        if !probation::is_on() && self.is_in_place() {
            let _ignored = fs::remove_file(&self.path);
        }
    }
}

fn is_want_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn holder(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether the broker that has signed a lock is there, and is not about to go; one that has just taken it comes to sign it.
fn lives(holder: Option<u32>) -> bool {
    holder.and_then(Pid::new).is_some_and(|holder| !proc::is_dying(holder))
}

/// The broker that has signed a lock and is dead or dying, if the lock is held all the same.
///
/// What asks has the lock for a moment where it is free. Another broker that asks in that moment waits, as it does for a dead one.
pub(in crate::os) fn left_by(file: &File) -> Option<Pid> {
    let signed = holder(file).and_then(Pid::new).filter(|holder| proc::is_dying(*holder))?;
    matches!(file.try_lock(), Err(TryLockError::WouldBlock)).then_some(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_a_lock_and_the_other_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = Lock::take(&path, "the socket /s", "--socket").unwrap();
        let error = Lock::take(&path, "the socket /s", "--socket").unwrap_err();
        assert!(matches!(&error, LockError::Held { holder, .. } if *holder == Some(std::process::id())));
        let message = error.to_string();
        assert!(
            message.contains(&format!("process {}, already has the socket /s", std::process::id())),
            "{message}"
        );
        drop(lock);
        assert!(!path.exists());
        drop(Lock::take(&path, "the socket /s", "--socket").unwrap());
    }

    #[test]
    fn a_lock_file_that_a_dead_broker_left_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "123456789\n").unwrap();
        let lock = Lock::take(&path, "it", "--it").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(lock);
    }

    #[test]
    fn a_lock_that_a_dead_broker_has_left_to_its_newest_child_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        // A zombie is as dead as one that was reaped.
        for reaps in [false, true] {
            let lock = Lock::take(&path, "it", "--it").unwrap();
            fs::write(&path, format!("{}\n", dead.id())).unwrap();
            while !reaps && lives(Some(dead.id())) {
                thread::yield_now();
            }
            if reaps {
                dead.wait().unwrap();
            }
            let (asked, waits) = std::sync::mpsc::channel();
            let waiting = thread::spawn({
                let path = path.clone();
                move || {
                    assert!(matches!(Lock::try_take(&path, "it", "--it"), Err(LockError::Held { .. })));
                    asked.send(()).unwrap();
                    Lock::take(&path, "it", "--it")
                }
            });
            waits.recv().unwrap();
            // As the child lets go of it: without removing the file.
            lock.file.unlock().unwrap();
            drop(waiting.join().unwrap().unwrap());
        }
        dead.wait().unwrap();
    }

    #[test]
    fn a_lock_is_left_by_who_is_dead_while_somebody_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        let number = dead.id();
        dead.wait().unwrap();
        let lock = Lock::take(&path, "it", "--it").unwrap();
        let left = || left_by(&File::open(&path).unwrap());
        assert_eq!(left(), None, "it is held by who has signed it");
        fs::write(&path, format!("{number}\n")).unwrap();
        assert_eq!(left(), Pid::new(number));
        lock.file.unlock().unwrap();
        assert_eq!(left(), None, "nobody holds it");
        fs::write(&path, "nobody\n").unwrap();
        assert_eq!(left(), None);
    }

    #[test]
    fn a_lock_that_somebody_removed_is_not_removed_from_the_next_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path, "it", "--it").unwrap();
        fs::remove_file(&path).unwrap();
        let second = Lock::take(&path, "it", "--it").unwrap();
        drop(first);
        assert!(matches!(Lock::take(&path, "it", "--it"), Err(LockError::Held { .. })));
        drop(second);
    }

    #[test]
    fn a_lock_that_cannot_be_made_names_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/lock");
        let message = Lock::take(&path, "it", "--it").unwrap_err().to_string();
        assert!(
            message.contains("cannot open the lock file") && message.contains("missing/lock"),
            "{message}"
        );
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
        assert!(matches!(Lock::take(&link, "it", "--it"), Err(LockError::File { .. })));
    }

    #[test]
    fn a_lock_file_that_is_another_file_too_is_refused_and_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("lock"), folder.path().join("other"));
        fs::write(&other, "precious").unwrap();
        fs::hard_link(&other, &path).unwrap();
        let message = Lock::take(&path, "it", "--it").unwrap_err().to_string();
        assert!(message.contains("second name") && message.contains("lock"), "{message}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }
}
