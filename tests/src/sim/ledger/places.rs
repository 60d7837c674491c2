//! Which creates wait for a place under the key of a limit, and whose turns were passed over, by the contract.

use std::collections::{BTreeMap, BTreeSet};

use procbroker_core::Call;
use procbroker_protocol::ChildId;
use procbroker_protocol::create::{IfExists, Limit};
use procbroker_protocol::duration::nanos;

use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::{Asked, Claim};
use crate::sim::ledger::track::Track;

/// For each key and each user who waits for a place under it: who has had a turn since his last one, while he could have.
pub type Turns = BTreeMap<(String, u32), BTreeSet<u32>>;

impl Asked {
    /// The limit under which it waits for a place, if it wants to.
    #[must_use]
    pub fn patience(&self) -> Option<(&Limit, u64)> {
        let limit = self.create()?.limit.as_ref()?;
        let wait = limit.wait.filter(|wait| !wait.is_zero())?;
        Some((limit, nanos(wait)))
    }

    /// Whether it is to have a place under a key.
    #[must_use]
    pub fn is_under(&self, key: &str) -> bool {
        let limit = self.create().and_then(|params| params.limit.as_ref());
        limit.is_some_and(|limit| limit.key == key)
    }

    /// Until when it waits for a place, once it does.
    #[must_use]
    pub fn waits_for_place_until(&self) -> Option<u64> {
        let (_, wait) = self.patience()?;
        Some(self.sought_since?.saturating_add(wait))
    }
}

impl Track {
    /// Whether it was to have a place under a key.
    #[must_use]
    pub fn is_under(&self, key: &str) -> bool {
        self.params.limit.as_ref().is_some_and(|limit| limit.key == key)
    }
}

impl Ledger {
    /// How many live children have a place under a key. One that never was has none.
    #[must_use]
    pub fn count_under(&self, key: &str) -> u32 {
        let placed = self.live_tracks().filter(|track| !track.never_was());
        let under = placed.filter(|track| track.is_under(key));
        u32::try_from(under.count()).unwrap_or(u32::MAX)
    }

    /// For which children, that are ended and have none themselves, places are kept under a key.
    #[must_use]
    pub fn kept_under(&self, key: &str) -> BTreeSet<ChildId> {
        let waiting = self.waiting.iter().filter_map(|call| self.calls.get(call));
        let kept = waiting.filter(|asked| asked.is_under(key) && asked.if_exists() == IfExists::Replace);
        let holders = kept.filter_map(|asked| self.tracks.get(&asked.kept_for?));
        let placed_else = holders.filter(|track| track.is_live() && !track.is_under(key));
        placed_else.map(|track| track.run.child).collect()
    }

    /// How many places live children and those that take the place of others have under a key.
    #[must_use]
    pub fn taken_under(&self, key: &str) -> u32 {
        let kept = u32::try_from(self.kept_under(key).len()).unwrap_or(u32::MAX);
        self.count_under(key).saturating_add(kept)
    }

    /// Whether there is no place for a create under its limit. What it replaces leaves it its own, and the one that is kept.
    #[must_use]
    pub fn is_without_place(&self, asked: &Asked) -> bool {
        let Some(limit) = asked.create().and_then(|params| params.limit.as_ref()) else { return false };
        let replaces = asked.if_exists() == IfExists::Replace;
        let holder = asked.wanted_name().filter(|_| replaces).and_then(|name| self.holder(name));
        let is_left = |track: &Track| {
            track.is_under(&limit.key) && !track.never_was()
                || self.kept_under(&limit.key).contains(&track.run.child)
        };
        let own = u32::from(holder.is_some_and(is_left));
        self.taken_under(&limit.key).saturating_sub(own) >= limit.max
    }

    /// A create has ended a child: a place is kept for it from now on.
    pub(super) fn keeps_place(&mut self, call: Call, ended: ChildId) {
        if let Some(asked) = self.calls.get_mut(&call)
            && asked.create().is_some_and(|params| params.limit.is_some())
        {
            asked.kept_for = Some(ended);
        }
    }

    /// The other creates that wait for a place under this key and could have it now.
    pub fn could_have_place(&self, call: Call, key: &str) -> impl Iterator<Item = &Asked> {
        let count = self.taken_under(key);
        self.seekers().filter(move |(other, _)| *other != call).filter_map(move |(_, asked)| {
            let (limit, _) = asked.patience()?;
            // Whose name is held by another one has to wait for that, place or no place.
            let is_held = asked.wanted_name().is_some_and(|name| self.holder(name).is_some());
            (limit.key == key && limit.max > count && !is_held).then_some(asked)
        })
    }

    /// The creates that wait for a place.
    pub fn seekers(&self) -> impl Iterator<Item = (Call, &Asked)> {
        let asked = self.waiting.iter().filter_map(|call| Some((*call, self.calls.get(call)?)));
        asked.filter(|(_, asked)| asked.seeks)
    }

