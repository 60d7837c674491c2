//! The log of intents: what is to be on record is written there at once, by whoever submits it, and is safe against the
//! sudden death of the broker when that returns. The state file follows within a second.
//!
//! It is one file of fixed size in the runtime folder, with two halves that take turns: a half is written over when all
//! that is in it has come to the state file. Nothing is ever moved or removed; which entries count is told by their numbers.

mod form;
#[cfg(test)]
mod model;
mod replay;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, renameat};
use uuid::Uuid;

use super::entry::{Entry, Position};
use super::error::JournalError;
use crate::os::host::own_folder::{OwnError, OwnFolder, place_of};
use crate::os::process::identity::BootId;
use form::{HEADER_BYTES, Seal, Watermark};
use replay::Half;
pub(crate) use replay::read_any;
pub(super) use replay::{Left, read, whole_entries};

/// The file in the runtime folder.
pub(super) const NAME: &str = "intents";

/// One that is being made.
const DRAFT: &str = "intents.new";

/// Bytes of each half: some five hundred creates, of which a busy broker does not see as many between two writes to the
/// state file.
const HALF_BYTES: u64 = 1 << 20;

/// Bytes of the whole file.
pub(super) const FILE_BYTES: u64 = HEADER_BYTES + 2 * HALF_BYTES;

/// Where the log is, and which entries belong to it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: OwnFolder,
    /// The state file, for messages.
    pub(super) state: PathBuf,
    pub(super) key: Uuid,
    pub(super) boot: BootId,
}

/// Where bytes are written. What has been written stays when the broker dies.
pub(super) trait Disk {
    /// Writes all of it, or fails; some of it may be there then.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl Disk for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
}

/// The log, as its one writer has it.
#[derive(Debug)]
pub(super) struct IntentLog<D = File> {
    disk: D,
    seal: Seal,
    buffer: Vec<u8>,
    halves: [Half; 2],
    /// Which of them is written to.
    active: usize,
    half_bytes: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// An entry was not taken in. No later one is either, before everything up to it is in the state file: what is written
    /// later is never safe before what was written earlier.
    Closed,
}

/// What has become of an entry.
#[derive(Debug)]
pub(super) enum Append {
    /// It is safe. The halves have room for long.
    Safe,
    /// It is safe. The state file should follow soon, for the room gets short.
    Pressing,
    /// It is not in the log, which has no room for it: it is to be written to the state file.
    Full,
    /// It is not in the log, which cannot be written to.
    Failed(io::Error),
}

impl Place {
    /// The log in this runtime folder that belongs to this state file, which has that key.
    pub(super) fn new(
        folder: &OwnFolder,
        (state, key): (PathBuf, Uuid),
        boot: BootId,
    ) -> Result<Self, JournalError> {
        Ok(Self { folder: folder.try_clone()?, state, key, boot })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    fn seal(&self) -> Seal {
        Seal::new(self.key, self.boot)
    }

    /// That of the state file.
    pub(super) fn key(&self) -> Uuid {
        self.key
    }

    /// Whether what is in its place is this log, and tells that everything up to there was written: what is in it beside that
    /// is not needed.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn has(&self, log: &IntentLog, settled: Position) -> Result<bool, JournalError> {
        let path = self.path();
        let refused = || JournalError::file("read", &path);
        let own = log.disk.metadata().map_err(refused())?;
        match place_of(&path) {
            Ok(place) if place == (own.dev(), own.ino()) && own.len() == FILE_BYTES => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is_absence() => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let mut head = vec![0; usize::try_from(HEADER_BYTES).unwrap_or_default()];
        log.disk.read_exact_at(&mut head, 0).map_err(refused())?;
        let marks = [Watermark::Answered, Watermark::Folded].map(|mark| log.seal.read_mark(&head, mark));
        let tells = marks.iter().all(|mark| mark.is_some_and(|number| number <= settled.0));
        Ok(tells && form::read_header(&head) == Some((self.key, self.boot)))
    }

    /// Makes a log in which the next entry is the one after `last`, in the place of any other. None where there is no room
    /// for it, or the file system has none of the kind: everything is then written to the state file.
    ///
    /// # Errors
    /// When the system refuses for another reason.
    pub(super) fn create(&self, last: Position) -> Result<Option<(IntentLog, FoldMark)>, JournalError> {
        match self.try_create(last) {
            Ok(log) => Ok(Some(log)),
            Err(Refusal::Own(error)) => Err(error.into()),
            Err(Refusal::Write(source)) if is_want_of_room(&source) => {
                let path = self.path();
                tracing::warn!(path = %path.display(), error = %source,
                    "there is no room for the log of intents: creates wait for the state file until the next start");
                self.folder.remove(DRAFT)?;
                // Whatever is in an earlier one is in the state file by now.
                self.folder.remove(NAME)?;
                Ok(None)
            }
            Err(Refusal::Write(source)) => Err(JournalError::file("make", &self.path())(source)),
        }
    }

    /// Goes on with the log that is there, whose entries are not in the state file yet beyond `folded`: they stay where they
    /// are, and the next one follows the last of them.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn resume(&self, folded: Position) -> Result<(IntentLog, FoldMark), JournalError> {
        let path = self.path();
        let refused = || JournalError::file("go on with", &path);
        let file = self.folder.file(NAME, OFlag::O_RDWR)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&file, FILE_BYTES), &mut bytes).map_err(refused())?;
        let seal = self.seal();
        let mark = FoldMark { disk: file.try_clone().map_err(refused())?, seal: seal.clone() };
        Ok((IntentLog::resumed(file, seal, &bytes, folded.0, HALF_BYTES), mark))
    }

    fn try_create(&self, last: Position) -> Result<(IntentLog, FoldMark), Refusal> {
        self.folder.remove(DRAFT)?;
        let file = self.folder.file(DRAFT, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?;
        let length = i64::try_from(FILE_BYTES).map_err(io::Error::other)?;
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) => {}
            // A file system that cannot promise room for later.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => file.set_len(FILE_BYTES)?,
            Err(errno) => return Err(Refusal::Write(errno.into())),
        }
        let seal = self.seal();
        file.write_all_at(&form::header(self.key, self.boot), 0)?;
        file.write_all_at(&seal.mark(last.0), Watermark::Answered.offset())?;
        file.write_all_at(&seal.mark(last.0), Watermark::Folded.offset())?;
        renameat(&self.folder, DRAFT, &self.folder, NAME).map_err(io::Error::from)?;
        let mark = FoldMark { disk: file.try_clone()?, seal: seal.clone() };
        Ok((IntentLog::sized(file, seal, last.0, HALF_BYTES), mark))
    }

    /// Removes the log: everything in it is in the state file.
    pub(super) fn remove(&self) {
        if let Err(error) = self.folder.remove(NAME) {
            tracing::debug!(%error, "the log of intents stays, with nothing in it that is needed");
        }
    }
}

