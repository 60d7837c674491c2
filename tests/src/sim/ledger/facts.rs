//! What the broker is told, taken down before it hears of it.

use std::collections::{BTreeMap, BTreeSet};

use procbroker_core::{Call, Fresh, Input, Members, Run, ShutdownCause};
use procbroker_protocol::create::IfExists;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::{ExitReason, ExitStatus, Request};

use crate::sim::checks::orders;
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::{Asked, Claim, Link};
use crate::sim::ledger::cleaning::{Cleaning, Stage};
use crate::sim::ledger::track::{Demand, Start, Track};
use crate::sim::ledger::upgrade::Upgrade;
use crate::sim::machine::{is_shortage, killed};

/// The step that fails where a process is killed on the way to its program.
const KILLED: &str = "killed";

impl Ledger {
    /// Takes down what the broker is about to be told.
    pub fn take(&mut self, now: u64, input: &Input) {
        self.now = now;
        self.farewell = false;
        self.ending_anchor = None;
        self.readers.asking = None;
        self.notice_unready();
        self.notice_leases();
        match input {
            Input::Connected { connection, peer } => {
                let link =
                    Link { peer: peer.clone(), admitted: false, refused: false, open: true, unanswered: 0 };
                self.links.insert(*connection, link);
            }
            Input::Disconnected { connection } => self.disconnected(*connection),
            Input::EventsWanted { connection } => {
                self.readers.roused.remove(connection);
                self.readers.asking = Some(*connection);
            }
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
            Input::Recorded { .. }
            | Input::Spawned { .. }
            | Input::SpawnFailed { .. }
            | Input::Exited { .. }
            | Input::Notified { .. }
            | Input::Probed { .. }
            | Input::OutOfMemory { .. }
            | Input::MembersLeft { .. } => {
                self.reported(input);
                self.told_of_command(input);
            }
            Input::AnchorEnded { anchor } => self.anchor_ends(*anchor),
            Input::LogRead { call, .. } => self.answered(*call),
            Input::TailRead { call, .. } => {
                if let Some(asked) = self.calls.get_mut(call) {
                    asked.reading = false;
                }
            }
            Input::UpgradeAsked => self.wish_for_an_upgrade(),
            Input::UpgradeChecked { result } => {
                if self.upgrade == Upgrade::Checking {
                    self.upgrade = match result {
                        Ok(()) => Upgrade::AwaitingLaunches { since: now },
                        Err(_) => Upgrade::Refused,
                    };
                }
            }
            Input::HandOverFailed { .. } => {
                if self.upgrade == Upgrade::HandingOver {
                    self.upgrade = Upgrade::Refused;
                }
            }
            // No client of the simulator comes from another user namespace.
            Input::ConnectedUnmapped { .. }
            | Input::Signalled { call: None, .. }
            | Input::PassOn { .. }
            | Input::Swept { .. }
            | Input::Due => {}
        }
    }

    /// Something is told of a process, or of a record.
    fn reported(&mut self, input: &Input) {
        let now = self.now;
        match input {
            Input::Recorded { run, result } => {
                let written = result.is_ok();
                self.change(*run, |track| match &mut track.runs.between {
                    Some(between) if track.start == Start::Recording => {
                        // It is tried again.
                        between.unrecorded = (!written).then_some(now);
                        if written {
                            track.start = Start::Recorded { written };
                        }
                    }
                    Some(_) => {}
                    // A child that has ended meanwhile waits for nothing.
                    None if track.known_exit.is_some() => {}
                    None => track.start = Start::Recorded { written },
                });
                self.change_cleaning(*run, |cleaning| {
                    cleaning.stage = match &cleaning.stage {
                        Stage::Recording => Stage::Recorded,
                        Stage::Closing { cleaned } => Stage::Closed { cleaned: cleaned.clone() },
                        other => other.clone(),
                    }
                });
            }
            Input::Spawned { run, pid } => {
                let pid = pid.get();
                self.change(*run, |track| {
                    if track.is_put_off() {
                        track.is_turned_away();
                    }
                    track.start = Start::Done { at: now, pid };
                    track.run_begins(now);
                });
                self.note_run(*run);
                self.change_cleaning(*run, |cleaning| {
                    cleaning.stage = match cleaning.stage {
                        // It got to its program as it was killed, and is begun anew.
                        Stage::Ordered { .. } if cleaning.put_off && !cleaning.cut_short => {
                            cleaning.is_excused = true;
                            Stage::Interrupted { gone: false }
                        }
                        Stage::Ordered { since } => Stage::Running { since },
                        _ => Stage::Running { since: now },
                    };
                });
            }
            Input::SpawnFailed { run, failure } => {
                let was_killed = failure.step == KILLED;
                self.note_failed_restart(*run, failure);
                self.change(*run, |track| track.launch_fails(was_killed, now));
                self.change_cleaning(*run, |cleaning| {
                    if was_killed && cleaning.put_off && !cleaning.cut_short {
                        (cleaning.stage, cleaning.turned_back) = (Stage::Recorded, Some(now));
                        (cleaning.put_off, cleaning.killed) = (false, None);
                    } else if is_shortage(failure) {
                        (cleaning.stage, cleaning.short) = (Stage::Recorded, Some(now));
                    } else {
                        cleaning.stage = Stage::Over { status: None, released: false };
                    }
                });
            }
            Input::Notified { run, notices } => {
                for notice in notices {
                    self.change(*run, |track| track.tells(notice, now));
                }
                self.note_run(*run);
            }
            Input::Probed { run, is_ready } => {
                self.change(*run, |track| track.is_found(*is_ready, now));
                self.note_run(*run);
            }
            Input::Exited { run, status, members } => self.exited(*run, *status, *members),
            Input::OutOfMemory { run } => self.change(*run, |track| track.starved = true),
            Input::MembersLeft { run, members } => {
                self.change(*run, |track| track.members = *members);
                self.change_cleaning(*run, |cleaning| cleaning.members = *members);
            }
            _ => {}
        }
    }

