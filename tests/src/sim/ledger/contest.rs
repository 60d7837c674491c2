//! What the creates that want one name may still do about it, by the contract.

use std::sync::Arc;

use procbroker_core::{Anchor, Call};
use procbroker_protocol::create::IfExists;
use procbroker_protocol::{ChildId, CreateParams, ExitReason, Name, Request};
use uuid::Uuid;

use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::{Asked, Claim};
use crate::sim::ledger::expected::rights;
use crate::sim::ledger::track::{Demand, Track};

impl Asked {
    /// What it asks to create, if it does.
    #[must_use]
    pub fn create(&self) -> Option<&CreateParams> {
        match &self.request {
            Request::Create(params) => Some(params),
            _ => None,
        }
    }

    /// The user and the id of the request, where it has one.
    #[must_use]
    pub fn request_key(&self) -> Option<(u32, Uuid)> {
        Some((self.peer.uid, self.create()?.request_id?))
    }

    /// What it does about a child that is there.
    #[must_use]
    pub fn if_exists(&self) -> IfExists {
        match self.claim {
            Claim::Own => self.create().map_or(IfExists::Fail, |params| params.if_exists),
            Claim::Yielded | Claim::Superseded(..) => IfExists::Reuse,
        }
    }

    /// The name that it is about.
    #[must_use]
    pub fn wanted_name(&self) -> Option<&Name> {
        match &self.claim {
            Claim::Own | Claim::Yielded => self.create()?.name.as_ref(),
            Claim::Superseded(params, ..) => params.name.as_ref(),
        }
    }

    /// The process that its child is to live as long as.
    #[must_use]
    pub fn anchor(&self) -> Option<Anchor> {
        self.fresh.anchor.as_deref()?.ok().map(|seen| seen.anchor)
    }

    /// Whether the child that it gets need not be ready.
    #[must_use]
    pub fn wants_only_a_process(&self) -> bool {
        match &self.claim {
            Claim::Own | Claim::Yielded => self.create().is_some_and(|params| params.no_wait),
            Claim::Superseded(params, _, _) => params.no_wait,
        }
    }

    /// Whether its own child was replaced.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        matches!(self.claim, Claim::Superseded(..))
    }
}

impl Ledger {
    /// What a create that comes now may do about its name: as the same request does that waits already.
    pub(super) fn inherit_claim(&mut self, call: Call) {
        let Some(asked) = self.calls.get(&call) else { return };
        let (Some(params), Some(key)) = (asked.create(), asked.request_key()) else { return };
        let claim = if let Some(track) = self.superseded(key.0, key.1) {
            Some(Claim::Superseded(Arc::clone(&track.params), Some(track.run_as.clone()), track.anchor))
        } else if self.is_held(params.name.as_ref()) && self.first_answer(key.0, key.1).is_none() {
            let others = self.waiting.iter().filter_map(|other| self.calls.get(other));
            let mut same = others.filter(|other| other.request_key() == Some(key) && other.at_name(params));
            same.find_map(|other| match &other.claim {
                Claim::Own => None,
                Claim::Yielded => Some(Claim::Yielded),
                Claim::Superseded(..) => {
                    let own = rights(self.config.broker_uid, asked);
                    Some(Claim::Superseded(Arc::new(params.clone()), own, asked.anchor()))
                }
            })
        } else {
            None
        };
        if let (Some(claim), Some(asked)) = (claim, self.calls.get_mut(&call)) {
            asked.claim = claim;
        }
    }

    /// Nobody holds a name any more: whoever has waited for it, and whose request was met by another child meanwhile, waits
    /// for that one, or for what takes its place.
    pub(super) fn name_is_free(&mut self, name: Option<&Name>) {
        let waits = |asked: &Asked| !asked.is_superseded() && asked.wanted_name() == name;
        let waiting = self.waiting.iter().copied().filter(|call| self.calls.get(call).is_some_and(waits));
        for call in waiting.collect::<Vec<_>>() {
            let key = self.calls.get(&call).and_then(Asked::request_key);
            let is_met = key.is_some_and(|(uid, request)| self.first_answer(uid, request).is_some());
            if let Some(asked) = self.calls.get_mut(&call) {
                asked.has_joined |= is_met;
            }
            if let Some(track) = key.and_then(|(uid, request)| self.superseded(uid, request)) {
                let rights = Some(track.run_as.clone());
                let claim = Claim::Superseded(Arc::clone(&track.params), rights, track.anchor);
                if let Some(asked) = self.calls.get_mut(&call) {
                    asked.claim = claim;
                }
            }
        }
    }

