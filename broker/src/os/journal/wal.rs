//! Looks at the head of SQLite's write-ahead log: with a damaged one SQLite takes the whole log for nothing, without a word.
//!
//! The form is <https://sqlite.org/fileformat2.html#the_write_ahead_log>. The head is written with one write(2) before
//! anything else, so that a log without a whole one is never what a crash has left.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::JournalError;

/// Bytes of the head.
const HEAD_BYTES: usize = 32;

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
    if head.is_empty() || is_whole(&head) {
        return Ok(());
    }
    let finding = format!("the head of {} is not what was written there", log.display());
    Err(JournalError::Damaged { path: path.to_owned(), finding })
}

fn is_whole(head: &[u8]) -> bool {
    let Ok(head) = <&[u8; HEAD_BYTES]>::try_from(head) else { return false };
    let (words, _) = head.as_chunks::<4>();
    let Some((first, rest)) = words.split_first() else { return false };
    let magic = u32::from_be_bytes(*first);
    if magic | 1 != MAGIC | 1 {
        return false;
    }
    let order = if magic == MAGIC { u32::from_le_bytes } else { u32::from_be_bytes };
    let mut sums = (0_u32, 0_u32);
    for pair in words.iter().take(6).map(|word| order(*word)).collect::<Vec<_>>().chunks_exact(2) {
        if let [even, odd] = *pair {
            sums.0 = sums.0.wrapping_add(even).wrapping_add(sums.1);
            sums.1 = sums.1.wrapping_add(odd).wrapping_add(sums.0);
        }
    }
    let stored =
        rest.get(5..7).map(|sums| sums.iter().map(|sum| u32::from_be_bytes(*sum)).collect::<Vec<_>>());
    stored.is_some_and(|stored| stored == [sums.0, sums.1])
}
