//! One look at the sizes of all output: releases what is over the bound, and finds out who grows how fast.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::os::logs::output::WITHOUT_WAITING;
use crate::os::logs::{LogsError, writer};

/// A file is due to be trimmed once it exceeds the bound by one part in so many.
const EXCESS_SHARE: u64 = 8;

/// The sizes of the files at the last look.
#[derive(Debug)]
pub(super) struct Sizes {
    folder: PathBuf,
    bound_bytes: u64,
    /// The files that are not empty, by inode, which a file keeps whichever child it is passed on to.
    files: HashMap<u64, Known>,
    looked_at: Option<Instant>,
    looks: u64,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its length, in bytes, with what was released.
    length: u64,
    /// Up to where it was released, as far as this broker knows.
    released_to: u64,
    /// The number of the look at which it was seen last.
    seen: u64,
}

/// What a look has shown.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Whether any file was written to since the last look.
    pub(super) grew: bool,
    /// How long it takes until a file is due to be trimmed, if all grow as fast as they did since the last look.
    pub(super) until_due: Option<Duration>,
    /// The file system has no way to release a part of a file.
    pub(super) cannot_release: bool,
    /// Something else that went wrong; the last, where it was several.
    pub(super) failure: Option<LogsError>,
}

impl Sizes {
    /// Nothing is known yet.
    pub(super) fn new(folder: PathBuf, bound_bytes: u64) -> Self {
        Self { folder, bound_bytes, files: HashMap::new(), looked_at: None, looks: 0 }
    }

    /// Looks at every file, and releases the oldest blocks of those that are over the bound.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        let mut look = Look::default();
        self.looks += 1;
        let since = self.looked_at.replace(now).map(|last| now.saturating_duration_since(last));
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(source) => {
                look.failure = Some(LogsError { attempt: "list", path: self.folder.clone(), source });
                return look;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if writer(Path::new(&name)).is_none() {
                continue;
            }
            match entry.metadata() {
                Ok(file) if file.is_file() && file.len() > 0 => {
                    self.examine(&entry.path(), &file, since, &mut look);
                }
                // It is empty, or was removed meanwhile.
                Ok(_) | Err(_) => {}
            }
        }
        let present = self.looks;
        self.files.retain(|_, known| known.seen == present);
        look
    }

    fn examine(&mut self, path: &Path, file: &fs::Metadata, since: Option<Duration>, look: &mut Look) {
        let length = file.len();
        // A file that is shorter than it was is a new one: its child has emptied it, or another child has got it.
        let before = self.files.get(&file.ino()).copied().filter(|known| known.length <= length);
        let grown = before.map_or(length, |known| length - known.length);
        let mut released_to = before.map_or(0, |known| known.released_to);
        let block = file.blksize().max(1);
        let target = length.saturating_sub(self.bound_bytes) / block * block;
        if target > released_to {
            match release(path, file.ino(), target) {
                Ok(()) => released_to = target,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    look.cannot_release = true;
                    look.failure = Some(refused(path, error));
                }
                Err(error) => look.failure = Some(refused(path, error)),
            }
        }
        if grown > 0 {
            look.grew = true;
            let due_at = self.bound_bytes.saturating_add(self.bound_bytes / EXCESS_SHARE);
            let room = due_at.saturating_sub(length.saturating_sub(released_to));
            let until = since.map(|since| scaled(since, room, grown));
            look.until_due = [look.until_due, until].into_iter().flatten().min();
        }
        self.files.insert(file.ino(), Known { length, released_to, seen: self.looks });
    }
}

