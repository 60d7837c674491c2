//! When output was written: a file of fixed records beside each segment, one for each piece that came a moment after the
//! one before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a record: three numbers of 64 bits, the lowest byte first.
pub(super) const RECORD_BYTES: u64 = RECORD as u64;

/// That, for what is in memory.
const RECORD: usize = 24;

/// How much later than the one before a piece has a time of its own, in microseconds. A line that is written bit by bit
/// has one time.
pub(super) const TIMES_APART: u64 = 1_000;

/// From here on output was written at this time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TimeMark {
    /// The position in the stream.
    pub(super) offset: u64,
    /// Microseconds since 1970.
    pub(super) at: u64,
    /// How many bytes of the stream could not be kept by then.
    pub(super) dropped: u64,
}

impl TimeMark {
    fn to_bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let numbers = [self.offset, self.at, self.dropped].map(u64::to_le_bytes);
        for (place, byte) in bytes.iter_mut().zip(numbers.as_flattened()) {
            *place = *byte;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |index: usize| {
            let bytes = bytes.get(index * 8..index * 8 + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        Self { offset: number(0), at: number(1), dropped: number(2) }
    }
}

/// Writes marks to a file, after this many bytes of it.
pub(super) fn write(file: &File, at: u64, marks: &[TimeMark]) -> io::Result<u64> {
    let bytes: Vec<u8> = marks.iter().flat_map(|mark| mark.to_bytes()).collect();
    file.write_all_at(&bytes, at)?;
    Ok(at.saturating_add(bytes.len() as u64))
}

/// How many marks a file of this length holds; a torn one at its end does not count.
fn count(length: u64) -> u64 {
    length / RECORD_BYTES
}

fn mark(file: &File, index: u64) -> io::Result<TimeMark> {
    let mut bytes = [0; RECORD];
    file.read_exact_at(&mut bytes, index.saturating_mul(RECORD_BYTES))?;
    Ok(TimeMark::from_bytes(&bytes))
}

/// The first and the last mark of a file, and how many bytes its whole marks take; `None` where it has none.
pub(super) fn ends(file: &File) -> io::Result<Option<(TimeMark, TimeMark, u64)>> {
    let marks = count(file.metadata()?.len());
    let Some(last) = marks.checked_sub(1) else { return Ok(None) };
    Ok(Some((mark(file, 0)?, mark(file, last)?, marks * RECORD_BYTES)))
}

/// The marks that cover a part of a stream: the last one that is not after its beginning, and all up to its end.
pub(super) fn covering(file: &File, from: u64, to: u64) -> io::Result<Vec<TimeMark>> {
    let marks = count(file.metadata()?.len());
    let after = partition(file, marks, |mark| mark.offset <= from)?;
    read_while(file, after.saturating_sub(1), marks, |mark| mark.offset < to)
}

/// The first mark at or after a time.
pub(super) fn since(file: &File, time: u64) -> io::Result<Option<TimeMark>> {
    let marks = count(file.metadata()?.len());
    let first = partition(file, marks, |mark| mark.at < time)?;
    if first < marks { mark(file, first).map(Some) } else { Ok(None) }
}

/// How many marks at the beginning hold this, if none does after the first that does not.
fn partition(file: &File, marks: u64, holds: impl Fn(&TimeMark) -> bool) -> io::Result<u64> {
    let (mut low, mut high) = (0, marks);
    while low < high {
        let middle = low.midpoint(high);
        if holds(&mark(file, middle)?) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn read_while(
    file: &File,
    from: u64,
    to: u64,
    holds: impl Fn(&TimeMark) -> bool,
) -> io::Result<Vec<TimeMark>> {
    /// Marks that are read at a time.
    const BATCH: u64 = 512;
    let mut found = Vec::new();
    let mut next = from;
    while next < to {
        let batch = BATCH.min(to - next);
        let mut bytes = vec![0; usize::try_from(batch * RECORD_BYTES).unwrap_or_default()];
        file.read_exact_at(&mut bytes, next * RECORD_BYTES)?;
        for bytes in bytes.chunks_exact(RECORD) {
            let mark = TimeMark::from_bytes(bytes);
            if !holds(&mark) {
                return Ok(found);
            }
            found.push(mark);
        }
        next += batch;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_ten(marks: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        let all: Vec<TimeMark> = (0..marks).map(at).collect();
        assert_eq!(write(&file, 0, &all).unwrap(), marks * RECORD_BYTES);
        file
    }

    fn at(index: u64) -> TimeMark {
        TimeMark { offset: 10 * index, at: 1_000 + index, dropped: index }
    }

    #[test]
    fn the_marks_of_a_part_are_those_that_cover_it() {
        let file = every_ten(2_000);
        for (from, to, first, count) in [
            (0, 1, 0, 1),
            (9, 10, 0, 1),
            (9, 11, 0, 2),
            (10, 11, 1, 1),
            (25, 19_990, 2, 1_997),
            (50_000, 60_000, 1_999, 1),
        ] {
            let found = covering(&file, from, to).unwrap();
            assert_eq!(found, (first..first + count).map(at).collect::<Vec<_>>(), "{from}..{to}");
        }
        assert_eq!(covering(&every_ten(0), 0, 10).unwrap(), []);
    }

    #[test]
    fn the_first_mark_since_a_time_is_found() {
        let file = every_ten(100);
        for (time, index) in
            [(0, Some(0)), (1_000, Some(0)), (1_001, Some(1)), (1_099, Some(99)), (1_100, None)]
        {
            assert_eq!(since(&file, time).unwrap(), index.map(at), "{time}");
        }
    }

    #[test]
    fn a_torn_mark_does_not_count() {
        let file = every_ten(3);
        file.write_all_at(&[1; 5], 3 * RECORD_BYTES).unwrap();
        assert_eq!(ends(&file).unwrap(), Some((at(0), at(2), 3 * RECORD_BYTES)));
        assert_eq!(ends(&every_ten(0)).unwrap(), None);
    }
}
