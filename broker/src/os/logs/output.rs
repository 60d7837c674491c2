//! One file of output: reading what is kept of it while its child writes and its oldest blocks are released.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

use super::LogsError;

/// A file of output that is open for reading.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: File,
}

/// With this flag, opening a file does not wait for whoever holds a lease on it, but fails (fcntl(2)): a child that is its
/// file's owner could keep the broker from its work.
pub(in crate::os::logs) const WITHOUT_WAITING: i32 = libc::O_NONBLOCK;

/// What was found at a position of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the bytes begin: where they were asked for, or further on when the output there was released, or at 0
    /// when the child itself has emptied its file since.
    pub at: u64,
    /// The output from there on; nothing at the end of the file.
    pub bytes: Vec<u8>,
}

impl OutputFile {
    /// Opens the file; none when there is none.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(path: &Path) -> Result<Option<Self>, LogsError> {
        match File::options().read(true).custom_flags(WITHOUT_WAITING).open(path) {
            Ok(file) => Ok(Some(Self { path: path.to_owned(), file })),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogsError { attempt: "open", path: path.to_owned(), source }),
        }
    }

    /// Where it ends, as a number of bytes that counts those released too.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn end(&self) -> Result<u64, LogsError> {
        self.file.metadata().map(|file| file.len()).map_err(|source| self.refused("examine", source))
    }

    /// Where what is kept begins, from a position on; the end where nothing is.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn first_kept(&self, from: u64) -> Result<u64, LogsError> {
        let Ok(offset) = i64::try_from(from) else { return Ok(from) };
        // Asked first: what is written after the search has found nothing is kept, and would be skipped by an end that
        // was asked for later.
        let end = self.end()?;
        match lseek64(&self.file, offset, Whence::SeekData) {
            Ok(first) => Ok(u64::try_from(first).unwrap_or(from)),
            // Nothing but a hole up to the end (lseek(2)).
            Err(Errno::ENXIO) => Ok(end.max(from)),
            // A file system that cannot tell has no holes to skip either.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(from),
            Err(errno) => Err(self.refused("find the beginning of", errno.into())),
        }
    }

    /// Reads at most so many bytes from a position on. None when the file was passed on to another child, whose
    /// output is none of the reader's business; the former child's was empty then.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn read(&self, from: u64, length_max: usize) -> Result<Option<Found>, LogsError> {
        let from = if from > self.end()? { 0 } else { from };
        let at = self.first_kept(from)?;
        let mut bytes = self.read_fully(at, length_max)?;
        // What was released while it was read may have been read as zeros.
        let kept = self.first_kept(at)?;
        let overtaken = usize::try_from(kept.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        bytes.drain(..overtaken);
        // Asked last: another child writes only after the file has its name, so that none of it was read before.
        let own = self.is_still_the_childs()?;
        Ok(own.then_some(Found { at: if overtaken == 0 { at } else { kept }, bytes }))
    }

    fn read_fully(&self, from: u64, length_max: usize) -> Result<Vec<u8>, LogsError> {
        let left = usize::try_from(self.end()?.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(length_max)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, from.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.refused("read", source)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Whether the file has its child's name, or, removed, no name at all.
    fn is_still_the_childs(&self) -> Result<bool, LogsError> {
        let own = self.file.metadata().map_err(|source| self.refused("examine", source))?;
        match fs::metadata(&self.path) {
            Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => Ok(true),
            Ok(_) => Ok(own.nlink() == 0),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(own.nlink() == 0),
            Err(source) => Err(self.refused("examine", source)),
        }
    }

    fn refused(&self, attempt: &'static str, source: io::Error) -> LogsError {
        LogsError { attempt, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::{FallocateFlags, fallocate};

    use super::*;

    const BLOCK: u64 = 1 << 20;

    fn found(at: u64, bytes: &[u8]) -> Found {
        Found { at, bytes: bytes.to_owned() }
    }

    fn release(path: &Path, length: u64) {
        let file = File::options().write(true).open(path).unwrap();
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, mode, 0, i64::try_from(length).unwrap()).unwrap();
    }

    #[test]
    fn what_is_kept_is_read_from_where_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        assert!(OutputFile::open(&path).unwrap().is_none());
        fs::write(&path, [vec![b'a'; usize::try_from(BLOCK).unwrap()], b"tail".to_vec()].concat()).unwrap();
        let output = OutputFile::open(&path).unwrap().unwrap();
        assert_eq!(output.read(0, 2).unwrap(), Some(found(0, b"aa")));
        release(&path, BLOCK);
        assert_eq!(output.first_kept(0).unwrap(), BLOCK);
        assert_eq!(output.read(7, 100).unwrap(), Some(found(BLOCK, b"tail")));
        assert_eq!(output.read(BLOCK + 4, 100).unwrap(), Some(found(BLOCK + 4, b"")));
    }

    #[test]
    fn output_that_was_released_entirely_leaves_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        fs::write(&path, vec![b'a'; usize::try_from(BLOCK).unwrap()]).unwrap();
        release(&path, BLOCK);
        let output = OutputFile::open(&path).unwrap().unwrap();
        assert_eq!(output.read(0, 100).unwrap(), Some(found(BLOCK, b"")));
    }

    #[test]
    fn what_is_written_while_it_is_looked_for_is_not_skipped() {
        const LINES: u64 = 50_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        let output = OutputFile::open(&path).unwrap().unwrap();
        let writer = std::thread::spawn(move || {
            for _ in 0..LINES {
                file.write_all(b"x").unwrap();
            }
        });
        let mut position = 0;
        while position < LINES {
            let Found { at, bytes } = output.read(position, 100).unwrap().unwrap();
            assert_eq!(at, position);
            position += bytes.len() as u64;
        }
        writer.join().unwrap();
    }

    #[test]
    fn a_file_that_its_child_has_emptied_is_read_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        fs::write(&path, "before").unwrap();
        let output = OutputFile::open(&path).unwrap().unwrap();
        fs::write(&path, "new").unwrap();
        assert_eq!(output.read(6, 100).unwrap(), Some(found(0, b"new")));
    }

    #[test]
    fn another_childs_output_is_not_read_and_a_removed_childs_still_is() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.out"), folder.path().join("b.out"));
        fs::write(&path, "").unwrap();
        let output = OutputFile::open(&path).unwrap().unwrap();
        fs::rename(&path, &other).unwrap();
        fs::write(&other, "secret").unwrap();
        assert_eq!(output.read(0, 100).unwrap(), None);
        let output = OutputFile::open(&other).unwrap().unwrap();
        fs::remove_file(&other).unwrap();
        assert_eq!(output.read(0, 100).unwrap(), Some(found(0, b"secret")));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loop.out");
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let error = OutputFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("loop.out"), "{error}");
    }
    #[test]
    fn nobody_who_holds_a_lease_is_waited_for() {
        const HOLD: &str = "import fcntl, os, signal, sys\n\
            signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
            fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
            print('held', flush=True)\n\
            sys.stdin.read()";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.out");
        fs::write(&path, "text").unwrap();
        let mut holder = std::process::Command::new("python3")
            .args(["-c", HOLD, path.to_str().unwrap()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
        // Without the flag it would come back when the kernel has broken the lease, and succeed.
        let error = OutputFile::open(&path).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EWOULDBLOCK));
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success());
        assert!(OutputFile::open(&path).unwrap().is_some());
    }
}
