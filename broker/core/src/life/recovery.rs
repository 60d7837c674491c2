//! The first thing that a broker does: it takes over what an earlier one has left on record.

use std::collections::BTreeMap;
use std::sync::Arc;

use procbroker_protocol::{ChildId, EventKind, ExitReason, Timestamp};
use uuid::Uuid;

use crate::broker::Broker;
use crate::child::{Child, unstarted};
use crate::config::Config;
use crate::effect::{Effect, Report};
use crate::event_log::EventHistory;
use crate::ids::{Incarnation, Run};
use crate::record::{
    Answered, Finding, Intent, Kinship, ProcessState, Progress, Recovered, Role, StoppingProgress, Unready,
};
use crate::time::Now;
use crate::turn::Turn;

/// How many children of each kind were found.
#[derive(Clone, Copy, Debug, Default)]
struct FoundCounts {
    alive: u32,
    ended: u32,
    void: u32,
}

/// The last child that was started for each request of a user, with its place in the order of the creations. The ids do not tell
/// which that is: a create that has waited got the id of its child when it came. When they were created does not either, because
/// a clock may be set back between two of them, but is all that an earlier program has left.
type Latest = BTreeMap<(u32, Uuid), (u64, Timestamp, ChildId)>;

/// The children of which there never was a process, and that an earlier program had on record.
type Voids = BTreeMap<ChildId, Recovered>;

fn latest_of_requests(found: &[Recovered]) -> Latest {
    let mut latest = Latest::new();
    for child in found {
        if let Some(key) = request_of(&child.intent) {
            let this = (child.intent.number, child.intent.created_at, child.intent.id);
            let last = latest.entry(key).or_insert(this);
            *last = this.max(*last);
        }
    }
    latest
}

/// The user and the id of the request that a child was started for, where it has one.
fn request_of(intent: &Intent) -> Option<(u32, Uuid)> {
    Some((intent.owner.uid, intent.params.request_id?))
}

impl Broker {
    /// A broker that goes on where an earlier one was. `found` is all that is on record, oldest first, with what
    /// there is of it now, and `answers` what requests were answered with it; the orders that follow come before any other.
    /// After an upgrade `history` has the events that the earlier program has told of; that of one that has crashed is lost,
    /// and events are counted anew.
    #[must_use]
    pub fn recover(
        config: Config,
        now: Now,
        found: Vec<Recovered>,
        answers: Vec<Answered>,
        history: Option<EventHistory>,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let mut broker = Self::new(config);
        if let Some(history) = history {
            broker.event_log.go_on(history, broker.config.bounds.events_kept);
        }
        let turn = &mut Turn::new(now, effects);
        if found.is_empty() && answers.is_empty() {
            broker.start_main(turn);
            broker.watch_idleness(turn);
            return broker;
        }
        let latest = latest_of_requests(&found);
        broker.children.go_on_after(found.iter().map(|child| child.intent.number).max().unwrap_or_default());
        let (mut ended, mut live) = (Vec::new(), Vec::new());
        for child in found {
            match child.ended_at() {
                Some(at) => ended.push((at, child)),
                None => live.push(child),
            }
        }
        // They go in the order of their end when their time is over.
        ended.sort_by_key(|(at, _)| *at);
        for (at, child) in ended {
            match child.intent.role {
                Role::Child => broker.take_in_ended(child, at, &latest, turn),
                // Nobody ever saw it.
                Role::Main => turn.order(Effect::Forget { child: child.intent.id }),
            }
        }
        let mut counts = FoundCounts::default();
        let mut voids = Voids::new();
        for child in live {
            if child.is_unspawned() && child.finding == Finding::NeverStarted {
                counts.void += 1;
                turn.order(Effect::Forget { child: child.intent.id });
                voids.insert(child.intent.id, child);
            } else {
                broker.take_over(child, &latest, &mut counts, turn);
            }
        }
        let FoundCounts { alive, ended, void } = counts;
        if (alive, ended, void) != (0, 0, 0) {
            turn.order(Effect::Report(Report::Recovered { alive, ended, void }));
        }
        broker.tell_untold_ends(&voids, turn);
        broker.remember_again(answers, turn);
        broker.start_main(turn);
        broker.forget_expired(turn);
        broker.start_next(turn);
        broker.watch_idleness(turn);
        // Nobody reads yet.
        broker.event_log.announce(&broker.config, turn);
        broker
    }

    fn take_in(&mut self, child: &Recovered, latest: &Latest) {
        let intent = &child.intent;
        // The same request starts another child when the first one has failed to start: that one is its answer, if any is.
        let last = request_of(intent).and_then(|key| latest.get(&key));
        let is_outdated = last.is_some_and(|(.., last)| *last != intent.id);
        if child.is_void() {
            self.children.insert_void(Child::new(intent));
        } else if child.has_failed_to_start() || is_outdated {
            self.children.insert_unasked(Child::new(intent));
        } else {
            self.children.insert(Child::new(intent));
        }
    }

