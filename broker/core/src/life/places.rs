//! Places under the key of a limit: who waits for one gets it in his turn.

use procbroker_protocol::Name;
use uuid::Uuid;

use crate::attempt::{Attempt, Waiting};
use crate::broker::Broker;
use crate::child::Child;
use crate::ids::{Call, Ticket};
use crate::limits::OFFERS_A_TURN_MAX;
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
        // Whoever comes between two turns comes after those who wait.
        let is_given = limit.is_some_and(|limit| self.pending.places().is_left_over(&limit.key));
        let (Some(wait), false) = (wants, self.children.has_place(limit) && !is_given) else {
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

    /// A child has ended that had a place under this key: those who wait for one get it in turn, so many of them now, and the
    /// others right after what else is there.
    pub(crate) fn offer_places(&mut self, key: &str, turn: &mut Turn<'_>) {
        let mut offers = 0;
        while let Some(first) = self.pending.next_seeker(key, self.children.limited_count(key)) {
            let Some(uid) = self.pending.get(first).map(|pending| pending.uid) else {
                return;
            };
            if offers == OFFERS_A_TURN_MAX {
                return self.pending.leave_over(key, turn.now.instant, &mut self.timers);
            }
            offers += 1;
            self.contest_place(first, turn);
            // Whoever waits on, because a rival was decided about and failed, has his turn still.
            if self.pending.seeker(first).is_none() {
                self.pending.served(key, uid);
            }
        }
    }

    /// Goes on to give the places that an earlier turn has left over.
    pub(crate) fn offer_left_over(&mut self, turn: &mut Turn<'_>) {
        for key in self.pending.take_left_over() {
            self.offer_places(&key, turn);
        }
    }

    /// Decides about the first create for which there is a place, or about the one that would have its name in the end. Where
    /// that gets the name, all that want it are decided with it. Where it fails, they wait on: the place may be for somebody
    /// who came before them.
    fn contest_place(&mut self, first: Ticket, turn: &mut Turn<'_>) {
        let name = self.pending.seeker(first).and_then(|attempt| attempt.params.name.clone());
        let mut rivals = self.place_rivals(first, name.as_ref());
        let has_place = |waiting: &Waiting| self.children.has_place(waiting.attempt.params.limit.as_ref());
        let winner = rivals.take_winner_of(&self.config, has_place);
        let winner = winner.or_else(|| Some((0, self.pending.waiting_seeker(first)?)));
        let Some((index, Waiting { call, attempt, .. })) = winner else {
            return;
        };
        self.take_pending(attempt.arrived);
        self.decide(call, attempt, turn);
        if !name.is_some_and(|name| self.children.is_held(&name)) {
            return;
        }
        rivals.yield_names(index);
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
        let is_rival = |attempt: &Attempt| !is_held || self.children.has_place(attempt.params.limit.as_ref());
        let wants = |ticket: &Ticket| *ticket == first || self.pending.seeker(*ticket).is_some_and(is_rival);
        let mut seekers = name.map(|name| self.pending.places().of_name(name)).unwrap_or_default();
        seekers.insert(first);
        let seekers = seekers.into_iter().filter(wants);
        let waiting = seekers.filter_map(|ticket| self.pending.waiting_seeker(ticket));
        Rivals::new(&self.config, waiting)
    }

    /// A child was started for a create: those need no place any more that wait for one and would get this child.
    pub(crate) fn join_started(
        &mut self,
        name: Option<&Name>,
        request: Option<(u32, Uuid)>,
        turn: &mut Turn<'_>,
    ) {
        let places = self.pending.places();
        let mut seekers = name.map(|name| places.of_name(name)).unwrap_or_default();
        seekers.extend(request.into_iter().flat_map(|request| places.of_request(request)));
        for ticket in seekers {
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
