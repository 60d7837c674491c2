//! Bounds of a child and its descendants together, set through control groups.

use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// Bounds set through control groups (version 2); see the kernel's cgroup-v2 documentation for what each does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// `memory.max`, in bytes: what is over it ends by an out-of-memory kill.
    #[serde(deserialize_with = "or_default")]
    pub memory_max: Option<u64>,
    /// `cpu.weight`, 1 to 10,000; 100 is what every group has.
    #[serde(deserialize_with = "or_default")]
    pub cpu_weight: Option<u32>,
    /// `cpu.max`, as the kernel takes it: a quota, or `max`, and a period in microseconds.
    #[serde(deserialize_with = "or_default")]
    pub cpu_max: Option<String>,
    /// `pids.max`, in processes and threads.
    #[serde(deserialize_with = "or_default")]
    pub pids_max: Option<u32>,
    /// `memory.high`, in bytes: what is over it is slowed down.
    #[serde(deserialize_with = "or_default")]
    pub memory_high: Option<u64>,
    /// `io.weight`, 1 to 10,000; 100 is what every group has.
    #[serde(deserialize_with = "or_default")]
    pub io_weight: Option<u32>,
}
