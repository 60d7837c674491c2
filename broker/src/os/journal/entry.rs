//! What is on record of a child, and the changes to it.

use std::path::PathBuf;

use procbroker_core::{Run, Safety};
use procbroker_protocol::ChildId;

use crate::os::process::identity::{BootId, ProcessIdentity};

/// What is on record of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The child that it is about.
    pub child: ChildId,
    /// What was meant to be started, as it was submitted.
    pub intent: String,
    /// What became of it, if that was ever submitted.
    pub progress: Option<StoredProgress>,
}

/// What became of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProgress {
    /// As it was submitted.
    pub text: String,
    /// Its present process, if it has one.
    pub process: Option<ProcessIdentity>,
}

/// Under what the children on record were started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The run of the kernel.
    pub boot: BootId,
    /// The folder of their cgroups, where they have any.
    pub cgroup_folder: Option<PathBuf>,
}

/// What an earlier broker left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The children, in the order in which their intents were written.
    pub rows: Vec<Row>,
    /// Under what they were started; absent as long as no broker has started with this file.
    pub host: Option<Host>,
}

/// What is to be written about a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is about to be started.
    Intent(String),
    /// It got on. Replaces the former progress entirely.
    Progress(StoredProgress),
    /// There is nothing to remember of it any more.
    Remove,
}

/// One change, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The child that it is about.
    pub child: ChildId,
    /// What is to be on record of it.
    pub change: Change,
    /// What it has to survive.
    pub safety: Safety,
    /// For whom the result is delivered, if anybody waits for it.
    pub receipt: Option<Run>,
}

/// When a change is written to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Somebody waits for it.
    AtOnce,
    /// Nobody waits for it, but the log of intents gets full.
    Soon,
    /// With whatever comes within a second.
    Later,
}

/// A place in the sequence of everything that is submitted: so many changes came up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(super) u64);
