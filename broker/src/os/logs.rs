//! The files that children write their output to: making and removing them here; reading and bounding them below.

mod excerpt;
pub mod output;
pub mod text;
pub mod trimmer;
pub mod wakeups;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use procbroker_protocol::ChildId;
use procbroker_protocol::request::LogStream;
use thiserror::Error;

use crate::os::spawn::BEGUN_MODE;

pub use excerpt::{Continuation, Excerpt, read};

/// What ends the name of the file of a child's standard output.
const STDOUT: &str = "out";

/// What ends the name of the file of a child's standard error.
const STDERR: &str = "err";

/// The folder of the files: `ID.out`, and `ID.err` where errors do not go to the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    folder: PathBuf,
}

/// Output cannot be kept, read or removed.
#[derive(Debug, Error)]
#[error("cannot {attempt} {path}: {source}; the broker needs to read and write its state folder")]
pub struct LogsError {
    attempt: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Logs {
    /// Makes the folder where it is missing; the one above it has to be there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(folder: PathBuf) -> Result<Self, LogsError> {
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => {
                Err(LogsError { attempt: "make the folder", path: folder, source })
            }
            Ok(()) | Err(_) => Ok(Self { folder }),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a child's standard output.
    #[must_use]
    pub fn stdout(&self, child: ChildId) -> PathBuf {
        self.file(child, STDOUT)
    }

    /// The file of a child's standard error, where that has one of its own.
    #[must_use]
    pub fn stderr(&self, child: ChildId) -> PathBuf {
        self.file(child, STDERR)
    }

    /// The file of one of a child's streams, where that has one of its own.
    #[must_use]
    pub fn of_stream(&self, child: ChildId, stream: LogStream) -> PathBuf {
        match stream {
            LogStream::Stdout => self.stdout(child),
            LogStream::Stderr => self.stderr(child),
        }
    }

    fn file(&self, child: ChildId, stream: &str) -> PathBuf {
        self.folder.join(format!("{child}.{stream}"))
    }

    /// Whether a child's program was executed, or was about to be: its process has left a trace at the file of its
    /// standard output just before.
    #[must_use]
    pub fn was_begun(&self, child: ChildId) -> bool {
        let begun = |file: fs::Metadata| file.mode() & BEGUN_MODE == BEGUN_MODE;
        fs::metadata(self.stdout(child)).is_ok_and(begun)
    }

    /// Removes a child's output, as far as there is any.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, child: ChildId) -> Result<(), LogsError> {
        remove(self.stdout(child)).and(remove(self.stderr(child)))
    }

    /// Whether there is a file of a child's standard output with nothing in it.
    #[must_use]
    pub fn stdout_is_empty(&self, child: ChildId) -> bool {
        fs::metadata(self.stdout(child)).is_ok_and(|file| file.len() == 0)
    }

    /// Empties the file of one child's standard output for another child to write to, and removes whatever else
    /// there is of the former. A file that is used again spares the file system the making of a new one, which
    /// takes ext4 up to a third of a millisecond after many have been removed. It is removed, too, where the former child
    /// was another user's, who may still have it open somewhere.
    ///
    /// # Errors
    /// When the system refuses. The new child's file is then made when it is opened.
    pub fn pass_on(&self, from: ChildId, to: ChildId, uid: u32) -> Result<(), LogsError> {
        let (old, new) = (self.stdout(from), self.stdout(to));
        let refused = |attempt, source| LogsError { attempt, path: old.clone(), source };
        let found = fs::metadata(&old).map_err(|source| refused("examine", source))?;
        if found.uid() != uid {
            return self.remove(from);
        }
        // It is empty nearly always; emptying it all the same would wake whoever watches for output.
        if found.len() > 0 {
            nix::unistd::truncate(&old, 0).map_err(|errno| refused("empty", errno.into()))?;
        }
        // The next child has not begun.
        fs::set_permissions(&old, Permissions::from_mode(0o600))
            .map_err(|source| refused("reset", source))?;
        fs::rename(&old, &new).map_err(|source| refused("rename", source))?;
        remove(self.stderr(from))
    }

    /// Removes the output of all children but those that are known, and returns how many files that were.
    /// Files that are no child's output stay.
    ///
    /// # Errors
    /// When the system refuses; the rest is still removed.
    pub fn remove_unknown(&self, is_known: impl Fn(ChildId) -> bool) -> Result<usize, LogsError> {
        let entries = fs::read_dir(&self.folder).map_err(|source| LogsError {
            attempt: "list",
            path: self.folder.clone(),
            source,
        })?;
        let paths = entries.flatten().map(|entry| entry.path());
        let unknown = paths.filter(|path| writer(path).is_some_and(|child| !is_known(child)));
        let (mut removed, mut result) = (0, Ok(()));
        for path in unknown {
            match remove(path) {
                Ok(()) => removed += 1,
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| removed)
    }
}

fn remove(path: PathBuf) -> Result<(), LogsError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LogsError { attempt: "remove", path, source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The child whose output a file is.
fn writer(path: &Path) -> Option<ChildId> {
    path.extension().filter(|extension| *extension == STDOUT || *extension == STDERR)?;
    uuid::Uuid::try_parse(path.file_stem()?.to_str()?).ok().map(ChildId::from_uuid)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn child(number: u128) -> ChildId {
        ChildId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn output_that_is_passed_on_is_empty_and_nothing_of_the_former_child_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path().join("logs")).unwrap();
        let [from, to] = [1, 2].map(|number| ChildId::from_uuid(Uuid::from_u128(number)));
        fs::write(logs.stdout(from), "secret").unwrap();
        fs::write(logs.stderr(from), "secret").unwrap();
        let own = nix::unistd::geteuid().as_raw();
        logs.pass_on(from, to, own).unwrap();
        assert_eq!(fs::read(logs.stdout(to)).unwrap(), b"");
        assert_eq!(fs::read_dir(logs.folder()).unwrap().count(), 1);
        assert!(logs.pass_on(from, to, own).is_err());
        assert_eq!(fs::read_dir(logs.folder()).unwrap().count(), 1);
        // What is of one user is not for another.
        logs.pass_on(to, from, own + 1).unwrap();
        assert_eq!(fs::read_dir(logs.folder()).unwrap().count(), 0);
    }

    #[test]
    fn the_output_of_a_forgotten_child_goes_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path().join("logs")).unwrap();
        for number in [1, 2] {
            fs::write(logs.stdout(child(number)), "out").unwrap();
            fs::write(logs.stderr(child(number)), "err").unwrap();
        }
        logs.remove(child(1)).unwrap();
        logs.remove(child(3)).unwrap();
        assert!(!logs.stdout(child(1)).exists() && !logs.stderr(child(1)).exists());
        assert!(logs.stdout(child(2)).exists() && logs.stderr(child(2)).exists());
    }

    #[test]
    fn at_start_the_output_of_children_that_nobody_knows_goes() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::open(folder.path().to_owned()).unwrap();
        let kept = [logs.stdout(child(1)), logs.folder().join("notes.txt"), logs.folder().join("notes.out")];
        for path in kept.iter().chain([&logs.stdout(child(2)), &logs.stderr(child(2))]) {
            fs::write(path, "").unwrap();
        }
        assert_eq!(logs.remove_unknown(|known| known == child(1)).unwrap(), 2);
        assert!(kept.iter().all(|path| path.exists()));
        assert_eq!(logs.remove_unknown(|_| true).unwrap(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("logs")] {
            let error = Logs::open(path.clone()).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
