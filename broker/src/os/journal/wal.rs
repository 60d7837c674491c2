//! Looks at SQLite's write-ahead log: with a damaged head SQLite takes the whole log for nothing, and with a damaged frame all
//! that follows it, without a word.
//!
//! The form is <https://sqlite.org/fileformat2.html#the_write_ahead_log>. The head is written with one write(2) before
//! anything else, so that a log without a whole one is never what a crash has left. A frame that is not whole may be: the
//! power was lost, or the broker in the midst of writing it. That it is damage is known where something is missing that
//! was written in this run of the kernel.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::JournalError;

/// Bytes of the head.
const HEAD_BYTES: usize = 32;

/// Bytes before the page of each frame.
const FRAME_HEAD_BYTES: usize = 24;

/// What it begins with; the last bit says in which order of bytes it is summed up.
const MAGIC: u32 = 0x377f_0682;

/// The name of a file beside another one: SQLite puts `-wal` and `-shm` there.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Refuses a state file whose log has bytes and no whole head.
pub(super) fn check(path: &Path) -> Result<(), JournalError> {
    let log = beside(path, "-wal");
    let mut head = Vec::new();
    let read = File::open(&log)
        .and_then(|file| file.take(u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX)).read_to_end(&mut head));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(JournalError::file("read", &log)(error)),
    }
    if head.is_empty() || Head::read(&head).is_some() {
        return Ok(());
    }
    Err(damaged(path, "the head", &log))
}

/// Refuses a state file of which something is missing, if that may have been in its log: a frame is not whole, and neither a
/// left-over of an earlier round.
pub(super) fn check_frames(path: &Path) -> Result<(), JournalError> {
    let log = beside(path, "-wal");
    let bytes = match fs::read(&log) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(JournalError::file("read", &log)(error)),
    };
    match bytes.split_at_checked(HEAD_BYTES).and_then(|(head, frames)| Head::read(head)?.broken(frames)) {
        Some(number) => Err(damaged(path, &format!("frame {number}"), &log)),
        None => Ok(()),
    }
}

fn damaged(path: &Path, what: &str, log: &Path) -> JournalError {
    let finding = format!("{what} of {} is not what was written there", log.display());
    JournalError::Damaged { path: path.to_owned(), finding }
}

/// A whole head.
struct Head {
    /// How its numbers are read that are summed up.
    order: fn([u8; 4]) -> u32,
    page_bytes: usize,
    /// What each frame of this round has, too.
    salts: [u8; 8],
    sums: (u32, u32),
}

impl Head {
    fn read(head: &[u8]) -> Option<Self> {
        let head = <&[u8; HEAD_BYTES]>::try_from(head).ok()?;
        let magic = number(head, 0)?;
        if magic | 1 != MAGIC | 1 {
            return None;
        }
        let order = if magic == MAGIC { u32::from_le_bytes } else { u32::from_be_bytes };
        let sums = sum(order, (0, 0), head.get(..24)?);
        let is_whole = sums == (number(head, 24)?, number(head, 28)?);
        let page_bytes = usize::try_from(number(head, 8)?).ok()?;
        is_whole.then_some(Self { order, page_bytes, salts: head.get(16..24)?.try_into().ok()?, sums })
    }

    /// The number of the first frame that is not whole, counted from 1, if it or one after it is of this round.
    fn broken(&self, frames: &[u8]) -> Option<usize> {
        let mut frames = frames.chunks(self.page_bytes.checked_add(FRAME_HEAD_BYTES)?).enumerate();
        let mut sums = self.sums;
        let is_own = |frame: &[u8]| frame.get(8..16) == Some(&self.salts);
        let (index, first) = frames.find(|(_, frame)| {
            let next = self.sums_of(sums, frame).filter(|_| is_own(frame));
            sums = next.unwrap_or(sums);
            next.is_none()
        })?;
        (is_own(first) || frames.any(|(_, frame)| is_own(frame))).then_some(index.saturating_add(1))
    }

    /// The sums of everything up to this frame, if it is whole.
    fn sums_of(&self, before: (u32, u32), frame: &[u8]) -> Option<(u32, u32)> {
        let (head, page) = frame.split_at_checked(FRAME_HEAD_BYTES)?;
        let sums = sum(self.order, sum(self.order, before, head.get(..8)?), page);
        let is_whole = page.len() == self.page_bytes && sums == (number(head, 16)?, number(head, 20)?);
        is_whole.then_some(sums)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn sum(order: fn([u8; 4]) -> u32, mut sums: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in pairs {
        sums.0 = sums.0.wrapping_add(order([a, b, c, d])).wrapping_add(sums.1);
        sums.1 = sums.1.wrapping_add(order([e, f, g, h])).wrapping_add(sums.0);
    }
    sums
}
