//! Places under the key of a limit: who waits for one gets it in his turn.

use procbroker_protocol::create::Limit;
use procbroker_protocol::{ChildId, Error, ErrorKind, Name};
use uuid::Uuid;

use crate::attempt::{Attempt, KeptPlace, Waiting};
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
        // Whoever comes between two turns comes after those who wait, unless a place is kept for him.
        let is_given = limit.is_some_and(|limit| self.pending.places().is_left_over(&limit.key));
        let has_place = attempt.kept != KeptPlace::None || self.has_place(&attempt) && !is_given;
        let (Some(wait), false) = (wants, has_place) else {
            return Some(attempt);
        };
        let due = attempt.place_by.unwrap_or_else(|| turn.now.instant.plus(wait));
        if due <= turn.now.instant {
            return Some(attempt);
        }
        let attempt = self.with_room(call, uid, attempt, turn)?;
        let attempt = Box::new(Attempt { place_by: Some(due), kept: KeptPlace::None, ..attempt });
        self.wait_for(call, WaitsFor::Place { attempt }, Some(due));
        None
    }

    /// Whether the bounds, and its limit, leave a place for what a create asks for, in the place of a child that it replaces if
    /// there is one. A limit has nothing to say any more about one for which a place is kept.
    ///
    /// # Errors
    /// `limit_exceeded`, with the bound that is reached.
    pub(crate) fn check_place(
        &self,
        uid: u32,
        attempt: &Attempt,
        replaced: Option<ChildId>,
    ) -> Result<(), Error> {
        let replaced = replaced.and_then(|id| self.children.get(id));
        self.children.check_bounds(&self.config, uid, &attempt.params, replaced)?;
        let Some(limit) = attempt.params.limit.as_ref().filter(|_| attempt.kept == KeptPlace::None) else {
            return Ok(());
        };
        let count = self.places_of_others(attempt, limit);
        if count >= limit.max {
            let is_any_kept = self.pending.places().kept_count(&limit.key) > 0;
            let kept = if is_any_kept { " or kept for what replaces others" } else { "" };
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "the limit {:?} is reached: {count} live{kept}, and this create allows {}",
                    limit.key, limit.max
                ),
            ));
        }
        Ok(())
    }

    /// Whether there is a place for a create under its limit, if it has one.
    fn has_place(&self, attempt: &Attempt) -> bool {
        let limit = attempt.params.limit.as_ref();
        limit.is_none_or(|limit| self.places_of_others(attempt, limit) < limit.max)
    }

    /// Returns how many places others have under the limit of a create: live children, and those for which places are kept. A
    /// child that it replaces leaves it its own, and so does another create that replaces the same child.
    fn places_of_others(&self, attempt: &Attempt, limit: &Limit) -> u32 {
        let (key, places) = (limit.key.as_str(), self.pending.places());
        let all = self.children.limited_count(key) + places.kept_count(key);
        let replaced = attempt.params.name.as_ref().filter(|_| attempt.replaces());
        let replaced = replaced.and_then(|name| self.children.holder(name));
        let is_left =
            |child: &Child| self.children.is_placed_under(child, key) || places.is_kept(key, child.id());
        all.saturating_sub(u32::from(replaced.is_some_and(is_left)))
    }

    /// Has a place kept for a create that is about to end the child that holds its name: where there is none it waits for one,
    /// or is refused, and ends nobody. One that is ending anyway is not ended for it.
    pub(crate) fn keep_place(
        &mut self,
        (call, uid): (Call, u32),
        attempt: Attempt,
        holder: ChildId,
        turn: &mut Turn<'_>,
    ) -> Option<Attempt> {
        if self.children.get(holder).is_none_or(Child::is_ending) {
            return Some(attempt);
        }
        let attempt = self.wait_for_place(call, uid, attempt, turn)?;
        if let Err(error) = self.check_place(uid, &attempt, Some(holder)) {
            self.answer(call, Err(error), turn);
            return None;
        }
        let kept = self.place_to_keep(&attempt, holder);
        Some(Attempt { kept, ..attempt })
    }

    /// Returns which place is to be kept for a create for which a child is stopped.
    fn place_to_keep(&self, attempt: &Attempt, stopped: ChildId) -> KeptPlace {
        let (Some(key), Some(stopped)) = (attempt.limit_key(), self.children.get(stopped)) else {
            return KeptPlace::None;
        };
        if self.children.is_placed_under(stopped, key) { KeptPlace::Holders } else { KeptPlace::Reserved }
    }

    /// A child has ended that had a place under this key, or one that was kept is given back: those who wait for one get it in
    /// turn, so many of them now, and the others right after what else is there.
    pub(crate) fn offer_places(&mut self, key: &str, turn: &mut Turn<'_>) {
        let mut offers = 0;
        while let Some(first) = self.pending.next_seeker(key, |attempt| self.has_place(attempt)) {
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
        let lives_on = |broker: &Self| {
            let holder = name.as_ref().and_then(|name| broker.children.holder(name));
            holder.filter(|child| !child.is_ending()).map(Child::id)
        };
        let before = lives_on(self);
        let has_place = |waiting: &Waiting| self.has_place(&waiting.attempt);
        let winner = rivals.take_winner_of(&self.config, has_place);
        let winner = winner.or_else(|| Some((0, self.pending.waiting_seeker(first)?)));
        let Some((index, Waiting { call, attempt, .. })) = winner else {
            return;
        };
        self.take_pending(attempt.arrived);
        self.decide(call, attempt, turn);
        let is_refused = before.is_some() && lives_on(self) == before;
        if is_refused || !name.is_some_and(|name| self.children.is_held(&name)) {
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
        let is_rival = |attempt: &Attempt| !is_held || self.has_place(attempt);
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
