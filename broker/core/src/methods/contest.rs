//! Creates that wait for the name of a child: what becomes of them when that is replaced, or holds the name no more.

use std::collections::BTreeSet;

use procbroker_protocol::{ChildId, CreateParams};

use crate::attempt::{Claim, Waiting};
use crate::broker::Broker;
use crate::pending::{PendingRequest, WaitsFor};
use crate::rivals::Rivals;
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
        for ticket in self.pending.watchers(id) {
            self.pending.supersede(ticket, || child.superseded_attempt(ticket));
        }
    }

    /// Decides about every create that waited for the name of a child which holds it no more.
    pub(crate) fn name_is_free(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let (names, _) = self.pending.watchers_by(id, WaitsFor::is_name);
        let waiting = names.into_iter().filter_map(|ticket| self.take_pending(ticket)).collect();
        self.contest(waiting, turn);
    }

    /// Decides about creates that have waited for one name, in the order of their arrival.
    pub(crate) fn contest(&mut self, waiting: Vec<PendingRequest>, turn: &mut Turn<'_>) {
        let kept: BTreeSet<_> = waiting.iter().filter_map(PendingRequest::kept_under).collect();
        let waiting = waiting.into_iter().filter_map(PendingRequest::into_create);
        let mut rivals = Rivals::new(&self.config, waiting);
        while let Some((index, Waiting { call, attempt, .. })) = rivals.take_winner(&self.config) {
            let name = attempt.params.name.clone();
            self.decide(call, attempt, turn);
            if name.is_some_and(|name| self.children.is_held(&name)) {
                rivals.yield_names(index);
                break;
            }
        }
        for Waiting { call, attempt, .. } in rivals {
            self.decide(call, attempt, turn);
        }
        // One of them has taken one of these places, at the most.
        for key in kept {
            self.offer_places(&key, turn);
        }
    }

    /// What a create does about its name: as its `if_exists` says, unless the same request waits already and has another
    /// one's child to wait for.
    pub(crate) fn claim_of(&self, uid: u32, params: &CreateParams) -> Claim {
        let earlier = || {
            let request = params.request_id?;
            let holder = self.children.holder(params.name.as_ref()?)?;
            self.pending.inherited_claim(holder.id(), (uid, request))
        };
        earlier().unwrap_or(Claim::Own(params.if_exists))
    }
}
