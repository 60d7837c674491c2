//! The first thing that a broker does: it takes over what an earlier one has left on record.

use std::sync::Arc;

use procbroker_protocol::{ChildId, EventKind, Exit, ExitReason, ExitStatus, Span, StepTaken, Timestamp};

use crate::broker::Broker;
use crate::child::{Child, Cleaning, CleaningStage, Fate, Leader, Phase, Remains, Stop, StopStage, Stopping};
use crate::config::Config;
use crate::effect::{Effect, Receipt, Report, Safety};
use crate::ids::{Incarnation, Run};
use crate::input::Members;
use crate::record::{Finding, Intent, Kinship, Progress, Recovered, Role, StoppingProgress};
use crate::time::{Instant, Now};
use crate::turn::Turn;

/// How many children of each kind were found.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    alive: u32,
    ended: u32,
    void: u32,
}

impl Broker {
    /// A broker that goes on where an earlier one was. `found` is all that is on record, oldest first, with what
    /// there is of it now; the orders that follow come before any other.
    #[must_use]
    pub fn recover(config: Config, now: Now, found: Vec<Recovered>, effects: &mut Vec<Effect>) -> Self {
        let mut broker = Self::new(config);
        let turn = &mut Turn::new(now, effects);
        if found.is_empty() {
            broker.start_main(turn);
            broker.watch_idleness(turn);
            return broker;
        }
        let (mut ended, live): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|child| child.ended_at().is_some());
        // They go in the order of their end when their time is over.
        ended.sort_by_key(Recovered::ended_at);
        for child in ended {
            match child.intent.role {
                Role::Child => broker.take_in_ended(child, now),
                // Nobody ever saw it.
                Role::Main => turn.order(Effect::Forget { child: child.intent.id }),
            }
        }
        let mut counts = Counts::default();
        for child in live {
            broker.take_over(child, &mut counts, turn);
        }
        let Counts { alive, ended, void } = counts;
        if (alive, ended, void) != (0, 0, 0) {
            turn.order(Effect::Report(Report::Recovered { alive, ended, void }));
        }
        broker.start_main(turn);
        broker.forget_expired(turn);
        broker.start_next(turn);
        broker.watch_idleness(turn);
        broker
    }

    fn take_in(&mut self, intent: &Intent, has_failed_to_start: bool) {
        let entry = Child::new(intent);
        let (id, uid) = (intent.id, intent.owner.uid);
        let known = intent.params.request_id.and_then(|request| self.children.answered_with(uid, request));
        // The same request starts another child when the first one has failed to start: that one is its answer.
        let is_superseded = known.is_some_and(|(other, _)| other > id);
        if has_failed_to_start || is_superseded {
            self.children.insert_unasked(entry);
        } else {
            self.children.insert(entry);
        }
    }

    /// A child that had ended already: it stays visible until its time is over.
    fn take_in_ended(&mut self, child: Recovered, now: Now) {
        let is_failed = child.has_failed_to_start();
        let Some(Progress::Ended { started_at, exit, cleanup, at }) = child.progress else { return };
        let id = child.intent.id;
        self.take_in(&child.intent, is_failed);
        self.children.update(id, |entry| {
            entry.phase = Phase::Ended;
            let shown = Arc::make_mut(&mut entry.shown);
            (shown.started_at, shown.exit, shown.cleanup) = (started_at, Some(exit), cleanup);
        });
        // An end that lies ahead was told by a clock that has been set back since.
        self.children.end(id, now.instant_at(at).min(now.instant));
    }

    /// A child that had not ended, as far as is on record.
    fn take_over(&mut self, child: Recovered, counts: &mut Counts, turn: &mut Turn<'_>) {
        let is_failed = child.has_failed_to_start();
        let Recovered { intent, progress, finding } = child;
        let (id, created_at, role) = (intent.id, intent.created_at, intent.role);
        let is_unspawned = match &progress {
            None | Some(Progress::Unwanted { .. }) => true,
            Some(
                Progress::Running { .. }
                | Progress::Stopping(_)
                | Progress::Cleaning { .. }
                | Progress::Ended { .. },
            ) => false,
        };
        if is_unspawned && finding == Finding::NeverStarted {
            counts.void += 1;
            return turn.order(Effect::Forget { child: id });
        }
        self.take_in(&intent, is_failed);
        match finding {
            Finding::Process { .. } => counts.alive += 1,
            Finding::Gone { .. } | Finding::NeverStarted | Finding::Rebooted => counts.ended += 1,
        }
        match progress {
            None => self.resume_running(id, created_at, finding, turn),
            Some(Progress::Unwanted { reason, steps }) => {
                let stop = Stop { reason, steps, kill_by: None };
                self.resume_unwanted(id, created_at, stop, finding, turn);
            }
            Some(Progress::Running { started_at }) => self.resume_running(id, started_at, finding, turn),
            Some(Progress::Stopping(stopping)) => self.resume_stop(id, stopping, finding, turn),
            Some(Progress::Cleaning { started_at, exit, attempts, ended }) => {
                self.set_started(id, started_at);
                let stage = CleaningStage::Recording;
                let cleaning = Cleaning { exit, attempts, stage, fate: Fate::Finish };
                self.set_phase(id, Phase::Cleaning(Box::new(cleaning)));
                match ended {
                    Some(status) => self.resume_ended_cleanup(id, status, finding, turn),
                    None => self.resume_cleanup(id, finding, turn),
                }
            }
            Some(Progress::Ended { .. }) => {}
        }
        if role == Role::Main {
            let is_own = matches!(finding, Finding::Process { kinship: Kinship::Own, .. });
            self.main_recovered(id, is_own, turn);
        }
    }

    fn set_started(&mut self, id: ChildId, started_at: Option<Timestamp>) {
        self.children.update(id, |entry| Arc::make_mut(&mut entry.shown).started_at = started_at);
    }

    fn resume_running(&mut self, id: ChildId, started_at: Timestamp, finding: Finding, turn: &mut Turn<'_>) {
        self.set_started(id, Some(started_at));
        match finding {
            Finding::Process { pid, .. } => {
                self.set_phase(id, Phase::Running { pid });
                // Its process may not have been on record.
                self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
            }
            Finding::Gone { .. } | Finding::NeverStarted | Finding::Rebooted => {
                let Some(entry) = self.children.get(id) else { return };
                let steps = entry.params().stop.clone();
                self.resume_gone(
                    id,
                    Stop { reason: ExitReason::Exited, steps, kill_by: None },
                    finding,
                    turn,
                );
            }
        }
    }

    /// A child that was to be stopped as soon as it was there.
    fn resume_unwanted(
        &mut self,
        id: ChildId,
        created_at: Timestamp,
        stop: Stop,
        finding: Finding,
        turn: &mut Turn<'_>,
    ) {
        self.set_started(id, Some(created_at));
        match finding {
            Finding::Process { pid, .. } => self.enter_stop(id, stop, Leader::Alive { pid }, turn),
            // Its signals go to its process group, and nothing is left of that.
            Finding::Gone { members: Members::Outside, .. } => {
                self.resume_gone(id, Stop { steps: Vec::new(), ..stop }, finding, turn);
            }
            Finding::Gone { members: Members::Nothing | Members::Group, .. }
            | Finding::NeverStarted
            | Finding::Rebooted => {
                self.resume_gone(id, stop, finding, turn);
            }
        }
    }

    /// A child whose main process has ended while no broker was there; what it left behind gets this stop.
    fn resume_gone(&mut self, id: ChildId, stop: Stop, finding: Finding, turn: &mut Turn<'_>) {
        let at = turn.now.wall;
        let (status, members, reason) = match finding {
            Finding::Gone { status, members } => (status, members, stop.reason),
            Finding::NeverStarted | Finding::Process { .. } => {
                (ExitStatus::Unknown, Members::Nothing, stop.reason)
            }
            Finding::Rebooted => (ExitStatus::Unknown, Members::Nothing, lost_with_the_machine(stop.reason)),
        };
        if members == Members::Nothing {
            self.lost(id, Exit { status, reason, forced: false, steps: Vec::new(), at }, turn);
        } else {
            self.enter_stop(id, stop, Leader::Gone { status, at, members }, turn);
        }
    }

    /// Goes on with a stop. The signal of the step that it was at has been sent, and is not sent again.
    fn resume_stop(
        &mut self,
        id: ChildId,
        stopping: StoppingProgress,
        finding: Finding,
        turn: &mut Turn<'_>,
    ) {
        let now = turn.now;
        let StoppingProgress { started_at, reason, ended, steps, until, taken, forced } = stopping;
        self.set_started(id, started_at);
        let gone = |status, members| match ended {
            Some((status, at)) => Leader::Gone { status, at, members },
            None => Leader::Gone { status, at: now.wall, members },
        };
        let leader = match finding {
            Finding::Process { pid, .. } => Leader::Alive { pid },
            Finding::Gone { status, members } => gone(status, members),
            Finding::NeverStarted => gone(ExitStatus::Unknown, Members::Nothing),
            Finding::Rebooted => {
                let (status, at) = ended.unwrap_or((ExitStatus::Unknown, now.wall));
                let reason = lost_with_the_machine(reason);
                return self.lost(id, Exit { status, reason, forced, steps: taken, at }, turn);
            }
        };
        let stage = StopStage::Asking { until: end_of_step(now, until, taken.last()) };
        let steps = steps.into();
        let phase = Stopping { reason, leader, steps, stage, taken, forced, kill_by: None };
        self.set_phase(id, Phase::Stopping(Box::new(phase)));
        self.follow_stop(id);
        match leader {
            Leader::Gone { .. } if ended.is_none() => self.publish(EventKind::Exited, id, turn),
            Leader::Gone { .. } | Leader::Alive { .. } => {}
        }
        match leader {
            Leader::Gone { members: Members::Nothing, .. } => {}
            Leader::Gone { .. } | Leader::Alive { .. } if forced => self.kill(id, turn),
            Leader::Gone { .. } | Leader::Alive { .. } => {
                self.record_progress(id, Safety::Process, Receipt::NotWanted, turn);
            }
        }
        self.look_at(id, turn);
    }

    /// An attempt that an earlier broker began was interrupted by its death: whatever is left of it goes first, and
    /// then it is begun anew.
    fn resume_cleanup(&mut self, id: ChildId, finding: Finding, turn: &mut Turn<'_>) {
        match finding {
            // Its broker has not died.
            Finding::Process { kinship: Kinship::Own, .. } => self.cleanup_spawned(id, turn),
            Finding::Process { kinship: Kinship::Foreign, .. }
            | Finding::Gone { members: Members::Outside | Members::Group, .. } => {
                self.kill_cleanup(id, Remains::Interrupted, turn);
            }
            // The edge holds whatever it has found something of.
            Finding::Gone { members: Members::Nothing, .. } => {
                turn.order(Effect::Release { run: Self::recovered_run(id) });
                self.begin_attempt(id, turn);
            }
            Finding::NeverStarted | Finding::Rebooted => self.begin_attempt(id, turn),
        }
    }

    /// The process of an attempt had ended by itself, and what it left behind was being killed: that is seen through,
    /// and not begun anew.
    fn resume_ended_cleanup(
        &mut self,
        id: ChildId,
        status: ExitStatus,
        finding: Finding,
        turn: &mut Turn<'_>,
    ) {
        let remains = Remains::Descendants(status);
        match finding {
            Finding::Process { .. } | Finding::Gone { members: Members::Outside | Members::Group, .. } => {
                self.kill_cleanup(id, remains, turn);
            }
            Finding::Gone { members: Members::Nothing, .. } => self.attempt_is_over(id, remains, turn),
            Finding::NeverStarted | Finding::Rebooted => self.conclude_attempt(id, Some(status), turn),
        }
    }

    /// A child of which nothing is left.
    fn lost(&mut self, id: ChildId, exit: Exit, turn: &mut Turn<'_>) {
        self.publish_exit(id, &exit, turn);
        self.release(id, exit, turn);
    }

    fn set_phase(&mut self, id: ChildId, phase: Phase) {
        self.children.update(id, |entry| entry.phase = phase);
    }

    /// Which process is meant by what is on record, for the edge to hold it under.
    #[must_use]
    pub fn recovered_run(child: ChildId) -> Run {
        Run { child, incarnation: Incarnation::FIRST }
    }
}