    fn exited(&mut self, run: Run, status: ExitStatus, members: Members) {
        let now = self.now;
        self.note_failed_restart(run, &killed());
        self.change(run, |track| {
            if track.is_launching() {
                return track.launch_fails(true, now);
            }
            track.exit = Some((now, status));
            track.members = members;
            track.ended_unasked =
                track.demands.first().is_none_or(|demand| demand.reason == ExitReason::Exited);
            let is_unready = !track.is_ready();
            if track.demands.is_empty() && (is_unready || members != Members::Nothing) {
                let reason = if is_unready { ExitReason::StartFailed } else { ExitReason::Exited };
                track.demands.push(Demand { reason, steps: track.params.stop.clone() });
                track.ended_by_itself = true;
            }
        });
        self.change_cleaning(run, |cleaning| {
            cleaning.members = members;
            cleaning.stage = match cleaning.stage {
                Stage::Interrupted { .. } => Stage::Interrupted { gone: true },
                _ => Stage::Over { status: Some(status), released: false },
            };
        });
    }

    /// Changes what is known of a child itself. Reports about another process of it are none about this one.
    pub(super) fn change(&mut self, run: Run, change: impl FnOnce(&mut Track)) {
        if let Some(track) = self.tracks.get_mut(&run.child)
            && track.run == run
            && track.cleaning.is_none()
        {
            change(track);
        }
    }

    /// Changes what is known of a child's cleanup.
    pub(super) fn change_cleaning(&mut self, run: Run, change: impl FnOnce(&mut Cleaning)) {
        if let Some(track) = self.tracks.get_mut(&run.child)
            && let Some(cleaning) = &mut track.cleaning
            && cleaning.incarnation == run.incarnation
        {
            change(cleaning);
        }
    }

    /// An upgrade begins, or one that is under way is joined.
    fn wish_for_an_upgrade(&mut self) {
        if self.closing.is_none() && !self.upgrade.is_under_way() {
            self.upgrade = Upgrade::Wanted;
        }
    }

