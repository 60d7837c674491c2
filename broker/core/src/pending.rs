//! Requests that are not answered yet, in the order of their arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::request::{Scope, Until};
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{Child as ChildView, ChildId, CreateParams, Error, ErrorKind, Response, Signal};

use crate::authorize::RunAs;
use crate::effect::After;
use crate::ids::{Call, SubscriptionId};
use crate::time::Instant;

/// The place of a waiting request in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// A request that waits.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    /// Where the answer goes.
    pub(crate) call: Call,
    /// When its patience ends.
    pub(crate) due: Option<Instant>,
    /// What it waits for.
    pub(crate) waits_for: WaitsFor,
}

/// What a request waits for.
#[derive(Debug)]
pub(crate) enum WaitsFor {
    /// A `create` for a name that is held: decided again when its holder changes.
    Name {
        /// The holder.
        holder: ChildId,
        /// The create itself.
        attempt: Box<Attempt>,
    },
    /// A `create`, for its child to be ready.
    Start {
        /// The child.
        child: ChildId,
        /// What to answer then.
        outcome: Outcome,
    },
    /// A `destroy`, for all of its children to have ended.
    Destroy {
        /// Those that have, as they were then: some may not be visible any more when the last one ends.
        ended: BTreeMap<ChildId, Arc<ChildView>>,
        /// Those that have not.
        left: BTreeSet<ChildId>,
    },
    /// A `wait`.
    Wait {
        /// The child.
        child: ChildId,
        /// What of it.
        until: Until,
    },
    /// A `signal`, for its children to be spawned and for the kernel's word.
    Signal {
        /// What to send.
        signal: Signal,
        /// To which processes of each.
        scope: Scope,
        /// All of the children.
        children: Vec<ChildId>,
        /// Those that are not spawned.
        unspawned: BTreeSet<ChildId>,
        /// Those for which the kernel has not spoken.
        sent: BTreeSet<ChildId>,
        /// What the kernel said of the others, worst last.
        result: SignalResult,
    },
    /// A `logs`, for the text.
    Logs {
        /// The subscription to what follows.
        subscription: Option<SubscriptionId>,
    },
    /// An `upgrade`, for the other program's word.
    Upgrade,
    /// A `shutdown`, for its end.
    Shutdown,
}

/// What became of the signals of one request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SignalResult {
    /// How many children got it.
    pub(crate) delivered: u32,
    /// The last child that was gone.
    pub(crate) gone: Option<ChildId>,
    /// The last child that the kernel protects from the broker.
    pub(crate) refused: Option<ChildId>,
}

/// A `create` that has been checked and is about to be decided.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// What is asked for.
    pub(crate) params: Arc<CreateParams>,
    /// The rights that the child gets.
    pub(crate) run_as: RunAs,
    /// The id that it gets.
    pub(crate) id: ChildId,
    /// What the answer says if a child is created now.
    pub(crate) outcome: Outcome,
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    by_ticket: BTreeMap<Ticket, PendingRequest>,
    next: u64,
}

impl PendingRequests {
    /// Lets a request wait.
    pub(crate) fn add(&mut self, request: PendingRequest) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.by_ticket.insert(ticket, request);
        ticket
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&PendingRequest> {
        self.by_ticket.get(&ticket)
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut PendingRequest> {
        self.by_ticket.get_mut(&ticket)
    }

    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<PendingRequest> {
        self.by_ticket.remove(&ticket)
    }

    /// The tickets for which `wanted` holds, in the order of arrival.
    pub(crate) fn tickets(&self, wanted: impl Fn(&PendingRequest) -> bool) -> Vec<Ticket> {
        self.by_ticket.iter().filter(|(_, request)| wanted(request)).map(|(ticket, _)| *ticket).collect()
    }
}

impl WaitsFor {
    /// What its answer waits for: one that tells how far a child is in its life is not taken back by a crash.
    pub(crate) fn answer_waits_for(&self, result: &Result<Response, Error>) -> After {
        match self {
            // The intent is on record since before the start, and by it a later broker finds the child. That it
            // runs follows, and its creator does not wait for that.
            Self::Start { .. } if result.is_ok() => After::Nothing,
            Self::Start { .. } | Self::Destroy { .. } | Self::Wait { .. } => After::Records,
            Self::Name { .. } | Self::Signal { .. } | Self::Logs { .. } | Self::Upgrade | Self::Shutdown => {
                After::Nothing
            }
        }
    }

    /// The children whose changes matter to the request.
    pub(crate) fn watched(&self) -> Vec<ChildId> {
        match self {
            Self::Name { holder, .. } => vec![*holder],
            Self::Start { child, .. } | Self::Wait { child, .. } => vec![*child],
            Self::Destroy { left, .. } => left.iter().copied().collect(),
            Self::Signal { unspawned, .. } => unspawned.iter().copied().collect(),
            Self::Logs { .. } | Self::Upgrade | Self::Shutdown => Vec::new(),
        }
    }
}

/// The refusal of a create during a shutdown.
pub(crate) fn shutting_down() -> Error {
    Error::new(
        ErrorKind::ShuttingDown,
        "the broker is shutting down and starts no child any more; try again when it is back",
    )
}
