//! What the book keeps when the broker dies, and what the next one has to know, from the record and the contract.

use std::time::Duration;

use procbroker_core::{
    Afterwards, Answered, Finding, Incarnation, Kinship, Members, ProcessState, Progress, Recovered, Run,
    StoppingProgress, Unready,
};
use procbroker_protocol::create::{Ready, StopStep};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{Exit, ExitReason, ExitStatus, Outcome, Signal, Timestamp};

use crate::sim::ledger::Ledger;
use crate::sim::ledger::by_command::Command;
use crate::sim::ledger::cleaning::{Cleaning, Stage};
use crate::sim::ledger::readers::Readers;
use crate::sim::ledger::readiness::{Question, Readiness};
use crate::sim::ledger::runs::{Between, Runs};
use crate::sim::ledger::track::{Demand, Start, Track};

/// How many children a broker finds at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Whose process is there.
    pub alive: u32,
    /// Whose process is not.
    pub ended: u32,
    /// That never were.
    pub void: u32,
}

impl Ledger {
    /// Everything is as an earlier broker has left it; answers which of its children are not on record any more.
    pub fn begin_anew(&mut self, now: u64, found: &[Recovered], answers: &[Answered]) -> Vec<Track> {
        let handed_over_at = self.handed_over_at;
        let mut before = std::mem::take(&mut self.tracks);
        let former = std::mem::take(&mut self.former);
        let creations = std::mem::take(&mut self.creations);
        let before_this = std::mem::take(&mut self.readers);
        // Those of an upgrade are gone on with.
        let (events, next) = match handed_over_at {
            Some(_) => (before_this.events, before_this.next),
            None => Default::default(),
        };
        let readers = Readers { events, next, ..Readers::default() };
        *self =
            Self { now, former, creations, readers, ..Self::new(self.config.clone(), self.clock.clone()) };
        let mut ended = Vec::new();
        for recovered in found {
            let id = recovered.intent.id;
            let Some(track) = before.remove(&id).or_else(|| self.former.remove(&id)) else { continue };
            let track = revived(&track, recovered, (handed_over_at, now));
            if track.is_live() {
                self.live.insert(id);
                self.census(recovered, &track);
            } else if track.void {
                self.found_at_start.void += 1;
            } else if let Some(Progress::Ended { at, .. }) = &recovered.progress {
                ended.push((*at, track.released.unwrap_or_default(), id));
            }
            self.tracks.insert(id, track);
        }
        for Answered { id: _, child, uid, request, same_spec } in answers {
            let outcome = Outcome::Existing { same_spec: *same_spec };
            self.found.insert((*uid, *request), (*child, outcome));
        }
        ended.sort_by_key(|(at, _, _)| *at);
        self.visible = ended.into_iter().map(|(_, at, id)| (at, id)).collect();
        let lost = before.values().filter(|track| !track.forgotten && !track.void).cloned().collect();
        self.former.extend(before);
        lost
    }

    fn census(&mut self, recovered: &Recovered, track: &Track) {
        match recovered.finding {
            Finding::Unexecuted { .. } if track.runs.between.is_none() && track.cleaning.is_none() => {
                self.found_at_start.void += 1;
            }
            Finding::Process { state: ProcessState::Running, .. } => self.found_at_start.alive += 1,
            Finding::Process { state: ProcessState::Zombie, .. }
            | Finding::Unexecuted { .. }
            | Finding::Gone { .. }
            | Finding::NeverStarted
            | Finding::Rebooted => {
                self.found_at_start.ended += 1;
            }
        }
    }
}

