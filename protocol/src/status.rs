//! The broker as `status` shows it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::duration;
use crate::timestamp::Timestamp;

/// The broker at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of its program.
    pub version: String,
    /// The versions of the binary protocol that it speaks.
    pub protocol: ProtocolRange,
    /// Its process.
    pub pid: u32,
    /// A new UUID for each start.
    pub instance: Uuid,
    /// The instance with which the numbers of events began: an upgrade goes on with them, a start after a crash does not.
    pub events_instance: Uuid,
    /// When it was started.
    pub started_at: Timestamp,
    /// Whether it is shutting down.
    pub shutting_down: bool,
    /// The last upgrade that this instance was asked for and has survived, because it failed.
    #[serde(default)]
    pub failed_upgrade: Option<FailedUpgrade>,
    /// How many children are in each state.
    pub children: ChildCounts,
    /// How many clients are connected.
    pub connections: u32,
    /// What this kernel offers, and which way is in use.
    pub facilities: Facilities,
    /// The bounds in force.
    pub limits: Limits,
}

/// An upgrade that did not come to be: the program that was to be replaced goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUpgrade {
    /// When it failed.
    pub at: Timestamp,
    /// Why it failed.
    pub message: String,
}

/// The lowest and the highest version of the binary protocol that one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The lowest version that it speaks.
    pub lowest: u16,
    /// The highest version that it speaks.
    pub highest: u16,
}

/// How many children are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildCounts {
    /// Asked for or spawned, not ready.
    pub starting: u32,
    /// Ready.
    pub running: u32,
    /// Being stopped.
    pub stopping: u32,
    /// With their cleanup at work.
    pub cleaning: u32,
    /// Gone, and still visible.
    pub ended: u32,
    /// Between two restarts.
    pub backoff: u32,
}

/// What this machine offers to the broker, and which way is in use, as found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the kernel")]
pub struct Facilities {
    /// How processes are started: `clone3` (sharing memory until exec) or `fork`.
    pub spawn: String,
    /// What holds descendants: `cgroup` or `subreaper`.
    pub containment: String,
    /// The control group below which children get theirs, or why there is none.
    pub cgroup: String,
    /// The controllers by which children are bounded there, such as `cpu io memory pids`, or why there are none.
    pub controllers: String,
    /// Whether the broker inherits the orphans of its children (`PR_SET_CHILD_SUBREAPER`, Linux 3.4).
    pub subreaper: bool,
    /// Whether processes are held by descriptor (`pidfd_open`, Linux 5.3).
    pub pidfd: bool,
    /// Whether a group is signalled through a pidfd (`PIDFD_SIGNAL_PROCESS_GROUP`, Linux 6.9).
    pub pidfd_group_signal: bool,
    /// Whether a pidfd tells the exit status of another's child (`PIDFD_INFO_EXIT`, Linux 6.15).
    pub pidfd_exit_info: bool,
    /// Whether `/proc/PID/task/TID/children` is there to find orphans by.
    pub proc_children: bool,
    /// Who started the broker's socket: `systemd` or `broker`.
    pub activation: String,
    /// Where state is kept.
    pub state_dir: String,
}

/// The bounds in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Live children in all.
    pub max_children: u32,
    /// Live children of one user.
    pub max_children_per_user: u32,
    /// Connections in all.
    pub max_connections: u32,
    /// Connections of one user.
    pub max_connections_per_user: u32,
    /// Requests of one connection that are not answered yet.
    pub max_pipelined: u32,
    /// Bytes of a command line and environment.
    pub max_command_bytes: u32,
    /// Subscriptions of one connection.
    pub max_subscriptions: u32,
    /// Bytes that are kept for clients, in all: children, requests, events and answers.
    pub max_kept_bytes: u64,
    /// Bytes that are kept for one user.
    pub max_kept_bytes_per_user: u64,
    /// Bytes of a message to the broker.
    pub max_message_bytes: u32,
    /// How long a message may stay unfinished.
    #[serde(with = "duration")]
    pub partial_message_timeout: Duration,
    /// Ended children that stay visible.
    pub ended_kept: u32,
    /// How long they stay visible.
    #[serde(with = "duration")]
    pub ended_kept_for: Duration,
    /// How long a shutdown may take.
    #[serde(with = "duration")]
    pub shutdown_timeout: Duration,
}
