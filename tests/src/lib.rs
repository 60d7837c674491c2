//! What proves the process broker: the simulator of its state machine, and what its tests share.

pub mod sim;

/// The README, whose program in Rust is compiled as its readers would, as an example in the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
