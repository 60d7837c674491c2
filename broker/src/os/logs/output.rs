//! What is kept of a stream at a moment: reading it while its child writes on and its oldest segments go.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::OFlag;

use super::error::LogsError;
use super::folder::Folder;
use super::stream::StreamId;
use super::times::{self, TimeMark};

/// What is kept of a stream.
#[derive(Clone, Debug)]
pub struct KeptStream {
    folder: Folder,
    id: StreamId,
    /// The segments that are kept, the oldest first.
    pub(super) parts: Vec<Part>,
    /// Where it ends, as a number of bytes that counts those that are gone.
    pub(super) end: u64,
    /// How many bytes could not be kept.
    pub(super) dropped: u64,
    /// How many bytes have gone through the child's pipe: what is waited for when there is more.
    pub(super) moved: u64,
    /// Where a part starts that is not to be used.
    pub(super) left_alone: Option<u64>,
}

/// A file of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) length: u64,
    /// When its first piece came.
    pub(super) first: TimeMark,
    /// Whether there is a file of the times of its pieces.
    pub(super) is_timed: bool,
}

/// What was found at a position.
#[derive(Debug, PartialEq, Eq)]
pub struct OutputSpan {
    /// Where the bytes begin: where they were asked for, or further on when the output there is gone.
    pub at: u64,
    /// The output from there on; nothing at the end.
    pub bytes: Vec<u8>,
}

impl Part {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

impl KeptStream {
    /// Nothing of a stream.
    pub(super) fn nothing(folder: Folder, id: StreamId) -> Self {
        Self { folder, id, parts: Vec::new(), end: 0, dropped: 0, moved: 0, left_alone: None }
    }

    /// Tells how many bytes have gone through the pipe by now.
    pub(super) fn after(mut self, moved: u64) -> Self {
        self.moved = moved;
        self
    }

    /// Which stream it is of.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Returns where it ends: how many bytes the child has written, those included that are gone.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes could not be kept.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Where what is kept begins; the end where nothing is.
    #[must_use]
    pub fn first_kept(&self) -> u64 {
        self.parts.first().map_or(self.end, |part| part.start)
    }

    /// Whether all of it can be read, as far as the broker knows what there is.
    ///
    /// # Errors
    /// What is wrong with a part that was left alone, as long as it is there.
    pub(super) fn check(&self) -> Result<(), LogsError> {
        let Some(start) = self.left_alone else { return Ok(()) };
        let is_there = self.open(&self.id.segment_name(start))?.is_some();
        self.open(&self.id.times_name(start))?;
        if is_there && self.parts.iter().all(|part| part.start != start) {
            let reason = "it was not to be trusted when the broker took it over, and is looked at again at the next start";
            return Err(self.refused("show", start, io::Error::other(reason)));
        }
        Ok(())
    }

    /// Reads at most so many bytes from a position on. This may wait for the disk.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn read(&self, from: u64, length_max: usize) -> Result<OutputSpan, LogsError> {
        let from = from.max(self.first_kept()).min(self.end);
        let mut found = OutputSpan { at: from, bytes: Vec::new() };
        for part in self.parts.iter().filter(|part| part.end() > from) {
            let next = found.at.saturating_add(found.bytes.len() as u64);
            let missing = length_max.saturating_sub(found.bytes.len());
            if missing == 0 || (part.start > next && !found.bytes.is_empty()) {
                break;
            }
            let from = next.max(part.start);
            let most = usize::try_from(part.end().saturating_sub(from)).unwrap_or(usize::MAX).min(missing);
            let Some(file) = self.open(&self.id.segment_name(part.start))? else {
                // It has gone meanwhile, and so has whatever is before, or is about to.
                found = OutputSpan { at: part.end(), bytes: Vec::new() };
                continue;
            };
            found.at = if found.bytes.is_empty() { from } else { found.at };
            let length = found.bytes.len();
            found.bytes.resize(length.saturating_add(most), 0);
            let read =
                read_fully(&file, from - part.start, found.bytes.get_mut(length..).unwrap_or_default());
            let read = read.map_err(|error| self.refused("read", part.start, error))?;
            found.bytes.truncate(length.saturating_add(read));
            if read < most {
                break;
            }
        }
        Ok(found)
    }

    /// When the bytes of a part were written: a mark at or before its beginning, and those within.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn marks(&self, from: u64, to: u64) -> Result<Vec<TimeMark>, LogsError> {
        let mut marks = Vec::new();
        for part in self.parts.iter().filter(|part| part.end() > from && part.start < to) {
            match self.open_times(part)? {
                Some(file) => {
                    let found = times::covering(&file, from.max(part.start), to);
                    marks
                        .extend(found.map_err(|error| self.refused("read the times of", part.start, error))?);
                }
                None => marks.push(part.first),
            }
        }
        Ok(marks)
    }

    /// Where the output begins that was written at or after a time; the end where none was.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn since(&self, time: u64) -> Result<u64, LogsError> {
        for part in &self.parts {
            if part.first.at >= time {
                return Ok(part.start);
            }
            let Some(file) = self.open_times(part)? else { continue };
            let mark = times::since(&file, time);
            if let Some(mark) = mark.map_err(|error| self.refused("read the times of", part.start, error))? {
                return Ok(mark.offset);
            }
        }
        Ok(self.end)
    }

    fn open_times(&self, part: &Part) -> Result<Option<File>, LogsError> {
        if part.is_timed { self.open(&self.id.times_name(part.start)) } else { Ok(None) }
    }

    /// Opens a file, unless it has gone meanwhile.
    fn open(&self, name: &str) -> Result<Option<File>, LogsError> {
        match self.folder.own_file(name, OFlag::O_RDONLY) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.folder.refused("open", name, error)),
        }
    }

    fn refused(&self, attempt: &'static str, start: u64, source: io::Error) -> LogsError {
        self.folder.refused(attempt, &self.id.segment_name(start), source)
    }
}

fn read_fully(file: &File, from: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
