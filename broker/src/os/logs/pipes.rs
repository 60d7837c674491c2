//! The pipes that children write to: a FIFO for each kept stream of a living child, in a folder of the broker's alone.
//!
//! Broker and child both hold it open for reading and writing. So neither ever finds that nobody is at the other end: a
//! broker that dies leaves no child with a SIGPIPE, and what is written meanwhile waits in the pipe for the next one.
//! A child that runs as another user owns its FIFO, and can open `/dev/stdout` and `/dev/stderr` by their names.
//!
//! Who has one open tells by that whose it is: what descends from a child inherits its output, and a daemon that takes care
//! to leave everything else behind often keeps it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat};
use nix::unistd::{fchownat, getegid, geteuid, mkfifoat};
use procbroker_core::Pid;
use procbroker_protocol::ChildId;
use procbroker_protocol::request::LogStream;

use super::error::LogsError;
use super::folder::Folder;
use super::pipe_use::PipePlace;
use super::stream::{self, StreamId};
use crate::os::host::folder::FolderOrigin;
use crate::os::process::apart::{self, AskOutcome};
use crate::os::process::mark::living_thread;
use crate::os::process::proc;

/// How many descriptors of a process are looked at, the lowest first: what it has inherited is there.
const DESCRIPTORS_MAX: usize = 64;

/// The mode of a pipe whose child was, or is about to be, executed: the sticky bit means nothing for it (chmod(2)), and so
/// can say that. See [`Pipes::launched`](Pipes::launched).
pub(in crate::os) const BEGUN_MODE: libc::mode_t = libc::S_ISVTX | 0o600;

/// The folder of the children's pipes, in the runtime folder.
pub const PIPES_FOLDER: &str = "output";

/// The folder of the pipes.
#[derive(Clone, Debug)]
pub struct Pipes {
    folder: Folder,
    origin: FolderOrigin,
}

/// What a pipe tells of its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launched {
    /// Its program was executed, or was about to be.
    Begun,
    /// It was not: there is no pipe, or no process has marked it.
    NotBegun,
    /// The pipes of the broker that would have started it are gone.
    Unknown,
}

impl Pipes {
    /// Opens the folder, and makes it where it is missing.
    ///
    /// # Errors
    /// When it belongs to somebody else, or the system refuses.
    pub fn open(folder: PathBuf) -> Result<Self, LogsError> {
        let (folder, origin) = Folder::open(folder)?;
        Ok(Self { folder, origin })
    }

    /// Where the pipe of a stream is.
    #[must_use]
    pub fn path(&self, child: ChildId, stream: LogStream) -> PathBuf {
        self.folder.path().join(StreamId { child, stream }.to_string())
    }

    /// Whether a child's program was executed, as far as the pipe of its standard output tells.
    ///
    /// Its process marks that just before; then it gives it to the user whom it becomes. Nobody else can do either, so
    /// that no child can take its mark away.
    #[must_use]
    pub fn launched(&self, child: ChildId) -> Launched {
        match self.origin {
            FolderOrigin::Made => return Launched::Unknown,
            FolderOrigin::Found => {}
        }
        let name = StreamId { child, stream: LogStream::Stdout }.to_string();
        match fstatat(self.folder.descriptor(), name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if found.st_mode & BEGUN_MODE == BEGUN_MODE => Launched::Begun,
            Ok(found) if found.st_uid != geteuid().as_raw() => Launched::Begun,
            Ok(_) | Err(Errno::ENOENT) => Launched::NotBegun,
            Err(_) => Launched::Unknown,
        }
    }

