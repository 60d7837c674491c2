//! What a request waits for: which children matter to it, what it keeps, and when its answer may be given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::request::Until;
use procbroker_protocol::response::Outcome;
use procbroker_protocol::{Child as ChildView, ChildId, Exit};

use crate::attempt::{Attempt, Claim, KeptPlace, Stage};
use crate::effect::After;
use crate::ids::{SubscriptionId, Ticket};
use crate::limits::{REQUEST_KEPT_BYTES, WATCHED_KEPT_BYTES};
use crate::pending::signal_request::SignalRequest;

/// What a request waits for.
#[derive(Debug)]
pub(crate) enum WaitsFor {
    /// A `create` for a name that is held: decided again when its holder changes.
    Name {
        /// The child that holds the name.
        holder: ChildId,
        /// What the create asks for, and what it does about the name.
        attempt: Box<Attempt>,
    },
    /// A `create` for a place under the key of its limit: decided again when it is its turn for one.
    Place {
        /// What the create asks for, and what it does about the name.
        attempt: Box<Attempt>,
    },
    /// A `create`, for its child to be ready.
    Start {
        /// The child that is waited for.
        child: ChildId,
        /// What to answer then.
        outcome: Outcome,
        /// How far the child has to be.
        stage: Stage,
    },
    /// A `create` whose child has ended before it was ready, for the last of its output.
    Tail {
        /// The child that is waited for.
        child: ChildId,
        /// How that child ended.
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
        /// How they were named.
        meant: Meant,
    },
    /// A `wait`, for its child to be ready or to have ended.
    Wait {
        /// The child that is waited for.
        child: ChildId,
        /// The state that is waited for.
        until: Until,
    },
    /// A `signal`, for its children to be spawned and for the kernel's word.
    Signal(SignalRequest),
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

/// How a request named the children that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// As one, by its id or name: what becomes of it is what becomes of the request.
    TheOne,
    /// As all that match, of which each goes its way.
    WhatMatches,
}

/// Returns how many bytes a request takes for so many children that it waits for.
pub(crate) fn watched_bytes(children: usize) -> u64 {
    WATCHED_KEPT_BYTES.saturating_mul(u64::try_from(children).unwrap_or(u64::MAX))
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
            Self::Signal(_) | Self::Logs { .. } | Self::Upgrade | Self::Shutdown => After::Nothing,
        }
    }

    /// Returns how many bytes it takes by itself, beside what a create asks for: the same as long as it waits.
    pub(super) fn bytes(&self) -> u64 {
        let kept = match self {
            Self::Destroy { ended, left } => watched_bytes(ended.len() + left.len()),
            Self::Restart { children, .. } => watched_bytes(children.len()),
            Self::Signal(signal) => watched_bytes(signal.children().len()),
            Self::Name { .. }
            | Self::Place { .. }
            | Self::Start { .. }
            | Self::Tail { .. }
            | Self::Wait { .. }
            | Self::Logs { .. }
            | Self::Upgrade
            | Self::Shutdown => 0,
        };
        REQUEST_KEPT_BYTES + kept
    }

    /// Returns the place of a create in the order of arrival, where it has started nothing.
    pub(super) fn arrived(&self) -> Option<Ticket> {
        self.attempt().map(|attempt| attempt.arrived)
    }

    /// Returns what a create asks for, where it has started nothing.
    pub(super) fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Name { attempt, .. } | Self::Place { attempt, .. } => Some(attempt),
            Self::Start { .. }
            | Self::Tail { .. }
            | Self::Destroy { .. }
            | Self::Restart { .. }
            | Self::Wait { .. }
            | Self::Signal(_)
            | Self::Logs { .. }
            | Self::Upgrade
            | Self::Shutdown => None,
        }
    }

    /// Returns the key under which one more place is kept for a create, and the child that is stopped for it.
    pub(super) fn kept_place(&self) -> Option<(&str, ChildId)> {
        let Self::Name { holder, attempt } = self else {
            return None;
        };
        match attempt.kept {
            KeptPlace::Reserved => Some((attempt.limit_key()?, *holder)),
            KeptPlace::None | KeptPlace::Holders => None,
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

    /// Returns the create that waits for a place under the key of its limit, if this is one.
    pub(crate) fn seeker(&self) -> Option<&Attempt> {
        match self {
            Self::Place { attempt } => Some(attempt),
            Self::Name { .. }
            | Self::Start { .. }
            | Self::Tail { .. }
            | Self::Destroy { .. }
            | Self::Restart { .. }
            | Self::Wait { .. }
            | Self::Signal(_)
            | Self::Logs { .. }
            | Self::Upgrade
            | Self::Shutdown => None,
        }
    }

    /// Whether a create waits for its child.
    pub(crate) fn is_start(&self) -> bool {
        matches!(self, Self::Start { .. })
    }

    /// Whether a restart waits for the one child that it has named.
    pub(crate) fn is_restart_of_one(&self) -> bool {
        matches!(self, Self::Restart { meant: Meant::TheOne, .. })
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
            Self::Signal(signal) => signal.unspawned().collect(),
            Self::Place { .. } | Self::Tail { .. } | Self::Logs { .. } | Self::Upgrade | Self::Shutdown => {
                Vec::new()
            }
        }
    }
}