/// What the next broker knows of a child.
fn revived(before: &Track, recovered: &Recovered, (handed_over_at, now): (Option<u64>, u64)) -> Track {
    let run = Run { child: before.run.child, incarnation: Incarnation::FIRST };
    let params = std::sync::Arc::clone(&before.params);
    let (run_as, clock) = (before.run_as.clone(), before.clock.clone());
    let mut track = Track::new(run, before.call, before.owner, params, run_as, before.born, clock);
    track.told = before.told.clone();
    track.outcome = Some(recovered.intent.outcome);
    track.recorded_start = true;
    track.lives_on(before, recovered, (handed_over_at, now));
    track.starved = recovered.out_of_memory;
    track.command = Command::left(recovered.probe);
    let finding = recovered.finding;
    match &recovered.progress {
        None | Some(Progress::Unwanted { .. } | Progress::Restarting { .. })
            if matches!(finding, Finding::Unexecuted { .. }) =>
        {
            found_on_its_way(&mut track, recovered, now);
        }
        None | Some(Progress::Unwanted { .. }) if finding == Finding::NeverStarted => {
            track.void = true;
            track.released = Some(now);
        }
        None => {
            may_have_started(&mut track);
            found(&mut track, recovered.intent.created_at, None, finding, now);
        }
        Some(Progress::Unwanted { reason, steps }) => {
            track.refused = *reason == ExitReason::StartFailed;
            track.superseded = *reason == ExitReason::Replaced;
            if !track.refused && !track.superseded {
                may_have_started(&mut track);
            }
            track.demands.push(Demand { reason: *reason, steps: steps.clone() });
            found(&mut track, recovered.intent.created_at, None, finding, now);
        }
        Some(Progress::Starting { started_at, runs, ready_by }) => {
            track.runs = Runs::from_record(runs);
            found(&mut track, *started_at, Some(ready_by.as_nanos()), finding, now);
        }
        Some(Progress::Running { started_at, runs, departure }) => {
            track.runs = Runs::from_record(runs);
            found(&mut track, *started_at, None, finding, now);
            if gone(finding).is_none() {
                track.is_watched_on(before, *departure, (handed_over_at, now));
            }
        }
        Some(Progress::Restarting { started_at, exit, until, unwanted, runs }) => {
            track.runs = Runs::from_record(runs);
            let started_at = started_at.map_or(track.born, |at| track.moment(at, now));
            let due = until.as_nanos();
            let between = Between { exit: exit.clone(), started_at, due, unrecorded: None };
            track.readiness = Readiness::awaited(None);
            let is_replaced = unwanted.as_ref().is_some_and(|(reason, _)| *reason == ExitReason::Replaced);
            track.superseded = is_replaced && track.is_unanswered();
            found_between(&mut track, between, unwanted.as_ref(), finding, now);
        }
        Some(Progress::Stopping(stopping)) => found_stopping(&mut track, stopping, finding, now),
        Some(Progress::Cleaning { started_at, exit, attempts, ended, restarts, unready }) => {
            (track.runs.count, track.runs.unready) = (*restarts, *unready);
            over(&mut track, *started_at, exit, now);
            let waits =
                before.cleaning.as_ref().filter(|cleaning| handed_over_at.is_some() && cleaning.waits());
            let begun = waits.map_or(*attempts, |cleaning| cleaning.attempts - 1);
            let found = found_cleaning(begun, *ended, finding, now);
            let cut_short = before.cleaning.as_ref().is_some_and(|cleaning| {
                cleaning.cut_short && cleaning.attempts == *attempts && ended.is_some()
            });
            track.cleaning = Some(Cleaning { cut_short, ..found });
            // Its time runs on.
            if let (Some(_), Some(Stage::Running { since })) =
                (handed_over_at, before.cleaning.as_ref().map(|cleaning| &cleaning.stage))
                && let Some(Cleaning { stage: Stage::Running { since: anew }, .. }) = &mut track.cleaning
            {
                *anew = *since;
            }
        }
        Some(Progress::Ended { started_at, exit, cleanup, at, restarts, unready }) => {
            (track.runs.count, track.runs.unready) = (*restarts, *unready);
            over(&mut track, *started_at, exit, now);
            track.refused |= track.is_unanswered() && !track.superseded;
            track.cleaned.clone_from(cleanup);
            track.recorded_end = true;
            let ago = track.clock.wall(now).as_micros().saturating_sub(at.as_micros()).saturating_mul(1_000);
            track.released = Some(now.saturating_sub(ago));
        }
    }
    track
}

/// A child that is over but for its cleanup, or wholly.
fn over(track: &mut Track, started_at: Option<Timestamp>, exit: &Exit, now: u64) {
    if let Some(started_at) = started_at {
        track.start = Start::Done { at: track.moment(started_at, now), pid: 0 };
    }
    note_failure(track, exit.reason);
    track.exit = Some((track.moment(exit.at, now), exit.status));
    track.known_exit = Some(exit.clone());
}

/// A child that ran, as far as is on record.
fn found(track: &mut Track, started_at: Timestamp, ready_by: Option<u64>, finding: Finding, now: u64) {
    let at = track.moment(started_at, now);
    track.start = Start::Done { at, pid: pid(finding) };
    let Some((status, members)) = gone(finding) else { return goes_on_starting(track, ready_by, now) };
    track.exit = Some((now, status));
    track.members = members;
    let reason = track.demands.first().map_or(ExitReason::Exited, |demand| demand.reason);
    track.ended_unasked =
        reason == ExitReason::Exited || reason == ExitReason::StartFailed && members == Members::Nothing;
    if finding == Finding::Rebooted {
        let exit = Exit::new(status, lost(track), track.clock.wall(now));
        track.known_exit = Some(exit);
    } else if track.demands.is_empty() && (members != Members::Nothing || !track.is_ready()) {
        let reason = if track.is_ready() { ExitReason::Exited } else { ExitReason::StartFailed };
        track.demands.push(Demand { reason, steps: track.params.stop.clone() });
        track.ended_by_itself = true;
    }
}

