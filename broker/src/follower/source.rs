//! The output that a follower reads: where it is, and what comes next.

use super::Reader;
use crate::limits::LOG_PIECE_BYTES;
use crate::os::logs::output::Kept;
use crate::os::logs::stamps::Stamps;
use crate::os::logs::text::{Decoder, first_line};
use crate::os::logs::{LogsError, StreamId};

/// A place in an output.
#[derive(Clone, Debug)]
pub(super) struct Source {
    kept: Kept,
    position: u64,
    decoder: Decoder,
    stamps: Stamps,
}

/// What a look has shown.
#[derive(Debug)]
pub(super) enum Seen {
    /// More output.
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
    /// The system refuses.
    Failed(LogsError),
}

impl Source {
    /// A place in what was kept at some time, and will be more.
    pub(super) fn new(kept: Kept, position: u64, stamps: Stamps) -> Self {
        Self { kept, position, decoder: Decoder::default(), stamps }
    }

    /// Which stream it is in.
    pub(super) fn id(&self) -> StreamId {
        self.kept.id()
    }

    /// How many bytes the next look reads, at most.
    pub(super) fn next_bytes(&self, kept: &Kept) -> u64 {
        kept.end().saturating_sub(self.position).min(LOG_PIECE_BYTES as u64)
    }

    /// Where it goes on behind the text that was shown.
    pub(super) fn position(&self) -> u64 {
        self.position.saturating_sub(self.decoder.waiting())
    }

    /// What was kept at the last look.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Reads what comes next of what is kept now, on a thread that may wait for the disk.
    pub(super) async fn look(mut self, kept: Kept, reader: &Reader) -> (Self, Seen) {
        self.kept = kept;
        if self.position == self.kept.end() {
            return (self, Seen::Nothing);
        }
        let before = self.clone();
        let look = move || {
            let seen = self.look_now().unwrap_or_else(Seen::Failed);
            (self, seen)
        };
        // Where the user has too much to be read already, it is tried again from the same place after a rest.
        let rest = Seen::Output { missed: false, text: String::new(), more: false };
        reader.pool.run(reader.user, look).await.unwrap_or((before, rest))
    }

    fn look_now(&mut self) -> Result<Seen, LogsError> {
        let found = self.kept.read(self.position, LOG_PIECE_BYTES)?;
        let missed = found.at != self.position;
        if found.bytes.is_empty() && !missed {
            return Ok(Seen::Nothing);
        }
        self.position = found.at.saturating_add(found.bytes.len() as u64);
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
        let stamped = self.stamps.stamp(&self.kept, found.at.saturating_add(from as u64), bytes)?;
        text.push_str(&self.decoder.decode(&stamped));
        Ok(Seen::Output { missed, text, more: self.position < self.kept.end() })
    }

    /// What is still to be shown when nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        self.decoder.finish()
    }
}
