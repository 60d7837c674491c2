//! Requests that are not answered yet, in the order of their arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::request::{Scope, Until};
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{Child as ChildView, ChildId, Exit, Signal};

use crate::attempt::{Attempt, Claim, Stage};
use crate::effect::After;
use crate::ids::{Call, SubscriptionId, Ticket};
use crate::kept::Account;
use crate::limits::{REQUEST_KEPT_BYTES, WATCHED_KEPT_BYTES};
use crate::time::Instant;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    /// Where the answer goes.
    pub(crate) call: Call,
    /// Whose it is.
    pub(crate) uid: u32,
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
    /// A `create` for a place under the key of its limit: decided again when it is its turn for one.
    Place {
        /// Whose it is.
        uid: u32,
        /// The create itself.
        attempt: Box<Attempt>,
    },
    /// A `create`, for its child to be ready.
    Start {
        /// The child.
        child: ChildId,
        /// What to answer then.
        outcome: Outcome,
        /// How far the child has to be.
        stage: Stage,
    },
    /// A `create` whose child has ended before it was ready, for the last of its output.
    Tail {
        /// The child.
        child: ChildId,
        /// How it ended.
        exit: Box<Exit>,
    },
    /// A `destroy`, for all of its children to have ended.
    Destroy {
        /// Those that have, as they were then: some may not be visible any more when the last one ends.
        ended: BTreeMap<ChildId, Arc<ChildView>>,
        /// Those that have not.
        left: BTreeSet<ChildId>,
    },
    /// A `restart`, for its children to be ready again.
    Restart {
        /// All of the children.
        children: Vec<ChildId>,
        /// Those that are not, each with how often it will have been restarted then.
        left: BTreeMap<ChildId, u32>,
    },
    /// A `wait`.
    Wait {
        /// The child.
        child: ChildId,
        /// The state that is waited for.
        until: Until,
    },
    /// A `signal`, for its children to be spawned and for the kernel's word.
    Signal {
        /// The signal that is sent.
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

/// Returns how many bytes a request takes for so many children that it waits for.
pub(crate) fn watched_bytes(children: usize) -> u64 {
    WATCHED_KEPT_BYTES.saturating_mul(u64::try_from(children).unwrap_or(u64::MAX))
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    by_ticket: BTreeMap<Ticket, PendingRequest>,
    next: u64,
    bytes: Account,
}

impl PendingRequests {
    /// Returns the next place in the order of arrival.
    pub(crate) fn arrive(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        ticket
    }

    /// Lets a request wait: a create that waited before has kept its place in the order of arrival.
    pub(crate) fn add(&mut self, request: PendingRequest) -> Ticket {
        let ticket = request.waits_for.arrived().unwrap_or_else(|| self.arrive());
        self.bytes.add(request.uid, request.waits_for.bytes());
        self.by_ticket.insert(ticket, request);
        ticket
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&PendingRequest> {
        self.by_ticket.get(&ticket)
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut PendingRequest> {
        self.by_ticket.get_mut(&ticket)
    }

    /// Has a request wait for something else, in its place in the order of arrival.
    pub(crate) fn change(&mut self, ticket: Ticket, waits_for: WaitsFor) {
        if let Some(request) = self.by_ticket.get_mut(&ticket) {
            self.bytes.remove(request.uid, request.waits_for.bytes());
            self.bytes.add(request.uid, waits_for.bytes());
            request.waits_for = waits_for;
        }
    }

    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<PendingRequest> {
        let request = self.by_ticket.remove(&ticket)?;
        self.bytes.remove(request.uid, request.waits_for.bytes());
        Some(request)
    }

    /// Returns how many bytes the requests take, by user.
    pub(crate) fn bytes(&self) -> &Account {
        &self.bytes
    }

    /// Counts bytes of something else that is kept for a user as long as its connection is open.
    pub(crate) fn keep(&mut self, uid: u32, bytes: u64) {
        self.bytes.add(uid, bytes);
    }

    /// Counts them off.
    pub(crate) fn let_go(&mut self, uid: u32, bytes: u64) {
        self.bytes.remove(uid, bytes);
    }

    /// The tickets for which `wanted` holds, in the order of arrival.
    pub(crate) fn tickets(&self, wanted: impl Fn(&PendingRequest) -> bool) -> Vec<Ticket> {
        self.by_ticket.iter().filter(|(_, request)| wanted(request)).map(|(ticket, _)| *ticket).collect()
    }
}

impl WaitsFor {
    /// What its answer waits for: one that tells how far a child is in its life is not taken back by a crash.
    pub(crate) fn answer_waits_for(&self) -> After {
        match self {
            Self::Start { .. }
            | Self::Tail { .. }
            | Self::Destroy { .. }
            | Self::Restart { .. }
            | Self::Wait { .. } => After::Records,
            Self::Name { attempt, .. } | Self::Place { attempt, .. } => match attempt.claim {
                // A later broker has to know of its own child that it was replaced.
                Claim::Superseded => After::Records,
                Claim::Own(_) | Claim::Yielded => After::Nothing,
            },
            Self::Signal { .. } | Self::Logs { .. } | Self::Upgrade | Self::Shutdown => After::Nothing,
        }
    }

    /// Returns how many bytes it takes: the same as long as it waits.
    fn bytes(&self) -> u64 {
        let kept = match self {
            Self::Name { attempt, .. } | Self::Place { attempt, .. } => attempt.bytes(),
            Self::Destroy { ended, left } => watched_bytes(ended.len() + left.len()),
            Self::Restart { children, .. } | Self::Signal { children, .. } => watched_bytes(children.len()),
            Self::Start { .. }
            | Self::Tail { .. }
            | Self::Wait { .. }
            | Self::Logs { .. }
            | Self::Upgrade
            | Self::Shutdown => 0,
        };
        REQUEST_KEPT_BYTES + kept
    }

    /// Returns the place of a create in the order of arrival, where it has started nothing.
    fn arrived(&self) -> Option<Ticket> {
        match self {
            Self::Name { attempt, .. } | Self::Place { attempt, .. } => Some(attempt.arrived),
            Self::Start { .. }
            | Self::Tail { .. }
            | Self::Destroy { .. }
            | Self::Restart { .. }
            | Self::Wait { .. }
            | Self::Signal { .. }
            | Self::Logs { .. }
            | Self::Upgrade
            | Self::Shutdown => None,
        }
    }

    /// Whether a create waits for a name.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self, Self::Name { .. })
    }

    /// Whether a create waits that has started nothing: for a name, or for a place.
    pub(crate) fn is_unstarted(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::Place { .. })
    }

    /// Returns the key of the limit under which a create waits for a place, and whose create it is.
    pub(crate) fn seeker(&self) -> Option<(&str, u32)> {
        match self {
            Self::Place { uid, attempt } => {
                attempt.params.limit.as_ref().map(|limit| (limit.key.as_str(), *uid))
            }
            Self::Name { .. }
            | Self::Start { .. }
            | Self::Tail { .. }
            | Self::Destroy { .. }
            | Self::Restart { .. }
            | Self::Wait { .. }
            | Self::Signal { .. }
            | Self::Logs { .. }
            | Self::Upgrade
            | Self::Shutdown => None,
        }
    }

    /// Whether a create waits for its child.
    pub(crate) fn is_start(&self) -> bool {
        matches!(self, Self::Start { .. })
    }

    /// Whether a create waits for the last words of its child.
    pub(crate) fn is_tail(&self) -> bool {
        matches!(self, Self::Tail { .. })
    }

    /// Whether an upgrade is waited for.
    pub(crate) fn is_upgrade(&self) -> bool {
        matches!(self, Self::Upgrade)
    }

    /// The children whose changes matter to the request.
    pub(crate) fn watched(&self) -> Vec<ChildId> {
        match self {
            Self::Name { holder, .. } => vec![*holder],
            Self::Start { child, .. } | Self::Wait { child, .. } => vec![*child],
            Self::Destroy { left, .. } => left.iter().copied().collect(),
            Self::Restart { left, .. } => left.keys().copied().collect(),
            Self::Signal { unspawned, .. } => unspawned.iter().copied().collect(),
            Self::Place { .. } | Self::Tail { .. } | Self::Logs { .. } | Self::Upgrade | Self::Shutdown => {
                Vec::new()
            }
        }
    }
}

impl PendingRequest {
    /// Returns the create that waits for a place, if this is one.
    pub(crate) fn seeks(&self) -> Option<&Attempt> {
        match &self.waits_for {
            WaitsFor::Place { attempt, .. } => Some(attempt),
            WaitsFor::Name { .. }
            | WaitsFor::Start { .. }
            | WaitsFor::Tail { .. }
            | WaitsFor::Destroy { .. }
            | WaitsFor::Restart { .. }
            | WaitsFor::Wait { .. }
            | WaitsFor::Signal { .. }
            | WaitsFor::Logs { .. }
            | WaitsFor::Upgrade
            | WaitsFor::Shutdown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ConnectionId;
    use uuid::Uuid;

    fn request(number: u64, waits_for: WaitsFor) -> PendingRequest {
        PendingRequest { call: Call { connection: ConnectionId(1), number }, uid: 7, due: None, waits_for }
    }

    fn child(number: u128) -> ChildId {
        ChildId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn requests_are_found_in_the_order_of_their_arrival() {
        let mut pending = PendingRequests::default();
        let tickets = [WaitsFor::Shutdown, WaitsFor::Upgrade, WaitsFor::Shutdown]
            .into_iter()
            .zip(1..)
            .map(|(waits_for, number)| pending.add(request(number, waits_for)))
            .collect::<Vec<_>>();
        assert_eq!(pending.tickets(|_| true), tickets);
        assert_eq!(pending.tickets(|pending| pending.waits_for.is_upgrade()), [tickets[1]]);
        assert_eq!(pending.take(tickets[0]).map(|taken| taken.call.number), Some(1));
        assert!(pending.take(tickets[0]).is_none(), "a request is answered once");
        assert_eq!(pending.tickets(|_| true), tickets[1..]);
    }

    #[test]
    fn a_destroy_watches_the_children_that_have_not_ended() {
        let left = [child(2), child(3)].into();
        let waits_for = WaitsFor::Destroy { ended: BTreeMap::new(), left };
        assert_eq!(waits_for.watched(), [child(2), child(3)]);
    }

    #[test]
    fn an_answer_that_tells_how_far_a_child_is_waits_for_the_record() {
        let wait = WaitsFor::Wait { child: child(1), until: Until::Ended };
        let (outcome, stage) = (Outcome::Created, Stage::Ready);
        let start = WaitsFor::Start { child: child(1), outcome, stage };
        assert_eq!(wait.answer_waits_for(), After::Records);
        assert_eq!(start.answer_waits_for(), After::Records);
        assert_eq!(WaitsFor::Upgrade.answer_waits_for(), After::Nothing);
    }
}
