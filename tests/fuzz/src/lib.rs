//! What reads bytes that others have written, each as a function of any bytes at all.
//!
//! A target fails by a panic. It looks for more than that where there is more to look for: what was decoded is encoded and
//! decoded again, and a stream is the same messages in whatever pieces it comes. `tests/fuzz/run` feeds the targets with
//! what an engine with coverage feedback makes up; an ordinary test replays the corpus.

#![expect(clippy::panic, reason = "a target fails by a panic")]

mod targets;

pub use targets::{TARGETS, Target, find};
