//! The time before each line, as `logs` shows it where that is wanted.

use procbroker_protocol::Timestamp;

use super::error::LogsError;
use super::output::KeptStream;
use super::times::TimeMark;

/// Whether lines get their times, and where the output stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamps {
    /// Lines have no times.
    #[default]
    Unwanted,
    /// They do: what comes next begins a line.
    LineBegins,
    /// They do: what comes next goes on with a line.
    LineGoesOn,
}

impl Stamps {
    /// Something is missing before what comes next, which begins a line.
    pub fn skip(&mut self) {
        match self {
            Self::Unwanted => {}
            Self::LineBegins | Self::LineGoesOn => *self = Self::LineBegins,
        }
    }

    /// Puts its time and a space before each line that begins in these bytes, which were read at this position. A line
    /// has the time of its first byte. Where no times are wanted, nothing changes.
    ///
    /// # Errors
    /// When the times cannot be read.
    pub fn stamp(&mut self, kept: &KeptStream, at: u64, bytes: Vec<u8>) -> Result<Vec<u8>, LogsError> {
        match self {
            Self::Unwanted => Ok(bytes),
            Self::LineBegins | Self::LineGoesOn => {
                let marks = kept.marks(at, at.saturating_add(bytes.len() as u64))?;
                Ok(self.put(at, &bytes, &marks))
            }
        }
    }

    fn put(&mut self, at: u64, bytes: &[u8], marks: &[TimeMark]) -> Vec<u8> {
        let mut stamped = Vec::with_capacity(bytes.len());
        let mut marks = marks.iter().peekable();
        let mut time = None;
        let mut offset = at;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            while let Some(mark) = marks.next_if(|mark| mark.offset <= offset) {
                time = Some(mark.at);
            }
            if *self == Self::LineBegins {
                let time = Timestamp::from_micros(time.unwrap_or_default());
                stamped.extend_from_slice(time.to_string().as_bytes());
                stamped.push(b' ');
            }
            stamped.extend_from_slice(line);
            offset = offset.saturating_add(line.len() as u64);
            *self = if line.ends_with(b"\n") { Self::LineBegins } else { Self::LineGoesOn };
        }
        stamped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: u64, seconds: u64) -> TimeMark {
        TimeMark { offset, at: seconds * 1_000_000, dropped: 0 }
    }

    #[test]
    fn each_line_gets_the_time_of_its_first_byte_however_it_is_cut() {
        let marks = [mark(95, 1), mark(104, 2), mark(110, 3)];
        let output = b"one\ntwo\n\nthree";
        let expected = "1970-01-01T00:00:01.000000Z one\n1970-01-01T00:00:02.000000Z two\n\
            1970-01-01T00:00:02.000000Z \n1970-01-01T00:00:02.000000Z three";
        for cut in 0..=output.len() {
            let mut stamps = Stamps::LineBegins;
            let (first, second) = output.split_at(cut);
            let mut stamped = stamps.put(100, first, &marks);
            stamped.extend(stamps.put(100 + cut as u64, second, &marks));
            assert_eq!(String::from_utf8(stamped).unwrap(), expected, "{cut}");
            assert_eq!(stamps, Stamps::LineGoesOn);
        }
    }
}
