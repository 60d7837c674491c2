//! What the lives of children hang on, by the contract: who holds each, and until when it lives if nobody does.

use procbroker_core::{Afterwards, Anchor, Call, ConnectionId, Progress, Recovered};
use procbroker_protocol::create::{IfExists, Lifetime};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{ChildId, ExitReason, Target};

use crate::sim::agenda::SECOND;
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;
use crate::sim::ledger::track::{Demand, Track};

/// How long holders have at the least to come back after their connections were lost with the broker.
const COME_BACK: u64 = 10 * SECOND;

impl Track {
    /// Whether it is on its way to its end, for whatever reason, or there.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        !self.is_to_go_on() || self.is_ending() && !self.runs.wish || !self.is_live()
    }

    /// Its time to live, if it has one.
    #[must_use]
    pub fn time_to_live(&self) -> Option<u64> {
        match self.params.lifetime {
            Lifetime::Ttl(length) => Some(nanos(length)),
            Lifetime::Broker | Lifetime::Connection | Lifetime::Pid(_) => None,
        }
    }

    /// What an earlier broker's holders are worth, and its time to live.
    pub(super) fn lives_on(
        &mut self,
        before: &Self,
        recovered: &Recovered,
        (handed_over_at, now): (Option<u64>, u64),
    ) {
        self.anchor = recovered.intent.lease.anchor();
        let linger = nanos(self.params.linger);
        self.lives_until = match self.params.lifetime {
            Lifetime::Connection => {
                // Nobody held it any more, and that goes on.
                // Of one that was not started there is nothing on record to say so.
                let is_unspawned = matches!(recovered.progress, None | Some(Progress::Unwanted { .. }));
                let lingers = match handed_over_at {
                    Some(_) if !is_unspawned => before.lives_until,
                    Some(_) | None => {
                        recovered.intent.lease.expires().map(procbroker_core::Instant::as_nanos)
                    }
                };
                Some(lingers.unwrap_or_else(|| now.saturating_add(linger.max(COME_BACK))))
            }
            // It may have been renewed before its start was on record.
            Lifetime::Ttl(length) if matches!(recovered.progress, None | Some(Progress::Unwanted { .. })) => {
                Some(now.saturating_add(nanos(length)))
            }
            Lifetime::Ttl(_) => recovered.intent.lease.expires().map(procbroker_core::Instant::as_nanos),
            Lifetime::Broker | Lifetime::Pid(_) => None,
        };
    }
}

impl Ledger {
    /// A child is created: its creator holds it, or its time begins.
    pub(super) fn begins_to_live(&mut self, id: ChildId, call: Call) {
        let now = self.now;
        let key = self.tracks.get(&id).and_then(|track| Some((track.owner.uid, track.params.request_id?)));
        let name = self.tracks.get(&id).and_then(|track| track.params.name.clone());
        // The same request may wait already, and is answered with this child too.
        let others = self.waiting.iter().filter(|other| {
            let asked = self.calls.get(other);
            let is_same = |asked: &Asked| asked.request_key() == key && !asked.reading;
            // One that passes for it waits for something else first.
            let joins = |asked: &Asked| asked.seeks || asked.wanted_name() == name.as_ref();
            key.is_some() && asked.is_some_and(|asked| is_same(asked) && joins(asked))
        });
        let holders: Vec<_> = others.chain([&call]).map(|call| call.connection).collect();
        let Some(track) = self.tracks.get_mut(&id) else { return };
        match track.params.lifetime {
            Lifetime::Connection => track.holders.extend(holders),
            // It is started in the place of another that ends with the same process.
            Lifetime::Pid(_) if track.anchor.is_some() && track.anchor == self.ending_anchor => {
                let steps = track.params.stop.clone();
                track.demand(Demand { reason: ExitReason::OwnerGone, steps });
            }
            Lifetime::Ttl(length) => track.lives_until = Some(now.saturating_add(nanos(length))),
            Lifetime::Broker | Lifetime::Pid(_) => {}
        }
    }