    /// The child that a request has started, and that was replaced before it was ready, as long as nobody was told what became
    /// of it.
    #[must_use]
    pub fn superseded(&self, uid: u32, request: Uuid) -> Option<&Track> {
        // Where another one was started for it since, that one counts, whatever has become of it.
        let started = self.started_for(uid, request).into_iter().next();
        started.filter(|track| track.superseded && !track.forgotten && !track.refused)
    }

    fn is_held(&self, name: Option<&Name>) -> bool {
        name.is_some_and(|name| self.holder(name).is_some())
    }

    /// A `replace` wants a child stopped. Whoever waits for it to be ready gets the one that takes its place.
    pub(super) fn replaced(&mut self, id: ChildId) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        if track.demands.iter().any(|demand| demand.reason == ExitReason::Replaced) {
            return;
        }
        // Whoever has created one that was ready before was answered long ago.
        let goes_on = track.demands.is_empty() && !track.is_ending() || track.is_to_run_again();
        let is_unready = track.is_unanswered() && goes_on;
        let steps = track.params.stop.clone();
        track.demand(Demand { reason: ExitReason::Replaced, steps });
        if !is_unready {
            return;
        }
        track.superseded = true;
        let track: &Track = track;
        let claim = Claim::Superseded(Arc::clone(&track.params), Some(track.run_as.clone()), track.anchor);
        let key = track.params.request_id.map(|request| (track.owner.uid, request));
        for call in &self.waiting {
            let Some(asked) = self.calls.get_mut(call) else { continue };
            let same = key.is_some() && asked.request_key() == key;
            // One that waited for a place has joined the one that was started.
            let waits = call.number > track.call.number
                || asked.sought_since.is_some()
                || asked.has_joined
                || asked.create().is_some_and(|it| it.name == track.params.name);
            if asked.fresh.child == id || same && waits {
                asked.claim = claim.clone();
            }
        }
    }

    /// A child is started for a create: those that wanted to replace what was there before get this one.
    pub(super) fn has_won(&mut self, call: Call) {
        let Some(winner) = self.calls.get(&call) else { return };
        let Some(name) = winner.wanted_name().cloned() else { return };
        let (seeks, mut yielding) = (winner.seeks, Vec::new());
        let tried = self.tried_before(call, &name);
        for other in &tried {
            if let Some(asked) = self.calls.get_mut(other) {
                asked.seeks = true;
                asked.sought_since.get_or_insert(self.now);
            }
        }
        for other in self.in_order().into_iter().filter(|other| !tried.contains(other)) {
            let Some(asked) = self.calls.get_mut(&other) else { continue };
            // What waits for a place is not among those that wait for the name.
            let is_rival = asked.wanted_name() == Some(&name) && asked.seeks == seeks;
            let is_rival = is_rival && asked.claim == Claim::Own && other != call;
            let is_retry = asked.request_key().is_some_and(|key| yielding.contains(&key));
            if is_rival && asked.if_exists() == IfExists::Replace && (other.number < call.number || is_retry)
            {
                yielding.extend(asked.request_key());
                asked.claim = Claim::Yielded;
            }
        }
    }

    /// A child that would live on is ended for another one, and for none that has come in this turn: of those that wait for
    /// places and want its name it was the turn. Returns them, and which of them takes its place.
    #[must_use]
    pub fn whose_turn(&self, id: ChildId) -> Option<(Call, Vec<Call>)> {
        let track = self.tracks.get(&id).filter(|track| !track.is_doomed())?;
        let name = track.params.name.clone()?;
        let mut rivals = self.in_order();
        rivals.retain(|call| {
            let asked = self.calls.get(call);
            asked.is_some_and(|asked| {
                asked.seeks && asked.wanted_name() == Some(&name) && !self.is_without_place(asked)
            })
        });
        Some((self.first_to_hold(&rivals)?, rivals))
    }

    /// Takes down whose turn it was.
    pub fn note_turn(&mut self, id: ChildId, winner: Call, rivals: Vec<Call>) {
        self.others_may_have_had_their_turns(winner);
        self.place_given(winner);
        for other in rivals {
            let Some(asked) = self.calls.get_mut(&other) else { continue };
            asked.seeks = false;
            if other.number < winner.number && asked.claim == Claim::Own {
                let replaces = asked.if_exists() == IfExists::Replace;
                asked.claim = if replaces { Claim::Yielded } else { Claim::Own };
            }
        }
        self.keeps_place(winner, id);
        self.replaced(id);
    }

    /// The creates that would have got a name before this one, and wait for a place under their limits instead.
    fn tried_before(&self, call: Call, name: &Name) -> Vec<Call> {
        let Some(seeks) = self.calls.get(&call).map(|asked| asked.seeks) else { return Vec::new() };
        let mut left = self.in_order();
        left.retain(|other| {
            let is_rival = |asked: &Asked| asked.wanted_name() == Some(name) && asked.seeks == seeks;
            self.calls.get(other).is_some_and(is_rival)
        });
        let mut tried = Vec::new();
        while let Some(first) = self.first_to_hold(&left).filter(|first| *first != call) {
            left.retain(|other| *other != first);
            let is_patient = |asked: &Asked| {
                asked.patience().is_some() && asked.kept_for.is_none() && self.is_without_place(asked)
            };
            if self.calls.get(&first).is_some_and(is_patient) {
                tried.push(first);
            }
        }
        tried
    }

    /// The create that would hold the name in the end if all of these were carried out one after the other.
    fn first_to_hold(&self, calls: &[Call]) -> Option<Call> {
        let mut requests = Vec::new();
        let mut holder: Option<(Call, u32)> = None;
        for call in calls {
            let Some(asked) = self.calls.get(call) else { continue };
            let replaces = asked.if_exists() == IfExists::Replace;
            // A retry is in the place of the request itself.
            let key = asked.request_key().filter(|_| replaces);
            if key.is_some_and(|key| requests.contains(&key)) {
                continue;
            }
            requests.extend(key);
            let uid = asked.peer.uid;
            let wins = match holder {
                _ if asked.is_superseded() => false,
                None => true,
                Some((_, before)) => replaces && (before == uid || self.is_administrator(uid)),
            };
            if wins {
                holder = Some((*call, uid));
            }
        }
        holder.map(|(call, _)| call)
    }

    /// The requests that wait and may still get something, in the order of their arrival.
    fn in_order(&self) -> Vec<Call> {
        // One that is about to be told that its child has failed wants nothing any more.
        let wants = |call: &Call| self.calls.get(call).is_some_and(|asked| !asked.reading);
        let mut calls: Vec<Call> = self.waiting.iter().copied().filter(wants).collect();
        calls.sort_by_key(|call| call.number);
        calls
    }

    /// The create that was to get a name in the place of this one, if any: the last one that waits and would replace.
    #[must_use]
    pub fn better_claim(&self, call: Call) -> Option<Call> {
        let asked = self.calls.get(&call)?;
        let name = asked.wanted_name()?;
        let mut earlier = Vec::new();
        self.in_order().into_iter().find(|other| {
            let Some(rival) = self.calls.get(other).filter(|rival| rival.wanted_name() == Some(name)) else {
                return false;
            };
            let lacks_place =
                rival.patience().is_some() && rival.kept_for.is_none() && self.is_without_place(rival);
            if rival.seeks != asked.seeks || lacks_place {
                return false;
            }
            let key = rival.request_key();
            if key.is_some_and(|(uid, request)| self.first_answer(uid, request).is_some()) {
                // It waits for the child that the same request has started.
                return false;
            }
            // A retry has the place of the request itself.
            let is_retry = rival.request_key().is_some_and(|key| earlier.contains(&key));
            let replaces = rival.if_exists() == IfExists::Replace;
            earlier.extend(rival.request_key().filter(|_| replaces));
            let may = rival.peer.uid == asked.peer.uid || self.is_administrator(rival.peer.uid);
            other.number > call.number && !is_retry && may && replaces
        })
    }
}

impl Asked {
    fn at_name(&self, params: &CreateParams) -> bool {
        params.name.is_some() && self.wanted_name() == params.name.as_ref()
    }
}
