//! What the broker is told once, at its start.

use std::collections::BTreeMap;
use std::time::Duration;

use procbroker_protocol::status::{Facilities, FailedUpgrade};
use procbroker_protocol::{Containment, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::Bounds;
use crate::main_process::MainCommand;
use crate::resources::ResourceBound;

/// Users whose numbers follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    /// The number of the first user.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

impl UserRange {
    /// Whether this user is one of them.
    #[must_use]
    pub fn contains(self, uid: u32) -> bool {
        uid.checked_sub(self.first).is_some_and(|further| further < self.count)
    }
}

/// The settings and facts of one start of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The version of the program.
    pub version: String,
    /// The broker's own process.
    pub pid: u32,
    /// A new UUID for each start.
    pub instance: Uuid,
    /// When this program started, by the wall clock.
    pub started_at: Timestamp,
    /// Why the last upgrade has failed, where this start goes on after it.
    pub failed_upgrade: Option<FailedUpgrade>,
    /// The user that the broker runs as. As root (0) it starts children as their callers.
    pub broker_uid: u32,
    /// Users that may connect beside root and the broker's own.
    pub allow_users: Vec<u32>,
    /// Groups whose members may connect.
    pub allow_groups: Vec<u32>,
    /// The users whose numbers accounts have beside their own (subuid(5)), who are members of no group that may connect.
    pub subordinates: Vec<UserRange>,
    /// The bounds in force.
    pub bounds: Bounds,
    /// How long a shutdown may take.
    pub shutdown_timeout: Duration,
    /// After how long without a child and a connection the broker exits by itself, if ever.
    pub exit_when_idle: Option<Duration>,
    /// The main command, of `procbroker run`.
    pub main: Option<MainCommand>,
    /// The folder that the output of children is kept in, as it is shown.
    pub log_folder: String,
    /// What holds the descendants of children on this machine.
    pub containment: Containment,
    /// The bounds that no child can be given here, each with why and the way out.
    pub lacking: BTreeMap<ResourceBound, String>,
    /// What was found at start, for `status`.
    pub facilities: Facilities,
}