/// A child whose program was executed may not have to say that it is ready, or its create does not wait for that.
fn may_have_started(track: &mut Track) {
    if track.params.ready == Ready::Spawn {
        track.runs.unready = Unready::No;
    } else if track.params.no_wait {
        track.runs.unready = Unready::Now;
    }
}

/// A child that is there goes on waiting to be ready with what was left of its time, or is watched for a whole period.
fn goes_on_starting(track: &mut Track, ready_by: Option<u64>, now: u64) {
    if track.is_ready() {
        track.becomes_ready(now);
        return;
    }
    let anew = now.saturating_add(nanos(track.params.ready_timeout.0));
    track.readiness = Readiness::awaited(Some(ready_by.unwrap_or(anew)));
    if let Ready::Probe(probe) = &track.params.ready {
        track.readiness.question = Question::Due { at: now, pause: nanos(probe.interval) };
    }
}

/// A child whose process was left on the way to its program: it is killed there, and never was started.
fn found_on_its_way(track: &mut Track, recovered: &Recovered, now: u64) {
    (track.start, track.is_left_behind) = (Start::Ordered, true);
    (track.unwanted_since, track.readiness) = (Some(now), Readiness::awaited(None));
    let unwanted = match &recovered.progress {
        Some(Progress::Restarting { started_at, exit, until, unwanted, runs }) => {
            track.runs = Runs::from_record(runs);
            let started_at = started_at.map_or(track.born, |at| track.moment(at, now));
            let due = until.as_nanos();
            track.runs.between = Some(Between { exit: exit.clone(), started_at, due, unrecorded: None });
            track.starved = false;
            unwanted.clone()
        }
        Some(Progress::Unwanted { reason, steps }) => Some((*reason, steps.clone())),
        _ => Some((ExitReason::StartFailed, Vec::new())),
    };
    if let Some((reason, steps)) = unwanted {
        track.refused = reason == ExitReason::StartFailed && track.runs.between.is_none();
        track.superseded = reason == ExitReason::Replaced && track.is_unanswered();
        track.demands.push(Demand { reason, steps });
    }
}

/// What is on record of an end tells of its create, too.
fn note_failure(track: &mut Track, reason: ExitReason) {
    track.refused = reason == ExitReason::StartFailed && track.is_unanswered();
    track.superseded = reason == ExitReason::Replaced && track.is_unanswered();
}

/// A child that was between two runs, as far as is on record.
fn found_between(
    track: &mut Track,
    between: Between,
    unwanted: Option<&(ExitReason, Vec<StopStep>)>,
    finding: Finding,
    now: u64,
) {
    let stop = unwanted.map(|(reason, steps)| Demand { reason: *reason, steps: steps.clone() });
    match (finding, stop) {
        (Finding::Process { pid, .. } | Finding::Unexecuted { pid }, stop) => {
            track.start = Start::Done { at: now, pid: pid.get() };
            let by = now.saturating_add(nanos(track.params.ready_timeout.0));
            track.readiness = Readiness::awaited(Some(by));
            track.demands.extend(stop);
            track.run_begins(now);
        }
        (Finding::Gone { status, members: members @ (Members::Outside | Members::Group) }, stop) => {
            track.start = Start::Done { at: between.started_at, pid: 0 };
            track.exit = Some((now, status));
            track.members = members;
            let steps = track.params.stop.clone();
            track.ended_by_itself = stop.is_none();
            let demand = stop.unwrap_or(Demand { reason: ExitReason::Exited, steps });
            track.ended_unasked = demand.reason == ExitReason::Exited;
            track.demands.push(demand);
        }
        // A run that was asked whether it is ready was there, and is not any more.
        (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, stop)
            if track.has_command() =>
        {
            let (status, _) = gone(finding).unwrap_or((ExitStatus::Unknown, Members::Nothing));
            track.start = Start::Done { at: now, pid: 0 };
            track.run_begins(now);
            track.exit = Some((now, status));
            track.ended_by_itself = stop.is_none();
            let steps = track.params.stop.clone();
            track.demands.push(stop.unwrap_or(Demand { reason: ExitReason::StartFailed, steps }));
        }
        // A run that was late, and is not there, is one that has failed.
        (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, Some(stop))
            if stop.reason == ExitReason::StartFailed =>
        {
            track.start = Start::Failed;
            track.runs.between = Some(between);
            track.restart_fails(now);
        }
        (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, Some(stop)) => {
            track.conclude(Exit { reason: stop.reason, ..between.exit }, between.started_at);
            // What the edge has found a trace of is given free first.
            if let (Finding::Gone { .. }, Some(cleaning)) = (finding, &mut track.cleaning) {
                cleaning.stage = Stage::Interrupted { gone: true };
            }
        }
        (Finding::Gone { members: Members::Nothing, .. } | Finding::NeverStarted, None) => {
            // What was found is of the run before.
            track.starved = false;
            track.start = Start::Recorded { written: true };
            track.runs.between = Some(between);
        }
        (Finding::Rebooted, _) => {
            track.conclude(Exit { reason: ExitReason::BrokerLost, ..between.exit }, between.started_at);
        }
    }
}

