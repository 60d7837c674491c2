//! What the broker is told, taken down before it hears of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use procbroker_core::{Call, Fresh, Incarnation, Input, Members, Run, ShutdownCause};
use procbroker_protocol::create::IfExists;
use procbroker_protocol::{ExitReason, Request};

use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::{Asked, Link};
use crate::sim::ledger::track::{Demand, Start, Track};

impl Ledger {
    /// Takes down what the broker is about to be told.
    pub fn take(&mut self, now: u64, input: &Input) {
        self.now = now;
        self.farewell = false;
        self.notice_unready();
        match input {
            Input::Connected { connection, peer } => {
                let link =
                    Link { peer: peer.clone(), admitted: false, refused: false, open: true, unanswered: 0 };
                self.links.insert(*connection, link);
            }
            Input::Disconnected { connection } => self.disconnected(*connection),
            Input::Called { call, request, fresh } => self.called(*call, request, fresh),
            Input::ShutdownAsked { cause } => match cause {
                ShutdownCause::Signal { hurries } => self.close(None, *hurries),
                ShutdownCause::Limited { timeout } => self.close(Some(*timeout), false),
            },
            Input::Signalled { run, call: Some(call), outcome } => {
                if let Some(asked) = self.calls.get_mut(call) {
                    asked.outstanding.remove(&run.child);
                    asked.outcomes.push(*outcome);
                }
            }
            Input::Recorded { run, result } => {
                let written = result.is_ok();
                self.change(*run, |track| track.start = Start::Recorded { written });
            }
            Input::Spawned { run, pid } => {
                let pid = pid.get();
                self.change(*run, |track| track.start = Start::Done { at: now, pid });
            }
            Input::SpawnFailed { run, .. } => self.change(*run, |track| track.start = Start::Failed),
            Input::Exited { run, status, members } => self.change(*run, |track| {
                track.exit = Some((now, *status));
                track.members = *members;
                if track.demands.is_empty() && *members != Members::Nothing {
                    let steps = track.params.stop.clone();
                    track.demands.push(Demand { reason: ExitReason::Exited, steps });
                }
            }),
            Input::MembersLeft { run, members } => self.change(*run, |track| track.members = *members),
            Input::Signalled { call: None, .. } | Input::Swept { .. } | Input::Due => {}
        }
    }

    /// Reports about an earlier process of a child are none about this one.
    pub(super) fn change(&mut self, run: Run, change: impl FnOnce(&mut Track)) {
        if run.incarnation != Incarnation::FIRST {
            return;
        }
        if let Some(track) = self.tracks.get_mut(&run.child) {
            change(track);
        }
    }

    /// Children whose time to get ready is over have to be stopped, and their creates have failed.
    pub fn notice_unready(&mut self) {
        let now = self.now;
        for id in &self.live {
            let Some(track) = self.tracks.get_mut(id) else { continue };
            let by = track.born.saturating_add(track.params.ready_timeout.0.as_nanos());
            if track.is_spawned() || now < by {
                continue;
            }
            track.refused = true;
            if track.demands.is_empty() {
                let steps = track.params.stop.clone();
                track.demands.push(Demand { reason: ExitReason::StartFailed, steps });
            }
        }
    }

    fn disconnected(&mut self, connection: procbroker_core::ConnectionId) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if link.open && link.admitted {
            self.open_links -= 1;
        }
        link.open = false;
        self.waiting.retain(|call| call.connection != connection);
    }

    fn called(&mut self, call: Call, request: &Request, fresh: &Fresh) {
        let Some(link) = self.links.get_mut(&call.connection) else { return };
        let mut asked = Asked {
            peer: link.peer.clone(),
            request: request.clone(),
            at: self.now,
            fresh: fresh.clone(),
            refusal: None,
            meant: None,
            answered: false,
            sent: BTreeSet::new(),
            outstanding: BTreeSet::new(),
            outcomes: Vec::new(),
        };
        let Some(link) = self.links.get(&call.connection) else { return };
        let uid = link.peer.uid;
        asked.refusal = self.refusal(link, &asked);
        asked.meant = match request {
            Request::Destroy(params) => self.resolve(uid, &params.target),
            Request::Signal(params) => self.resolve(uid, &params.target),
            Request::Get(params) => self.resolve(uid, &params.target),
            Request::Wait(params) => self.resolve(uid, &params.target),
            Request::Create(_)
            | Request::List(_)
            | Request::Restart(_)
            | Request::Renew(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Shutdown(_)
            | Request::Upgrade(_) => None,
        };
        self.handed_out.insert(fresh.child, call);
        if let Some(link) = self.links.get_mut(&call.connection) {
            link.unanswered += 1;
        }
        self.waiting.insert(call);
        let refused = asked.refusal.is_some();
        self.calls.insert(call, asked);
        if !refused {
            self.note_wish(call);
        }
    }

    /// What a request that is not refused asks to be stopped.
    fn note_wish(&mut self, call: Call) {
        let Some(asked) = self.calls.get(&call) else { return };
        match &asked.request {
            Request::Destroy(params) => {
                let steps = params.stop.clone();
                for id in asked.meant.clone().unwrap_or_default() {
                    let Some(track) = self.tracks.get_mut(&id).filter(|track| track.is_live()) else {
                        continue;
                    };
                    let steps = steps.clone().unwrap_or_else(|| track.params.stop.clone());
                    track.demands.push(Demand { reason: ExitReason::Destroyed, steps });
                }
            }
            Request::Create(_) => self.note_replacement(call),
            Request::Shutdown(params) => {
                let timeout = params.timeout;
                self.close(timeout, false);
            }
            Request::List(_)
            | Request::Get(_)
            | Request::Wait(_)
            | Request::Signal(_)
            | Request::Restart(_)
            | Request::Renew(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Upgrade(_) => {}
        }
    }

    /// A create that replaces wants the present holder of its name stopped, unless it has its child.
    pub fn note_replacement(&mut self, call: Call) {
        let Some(asked) = self.calls.get(&call) else { return };
        let Request::Create(params) = &asked.request else { return };
        let uid = asked.peer.uid;
        let has_child = self.tracks.contains_key(&asked.fresh.child)
            || params.request_id.is_some_and(|id| self.first_answer(uid, id).is_some());
        if params.if_exists != IfExists::Replace || has_child || self.closing.is_some() {
            return;
        }
        let holder = params.name.as_ref().and_then(|name| self.holder(name));
        let Some(holder) = holder.filter(|holder| self.may_touch(uid, holder.owner)) else { return };
        let id = holder.run.child;
        if let Some(track) = self.tracks.get_mut(&id)
            && !track.demands.iter().any(|demand| demand.reason == ExitReason::Replaced)
        {
            let steps = Arc::clone(&track.params).stop.clone();
            track.demands.push(Demand { reason: ExitReason::Replaced, steps });
        }
    }
}
