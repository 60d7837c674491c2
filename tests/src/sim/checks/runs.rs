//! One run of a child after the other: each on record before it begins, due by its policy, and none after its end.

use std::sync::Arc;
use std::time::Duration;

use procbroker_core::{Progress, Receipt, Run};
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{Child, ChildId, Error, ErrorKind};

use crate::sim::agenda::SECOND;
use crate::sim::checks::children;
use crate::sim::checks::orders::known;
use crate::sim::checks::standstill::is_held;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;
use crate::sim::ledger::runs::Between;
use crate::sim::ledger::track::{Start, Track};

/// How long it takes until that a run is to come is recorded again, in nanoseconds.
const RECORD_AGAIN_AFTER: u64 = SECOND;

/// That another run is to come is written to the record.
///
/// # Errors
/// When none is, or it is not that one.
pub fn record(track: &Track, run: Run, progress: &Progress, receipt: Receipt) -> Checked {
    let wrong = || format!("{run:?} is recorded as {progress:?} ({receipt:?}), and is {track:?}");
    let (Progress::Restarting { started_at, exit, until, unwanted, runs }, Some(between)) =
        (progress, &track.runs.between)
    else {
        return Err(Check::Restarts.broken(wrong()));
    };
    let same = *exit == between.exit && *started_at == Some(track.clock.wall(between.started_at));
    Check::Restarts.demand(track.run == run && same && track.runs.are(runs), wrong)?;
    let fair = match unwanted {
        // A renewal is written beside how far the child is, whatever that is; so is whether it lingers.
        None if receipt == Receipt::NotWanted => {
            let is_bound = track.time_to_live().is_some() || track.params.lifetime == Lifetime::Connection;
            is_bound && [0, between.due].contains(&until.as_nanos())
        }
        None => until.as_nanos() == between.due,
        Some((reason, steps)) => {
            let first = track.demands.first();
            let is_meant = first.is_some_and(|demand| demand.reason == *reason && demand.steps == *steps);
            is_meant && track.start == Start::Ordered
        }
    };
    Check::Restarts.demand(fair, wrong)
}

/// It is said that another run follows.
///
/// # Errors
/// When none does, or not after this pause.
pub fn follows(ledger: &Ledger, child: ChildId, pause: Duration) -> Checked {
    let track = known(ledger, child)?;
    let due = track.runs.between.as_ref().map(|between| between.due);
    let told = ledger.now.saturating_add(nanos(pause));
    Check::Restarts.demand(due == Some(told), || {
        format!("another run is said to follow at {told} and not at {due:?}: {track:?}")
    })
}

/// The process of another run is to be started.
///
/// # Errors
/// When it is not due, or not wanted any more.
pub fn begins(ledger: &Ledger, run: Run, between: &Between) -> Checked {
    Check::Restarts.demand(ledger.now >= between.due, || {
        format!("{run:?} begins at {}, and is due at {}", ledger.now, between.due)
    })?;
    Check::Restarts.demand(ledger.closing.is_none(), || format!("{run:?} begins during a shutdown"))
}

/// After a turn: a child that is between two runs has something to wait for.
///
/// # Errors
/// When it stands still.
pub fn goes_on(ledger: &Ledger, track: &Track, between: &Between) -> Checked {
    let now = ledger.now;
    let fair = match track.start {
        Start::Ordered => true,
        Start::Recording => between.unrecorded.is_none_or(|at| now < at + RECORD_AGAIN_AFTER),
        Start::Recorded { .. } => now < between.due || is_held(ledger, track),
        Start::Failed | Start::Killed | Start::Done { .. } => false,
    };
    Check::Restarts.demand(fair, || format!("{:?} is not started again: {track:?}", track.run))
}

/// `restart` is answered.
///
/// # Errors
/// When one of its children does not run again.
pub fn answered(ledger: &Ledger, asked: &Asked, children: &[Arc<Child>]) -> Checked {
    let is_seen = |id: &&ChildId| ledger.tracks.get(id).is_some_and(|track| !track.forgotten);
    let expected: Vec<ChildId> = asked.wishes.keys().filter(is_seen).copied().collect();
    let shown: Vec<ChildId> = children.iter().map(|child| child.id).collect();
    Check::Answers
        .demand(expected == shown, || format!("a restart of {expected:?} is answered with {shown:?}"))?;
    Check::Answers.demand(asked.not_started_again.is_none(), || {
        format!("a restart that fails with {:?} is answered with {shown:?}", asked.not_started_again)
    })?;
    let waits = waits_for(ledger, asked);
    Check::Restarts
        .demand(waits.is_none(), || format!("a restart is answered before {waits:?} runs again"))?;
    // A shutdown ends what is between two runs one after the other, and the last of them may be shown as it was.
    let is_closing = ledger.closing.as_ref().is_some_and(|closing| closing.began == ledger.now);
    let shown = if is_closing { children::as_then } else { children::child };
    children.iter().try_for_each(|child| shown(ledger, asked.peer.uid, child))
}

/// `restart` is refused though its child was there: the program of that cannot be executed any more.
///
/// # Errors
/// When that is not what it is told.
pub fn unanswered(asked: &Asked, error: &Error) -> Checked {
    let told = match &error.kind {
        ErrorKind::SpawnFailed(failure) => Some(failure),
        _ => None,
    };
    Check::Answers.demand(told == asked.not_started_again.as_ref(), || {
        format!("a restart that fails with {:?} is answered with {error:?}", asked.not_started_again)
    })
}

/// After a turn: a `restart` that waits has something to wait for.
///
/// # Errors
/// When it has not.
pub fn wish_goes_on(ledger: &Ledger, asked: &Asked) -> Checked {
    let waits = asked.not_started_again.is_none() && waits_for(ledger, asked).is_some();
    Check::Progress.demand(waits, || format!("{:?} is not answered: {:?}", asked.request, asked.wishes))
}

/// A child that has not been started again as often as it was to be, and has not ended.
fn waits_for<'a>(ledger: &'a Ledger, asked: &Asked) -> Option<&'a Track> {
    let mut wishes = asked.wishes.iter();
    wishes.find_map(|(id, _)| {
        let track = ledger.tracks.get(id)?;
        let runs = asked.runs_again.contains(id);
        (track.is_live() && !runs).then_some(track)
    })
}
