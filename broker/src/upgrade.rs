//! The live upgrade: this process becomes another program, and gives it everything that is open (`execve(2)`).
//!
//! Same process, same children: nobody but the broker's own program notices. What has to stay open is named in a
//! manifest, a file in memory whose descriptor an environment variable tells. Locks stay held, because
//! they belong to what was opened and not to the program; listening sockets stay, and with them the clients that wait to
//! be taken in.
//!
//! What the new program needs is looked up before, by the code that it starts with: what cannot be had is a reason not to
//! begin. Should it fail all the same before it serves, it executes the [former program](Predecessor) again, which it
//! was given as an open file, with everything as it was handed over.

mod check;
mod error;
mod handover;
mod history;
mod manifest;
mod predecessor;
mod program;
mod start;
#[cfg(test)]
mod tests;

pub use check::{CheckError, check, promise};
pub use error::UpgradeError;
pub use handover::{Beginning, FORMAT, Handover, Inherited};
pub(crate) use manifest::read_any as read_any_manifest;
pub use predecessor::Predecessor;
pub use program::Program;
