//! A create that has been checked: what it asks for, what it does about its name, and when it is answered or refused.

use std::sync::Arc;

use procbroker_protocol::create::{IfExists, Ready};
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{ChildId, CreateParams, Error, ErrorKind, duration};

use crate::anchor::Anchor;
use crate::authorize::RunAs;
use crate::ids::{Call, Ticket};
use crate::kept;
use crate::launch::Launch;
use crate::time::Instant;

/// How far a child has to be for its create to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its program has been executed.
    Spawned,
    /// It is ready.
    Ready,
}

/// A `create` that has been checked and is about to be decided.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// What is asked for.
    pub(crate) params: Arc<CreateParams>,
    /// The rights that the child gets.
    pub(crate) run_as: RunAs,
    /// What its process starts with beside them.
    pub(crate) launch: Launch,
    /// The process that its life hangs on, if it names one.
    pub(crate) anchor: Option<Anchor>,
    /// The id that it gets.
    pub(crate) id: ChildId,
    /// What the answer says if a child is created now.
    pub(crate) outcome: Outcome,
    /// What it does about the holder of its name.
    pub(crate) claim: Claim,
    /// Its place in the order of arrival, whatever it waits for.
    pub(crate) arrived: Ticket,
    /// Until when it waits for a place under its limit, once it does.
    pub(crate) place_by: Option<Instant>,
}

/// A create that has waited, and where its answer goes.
pub(crate) type Waiting = (Call, Attempt);

impl Attempt {
    /// Returns how many bytes it takes while it waits.
    pub(crate) fn bytes(&self) -> u64 {
        kept::bytes_of(&self.params)
    }
}

/// What a create does about the child that holds its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It fails, reuses or replaces it, and starts a child where there is none.
    Own(IfExists),
    /// It would replace, and a later one has put its child there: it reuses that, or starts its own where there is none.
    Yielded,
    /// Its own child was replaced before it was ready: it is answered with the one that takes the place, and starts none.
    Superseded,
}

impl Claim {
    /// Returns what the same request does about the name when it comes again.
    pub(crate) fn inherited(self) -> Option<Self> {
        match self {
            Self::Own(_) => None,
            Self::Yielded | Self::Superseded => Some(self),
        }
    }

    /// Whether it is answered with the holder of the name, once that is ready.
    pub(crate) fn joins(self) -> bool {
        match self {
            Self::Own(IfExists::Reuse) | Self::Yielded | Self::Superseded => true,
            Self::Own(IfExists::Fail | IfExists::Replace) => false,
        }
    }
}

impl Stage {
    /// How far the child of this create has to be.
    pub(crate) fn of(params: &CreateParams) -> Self {
        if params.no_wait { Self::Spawned } else { Self::Ready }
    }
}

/// Whether a create is answered before its child is ready.
pub(crate) fn is_answered_early(params: &CreateParams) -> bool {
    params.no_wait && params.ready != Ready::Spawn
}

/// The refusal of a create during a shutdown.
pub(crate) fn shutting_down() -> Error {
    Error::new(
        ErrorKind::ShuttingDown,
        "the broker is shutting down and starts no child any more; try again when it is back",
    )
}

/// The refusal of a create that has waited for a place for as long as it wanted to.
pub(crate) fn no_place(attempt: &Attempt) -> Error {
    let limit = attempt.params.limit.as_ref();
    let key = limit.map(|limit| limit.key.as_str()).unwrap_or_default();
    let wait = duration::display(limit.and_then(|limit| limit.wait).unwrap_or_default());
    Error::new(
        ErrorKind::LimitExceeded,
        format!(
            "no place under the limit {key:?} has become free within {wait} (limit.wait); nothing was started"
        ),
    )
}
