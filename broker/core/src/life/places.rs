//! Places under the key of a limit: who waits for one gets it in his turn.

use procbroker_protocol::Name;
use uuid::Uuid;

use crate::attempt::{Attempt, Waiting};
use crate::broker::Broker;
use crate::child::Child;
use crate::ids::{Call, Ticket};
use crate::pending::{PendingRequest, WaitsFor};
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
        let (Some(wait), false) = (wants, self.has_place(&attempt)) else {
            return Some(attempt);
        };
        let due = attempt.place_by.unwrap_or_else(|| turn.now.instant.plus(wait));
        if due <= turn.now.instant {
            return Some(attempt);
        }
        let attempt = self.with_room(call, uid, attempt, turn)?;
        let attempt = Box::new(Attempt { place_by: Some(due), ..attempt });
        self.wait_for(call, WaitsFor::Place { uid, attempt }, Some(due));
        None
    }

    /// A child has ended that had a place under this key: those who wait for one get it in turn.
    pub(crate) fn offer_places(&mut self, key: &str, turn: &mut Turn<'_>) {
        while let Some(first) = self.next_for_place(key) {
            let Some(uid) = self.pending.get(first).map(|pending| pending.uid) else {
                return;
            };
            self.contest_place(first, turn);
            // Whoever waits on, because a rival was decided about and failed, has his turn still.
            if self.seeks(first).is_none() {
                self.places.served(key, uid);
            }
        }
    }

    /// Decides about the first create for which there is a place, or about the one that would have its name in the end. Where
    /// that gets the name, all that want it are decided with it. Where it fails, they wait on: the place may be for somebody
    /// who came before them.
    fn contest_place(&mut self, first: Ticket, turn: &mut Turn<'_>) {
        let name = self.seeks(first).and_then(|attempt| attempt.params.name.clone());
        let rivals = self.place_seekers(first, name.as_ref());
        let mut rivals: Vec<_> = rivals.into_iter().filter_map(|ticket| self.seeker(ticket)).collect();
        let index = self.placed_winner(&mut rivals);
        let winner = index.map(|index| rivals.remove(index)).or_else(|| self.seeker(first));
        let Some((call, attempt)) = winner else {
            return;
        };
        self.take_pending(attempt.arrived);
        self.decide(call, attempt, turn);
        if !name.is_some_and(|name| self.is_held(&name)) {
            return;
        }
        self.yield_names(&mut rivals, index.unwrap_or_default());
        for (call, attempt) in rivals {
            // It may have joined what was started.
            if self.seeks(attempt.arrived).is_some() {
                self.take_pending(attempt.arrived);
                self.decide(call, attempt, turn);
            }
        }
    }

    /// Finds the rival who would have the name in the end, of those for whom there is a place: who would have it and has no
    /// place waits on, and is no rival.
    fn placed_winner(&self, rivals: &mut Vec<Waiting>) -> Option<usize> {
        while let Some(index) = self.winner(rivals) {
            if rivals.get(index).is_some_and(|(_, attempt)| self.has_place(attempt)) {
                return Some(index);
            }
            rivals.remove(index);
        }
        None
    }

    fn next_for_place(&self, key: &str) -> Option<Ticket> {
        let count = self.children.limited_count(key);
        self.places.in_turn(key).find(|ticket| match self.pending.get(*ticket).map(|it| &it.waits_for) {
            Some(WaitsFor::Place { attempt, .. }) => {
                attempt.params.limit.as_ref().is_some_and(|limit| limit.max > count)
            }
            Some(_) | None => false,
        })
    }

    /// Returns a create that waits for a place, and all those with it that want its name: where that is held, those alone for
    /// which there is a place, because the others end nobody before there is one.
    fn place_seekers(&self, first: Ticket, name: Option<&Name>) -> Vec<Ticket> {
        let is_held = name.is_some_and(|name| self.is_held(name));
        let is_rival = |attempt: &Attempt| {
            name.is_some() && attempt.params.name.as_ref() == name && (!is_held || self.has_place(attempt))
        };
        let wants = |ticket: &Ticket| *ticket == first || self.seeks(*ticket).is_some_and(is_rival);
        self.places.all().into_iter().filter(wants).collect()
    }

    /// Whether there is a place for a create under its limit, if it has one.
    fn has_place(&self, attempt: &Attempt) -> bool {
        let limit = attempt.params.limit.as_ref();
        limit.is_none_or(|limit| self.children.limited_count(&limit.key) < limit.max)
    }

    fn seeks(&self, ticket: Ticket) -> Option<&Attempt> {
        self.pending.get(ticket).and_then(PendingRequest::seeks)
    }

    fn seeker(&self, ticket: Ticket) -> Option<Waiting> {
        let pending = self.pending.get(ticket)?;
        Some((pending.call, pending.seeks()?.clone()))
    }

    /// A child was started for a create: those need no place any more that wait for one and would get this child.
    pub(crate) fn join_started(
        &mut self,
        name: Option<&Name>,
        request: Option<(u32, Uuid)>,
        turn: &mut Turn<'_>,
    ) {
        for ticket in self.places.all() {
            let Some(PendingRequest { waits_for: WaitsFor::Place { uid, attempt }, call, .. }) =
                self.pending.get(ticket)
            else {
                continue;
            };
            let key = attempt.params.request_id.map(|request| (*uid, request));
            let is_same = key.is_some() && key == request;
            let joins = name.is_some() && attempt.params.name.as_ref() == name && attempt.claim.joins();
            if is_same || joins {
                let (call, attempt) = (*call, attempt.clone());
                self.take_pending(ticket);
                self.decide(call, *attempt, turn);
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
