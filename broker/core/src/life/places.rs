//! Places under the key of a limit: who waits for one gets it in his turn.

use procbroker_protocol::Name;
use uuid::Uuid;

use crate::attempt::{Attempt, Waiting};
use crate::broker::Broker;
use crate::child::Child;
use crate::ids::{Call, Ticket};
use crate::pending::{PendingRequest, WaitsFor};
use crate::rivals::Rivals;
use crate::turn::Turn;

impl Broker {
    /// Lets a create wait for a place under the key of its limit, if it wants to. Returns it if not.
    pub(crate) fn wait_for_place(
        &mut self,
        call: Call,
        uid: u32,
        attempt: Attempt,
        turn: &mut Turn<'_>,
    ) -> Option<Attempt> {
        let limit = attempt.params.limit.as_ref();
        let wants = limit.and_then(|limit| limit.wait).filter(|wait| !wait.is_zero());
        let (Some(wait), false) = (wants, self.children.has_place(limit)) else {
            return Some(attempt);
        };
        let due = attempt.place_by.unwrap_or_else(|| turn.now.instant.plus(wait));
        if due <= turn.now.instant {
            return Some(attempt);
        }
        let attempt = self.with_room(call, uid, attempt, turn)?;
        let attempt = Box::new(Attempt { place_by: Some(due), ..attempt });
        self.wait_for(call, WaitsFor::Place { attempt }, Some(due));
        None
    }

    /// A child has ended that had a place under this key: those who wait for one get it in turn.
    pub(crate) fn offer_places(&mut self, key: &str, turn: &mut Turn<'_>) {
        while let Some(first) = self.pending.next_seeker(key, self.children.limited_count(key)) {
            let Some(uid) = self.pending.get(first).map(|pending| pending.uid) else {
                return;
            };
            self.contest_place(first, turn);
            // Whoever waits on, because a rival was decided about and failed, has his turn still.
            if self.pending.seeker(first).is_none() {
                self.pending.served(key, uid);
            }
        }
    }

    /// Decides about the first create for which there is a place, or about the one that would have its name in the end. Where
    /// that gets the name, all that want it are decided with it. Where it fails, they wait on: the place may be for somebody
    /// who came before them.
    fn contest_place(&mut self, first: Ticket, turn: &mut Turn<'_>) {
        let name = self.pending.seeker(first).and_then(|attempt| attempt.params.name.clone());
        let mut rivals = self.place_rivals(first, name.as_ref());
        let has_place = |waiting: &Waiting| self.children.has_place(waiting.attempt.params.limit.as_ref());
        let index = rivals.winner_of(&self.config, has_place);
        let winner = index.map(|index| rivals.remove(index)).or_else(|| self.pending.waiting_seeker(first));
        let Some(Waiting { call, attempt, .. }) = winner else {
            return;
        };
        self.take_pending(attempt.arrived);
        self.decide(call, attempt, turn);
        if !name.is_some_and(|name| self.children.is_held(&name)) {
            return;
        }
        rivals.yield_names(index.unwrap_or_default());
        for Waiting { call, attempt, .. } in rivals {
            // It may have joined what was started.
            if self.take_seeker(attempt.arrived) {
                self.decide(call, attempt, turn);
            }
        }
    }

    /// Lets a create wait no longer for a place. Returns whether it did.
    fn take_seeker(&mut self, ticket: Ticket) -> bool {
        self.pending.seeker(ticket).is_some() && self.take_pending(ticket).is_some()
    }

    /// Returns a create that waits for a place, and all those with it that want its name: where that is held, those alone for
    /// which there is a place, because the others end nobody before there is one.
    fn place_rivals(&self, first: Ticket, name: Option<&Name>) -> Rivals {
        let is_held = name.is_some_and(|name| self.children.is_held(name));
        let is_rival = |attempt: &Attempt| {
            let may_start = !is_held || self.children.has_place(attempt.params.limit.as_ref());
            name.is_some() && attempt.params.name.as_ref() == name && may_start
        };
        let wants = |ticket: &Ticket| *ticket == first || self.pending.seeker(*ticket).is_some_and(is_rival);
        let seekers = self.pending.seekers().into_iter().filter(wants);
        seekers.filter_map(|ticket| self.pending.waiting_seeker(ticket)).collect()
    }

    /// A child was started for a create: those need no place any more that wait for one and would get this child.
    pub(crate) fn join_started(
        &mut self,
        name: Option<&Name>,
        request: Option<(u32, Uuid)>,
        turn: &mut Turn<'_>,
    ) {
        for ticket in self.pending.seekers() {
            let joins = |pending: &PendingRequest| {
                let attempt = pending.waits_for.seeker()?;
                let is_same = request.is_some() && attempt.request_of(pending.uid) == request;
                let wants_name = name.is_some() && attempt.params.name.as_ref() == name;
                (is_same || wants_name && attempt.claim.joins()).then(|| (pending.call, attempt.clone()))
            };
            if let Some((call, attempt)) = self.pending.get(ticket).and_then(joins) {
                self.take_pending(ticket);
                self.decide(call, attempt, turn);
            }
        }
    }
}

impl Child {
    /// Returns the key of its limit, if it has one.
    pub(crate) fn limit_key(&self) -> Option<String> {
        self.params().limit.as_ref().map(|limit| limit.key.clone())
    }
}
