//! What the broker answers when all went well.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child::{Child, ChildId};
use crate::duration;
use crate::partial::PartialChildren;
use crate::spec::Spec;
use crate::status::Status;

/// One answer; which variant it is follows from the request's method.
///
/// Children are shared, not copied: the broker answers a list of thousands without cloning them. The
/// order of the variants is part of the binary encoding: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To `create`.
    Created(Created),
    /// To `destroy`, `list`, `signal`, `restart` and `renew`.
    Children(Vec<Arc<Child>>),
    /// To `wait`.
    Child(Arc<Child>),
    /// To `logs`.
    Logs(Logs),
    /// To `events`.
    Subscribed(Subscribed),
    /// To `status`.
    Status(Box<Status>),
    /// To `shutdown`.
    ShutDown(ShutdownReport),
    /// To `upgrade`.
    Upgraded,
    /// To `list` with `fields`.
    PartialChildren(PartialChildren),
    /// To `get`.
    Got(Got),
    /// To `metrics`.
    Metrics(Metrics),
}

/// The answer to `get`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Got {
    /// The child.
    pub child: Arc<Child>,
    /// Its specification, where the caller may see that.
    pub spec: Option<Box<Spec>>,
}

/// The answer to `metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// What is counted, in the text format of Prometheus.
    pub text: String,
}

/// The answer to `create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Whether a child was started, or found.
    pub outcome: Outcome,
    /// The child.
    pub child: Arc<Child>,
}

/// What `create` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It started a child.
    Created,
    /// It found the live child of that name.
    Existing {
        /// Whether that child was created from an equal specification: equal in all that decides how it runs and stops, its
        /// labels and its `ready_timeout` too. `request_id`, `no_wait` and `if_exists` do not count, of `limit` the key alone
        /// does, and `user` and `groups` count by the rights that they give.
        same_spec: bool,
    },
    /// It destroyed the child of that name, and started another.
    Replaced,
}

/// The answer to `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// What the child wrote; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether older output was released, or some of it could not be kept.
    pub truncated: bool,
    /// With `follow`: the number under which more is sent.
    pub subscription: Option<u64>,
    /// The number of bytes that could not be kept, because the disk was full.
    pub dropped: u64,
    /// Where the stream goes on behind the text: a number of bytes of it, those that are gone counted, which holds across
    /// a crash of the broker and an upgrade.
    pub position: u64,
    /// The child: whoever goes on from the position means this one, and not another that has its name by then.
    pub id: ChildId,
}

/// The answer to `events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The number under which events are sent.
    pub subscription: u64,
    /// The sequence number of the next event.
    pub next: u64,
}

/// What a shutdown did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownReport {
    /// Every child that it ended, in the order of their ends.
    pub children: Vec<Arc<Child>>,
    /// How many of them needed SIGKILL.
    pub forced: u32,
    /// How long it took.
    #[serde(with = "duration")]
    pub took: Duration,
}
