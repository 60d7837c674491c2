//! A child as clients see it.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::create::Lifetime;
use crate::name::Name;
use crate::partial::Fields;
use crate::signal::Signal;
use crate::timestamp::Timestamp;
use crate::usage::Usage;

/// The id of a child: a UUID of version 7, so that ids sort by the time of their creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildId(Uuid);

impl ChildId {
    /// The id that is this UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as a UUID.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A child at one moment.
///
/// In JSON one object of all members but two: `usage` is there when it was asked for and can be told, and `shortened` when
/// something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Child {
    /// Its id, the same through restarts of it and of the broker.
    pub id: ChildId,
    /// Its name, if it has one.
    pub name: Option<Name>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its command line.
    pub command: Vec<String>,
    /// Its process; none before it is spawned and once it has ended.
    pub pid: Option<u32>,
    /// Who created it.
    pub owner: Owner,
    /// Where it is in its life.
    pub state: ChildState,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its present process was started.
    pub started_at: Option<Timestamp>,
    /// How often it was started again, by its policy or by hand.
    pub restarts: u32,
    /// What its life is bound to.
    pub lifetime: Lifetime,
    /// Its place in the order of a shutdown.
    pub stop_order: i32,
    /// How it ended, once its process has.
    pub exit: Option<Exit>,
    /// What its cleanup command did, once that has run.
    pub cleanup: Option<Cleaned>,
    /// What holds its descendants together.
    pub containment: Containment,
    /// What it says of itself: the `STATUS=` that it sent last (`sd_notify(3)`).
    pub status_text: Option<String>,
    /// What it uses, where that was asked for and can be told.
    pub usage: Option<Box<Usage>>,
    /// The members of which only the beginning is shown, or nothing, because they are long. `get` shows them whole.
    #[serde(default)]
    pub shortened: Fields,
}

impl Child {
    /// A child with nothing but its id, to be filled with what else is known of it.
    pub(crate) fn with_id(id: ChildId) -> Self {
        Self {
            id,
            name: None,
            labels: BTreeMap::new(),
            command: Vec::new(),
            pid: None,
            owner: Owner { uid: u32::MAX, gid: u32::MAX },
            state: ChildState::Ended,
            created_at: Timestamp::default(),
            started_at: None,
            restarts: 0,
            lifetime: Lifetime::Broker,
            stop_order: 0,
            exit: None,
            cleanup: None,
            containment: Containment::Subreaper,
            status_text: None,
            usage: None,
            shortened: Fields::default(),
        }
    }
}

impl Serialize for Child {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("id", &self.id)?;
        object.serialize_entry("name", &self.name)?;
        object.serialize_entry("labels", &self.labels)?;
        object.serialize_entry("command", &self.command)?;
        object.serialize_entry("pid", &self.pid)?;
        object.serialize_entry("owner", &self.owner)?;
        object.serialize_entry("state", &self.state)?;
        object.serialize_entry("status_text", &self.status_text)?;
        object.serialize_entry("created_at", &self.created_at)?;
        object.serialize_entry("started_at", &self.started_at)?;
        object.serialize_entry("restarts", &self.restarts)?;
        object.serialize_entry("lifetime", &self.lifetime)?;
        object.serialize_entry("stop_order", &self.stop_order)?;
        object.serialize_entry("exit", &self.exit)?;
        object.serialize_entry("cleanup", &self.cleanup)?;
        object.serialize_entry("containment", &self.containment)?;
        if let Some(usage) = &self.usage {
            object.serialize_entry("usage", usage)?;
        }
        if !self.shortened.is_empty() {
            object.serialize_entry("shortened", &self.shortened)?;
        }
        object.end()
    }
}

impl<'de> Deserialize<'de> for Child {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

/// The user and group that a child belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user id of the client that created it.
    pub uid: u32,
    /// The group id of that client.
    pub gid: u32,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// Asked for or spawned, and not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Being stopped, or its descendants are.
    Stopping,
    /// Gone, with its cleanup command at work.
    Cleaning,
    /// Gone, and cleaned up.
    Ended,
    /// Between two runs: the next one is not due, or not on record.
    Backoff,
}

impl ChildState {
    /// The state as it is written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Cleaning => "cleaning",
            Self::Ended => "ended",
            Self::Backoff => "backoff",
        }
    }
}

/// What holds the descendants of a child together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// A control group (version 2) of its own.
    Cgroup,
    /// Its process group, its session and what the broker inherits as subreaper.
    Subreaper,
}

