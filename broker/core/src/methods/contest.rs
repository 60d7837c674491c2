//! Several creates want one name: which of them gets it, and what becomes of the others.
//!
//! They are decided as if each had come after the one before was carried out, but nothing is started that would be
//! replaced at once: the last `replace` starts its child, and everybody before it is answered with that one.

use std::collections::BTreeSet;

use procbroker_protocol::create::IfExists;
use procbroker_protocol::{ChildId, CreateParams, Name, Owner};
use uuid::Uuid;

use crate::attempt::{Attempt, Claim, Waiting};
use crate::authorize::{self, Peer};
use crate::broker::Broker;
use crate::ids::Call;
use crate::pending::{PendingRequest, WaitsFor};
use crate::turn::Turn;

impl Broker {
    /// Lets every create whose child is replaced before it was ready wait for the one that takes its place.
    pub(crate) fn supersede(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(id) else {
            return;
        };
        // Whoever has created one that was ready before was answered long ago.
        if !child.is_unanswered() || child.is_ending() {
            return;
        }
        child.is_replaced_unready();
        for ticket in child.watchers() {
            if self.pending.get(ticket).is_some_and(|pending| pending.waits_for.is_start()) {
                let attempt = Box::new(child.superseded_attempt(ticket));
                self.pending.change(ticket, WaitsFor::Name { holder: id, attempt });
            }
        }
    }

    /// Decides about every create that waited for the name of a child which holds it no more.
    pub(crate) fn name_is_free(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let (names, _) = self.watchers(id, WaitsFor::is_name);
        let waiting = names.into_iter().filter_map(|ticket| self.take_pending(ticket)).collect();
        self.contest(waiting, turn);
    }

    /// Decides about creates that have waited for one name, in the order of their arrival.
    pub(crate) fn contest(&mut self, waiting: Vec<PendingRequest>, turn: &mut Turn<'_>) {
        let attempt = |pending: PendingRequest| match pending.waits_for {
            WaitsFor::Name { attempt, .. } => Some((pending.call, *attempt)),
            WaitsFor::Place { .. }
            | WaitsFor::Start { .. }
            | WaitsFor::Tail { .. }
            | WaitsFor::Destroy { .. }
            | WaitsFor::Restart { .. }
            | WaitsFor::Wait { .. }
            | WaitsFor::Signal { .. }
            | WaitsFor::Logs { .. }
            | WaitsFor::Upgrade
            | WaitsFor::Shutdown => None,
        };
        let mut waiting: Vec<Waiting> = waiting.into_iter().filter_map(attempt).collect();
        while let Some(index) = self.winner(&waiting) {
            let (call, attempt) = waiting.remove(index);
            let name = attempt.params.name.clone();
            self.decide(call, attempt, turn);
            if name.is_some_and(|name| self.is_held(&name)) {
                self.yield_names(&mut waiting, index);
                break;
            }
        }
        for (call, attempt) in waiting {
            self.decide(call, attempt, turn);
        }
    }

    /// Has the first `count` creates reuse what was started in the place of theirs, and their retries with them.
    pub(crate) fn yield_names(&self, waiting: &mut [Waiting], count: usize) {
        let first = waiting.iter().take(count).filter(|(_, attempt)| attempt.replaces());
        let yielding: Vec<_> = first.filter_map(|(call, attempt)| self.request(*call, attempt)).collect();
        for (index, (call, attempt)) in waiting.iter_mut().enumerate() {
            let is_retry = self.request(*call, attempt).is_some_and(|request| yielding.contains(&request));
            if index < count || is_retry {
                attempt.yield_name();
            }
        }
    }

    /// Returns the user and the id of a request, where it has one.
    fn request(&self, call: Call, attempt: &Attempt) -> Option<(u32, Uuid)> {
        let connection = self.connection(call.connection)?;
        attempt.params.request_id.map(|request| (connection.peer().uid, request))
    }

    /// What a create does about its name: as its `if_exists` says, unless the same request waits already and has another
    /// one's child to wait for.
    pub(crate) fn claim_of(&self, peer: &Peer, params: &CreateParams) -> Claim {
        let earlier = || {
            let request = params.request_id?;
            let holder = self.children.holder(params.name.as_ref()?)?;
            let waiting = holder.watchers().into_iter().filter_map(|ticket| self.pending.get(ticket));
            waiting.into_iter().find_map(|pending| match &pending.waits_for {
                WaitsFor::Name { attempt, .. }
                    if self.request(pending.call, attempt) == Some((peer.uid, request)) =>
                {
                    attempt.claim.inherited()
                }
                WaitsFor::Name { .. }
                | WaitsFor::Place { .. }
                | WaitsFor::Start { .. }
                | WaitsFor::Tail { .. }
                | WaitsFor::Destroy { .. }
                | WaitsFor::Restart { .. }
                | WaitsFor::Wait { .. }
                | WaitsFor::Signal { .. }
                | WaitsFor::Logs { .. }
                | WaitsFor::Upgrade
                | WaitsFor::Shutdown => None,
            })
        };
        earlier().unwrap_or(Claim::Own(params.if_exists))
    }

    /// Finds the create whose child would hold the name in the end if all were carried out one after the other.
    pub(crate) fn winner(&self, waiting: &[Waiting]) -> Option<usize> {
        let mut holder: Option<(usize, Owner)> = None;
        let mut requests = BTreeSet::new();
        for (index, (call, attempt)) in waiting.iter().enumerate() {
            // A retry is in the place of the request itself.
            let request = self.request(*call, attempt).filter(|_| attempt.replaces());
            if request.is_some_and(|request| !requests.insert(request)) {
                continue;
            }
            let Some(connection) = self.connection(call.connection) else {
                continue;
            };
            let peer = connection.peer();
            let owner = Owner { uid: peer.uid, gid: peer.gid };
            let wins = match (attempt.claim, holder) {
                (Claim::Own(_) | Claim::Yielded, None) => true,
                (Claim::Own(IfExists::Replace), Some((_, before))) => {
                    authorize::may_act_on(&self.config, peer, before.uid)
                }
                (Claim::Own(IfExists::Reuse | IfExists::Fail) | Claim::Yielded, Some(_))
                | (Claim::Superseded, _) => false,
            };
            if wins {
                holder = Some((index, owner));
            }
        }
        holder.map(|(index, _)| index)
    }

    /// Whether a live child has this name.
    pub(crate) fn is_held(&self, name: &Name) -> bool {
        self.children.holder(name).is_some()
    }
}

impl Attempt {
    /// Has it reuse what a later `replace` starts in the place of what it would have started.
    fn yield_name(&mut self) {
        if self.replaces() {
            self.claim = Claim::Yielded;
        }
    }

    /// Whether it would end what holds its name.
    fn replaces(&self) -> bool {
        self.claim == Claim::Own(IfExists::Replace)
    }
}