/// Why there is no new log.
#[derive(Debug)]
enum Refusal {
    Own(OwnError),
    Write(io::Error),
}

impl From<OwnError> for Refusal {
    fn from(error: OwnError) -> Self {
        match error {
            OwnError::Refused { source, .. } if is_want_of_room(&source) => Self::Write(source),
            error @ (OwnError::Refused { .. } | OwnError::Untrusted { .. }) => Self::Own(error),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn is_want_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl<D: Disk> IntentLog<D> {
    fn sized(disk: D, seal: Seal, last: u64, half_bytes: u64) -> Self {
        let half = Half { used: 0, last };
        Self { disk, seal, buffer: Vec::new(), halves: [half; 2], active: 0, half_bytes, state: State::Open }
    }

    fn resumed(disk: D, seal: Seal, log: &[u8], folded: u64, half_bytes: u64) -> Self {
        let (halves, active) = replay::halves(log, &seal, folded, half_bytes);
        Self { disk, seal, buffer: Vec::new(), halves, active, half_bytes, state: State::Open }
    }

    /// Whether everything is in it that was to be, and is not in the state file.
    pub(super) fn has_all(&self) -> bool {
        self.state == State::Open
    }

    /// Writes an entry. `settled` is how far everything is in the state file.
    pub(super) fn append(&mut self, position: Position, entry: &Entry, settled: Position) -> Append {
        let Position(number) = position;
        match self.state {
            State::Open => {}
            State::Closed if settled.0.saturating_add(1) < number => return Append::Full,
            State::Closed => {
                let half = Half { used: 0, last: settled.0 };
                (self.halves, self.active, self.state) = ([half; 2], 0, State::Open);
            }
        }
        let appended = self.write(number, entry, settled.0);
        match &appended {
            Append::Safe | Append::Pressing => {}
            Append::Full | Append::Failed(_) => self.state = State::Closed,
        }
        appended
    }

    fn write(&mut self, number: u64, entry: &Entry, settled: u64) -> Append {
        if let Err(error) = self.seal.encode(number, entry, &mut self.buffer) {
            return Append::Failed(error);
        }
        let length = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        let Some((index, used)) = self.room(length, settled) else { return Append::Full };
        let start = HEADER_BYTES + self.half_bytes * u64::from(index > 0) + used;
        // The mark comes last: what it covers is whole.
        let written = self.disk.write_at(&self.buffer, start);
        let written =
            written.and_then(|()| self.disk.write_at(&self.seal.mark(number), Watermark::Answered.offset()));
        if let Err(error) = written {
            return Append::Failed(error);
        }
        self.active = index;
        if let Some(half) = self.halves.get_mut(index) {
            *half = Half { used: used.saturating_add(length), last: number };
        }
        let was_pressing = used > self.half_bytes / 2;
        let is_pressing = used.saturating_add(length) > self.half_bytes / 2;
        if is_pressing && !was_pressing { Append::Pressing } else { Append::Safe }
    }

    /// The half that has room for so many bytes, and where in it: the other one begins anew when all that is in it is in
    /// the state file.
    fn room(&self, length: u64, settled: u64) -> Option<(usize, u64)> {
        let active = *self.halves.get(self.active)?;
        if active.used.saturating_add(length) <= self.half_bytes {
            return Some((self.active, active.used));
        }
        let index = 1 - self.active.min(1);
        let other = self.halves.get(index)?;
        (other.last <= settled && length <= self.half_bytes).then_some((index, 0))
    }
}

/// Notes in the log how far everything is in the state file, for whoever finds the two of them: a state file that shows less
/// than that has lost something.
#[derive(Debug)]
pub(super) struct FoldMark<D = File> {
    disk: D,
    seal: Seal,
}

impl<D: Disk> FoldMark<D> {
    /// Everything up to here is in the state file.
    pub(super) fn note(&mut self, folded: Position) {
        // Without it, less damage is found. The entries themselves are as they were.
        let _ignored = self.disk.write_at(&self.seal.mark(folded.0), Watermark::Folded.offset());
    }
}
