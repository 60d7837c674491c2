//! A create that has been checked: what it asks for, what it does about its name, and when it is answered or refused.

use std::sync::Arc;

use procbroker_protocol::create::{IfExists, Ready};
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{ChildId, CreateParams, Error, ErrorKind, duration};
use uuid::Uuid;

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
    /// It has been ready, or has ended without.
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
    /// Which place under its limit is kept for it.
    pub(crate) kept: KeptPlace,
}

/// Which place under its limit is kept for a create while the child that holds its name is stopped for it: nobody is ended for
/// one that is refused then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptPlace {
    /// None: nobody is stopped for it, or it has no limit.
    None,
    /// That of the child that is stopped, which is under the same key.
    Holders,
    /// One more.
    Reserved,
}

/// A create that has waited.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// Where its answer goes.
    pub(crate) call: Call,
    /// The user whose create it is.
    pub(crate) uid: u32,
    /// What it asks for, and what it does about the name.
    pub(crate) attempt: Attempt,
}

impl Attempt {
    /// Returns the key of its limit, if it has one.
    pub(crate) fn limit_key(&self) -> Option<&str> {
        self.params.limit.as_ref().map(|limit| limit.key.as_str())
    }

    /// Returns the user and the id of its request, where it has one.
    pub(crate) fn request_of(&self, uid: u32) -> Option<(u32, Uuid)> {
        self.params.request_id.map(|request| (uid, request))
    }

    /// Whether it would end what holds its name.
    pub(crate) fn replaces(&self) -> bool {
        self.claim == Claim::Own(IfExists::Replace)
    }

    /// Has it reuse what a later `replace` starts in the place of what it would have started.
    pub(crate) fn yield_name(&mut self) {
        if self.replaces() {
            self.claim = Claim::Yielded;
        }
    }

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

impl Waiting {
    /// Returns the user and the id of its request, where it has one.
    pub(crate) fn request(&self) -> Option<(u32, Uuid)> {
        self.attempt.request_of(self.uid)
    }
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
    let key = attempt.limit_key().unwrap_or_default();
    let wait = attempt.params.limit.as_ref().and_then(|limit| limit.wait);
    let wait = duration::display(wait.unwrap_or_default());
    Error::new(
        ErrorKind::LimitExceeded,
        format!(
            "no place under the limit {key:?} has become free within {wait} (limit.wait); nothing was started"
        ),
    )
}