    /// Takes the mark of a child's last run away, of which nothing is left: the next one marks its pipe itself.
    pub(super) fn take_mark_away(&self, child: ChildId) {
        let name = StreamId { child, stream: LogStream::Stdout }.to_string();
        let (folder, name) = (self.folder.descriptor(), name.as_str());
        let is_owned = fchownat(folder, name, Some(geteuid()), Some(getegid()), AtFlags::AT_SYMLINK_NOFOLLOW);
        // Only the broker's own can be here, and a FIFO is followed nowhere.
        let own = Mode::S_IRUSR | Mode::S_IWUSR;
        let is_unmarked = is_owned.and_then(|()| fchmodat(folder, name, own, FchmodatFlags::FollowSymlink));
        match is_unmarked {
            // One whose output is not kept has none.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                tracing::warn!(%errno, pipe = name, "cannot take the mark of a run from the pipe of its child");
            }
        }
    }

    /// Whose output a process has open that executes its own program; `None` where it has nobody's, or must not be asked.
    ///
    /// Descriptors can be passed on. So what belongs to one user says nothing of another's process, which its own user may
    /// have to signal: only the broker's user can have given it something that it does not own itself.
    pub(in crate::os) fn held_by(&self, process: Pid) -> Option<ChildId> {
        let place = fs::read_link(format!("/proc/self/fd/{}", self.folder.descriptor().as_raw_fd())).ok()?;
        match apart::ask(process, move || holder_of(process, &place)) {
            AskOutcome::Answered(child) => child,
            AskOutcome::Kept => None,
        }
    }

    /// Makes and opens the pipe of a stream; `None` where there is one already. It takes a few microseconds in memory.
    pub(super) fn make(&self, id: StreamId) -> Result<Option<OwnedFd>, Errno> {
        let name = id.to_string();
        match mkfifoat(self.folder.descriptor(), name.as_str(), Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) => self.open_pipe(&name).map(Some),
            Err(Errno::EEXIST) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens the pipe of a stream, if there is one.
    pub(super) fn reopen(&self, id: StreamId) -> Result<Option<OwnedFd>, Errno> {
        match self.open_pipe(&id.to_string()) {
            Ok(pipe) => Ok(Some(pipe)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn open_pipe(&self, name: &str) -> Result<OwnedFd, Errno> {
        let pipe = self.folder.open_file(name, OFlag::O_RDWR)?;
        let kind = SFlag::from_bits_truncate(fstat(&pipe)?.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFIFO { Ok(pipe) } else { Err(Errno::EPERM) }
    }

    /// Removes the pipe of a stream, if there is one. Who has it open keeps it.
    pub(super) fn remove(&self, id: StreamId) {
        if let Err(error) = self.folder.remove(&id.to_string()) {
            tracing::warn!(%error, pipe = %id, "cannot remove the pipe of a child that has ended");
        }
    }

    /// Where the pipe of a stream is, if there is one. It is not opened.
    pub(super) fn place(&self, id: StreamId) -> Option<FileStat> {
        fstatat(self.folder.descriptor(), id.to_string().as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    /// The stream whose pipe is there.
    pub(super) fn at(&self, place: PipePlace) -> Option<StreamId> {
        let all = self.all().unwrap_or_default();
        all.into_iter().find(|id| self.place(*id).is_some_and(|found| PipePlace::told(&found) == place))
    }

    /// All streams that have a pipe.
    pub(super) fn all(&self) -> Result<Vec<StreamId>, LogsError> {
        let names = self.folder.names()?;
        Ok(names.iter().filter_map(|name| stream::parse(name)).map(|named| named.id).collect())
    }
}

/// The child of whom a process has a pipe open in that folder.
fn holder_of(process: Pid, place: &Path) -> Option<ChildId> {
    // A child on its way to its program has the broker's descriptors.
    if program(&process.to_string())? == program("self")? {
        return None;
    }
    let mut links = descriptors(&format!("/proc/{process}"));
    if links.is_empty() {
        links = descriptors(&living_thread(process)?);
    }
    let (child, owner) = links.iter().find_map(|link| held_at(link, place))?;
    let [user, ..] = proc::user_ids(process)?;
    [user, geteuid().as_raw()].contains(&owner).then_some(child)
}

/// What tells the program that a process executes from others: device and inode.
fn program(process: &str) -> Option<(u64, u64)> {
    let found = fs::metadata(format!("/proc/{process}/exe")).ok()?;
    Some((found.dev(), found.ino()))
}

/// The links to what a process or thread has open (`proc_pid_fd(5)`).
fn descriptors(folder: &str) -> Vec<PathBuf> {
    let links = fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten();
    links.take(DESCRIPTORS_MAX).map(|link| link.path()).collect()
}

/// The child whose pipe is open there, and the pipe's owner.
fn held_at(link: &Path, place: &Path) -> Option<(ChildId, u32)> {
    let target = fs::read_link(link).ok()?;
    let named = stream::parse(target.strip_prefix(place).ok()?.to_str()?)?;
    // By the link, and not by its name.
    let found = fs::metadata(link).ok().filter(|found| found.file_type().is_fifo())?;
    Some((named.id.child, found.uid()))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use uuid::Uuid;

    use super::*;

    fn stdout(number: u128) -> StreamId {
        StreamId { child: ChildId::from_uuid(Uuid::from_u128(number)), stream: LogStream::Stdout }
    }

    #[test]
    fn a_pipe_is_the_brokers_alone_and_holds_what_is_written_while_nobody_reads() {
        let scratch = tempfile::tempdir().unwrap();
        let pipes = Pipes::open(scratch.path().join("output")).unwrap();
        let id = stdout(1);
        let own = pipes.make(id).unwrap().unwrap();
        assert!(pipes.make(id).unwrap().is_none());
        let path = pipes.path(id.child, id.stream);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        let mut child = File::options().read(true).write(true).open(&path).unwrap();
        drop(own);
        child.write_all(b"meanwhile").unwrap();
        let mut found = [0; 32];
        let length = File::from(pipes.reopen(id).unwrap().unwrap()).read(&mut found).unwrap();
        assert_eq!(&found[..length], b"meanwhile");
        assert_eq!(pipes.all().unwrap(), [id]);
        let place = PipePlace::of(&child).unwrap();
        assert_eq!(pipes.at(place), Some(id));
        assert_eq!(pipes.at(PipePlace { inode: place.inode.wrapping_add(1), ..place }), None);
        pipes.remove(id);
        pipes.remove(id);
        assert!(pipes.reopen(id).unwrap().is_none());
    }

    #[test]
    fn a_mark_tells_of_a_program_that_was_executed_and_its_absence_only_in_a_folder_that_was_there() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("output");
        let pipes = Pipes::open(path.clone()).unwrap();
        let [marked, unmarked, none] = [1, 2, 3].map(stdout);
        drop([marked, unmarked].map(|id| pipes.make(id).unwrap().unwrap()));
        fs::set_permissions(pipes.path(marked.child, marked.stream), Permissions::from_mode(BEGUN_MODE))
            .unwrap();
        for id in [marked, unmarked, none] {
            assert_eq!(pipes.launched(id.child), Launched::Unknown);
        }
        let pipes = Pipes::open(path).unwrap();
        let told = [marked, unmarked, none].map(|id| pipes.launched(id.child));
        assert_eq!(told, [Launched::Begun, Launched::NotBegun, Launched::NotBegun]);
        if geteuid().is_root() {
            chown(pipes.path(unmarked.child, unmarked.stream), Some(65_534), None).unwrap();
            assert_eq!(pipes.launched(unmarked.child), Launched::Begun);
        }
        for id in [marked, unmarked, none] {
            pipes.take_mark_away(id.child);
            assert_eq!(pipes.launched(id.child), Launched::NotBegun);
        }
    }

    /// Whose output a process of this user has open, which has inherited this pipe beside others' files.
    fn told_of_holder(pipes: &Pipes, pipe: &OwnedFd, user: u32) -> Option<ChildId> {
        let mut command = Command::new("/bin/cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(pipe.try_clone().unwrap());
        if user != geteuid().as_raw() {
            command.uid(user);
        }
        let mut process = command.spawn().unwrap();
        let told = pipes.held_by(Pid::new(process.id()).unwrap());
        drop(process.stdin.take());
        process.wait().unwrap();
        told
    }

    #[test]
    fn who_has_a_pipe_open_tells_whose_it_is_and_the_broker_is_nobodys() {
        let scratch = tempfile::tempdir().unwrap();
        let pipes = Pipes::open(scratch.path().join("output")).unwrap();
        let id = stdout(1);
        let pipe = pipes.make(id).unwrap().unwrap();
        let own = geteuid().as_raw();
        assert_eq!(told_of_holder(&pipes, &pipe, own), Some(id.child));
        assert_eq!(pipes.held_by(Pid::new(std::process::id()).unwrap()), None);
        let elsewhere = Pipes::open(scratch.path().join("other")).unwrap();
        assert_eq!(told_of_holder(&elsewhere, &pipe, own), None, "another broker's");
        pipes.remove(id);
        assert_eq!(told_of_holder(&pipes, &pipe, own), None, "one of a child that has ended");
    }

    #[test]
    fn a_pipe_that_one_user_has_passed_to_another_says_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let pipes = Pipes::open(scratch.path().join("output")).unwrap();
        let id = stdout(1);
        let pipe = pipes.make(id).unwrap().unwrap();
        if !geteuid().is_root() {
            return;
        }
        let [one, other] = [65_534, 65_533];
        assert_eq!(told_of_holder(&pipes, &pipe, one), Some(id.child), "what root gives is given on purpose");
        chown(pipes.path(id.child, id.stream), Some(one), None).unwrap();
        assert_eq!(told_of_holder(&pipes, &pipe, one), Some(id.child));
        assert_eq!(told_of_holder(&pipes, &pipe, other), None);
        assert_eq!(told_of_holder(&pipes, &pipe, 0), None);
    }

    #[test]
    fn what_is_no_pipe_is_not_opened_and_a_folder_that_cannot_be_used_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let pipes = Pipes::open(scratch.path().join("output")).unwrap();
        let id = stdout(1);
        fs::write(pipes.path(id.child, id.stream), "").unwrap();
        assert_eq!(pipes.reopen(id).unwrap_err(), Errno::EPERM);
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("output")] {
            let error = Pipes::open(path.clone()).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