/// How a child ended.
///
/// In JSON one object: `{"code": 0, "reason": "exited", ..}`, with `"signal"` or `"unknown": true` in
/// the place of `"code"`; `gave_up` and `oom` are there when they are true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Exit {
    /// What the kernel reported of its main process.
    pub status: ExitStatus,
    /// Why it ended.
    pub reason: ExitReason,
    /// Whether SIGKILL was needed.
    pub forced: bool,
    /// The signals that were sent to end it, in their order.
    pub steps: Vec<StepTaken>,
    /// When its main process ended, as far as is known.
    pub at: Timestamp,
    /// Whether it was not started again because it had been too often already.
    pub gave_up: bool,
    /// Whether it was killed for want of memory.
    pub oom: bool,
}

impl Exit {
    /// An end without any signal from the broker.
    #[must_use]
    pub fn new(status: ExitStatus, reason: ExitReason, at: Timestamp) -> Self {
        Self { status, reason, forced: false, steps: Vec::new(), at, gave_up: false, oom: false }
    }
}

/// What the kernel reported of an ended process.
///
/// In JSON `{"code": 0}`, `{"signal": "SIGKILL"}` or `{"unknown": true}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(Signal),
    /// The kernel keeps no status of it.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => signal.fmt(formatter),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

/// Why a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Its main process ended by itself.
    Exited,
    /// A client destroyed it.
    Destroyed,
    /// The broker was shut down.
    Shutdown,
    /// Another one was created in its place.
    Replaced,
    /// Its time was up.
    Expired,
    /// What its life was bound to ended.
    OwnerGone,
    /// It was not ready in time, or ended before it was.
    StartFailed,
    /// It ended with the machine, or while no broker could see it.
    BrokerLost,
    /// It did not say in time that it was well.
    Watchdog,
}

impl ExitReason {
    /// The reason as it is written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Destroyed => "destroyed",
            Self::Shutdown => "shutdown",
            Self::Replaced => "replaced",
            Self::Expired => "expired",
            Self::OwnerGone => "owner_gone",
            Self::StartFailed => "start_failed",
            Self::BrokerLost => "broker_lost",
            Self::Watchdog => "watchdog",
        }
    }
}

/// A signal that was sent to end a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTaken {
    /// The signal.
    pub signal: Signal,
    /// When it was sent.
    pub at: Timestamp,
}

/// What a cleanup command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaned {
    /// Whether it exited with code 0.
    pub ok: bool,
    /// How its last attempt ended; none when it could not be started.
    pub exit: Option<ExitStatus>,
    /// How often it was started.
    pub attempts: u32,
}

impl ExitStatus {
    /// Writes the one member of a JSON object that tells the status.
    fn serialize_entry<M: SerializeMap>(self, map: &mut M) -> Result<(), M::Error> {
        match self {
            Self::Code(code) => map.serialize_entry("code", &code),
            Self::Signal(signal) => map.serialize_entry("signal", &signal),
            Self::Unknown => map.serialize_entry("unknown", &true),
        }
    }

    /// The status that those members of a JSON object tell.
    fn from_members(code: Option<i32>, signal: Option<Signal>) -> Self {
        match (code, signal) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl Serialize for ExitStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        self.serialize_entry(&mut map)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ExitStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Readable {
            code: Option<i32>,
            signal: Option<Signal>,
        }
        if !deserializer.is_human_readable() {
            return Self::deserialize(deserializer);
        }
        let Readable { code, signal } = Readable::deserialize(deserializer)?;
        Ok(Self::from_members(code, signal))
    }
}

impl Serialize for Exit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        self.status.serialize_entry(&mut map)?;
        map.serialize_entry("reason", &self.reason)?;
        map.serialize_entry("forced", &self.forced)?;
        map.serialize_entry("steps", &self.steps)?;
        map.serialize_entry("at", &self.at)?;
        for (name, is_so) in [("gave_up", self.gave_up), ("oom", self.oom)] {
            if is_so {
                map.serialize_entry(name, &true)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Exit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Readable {
            code: Option<i32>,
            signal: Option<Signal>,
            reason: ExitReason,
            forced: bool,
            steps: Vec<StepTaken>,
            at: Timestamp,
            #[serde(default)]
            gave_up: bool,
            #[serde(default)]
            oom: bool,
        }
        if !deserializer.is_human_readable() {
            return Self::deserialize(deserializer);
        }
        let Readable { code, signal, reason, forced, steps, at, gave_up, oom } =
            Readable::deserialize(deserializer)?;
        Ok(Self { status: ExitStatus::from_members(code, signal), reason, forced, steps, at, gave_up, oom })
    }
}
