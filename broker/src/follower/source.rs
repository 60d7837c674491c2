//! The output that a follower reads: where it is, and what comes next.

use super::reader::OutputReader;
use crate::limits::LOG_PIECE_BYTES;
use crate::os::logs::output::KeptStream;
use crate::os::logs::stamps::Stamps;
use crate::os::logs::text::{Decoder, first_line};
use crate::os::logs::{LogsError, StreamId};

/// What the time of a line takes, and the space behind it.
const STAMP_BYTES: usize = "2026-11-23T14:52:17.123456Z ".len();

/// A place in an output.
#[derive(Clone, Debug)]
pub(super) struct Source {
    kept: KeptStream,
    position: u64,
    decoder: Decoder,
    stamps: Stamps,
}

/// What a look has shown.
#[derive(Debug)]
pub(super) enum Seen {
    Output {
        /// Whether something was released before it was read.
        missed: bool,
        /// The output; empty where it is the beginning of a character.
        text: String,
        /// Whether there is probably more.
        more: bool,
    },
    /// No more output than before.
    Nothing,
    /// The output cannot be read.
    Failed(LogsError),
}

impl Source {
    /// A place in what was kept at some time, and will be more.
    pub(super) fn new(kept: KeptStream, position: u64, stamps: Stamps) -> Self {
        Self { kept, position, decoder: Decoder::default(), stamps }
    }

    /// Which stream it is in.
    pub(super) fn id(&self) -> StreamId {
        self.kept.id()
    }

    /// How many bytes the next look reads, at most.
    pub(super) fn next_bytes(&self, kept: &KeptStream) -> u64 {
        kept.end().saturating_sub(self.position).min(LOG_PIECE_BYTES as u64)
    }

    /// Where it goes on behind the text that was shown.
    pub(super) fn position(&self) -> u64 {
        self.position.saturating_sub(self.decoder.waiting())
    }

    /// What was kept at the last look.
    pub(super) fn kept(&self) -> &KeptStream {
        &self.kept
    }

    /// Reads what comes next of what is kept now, as long as it is no more than so many bytes with the times of its lines,
    /// on a thread that may wait for the disk.
    pub(super) async fn look(mut self, kept: KeptStream, most: u64, reader: &OutputReader) -> (Self, Seen) {
        self.kept = kept;
        if self.position == self.kept.end() {
            return (self, Seen::Nothing);
        }
        let before = self.clone();
        let look = move || {
            let seen =
                self.look_now(usize::try_from(most).unwrap_or(usize::MAX)).unwrap_or_else(Seen::Failed);
            (self, seen)
        };
        // Where the user has too much to be read already, it is tried again from the same place after a rest.
        let rest = Seen::Output { missed: false, text: String::new(), more: false };
        reader.pool.run(reader.user, look).await.unwrap_or((before, rest))
    }

    fn look_now(&mut self, most: usize) -> Result<Seen, LogsError> {
        let found = self.kept.read(self.position, most)?;
        let missed = found.at != self.position;
        if found.bytes.is_empty() && !missed {
            return Ok(Seen::Nothing);
        }
        let mut text = String::new();
        let mut from = 0;
        if missed {
            // The rest of a character that has begun there will not come.
            text = self.decoder.finish();
            from = first_line(&found.bytes);
            self.stamps.skip();
        }
        let mut bytes = found.bytes;
        bytes.drain(..from);
        bytes.truncate(fitting(&bytes, self.stamps, most));
        let at = found.at.saturating_add(from as u64);
        self.position = at.saturating_add(bytes.len() as u64);
        let stamped = self.stamps.stamp(&self.kept, at, bytes)?;
        text.push_str(&self.decoder.decode(&stamped));
        Ok(Seen::Output { missed, text, more: self.position < self.kept.end() })
    }

    /// What is still to be shown when nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        self.decoder.finish()
    }
}

/// How many of these bytes are no more than so many when each line that begins in them has its time; one at the least.
fn fitting(bytes: &[u8], stamps: Stamps, most: usize) -> usize {
    let mut begins_line = match stamps {
        Stamps::Unwanted => return bytes.len(),
        Stamps::LineBegins => true,
        Stamps::LineGoesOn => false,
    };
    let mut taken = 0_usize;
    let fits = |byte: &u8| {
        taken += if begins_line { 1 + STAMP_BYTES } else { 1 };
        begins_line = *byte == b'\n';
        taken <= most
    };
    bytes.iter().copied().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_as_long_as_it_may_be_with_the_times_of_its_lines() {
        let fitting = |stamps, most| fitting(b"a\n\nbc", stamps, most);
        assert_eq!(fitting(Stamps::Unwanted, 5), 5);
        let lengths = [28, 29, 30, 58, 59, 87, 88, 89].map(|most| fitting(Stamps::LineBegins, most));
        assert_eq!(lengths, [1, 1, 2, 2, 3, 3, 4, 5]);
        let lengths = [1, 2, 30, 31, 60, 61].map(|most| fitting(Stamps::LineGoesOn, most));
        assert_eq!(lengths, [1, 2, 2, 3, 4, 5]);
    }
}