    /// A child that had ended already: it stays visible until its time is over.
    fn take_in_ended(&mut self, child: Recovered, at: Timestamp, latest: &Latest, turn: &mut Turn<'_>) {
        self.take_in(&child, latest);
        let id = child.intent.id;
        self.with_child(id, turn, |taken, orders| {
            taken.resume(child.progress, child.finding, &child.handed_over, orders)
        });
        // An end that lies ahead was told by a clock that has been set back since.
        self.children.end(id, turn.now.instant_at(at).min(turn.now.instant));
    }

    /// A child that had not ended, as far as is on record.
    fn take_over(
        &mut self,
        child: Recovered,
        latest: &Latest,
        counts: &mut FoundCounts,
        turn: &mut Turn<'_>,
    ) {
        let (id, role, finding) = (child.intent.id, child.intent.role, child.finding);
        self.take_in(&child, latest);
        match finding {
            Finding::Process { state: ProcessState::Running, .. } => counts.alive += 1,
            Finding::Unexecuted { .. } if child.is_unspawned() => counts.void += 1,
            Finding::Process { state: ProcessState::Zombie, .. }
            | Finding::Unexecuted { .. }
            | Finding::Gone { .. }
            | Finding::NeverStarted
            | Finding::Rebooted => {
                counts.ended += 1;
            }
        }
        self.bind_again(id, child.is_unspawned(), turn);
        self.with_child(id, turn, |taken, orders| {
            if child.out_of_memory {
                taken.has_run_out_of_memory();
            }
            taken.resume_probe(child.probe, orders);
            taken.resume(child.progress, finding, &child.handed_over, orders)
        });
        self.record_linger(id, turn);
        if role == Role::Main {
            let is_own = matches!(finding, Finding::Process { kinship: Kinship::Own, .. });
            self.main_recovered(id, is_own, turn);
        }
    }

    /// Tells the end of every child that the earlier program has told of and not of its end, and that is over: its end was on
    /// record and not told yet, or it waited for its turn to be started, and its creator, whose connection is lost, asks anew.
    fn tell_untold_ends(&mut self, voids: &Voids, turn: &mut Turn<'_>) {
        for id in self.event_log.unended() {
            let ended = match (self.children.get(id), voids.get(&id)) {
                (Some(child), _) if child.is_live() => None,
                (Some(child), _) => Some(Arc::clone(child.view())),
                (None, void) => void.map(|void| unstarted(&void.intent, void.unwanted(), turn.now.wall)),
            };
            if let Some(ended) = ended {
                self.publish_with(EventKind::Ended, Some(ended), turn);
            }
        }
    }

    /// Which process is meant by what is on record, for the edge to hold it under.
    #[must_use]
    pub fn recovered_run(child: ChildId) -> Run {
        Run { child, incarnation: Incarnation::FIRST }
    }
}

impl Recovered {
    /// Whether there may never have been a process of it.
    fn is_unspawned(&self) -> bool {
        match &self.progress {
            None | Some(Progress::Unwanted { .. }) => true,
            Some(
                Progress::Starting { .. }
                | Progress::Running { .. }
                | Progress::Restarting { .. }
                | Progress::Stopping(_)
                | Progress::Cleaning { .. }
                | Progress::Ended { .. },
            ) => false,
        }
    }

    /// Why it was to be stopped before it was started, if it was.
    fn unwanted(&self) -> Option<ExitReason> {
        let Some(Progress::Unwanted { reason, .. }) = &self.progress else {
            return None;
        };
        Some(*reason)
    }

    /// Whether its process was left on the way to its program, and its create was not answered with it, nor is it to be: who asks
    /// again gets another one.
    fn is_void(&self) -> bool {
        let is_unexecuted = matches!(self.finding, Finding::Unexecuted { .. });
        is_unexecuted && self.is_unspawned() && self.has_failed_to_start()
    }

    /// Whether its create was answered with an error, or is not to be answered with it: the same request starts another one.
    fn has_failed_to_start(&self) -> bool {
        match &self.progress {
            None => matches!(self.finding, Finding::Unexecuted { .. }),
            Some(Progress::Starting { .. } | Progress::Running { .. }) => false,
            // There is no process that its create could have been answered with.
            Some(Progress::Unwanted { reason, .. }) => *reason == ExitReason::StartFailed,
            Some(Progress::Restarting { unwanted, runs, .. }) => {
                let is_late = unwanted.as_ref().is_some_and(|(reason, _)| *reason == ExitReason::StartFailed);
                is_late && runs.unready == Unready::Ever
            }
            // Its create is answered when it is over, unless it was late.
            Some(Progress::Stopping(StoppingProgress { reason, runs, .. })) => {
                let is_late = *reason == ExitReason::StartFailed;
                is_late && runs.unready.as_told(*reason, runs.restarts) == Unready::Ever
            }
            Some(Progress::Cleaning { exit, restarts, unready, .. }) => {
                let is_late = exit.reason == ExitReason::StartFailed;
                is_late && unready.as_told(exit.reason, *restarts) == Unready::Ever
            }
            // Who asks again for one that was replaced gets what has taken its place.
            Some(Progress::Ended { exit, restarts, unready, .. }) => {
                let is_failed = exit.reason != ExitReason::Replaced;
                is_failed && unready.as_told(exit.reason, *restarts) == Unready::Ever
            }
        }
    }

    fn ended_at(&self) -> Option<Timestamp> {
        self.progress.as_ref().and_then(Progress::ended_at)
    }
}