/// How long `room` bytes take to be written when `grown` bytes took so long.
fn scaled(took: Duration, room: u64, grown: u64) -> Duration {
    let nanos = took.as_nanos().saturating_mul(u128::from(room)) / u128::from(grown.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn refused(path: &Path, source: io::Error) -> LogsError {
    LogsError { attempt: "release the oldest part of", path: path.to_owned(), source }
}

/// Releases the blocks before a position; the length stays (fallocate(2), Linux 2.6.38). Whoever appends meanwhile
/// loses nothing.
fn release(path: &Path, inode: u64, to: u64) -> io::Result<()> {
    let file = match File::options().write(true).custom_flags(WITHOUT_WAITING).open(path) {
        Ok(file) => file,
        // It was removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let present = file.metadata()?;
    if present.ino() != inode || present.len() < to {
        return Ok(());
    }
    let length = i64::try_from(to).map_err(|_| Errno::EFBIG)?;
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(&file, mode, 0, length) {
            Err(Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::ChildId;
    use uuid::Uuid;

    use super::*;
    use crate::os::logs::Logs;

    const BOUND: u64 = 1 << 20;

    struct Scene {
        _folder: tempfile::TempDir,
        logs: Logs,
        sizes: Sizes,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let logs = Logs::open(folder.path().join("logs")).unwrap();
            let sizes = Sizes::new(logs.folder().to_owned(), BOUND);
            Self { _folder: folder, logs, sizes, start: Instant::now() }
        }

        fn path(number: u128, logs: &Logs) -> PathBuf {
            logs.stdout(ChildId::from_uuid(Uuid::from_u128(number)))
        }

        fn append(&self, number: u128, bytes: u64) {
            let file = File::options().append(true).create(true).open(Self::path(number, &self.logs));
            let content = vec![b'x'; usize::try_from(bytes).unwrap()];
            io::Write::write_all(&mut file.unwrap(), &content).unwrap();
        }

        fn look_after(&mut self, seconds: u64) -> Look {
            self.start += Duration::from_secs(seconds);
            self.sizes.look(self.start)
        }

        /// How much of a file takes room on the disk.
        fn held(&self, number: u128) -> u64 {
            fs::metadata(Self::path(number, &self.logs)).unwrap().blocks() * 512
        }
    }

    #[test]
    fn a_file_over_the_bound_is_trimmed_at_the_first_look_and_its_length_stays() {
        let mut scene = Scene::new();
        scene.append(1, 5 * BOUND + 1);
        scene.append(2, BOUND);
        let look = scene.look_after(0);
        assert!(look.grew && look.failure.is_none() && look.until_due.is_none(), "{look:?}");
        assert!((BOUND..=BOUND + 8192).contains(&scene.held(1)), "{}", scene.held(1));
        assert_eq!(fs::metadata(Scene::path(1, &scene.logs)).unwrap().len(), 5 * BOUND + 1);
        assert!(scene.held(2) >= BOUND);
        assert!(!scene.look_after(1).grew);
    }

    #[test]
    fn the_fastest_file_says_when_one_is_due() {
        let mut scene = Scene::new();
        scene.append(1, 1);
        scene.look_after(0);
        scene.append(1, BOUND / 8 - 1);
        scene.append(2, 10);
        let look = scene.look_after(1);
        // One eighth a second: eight more until the bound is exceeded by an eighth.
        let until_due = look.until_due.unwrap();
        assert!(until_due.abs_diff(Duration::from_secs(8)) < Duration::from_millis(10), "{until_due:?}");
        assert_eq!(scene.look_after(1).until_due, None);
    }

    #[test]
    fn a_file_that_was_emptied_begins_anew() {
        let mut scene = Scene::new();
        scene.append(1, 2 * BOUND);
        scene.look_after(0);
        let [from, to] = [1, 2].map(|number| ChildId::from_uuid(Uuid::from_u128(number)));
        scene.logs.pass_on(from, to, nix::unistd::geteuid().as_raw()).unwrap();
        assert!(!scene.look_after(1).grew);
        scene.append(2, 2 * BOUND);
        assert!(scene.look_after(1).grew);
        assert!((BOUND..=BOUND + 8192).contains(&scene.held(2)), "{}", scene.held(2));
    }

    #[test]
    fn what_is_no_childs_output_is_left_alone() {
        let mut scene = Scene::new();
        let path = scene.logs.folder().join("notes.out");
        fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        assert!(!scene.look_after(0).grew);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 2 << 20);
    }

    #[test]
    fn a_folder_that_is_gone_is_named() {
        let mut scene = Scene::new();
        fs::remove_dir(scene.logs.folder()).unwrap();
        let error = scene.look_after(0).failure.unwrap().to_string();
        assert!(error.contains("cannot list") && error.contains("logs"), "{error}");
    }
}
