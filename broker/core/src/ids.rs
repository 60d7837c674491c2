//! The identities that inputs and effects are addressed with.

use std::fmt;
use std::num::NonZeroU32;

use procbroker_protocol::ChildId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One connection of a client; the edge counts them and never uses a number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One request on one connection; the edge counts them, whatever id the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The connection that it came on.
    pub connection: ConnectionId,
    /// Its number on that connection.
    pub number: u64,
}

/// Which of a child's processes: a report about an earlier one is told apart by it, and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// A child's first process.
    pub const FIRST: Self = Self(1);
}

impl Incarnation {
    /// The child's next process.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One subscription of one connection; the core counts them and never uses a number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// One process of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The child that the process belongs to.
    pub child: ChildId,
    /// Which of its processes.
    pub incarnation: Incarnation,
}

/// Returns the id that is paired with a child's, under which its probes have their [`Run`]s; and the child's id for that one.
///
/// The two differ in their version (RFC 9562): a child's is 7.
#[must_use]
pub fn paired_id(child: ChildId) -> ChildId {
    const VERSION: u128 = 0xF << 76;
    ChildId::from_uuid(Uuid::from_u128(child.as_uuid().as_u128() ^ VERSION))
}

/// The place of a waiting request in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// The number of a process; also that of its session and process group, for a child's main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pid(NonZeroU32);

impl Pid {
    /// The pid with this number; there is no process 0 to speak of, and none beyond 2^22.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Returns the number, as the kernel and clients have it.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
impl Ticket {
    /// Makes the first tickets.
    pub(crate) fn some(count: u64) -> Vec<Self> {
        (0..count).map(Self).collect()
    }
}