/// Why a child has ended that was lost with the machine. That its create has failed is to be known after the next crash,
/// too.
fn lost_with_the_machine(reason: ExitReason) -> ExitReason {
    if reason == ExitReason::StartFailed { reason } else { ExitReason::BrokerLost }
}

/// When the step that was taken last has had its time. A wall clock that was set back does not lengthen it.
fn end_of_step(now: Now, until: Timestamp, taken: Option<&StepTaken>) -> Instant {
    let end = now.instant_at(until).max(now.instant);
    let grace = taken.and_then(|step| until.as_micros().checked_sub(step.at.as_micros()));
    grace.map_or(end, |microseconds| {
        end.min(now.instant.plus(Span::from_nanos(microseconds.saturating_mul(1_000))))
    })
}

impl Recovered {
    /// Whether its create was answered with an error: the same request starts another one.
    fn has_failed_to_start(&self) -> bool {
        let reason = match &self.progress {
            None | Some(Progress::Running { .. }) => return false,
            Some(Progress::Unwanted { reason, .. }) => *reason,
            Some(Progress::Stopping(stopping)) => stopping.reason,
            Some(Progress::Cleaning { exit, .. } | Progress::Ended { exit, .. }) => exit.reason,
        };
        reason == ExitReason::StartFailed
    }

    fn ended_at(&self) -> Option<Timestamp> {
        match &self.progress {
            Some(Progress::Ended { at, .. }) => Some(*at),
            Some(
                Progress::Unwanted { .. }
                | Progress::Running { .. }
                | Progress::Stopping(_)
                | Progress::Cleaning { .. },
            )
            | None => None,
        }
    }
}