    /// Whether the create that a child is started for has waited for a place.
    #[must_use]
    pub fn is_for_a_seeker(&self, child: ChildId) -> bool {
        let call = self.handed_out.get(&child);
        call.and_then(|call| self.calls.get(call)).is_some_and(|asked| asked.seeks)
    }

    /// Whether another create waits for a place that wants the same name: which of them gets it is one decision.
    #[must_use]
    pub fn has_rival_seeker(&self, call: Call) -> bool {
        let Some(name) = self.calls.get(&call).and_then(Asked::wanted_name) else { return false };
        self.seekers().any(|(other, asked)| other != call && asked.wanted_name() == Some(name))
    }

    /// A place is taken: those who have waited for it, and whose names are held, may have had it first and go on to wait for
    /// their names.
    pub(super) fn others_may_have_had_their_turns(&mut self, call: Call) {
        let taken = self.calls.get(&call).and_then(Asked::create).and_then(|params| params.limit.clone());
        let Some(Limit { key, .. }) = taken else { return };
        let may_have = |asked: &Asked| {
            let is_held = asked.wanted_name().is_some_and(|name| self.holder(name).is_some());
            asked.is_under(&key) && !self.is_without_place(asked) && is_held
        };
        let calls: Vec<Call> =
            self.seekers().filter(|(_, asked)| may_have(asked)).map(|(other, _)| other).collect();
        for other in calls {
            if let Some(asked) = self.calls.get_mut(&other) {
                asked.may_have_had_its_turn = true;
            }
        }
    }

    /// A create that waited for a place gets it: it is the turn of its user.
    pub(super) fn place_given(&mut self, call: Call) {
        let Some(asked) = self.calls.get(&call).filter(|asked| asked.seeks) else { return };
        let Some((Limit { key, .. }, _)) = asked.patience() else { return };
        let (key, uid) = (key.clone(), asked.peer.uid);
        if self.has_rival_seeker(call) {
            return self.turns_are_taken(&key);
        }
        let waiting: BTreeSet<u32> =
            self.could_have_place(call, &key).map(|asked| asked.peer.uid).filter(|it| *it != uid).collect();
        for ((of, user), passed) in &mut self.turns {
            if *of == key && !waiting.contains(user) {
                passed.clear();
            }
        }
        for user in waiting {
            self.turns.entry((key.clone(), user)).or_default().insert(uid);
        }
    }

    /// A create that could have had a place was answered otherwise: nobody knows whose turn was taken.
    pub(super) fn place_declined(&mut self, call: Call) {
        let Some(asked) = self.calls.get(&call).filter(|asked| asked.seeks) else { return };
        if let Some((Limit { key, .. }, _)) = asked.patience() {
            self.turns_are_taken(&key.clone());
        }
    }

    fn turns_are_taken(&mut self, key: &str) {
        self.turns.retain(|(of, _), _| of != key);
    }

    /// After a turn: who waits and has nothing else to wait for waits for a place.
    pub fn note_seekers(&mut self) {
        for call in self.waiting.clone() {
            let Some(asked) = self.calls.get(&call) else { continue };
            let Some(params) = asked.create() else { continue };
            let uid = asked.peer.uid;
            // What another one passes for may have been answered with a child that was there, and it waits still.
            let answer = params.request_id.and_then(|request| self.first_answer(uid, request));
            let is_its = answer.is_some_and(|(track, _)| {
                track.owner.uid == uid && track.params.request_id == params.request_id
            });
            let is_started = is_its || self.tracks.contains_key(&asked.fresh.child);
            let is_held = asked.wanted_name().is_some_and(|name| self.holder(name).is_some());
            let joins = is_held && asked.if_exists() == IfExists::Reuse;
            let is_superseded = matches!(asked.claim, Claim::Superseded(..));
            let replaced = asked.wanted_name().and_then(|name| self.holder(name));
            let would_end = replaced.is_some_and(|holder| {
                asked.if_exists() == IfExists::Replace
                    && asked.patience().is_some()
                    && !holder.is_doomed()
                    && !holder.never_was()
                    && asked.kept_for != Some(holder.run.child)
            });
            let had_its_turn = is_held && !would_end && (!asked.seeks || !self.is_without_place(asked));
            let is_kept = replaced.is_some_and(|holder| asked.kept_for == Some(holder.run.child));
            let had_its_turn = had_its_turn || is_kept;
            let seeks = !(is_started || joins || is_superseded || had_its_turn || asked.reading);
            let now = self.now;
            let Some(asked) = self.calls.get_mut(&call) else { continue };
            asked.kept_for = asked.kept_for.filter(|_| is_kept);
            asked.seeks = seeks;
            if seeks {
                asked.sought_since.get_or_insert(now);
            }
        }
        let seeking: BTreeSet<(String, u32)> = self
            .seekers()
            .filter_map(|(_, asked)| Some((asked.patience()?.0.key.clone(), asked.peer.uid)))
            .collect();
        self.turns.retain(|queue, _| seeking.contains(queue));
    }
}