/// A child whose stop was under way. Its last signal is not sent again, and has the rest of its time.
fn found_stopping(track: &mut Track, stopping: &StoppingProgress, finding: Finding, now: u64) {
    let at = stopping.started_at.map_or(track.born, |at| track.moment(at, now));
    track.start = Start::Done { at, pid: pid(finding) };
    let signals = stopping.taken.iter().filter(|step| step.signal != Signal::KILL || !stopping.forced);
    track.sent = signals.map(|step| (track.moment(step.at, now), step.signal)).collect();
    let taken = track.sent.iter().map(|(_, signal)| StopStep { signal: *signal, grace: Duration::ZERO });
    let steps = taken.chain(stopping.steps.iter().copied()).collect();
    track.demands.push(Demand { reason: stopping.reason, steps });
    let until = stopping.until.as_nanos().max(now);
    track.resumed = Some((track.sent.len(), until));
    track.widened = stopping.widened;
    track.runs = Runs::from_record(&stopping.runs);
    track.runs.wish = stopping.afterwards == Afterwards::Restart;
    track.runs.called_off = stopping.afterwards == Afterwards::End;
    note_failure(track, stopping.reason);
    track.ended_by_itself = stopping.reason == ExitReason::Exited;
    if stopping.forced {
        let first = stopping.taken.iter().rfind(|step| step.signal == Signal::KILL);
        let at = first.map_or(now, |step| track.moment(step.at, now));
        track.killed = Some((at, at));
    }
    let Some((status, members)) = gone(finding) else { return };
    let exit = stopping.ended.map(|(status, at)| (track.moment(at, now), status));
    track.exit = Some(exit.unwrap_or((now, status)));
    track.ended_unasked = stopping.reason == ExitReason::Exited;
    track.members = members;
    if finding == Finding::Rebooted {
        let (status, at) = stopping.ended.unwrap_or((ExitStatus::Unknown, track.clock.wall(now)));
        let (steps, forced) = (stopping.taken.clone(), stopping.forced);
        // No run follows on that.
        track.runs.wish = false;
        track.known_exit = Some(Exit { forced, steps, ..Exit::new(status, lost(track), at) });
    }
}

/// A cleanup that was under way: it is begun anew, unless its broker is still the same, or its process had ended.
fn found_cleaning(attempts: u32, ended: Option<ExitStatus>, finding: Finding, now: u64) -> Cleaning {
    let due = Cleaning::due(attempts);
    if ended.is_some() {
        let members = gone(finding).map_or(Members::Nothing, |(_, members)| members);
        let released = matches!(finding, Finding::NeverStarted | Finding::Rebooted);
        return Cleaning { stage: Stage::Over { status: ended, released }, members, ..due };
    }
    match finding {
        Finding::Process { kinship: Kinship::Own, .. } => {
            Cleaning { stage: Stage::Running { since: now }, ..due }
        }
        Finding::Process { kinship: Kinship::Foreign, .. } | Finding::Unexecuted { .. } => {
            Cleaning { stage: Stage::Interrupted { gone: false }, ..due }
        }
        Finding::Gone { members, .. } => {
            Cleaning { stage: Stage::Interrupted { gone: true }, members, ..due }
        }
        Finding::NeverStarted | Finding::Rebooted => due,
    }
}

/// How a process ended that is not there, and what it left.
fn gone(finding: Finding) -> Option<(ExitStatus, Members)> {
    match finding {
        Finding::Process { .. } | Finding::Unexecuted { .. } => None,
        Finding::Gone { status, members } => Some((status, members)),
        Finding::NeverStarted | Finding::Rebooted => Some((ExitStatus::Unknown, Members::Nothing)),
    }
}

fn pid(finding: Finding) -> u32 {
    match finding {
        Finding::Process { pid, .. } | Finding::Unexecuted { pid } => pid.get(),
        Finding::Gone { .. } | Finding::NeverStarted | Finding::Rebooted => 0,
    }
}

/// Why a child has ended that has ended with the machine.
fn lost(track: &Track) -> ExitReason {
    let first = track.demands.first().map(|demand| demand.reason);
    let has_failed = first.map_or(!track.is_ready(), |reason| reason == ExitReason::StartFailed);
    if has_failed && track.is_unanswered() { ExitReason::StartFailed } else { ExitReason::BrokerLost }
}
