//! Frames of the binary encoding: a length (u32, little-endian), and that many bytes.

use thiserror::Error;

use super::backlog::Backlog;
use super::{FRAME_HEAD_BYTES_MAX, Framed};

/// How long the length before each frame is, in bytes.
const PREFIX_BYTES: usize = size_of::<u32>();

/// Cuts a stream into frames.
#[derive(Debug)]
pub struct Frames {
    cap: usize,
    backlog: Backlog,
    /// How much of an oversize frame is still to come, and to be dropped.
    skip: usize,
}

/// The stream ended within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection ended within a message")]
pub struct Truncated;

/// A message does not fit into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message has {length} bytes; at most {cap} are taken")]
pub struct FrameTooLong {
    /// How long the message is, in bytes.
    pub length: usize,
    /// How long it may be, in bytes.
    pub cap: usize,
}

impl Frames {
    /// A framer for messages of at most `cap` bytes, without the length before them.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { cap, backlog: Backlog::default(), skip: 0 }
    }

    /// Takes bytes as they came from the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        let skipped = self.skip.min(chunk.len());
        self.skip -= skipped;
        let rest = chunk.get(skipped..).unwrap_or_default();
        self.backlog.append(rest, self.cap.saturating_add(PREFIX_BYTES));
    }

    /// The next message that is there, if any.
    pub fn next_message(&mut self) -> Option<Framed<'_>> {
        self.backlog.reclaim();
        let (prefix, body) = self.backlog.unread().split_first_chunk::<PREFIX_BYTES>()?;
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        let here = body.len().min(length);
        if length <= self.cap {
            if here < length {
                return None;
            }
            let frame = self.backlog.lend(PREFIX_BYTES + length);
            return Some(Framed::Message(frame.get(PREFIX_BYTES..).unwrap_or_default()));
        }
        let shown = length.min(FRAME_HEAD_BYTES_MAX);
        if here < shown {
            return None;
        }
        self.skip = length - here;
        let frame = self.backlog.lend(PREFIX_BYTES + here);
        Some(Framed::Oversize {
            length,
            head: frame.get(PREFIX_BYTES..PREFIX_BYTES + shown).unwrap_or_default(),
        })
    }

    /// Whether a message has begun and not ended: the time for which that may last is bounded by who reads.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.skip > 0 || !self.backlog.unread().is_empty()
    }

    /// How many bytes are kept of what is not complete, or not taken yet.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.backlog.unread().len()
    }

    /// Takes note of the end of the stream.
    ///
    /// # Errors
    /// [`Truncated`] when it came within a message.
    pub fn finish(self) -> Result<(), Truncated> {
        if self.is_partial() { Err(Truncated) } else { Ok(()) }
    }
}

/// Begins a frame at the end of `out`, with its length still to be filled in by [`finish_frame`]; returns
/// where it begins.
#[must_use]
pub fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    start
}

/// Ends the frame that begins at `start`: its message is everything after the length.
///
/// # Errors
/// When the message is longer than `cap` or than a length can say; `out` is then cut at `start`.
pub fn finish_frame(out: &mut Vec<u8>, start: usize, cap: usize) -> Result<(), FrameTooLong> {
    let length = out.len().saturating_sub(start).saturating_sub(PREFIX_BYTES);
    let prefix = u32::try_from(length).ok().filter(|_| length <= cap);
    let place = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<PREFIX_BYTES>);
    if let (Some(prefix), Some(place)) = (prefix, place) {
        *place = prefix.to_le_bytes();
        Ok(())
    } else {
        out.truncate(start);
        Err(FrameTooLong { length, cap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let start = begin_frame(&mut out);
        out.extend_from_slice(body);
        finish_frame(&mut out, start, usize::MAX).unwrap();
        out
    }

    #[test]
    fn a_frame_is_its_length_and_its_bytes() {
        assert_eq!(frame(b"abc"), b"\x03\0\0\0abc");
        assert_eq!(frame(b""), b"\0\0\0\0");
    }

    #[test]
    fn a_frame_over_the_cap_is_not_appended() {
        let mut out = b"before".to_vec();
        let start = begin_frame(&mut out);
        out.extend_from_slice(b"four");
        assert_eq!(finish_frame(&mut out, start, 3), Err(FrameTooLong { length: 4, cap: 3 }));
        assert_eq!(out, b"before");
    }

    #[test]
    fn pipelined_frames_come_out_one_by_one() {
        let mut frames = Frames::new(8);
        frames.push(&[frame(b"one"), frame(b""), frame(b"12345678"), vec![1, 0]].concat());
        assert_eq!(frames.next_message(), Some(Framed::Message(b"one")));
        assert_eq!(frames.next_message(), Some(Framed::Message(b"")));
        assert_eq!(frames.next_message(), Some(Framed::Message(b"12345678")));
        assert_eq!(frames.next_message(), None);
        assert!(frames.is_partial());
        assert_eq!(frames.finish(), Err(Truncated));
    }

    #[test]
    fn an_oversize_frame_is_reported_once_and_skipped_exactly() {
        let mut frames = Frames::new(40);
        let long: Vec<u8> = (0..100).collect();
        let bytes = [frame(&long), frame(b"after")].concat();
        frames.push(&bytes[..4 + 31]);
        assert_eq!(frames.next_message(), None);
        frames.push(&bytes[4 + 31..4 + 50]);
        assert_eq!(frames.next_message(), Some(Framed::Oversize { length: 100, head: &long[..32] }));
        assert_eq!(frames.next_message(), None);
        assert!(frames.is_partial());
        frames.push(&bytes[4 + 50..]);
        assert_eq!(frames.next_message(), Some(Framed::Message(b"after")));
        assert!(!frames.is_partial());
        assert_eq!(frames.finish(), Ok(()));
    }

    #[test]
    fn the_largest_length_that_can_be_claimed_takes_no_memory() {
        let mut frames = Frames::new(1 << 20);
        frames.push(&u32::MAX.to_le_bytes());
        for _ in 0..1000 {
            frames.push(&[7; 4096]);
            let _ = frames.next_message();
        }
        assert!(frames.is_partial());
        assert!(frames.backlog.capacity() <= 8192, "{}", frames.backlog.capacity());
    }

    #[test]
    fn the_end_within_the_length_or_a_skipped_frame_is_told() {
        let mut frames = Frames::new(1);
        assert!(!frames.is_partial());
        frames.push(&[9]);
        assert_eq!(frames.finish(), Err(Truncated));
        let mut frames = Frames::new(1);
        frames.push(&[3, 0, 0, 0, 1, 2, 3, 3, 0, 0, 0, 1, 2]);
        assert_eq!(frames.next_message(), Some(Framed::Oversize { length: 3, head: &[1, 2, 3] }));
        assert_eq!(frames.next_message(), None);
        assert_eq!(frames.finish(), Err(Truncated));
    }
}