    /// A connection has a child now, or waits for it.
    pub fn holds(&mut self, connection: ConnectionId, id: ChildId) {
        if let Some(track) = self.tracks.get_mut(&id)
            && track.params.lifetime == Lifetime::Connection
            && track.is_live()
            && self.links.get(&connection).is_some_and(|link| link.open)
        {
            track.holders.insert(connection);
            track.lives_until = None;
        }
    }

    /// A create that was answered before, or waits, holds its child on this connection too.
    pub(super) fn hold_known(&mut self, call: Call) {
        let Some(asked) = self.calls.get(&call) else { return };
        let known = asked.request_key().and_then(|(uid, request)| self.first_answer(uid, request));
        if let Some(id) = known.map(|(track, _)| track.run.child) {
            self.holds(call.connection, id);
        }
    }

    /// Who waits to reuse a child has come back to it, and holds it if it lives on.
    pub fn note_waiting_holders(&mut self) {
        let waiting = self.waiting.iter().filter_map(|call| Some((call.connection, self.calls.get(call)?)));
        let comes_back = |asked: &Asked| {
            let is_own = self.tracks.contains_key(&asked.fresh.child) && !asked.is_superseded();
            let is_met = asked.request_key().is_some_and(|(uid, id)| self.first_answer(uid, id).is_some());
            let waits_for_a_name = !asked.reading && !asked.seeks && !is_own && !is_met;
            if asked.create().is_none() || asked.if_exists() != IfExists::Reuse || !waits_for_a_name {
                return None;
            }
            let holder = asked.wanted_name().and_then(|name| self.holder(name))?;
            let may = self.may_touch(asked.peer.uid, holder.owner) && !holder.never_was();
            may.then_some(holder.run.child)
        };
        let held: Vec<_> = waiting.filter_map(|(link, asked)| Some((link, comes_back(asked)?))).collect();
        for (connection, id) in held {
            self.holds(connection, id);
        }
    }

    /// A connection is closed: what it held alone lingers.
    pub(super) fn lets_go(&mut self, connection: ConnectionId) {
        let now = self.now;
        for id in self.live.clone() {
            let Some(track) = self.tracks.get_mut(&id) else { continue };
            if track.holders.remove(&connection) && track.holders.is_empty() {
                track.lives_until = Some(now.saturating_add(nanos(track.params.linger)));
            }
        }
    }

    /// The broker is told that a process has ended: all that lives as long is to end.
    pub(super) fn anchor_ends(&mut self, anchor: Anchor) {
        self.ending_anchor = Some(anchor);
        self.watched.remove(&anchor);
        for id in &self.live {
            if let Some(track) = self.tracks.get_mut(id).filter(|track| track.anchor == Some(anchor)) {
                track.lives_until = Some(self.now);
            }
        }
        self.notice_leases();
    }

    /// Children whose time is over, or whose holders have gone, have to be stopped.
    pub fn notice_leases(&mut self) {
        let now = self.now;
        for id in &self.live {
            let Some(track) = self.tracks.get_mut(id) else { continue };
            // One that has ended by itself, or is restarted, would have another run.
            let is_doomed = track.is_doomed() && track.afterwards() == Afterwards::End;
            if is_doomed || !track.is_live() || track.lives_until.is_none_or(|until| now < until) {
                continue;
            }
            let reason =
                if track.time_to_live().is_some() { ExitReason::Expired } else { ExitReason::OwnerGone };
            let steps = track.params.stop.clone();
            track.lives_until = None;
            track.expired = Some(now);
            track.demand(Demand { reason, steps });
        }
    }

    /// The children that a `renew` means.
    pub(super) fn renewable(&self, uid: u32, target: &Target) -> Option<Vec<ChildId>> {
        let mut meant = self.resolve(uid, target)?;
        let wanted = |id: &ChildId| {
            self.tracks.get(id).is_some_and(|track| !track.is_doomed() && track.time_to_live().is_some())
        };
        meant.retain(|id| target.is_single() || wanted(id));
        Some(meant)
    }

    /// A `renew` has come for these.
    pub(super) fn renew(&mut self, meant: &[ChildId]) {
        let now = self.now;
        for id in meant {
            if let Some(track) = self.tracks.get_mut(id)
                && !track.is_doomed()
                && let Some(length) = track.time_to_live()
            {
                track.lives_until = Some(now.saturating_add(length));
            }
        }
    }
}
