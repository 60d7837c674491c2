//! Cuts a stream of bytes into messages, without reading or writing anything itself.
//!
//! Both framers hold to a cap: a message over it is reported once, as soon as it is known to be over, and
//! then skipped exactly, without being kept. What follows it is read as usual. They are fed with
//! `push`, and asked with `next_message` until that has nothing more; between two pushes they then
//! hold at most one unfinished message and the last chunk.

mod backlog;
mod lengths;
mod lines;

pub use lengths::{FrameTooLong, Frames, Truncated, begin_frame, finish_frame};
pub use lines::Lines;

/// How much of an oversize frame is shown, in bytes: enough for the id of a binary request, which stands first in it.
pub const FRAME_HEAD_BYTES_MAX: usize = 32;

/// How much of an oversize line is shown, in bytes: enough for the longest id with what usually stands before it.
pub const LINE_HEAD_BYTES_MAX: usize = 2048;

/// What a framer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A whole message, without its framing.
    Message(&'a [u8]),
    /// A message over the cap. It is not kept, and the rest of it is skipped.
    Oversize {
        /// Its length in bytes as its frame announces it; of a line, whose end is not known yet, the
        /// least that it has: one more than the cap.
        length: usize,
        /// How it begins: at most [`FRAME_HEAD_BYTES_MAX`] or [`LINE_HEAD_BYTES_MAX`] bytes.
        head: &'a [u8],
    },
}
