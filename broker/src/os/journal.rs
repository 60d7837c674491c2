//! The durable record of the children: what has to be known after a crash of the broker or of the machine.
//!
//! There are two records. The log of intents, in memory as a rule, is written by whoever submits, at once, and is safe
//! against the sudden death of the broker. The database is safe against that of the machine. One thread owns it, and writes
//! all that waits for it in one transaction at a time: within a second, and at once where a change has to outlive the
//! machine, or found no room in the log. Whoever submits is never held up by the disk.

mod abandoned;
mod check;
mod delivery;
mod entry;
mod error;
mod file;
mod fold;
mod handle;
mod intent_log;
mod pending;
mod queue;
mod read;
mod schema;
mod shared_memory;
mod signature;
mod start;
mod store;
#[cfg(test)]
mod tests;
mod unread;
mod wal;
mod worker;
mod writer;

pub(crate) use abandoned::Abandoned;
pub use check::check;
pub use delivery::{Deliver, Delivery};
pub use entry::{Change, Entry, Host, Position, Row, Stored, StoredProgress};
pub use error::{JournalError, Survivor};
pub use handle::{Journal, Submitted};
pub(crate) use intent_log::read_any as read_any_intents;
#[cfg(test)]
pub(crate) use store::open_alone;
pub use store::{Store, go_on, open};
