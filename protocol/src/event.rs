//! What the broker tells subscribers without being asked again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::child::Child;
use crate::request::LogStream;
use crate::timestamp::Timestamp;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; they count up by one.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// The child that it happened to, right after it; none for the broker's own.
    pub child: Option<Arc<Child>>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A child was asked for and is on record.
    Created,
    /// Its process was started.
    Started,
    /// It is ready.
    Ready,
    /// Its stop began.
    Stopping,
    /// Its main process ended.
    Exited,
    /// It will be started again.
    Restarting,
    /// Its cleanup command was started.
    Cleaning,
    /// It is gone, and cleaned up.
    Ended,
    /// The broker began to shut down.
    ShuttingDown,
}

impl EventKind {
    /// The kind as it is written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Restarting => "restarting",
            Self::Cleaning => "cleaning",
            Self::Ended => "ended",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// A message from the broker that answers no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notification {
    /// Something happened, to a child or to the broker itself.
    Event {
        /// The number of the subscription, as the answer to the request gave it.
        subscription: u64,
        /// The event.
        event: Arc<Event>,
    },
    /// The subscriber read too slowly and missed events.
    Lagged {
        /// The number of the subscription, as the answer to the request gave it.
        subscription: u64,
        /// How many it missed.
        missed: u64,
    },
    /// A child wrote something.
    Log {
        /// The number of the subscription, as the answer to the request gave it.
        subscription: u64,
        /// Which of its two streams it wrote to.
        stream: LogStream,
        /// What it wrote.
        text: String,
        /// Whether this is the last of it.
        ended: bool,
        /// Where the stream goes on behind the text, as in the answer to `logs`.
        position: u64,
    },
}
