//! The bounds of a message, the same for both encodings and both sides.

/// The longest message that the broker reads, in bytes, without its framing.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The longest message that the broker sends, in bytes: a list of 10,000 children with long command
/// lines fits, and a client that decodes one cannot be made to allocate without end.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
