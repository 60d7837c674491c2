//! What can be read of a log after a crash: pure, and told apart from damage.
//!
//! The state file has every entry up to a number. What follows has to be in the log, one number after the other, at least
//! as far as the broker has answered. An entry beyond that may be torn: nobody was told of it. What is missing before has
//! been damaged, be it in the log or in the state file, which then shows less than was written to it.

use std::collections::BTreeMap;
use std::iter;

use thiserror::Error;
use uuid::Uuid;

use super::form::{self, ALIGNMENT, HEADER_BYTES, Seal, Watermark};
use crate::os::journal::entry::Entry;
use crate::os::process::identity::BootId;

/// What a log has.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Left {
    /// What is to be written to the state file, in this order.
    Entries(Vec<Entry>),
    /// It was written in another run of the kernel. A loss of power can have torn it anywhere, and takes what was not in the
    /// state file; so it is all the same whether the log was in memory or on a disk.
    OtherBoot,
    /// It was made for another state file, and nothing was ever written for that.
    Unused,
    /// It belongs to another state file, and tells of children that this one knows nothing of.
    OtherState,
}

/// Something was promised and is not there.
#[derive(Debug, Error, PartialEq, Eq)]
pub(in super::super) enum Damage {
    /// The file does not begin as it was made.
    #[error("its header is not whole")]
    Header,
    /// It does not tell how far it goes.
    #[error("it does not tell any more how far it goes")]
    Marks,
    /// Entries are missing.
    #[error("entry {missing} is neither there nor in the state file, and {last} were written")]
    Missing {
        /// The first that is.
        missing: u64,
        /// How far there were entries.
        last: u64,
    },
}

/// How far a half is in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Half {
    pub(super) used: u64,
    /// The last entry in it.
    pub(super) last: u64,
}

/// Where the next entry of a log goes on whose entries are not all in the state file yet: how far each half is in use, and
/// which of them is written to. What a half has of earlier rounds is in the state file, which is why it is written over.
pub(super) fn halves(log: &[u8], seal: &Seal, folded: u64, half_bytes: u64) -> ([Half; 2], usize) {
    let mut halves = [Half { used: 0, last: folded }; 2];
    let begins = [HEADER_BYTES, HEADER_BYTES.saturating_add(half_bytes)];
    for (half, begin) in halves.iter_mut().zip(begins) {
        let start = usize::try_from(begin).unwrap_or(usize::MAX);
        let length = usize::try_from(half_bytes).unwrap_or(usize::MAX);
        let bytes = log.get(start..).unwrap_or_default();
        for (number, end, _) in whole(bytes.get(..length).unwrap_or(bytes), seal) {
            if number > half.last {
                *half = Half { used: u64::try_from(end).unwrap_or(u64::MAX), last: number };
            }
        }
    }
    let [first, second] = halves;
    (halves, usize::from(second.last > first.last))
}

/// Reads the bytes of a log. The state file has everything up to `folded`.
pub(in super::super) fn read(log: &[u8], key: Uuid, boot: BootId, folded: u64) -> Result<Left, Damage> {
    let (own_key, own_boot) = form::read_header(log).ok_or(Damage::Header)?;
    if own_boot != boot {
        return Ok(Left::OtherBoot);
    }
    let seal = Seal::new(own_key, boot);
    if own_key != key {
        return Ok(if is_unused(log, &seal) { Left::Unused } else { Left::OtherState });
    }
    let mark = |mark| seal.read_mark(log, mark).ok_or(Damage::Marks);
    let promised = mark(Watermark::Answered)?.max(mark(Watermark::Folded)?);
    let mut found = entries(log, &seal, folded);
    let mut entries = Vec::with_capacity(found.len());
    let mut next = folded.saturating_add(1);
    while let Some(entry) = found.remove(&next) {
        entries.push(entry);
        next = next.saturating_add(1);
    }
    let last = found.last_key_value().map_or(promised, |(number, _)| promised.max(*number));
    if next <= last { Err(Damage::Missing { missing: next, last }) } else { Ok(Left::Entries(entries)) }
}

/// All whole entries of a log that belongs to whichever state file, if it is of this run of the kernel.
pub(in super::super) fn whole_entries(log: &[u8], boot: BootId) -> BTreeMap<u64, Entry> {
    match form::read_header(log) {
        Some((key, own_boot)) if own_boot == boot => entries(log, &Seal::new(key, boot), 0),
        Some(_) | None => BTreeMap::new(),
    }
}

/// Whether its state file has never had anything either, so that nothing is lost with the two of them.
fn is_unused(log: &[u8], seal: &Seal) -> bool {
    let is_new = |mark| seal.read_mark(log, mark) == Some(0);
    is_new(Watermark::Answered) && is_new(Watermark::Folded) && entries(log, seal, 0).is_empty()
}

/// All whole entries beyond a number, wherever they are. Those of earlier rounds are in the state file.
fn entries(log: &[u8], seal: &Seal, beyond: u64) -> BTreeMap<u64, Entry> {
    let bytes = log.get(usize::try_from(HEADER_BYTES).unwrap_or(usize::MAX)..).unwrap_or_default();
    let found = whole(bytes, seal).filter(|(number, ..)| *number > beyond);
    found.map(|(number, _, entry)| (number, entry)).collect()
}

/// The whole entries in some bytes, each with its number and where it ends.
fn whole(bytes: &[u8], seal: &Seal) -> impl Iterator<Item = (u64, usize, Entry)> {
    let mut at = 0_usize;
    iter::from_fn(move || {
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let decoded = seal.decode(rest);
            at = at.saturating_add(decoded.as_ref().map_or(ALIGNMENT, |(_, _, length)| *length));
            if let Some((number, entry, _)) = decoded {
                return Some((number, at, entry));
            }
        }
        None
    })
}

/// Reads any bytes: as a log with whatever key it has, and as what is in an entry.
pub(crate) fn read_any(bytes: &[u8]) {
    if let Some((key, boot)) = form::read_header(bytes) {
        let _ = read(bytes, key, boot, 0);
    }
    let _ = form::decode_body(bytes);
}
