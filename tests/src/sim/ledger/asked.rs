//! What is known of one request and of one connection.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use procbroker_core::{Anchor, Fresh, Peer, RunAs, SignalOutcome};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{ChildId, CreateParams, Request};

/// One connection.
#[derive(Clone, Debug)]
pub struct Link {
    /// Who is at its other end.
    pub peer: Peer,
    /// Whether it was admitted.
    pub admitted: bool,
    /// Whether it was refused.
    pub refused: bool,
    /// Whether it is there.
    pub open: bool,
    /// How many of its requests are not answered.
    pub unanswered: u32,
}

/// One request.
#[expect(clippy::struct_excessive_bools, reason = "facts that come one by one and do not exclude each other")]
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asked.
    pub peer: Peer,
    /// For what.
    pub request: Request,
    /// When.
    pub at: u64,
    /// What the broker was told beside.
    pub fresh: Fresh,
    /// The kind of the error that it has to be answered with at once, by what it is alone.
    pub refusal: Option<&'static str>,
    /// The children that it meant when it came; none where there was no such child.
    pub meant: Option<Vec<ChildId>>,
    /// Whether it was answered.
    pub answered: bool,
    /// For a signal: the children that it was sent to.
    pub sent: BTreeSet<ChildId>,
    /// For a signal: those of which the kernel has not spoken.
    pub outstanding: BTreeSet<ChildId>,
    /// For a signal: what the kernel said.
    pub outcomes: Vec<SignalOutcome>,
    /// For `logs`, and for a create whose child has failed: whether the output is being read.
    pub reading: bool,
    /// For a create: whether it waits for a place under its limit.
    pub seeks: bool,
    /// Whether it may have had a place, and have gone on to wait for its name, before another one took that place in the same
    /// turn.
    pub may_have_had_its_turn: bool,
    /// And since when it did first.
    pub sought_since: Option<u64>,
    /// For a create that replaces, with a limit: the child that it has ended, for whose sake a place is kept for it.
    pub kept_for: Option<ChildId>,
    /// Whether the name that it has waited for was free once, and it waits for the child of the same request since.
    pub has_joined: bool,
    /// For a create that waits: what it may still do about its name.
    pub claim: Claim,
    /// For a restart: the children that it may restart, and how often each will have been restarted then.
    pub wishes: BTreeMap<ChildId, u32>,
    /// For a restart: those that run again.
    pub runs_again: BTreeSet<ChildId>,
    /// For a restart of one child: why its program could not be executed again.
    pub not_started_again: Option<SpawnFailure>,
}

/// What a create that waits may do about its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// What its `if_exists` says.
    Own,
    /// It reuses what a later `replace` has started, or starts its own.
    Yielded,
    /// Its child was replaced before it was ready: it gets the one in the place of that, and starts none. What counts is
    /// how that was asked for, the rights that it had, and the process that it was to live as long as.
    Superseded(Arc<CreateParams>, Option<RunAs>, Option<Anchor>),
}