    fn disconnected(&mut self, connection: procbroker_core::ConnectionId) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        if link.open && link.admitted {
            self.open_links -= 1;
        }
        link.open = false;
        self.unsubscribed(connection);
        self.waiting.retain(|call| call.connection != connection);
        self.lets_go(connection);
        self.notice_leases();
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
            reading: false,
            seeks: false,
            may_have_had_its_turn: false,
            sought_since: None,
            kept_for: None,
            has_joined: false,
            claim: Claim::Own,
            wishes: BTreeMap::new(),
            runs_again: BTreeSet::new(),
            not_started_again: None,
        };
        let Some(link) = self.links.get(&call.connection) else { return };
        let uid = link.peer.uid;
        asked.refusal = self.refusal(link, &asked);
        asked.meant = match request {
            Request::Destroy(params) => self.resolve(uid, &params.target),
            Request::Signal(params) => self.resolve(uid, &params.target).map(|mut meant| {
                let now = self.now;
                let has_process = |track: &Track| track.takes_signals(now) && track.is_spawned();
                let reaches = |id: &_| self.tracks.get(id).is_some_and(has_process);
                meant.retain(|id| params.target.is_single() || reaches(id));
                meant
            }),
            Request::Renew(params) => self.renewable(uid, &params.target),
            Request::Get(params) => self.resolve(uid, &params.target),
            Request::Wait(params) => self.resolve(uid, &params.target),
            Request::Logs(params) => self.resolve(uid, &params.target),
            Request::Restart(params) => self.resolve(uid, &params.target),
            Request::Create(_)
            | Request::List(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_)
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
            self.inherit_claim(call);
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
                    track.demand(Demand { reason: ExitReason::Destroyed, steps });
                }
            }
            Request::Create(_) => {
                self.hold_known(call);
                self.note_replacement(call);
            }
            Request::Restart(_) => self.note_restarts(call),
            Request::Renew(_) => self.renew(&asked.meant.clone().unwrap_or_default()),
            Request::Shutdown(params) => {
                let timeout = params.timeout;
                self.close(timeout, false);
            }
            Request::Upgrade(_) => self.wish_for_an_upgrade(),
            Request::List(_)
            | Request::Get(_)
            | Request::Wait(_)
            | Request::Signal(_)
            | Request::Logs(_)
            | Request::Events(_)
            | Request::Status(_)
            | Request::Metrics(_) => {}
        }
    }

    /// A child is ready: that is what a restart of it may wait for.
    pub(super) fn note_run(&mut self, run: Run) {
        let is_up = |track: &&Track| track.run == run && track.is_ready() && track.demands.is_empty();
        let Some(track) = self.tracks.get(&run.child).filter(is_up) else { return };
        let count = track.runs.count;
        for call in &self.waiting {
            if let Some(asked) = self.calls.get_mut(call)
                && asked.wishes.get(&run.child).is_some_and(|wish| count >= *wish)
            {
                asked.runs_again.insert(run.child);
            }
        }
    }

    /// The program of a child cannot be executed again: who has asked for that alone is told why.
    fn note_failed_restart(&mut self, run: Run, failure: &SpawnFailure) {
        let fails = |track: &Track| track.run == run && track.is_restart_to_fail(failure.step == KILLED);
        if !self.tracks.get(&run.child).is_some_and(fails) {
            return;
        }
        for call in &self.waiting {
            if let Some(asked) = self.calls.get_mut(call)
                && matches!(&asked.request, Request::Restart(params) if params.target.is_single())
                && asked.wishes.contains_key(&run.child)
            {
                asked.not_started_again = Some(failure.clone());
            }
        }
    }

    /// What a request wants to be started again, as far as that may be.
    fn note_restarts(&mut self, call: Call) {
        let now = self.now;
        let Some(asked) = self.calls.get_mut(&call).filter(|_| self.closing.is_none()) else { return };
        for id in asked.meant.iter().flatten() {
            let Some(track) = self.tracks.get_mut(id) else { continue };
            if let Some(count) = track.wish_for_a_run(now) {
                asked.wishes.insert(*id, count);
            }
        }
    }

    /// Who waits for a name may find another holder of it by now.
    pub fn note_replacements(&mut self) {
        let waiting: Vec<_> = self.waiting.iter().copied().collect();
        for call in waiting {
            self.note_replacement(call);
        }
    }

    /// A create that replaces wants the present holder of its name stopped, unless it has its child.
    fn note_replacement(&mut self, call: Call) {
        let Some(asked) = self.calls.get(&call).filter(|asked| !asked.reading) else { return };
        let Some(params) = asked.create() else { return };
        let uid = asked.peer.uid;
        let has_child = self.tracks.contains_key(&asked.fresh.child)
            || params.request_id.is_some_and(|id| self.first_answer(uid, id).is_some());
        if asked.if_exists() != IfExists::Replace || has_child || self.closing.is_some() {
            return;
        }
        let holder = params.name.as_ref().and_then(|name| self.holder(name));
        let is_meant = |holder: &&Track| self.may_touch(uid, holder.owner) && !holder.never_was();
        let Some(holder) = holder.filter(is_meant) else { return };
        let id = holder.run.child;
        // One that waits for a place ends nobody before it is its turn for one, and nobody is ended for one without a place.
        let is_without = self.is_without_place(asked);
        let lives_on = !holder.is_doomed();
        let waits = if lives_on { asked.seeks || is_without } else { asked.seeks && is_without };
        if waits && asked.kept_for != Some(id) {
            return;
        }
        if lives_on {
            // It is refused before anybody is ended for it.
            if orders::fullness_without(self, uid, params, Some(holder))
                .is_some_and(|full| full != orders::KEY)
            {
                return;
            }
            self.keeps_place(call, id);
        }
        self.replaced(id);
    }
}
