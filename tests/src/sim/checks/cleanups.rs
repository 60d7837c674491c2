//! Cleanups: after all of the child is gone, one attempt at a time, on record before and after, with its exit.

use std::sync::Arc;

use procbroker_core::{Members, Progress, Receipt, Run, Safety, SpawnOrder};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{ChildId, Cleaned, Exit, ExitStatus};

use crate::sim::checks::orders::{alone, has_a_turn, known};
use crate::sim::checks::standstill::is_held;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::cleaning::{Cleaning, Stage};
use crate::sim::ledger::track::Track;
use crate::sim::machine::{Machine, Past};

/// How long a cleanup waits after a shortage at the least, in nanoseconds.
const SHORTAGE_PAUSE_FIRST: u64 = 100_000_000;
/// See [`SHORTAGE_PAUSE_FIRST`]: and at the most.
const SHORTAGE_PAUSE_MAX: u64 = 10_000_000_000;

/// Something about a cleanup is written to the record of its child.
///
/// # Errors
/// When it is not so, or is not to be that safe.
pub fn record(
    ledger: &Ledger,
    (track, cleaning): (&Track, &Cleaning),
    run: Run,
    progress: &Progress,
    how: (Safety, Receipt),
) -> Checked {
    let wrong = || format!("{run:?} is recorded as {progress:?} ({how:?}), and is {track:?}");
    let is_same = cleaning.incarnation == run.incarnation;
    let fair = match (progress, how.1) {
        (Progress::Cleaning { attempts, ended: None, .. }, Receipt::Wanted) => {
            let due = cleaning.stage == Stage::Due || is_interrupted_wholly(cleaning);
            let next = run.incarnation == cleaning.incarnation.next() && *attempts == cleaning.attempts + 1;
            Check::Cleanup.demand(!is_full(ledger), || format!("{run:?} is begun after the time for it"))?;
            due && next
        }
        (Progress::Cleaning { attempts, ended: Some(ended), .. }, Receipt::NotWanted) => {
            // One that a shutdown has cut short is to be done again.
            let over = Stage::Over { status: Some(*ended), released: false };
            let done = !cleaning.cut_short || *ended == ExitStatus::Code(0);
            is_same && cleaning.stage == over && done && *attempts == cleaning.attempts
        }
        (Progress::Cleaning { attempts, ended: None, .. }, Receipt::NotWanted) => {
            let begun = match cleaning.stage {
                Stage::Running { .. } | Stage::Interrupted { gone: true } => true,
                Stage::Over { released: false, .. } => ledger.closing.is_some(),
                _ => false,
            };
            let known = begun || may_be_left(ledger, run.child);
            is_same && known && *attempts == cleaning.attempts
        }
        (Progress::Ended { cleanup: Some(cleaned), at, .. }, Receipt::Wanted) => {
            let Stage::Over { status, released: true } = cleaning.stage else {
                return Err(Check::Cleanup.broken(wrong()));
            };
            let ok = status == Some(ExitStatus::Code(0));
            Check::Cleanup.demand(ok || !cleaning.cut_short, || {
                format!("the cleanup {run:?} was cut short, and counts as done: {cleaning:?}")
            })?;
            let safe = how.0 == Safety::Power && *at == ledger.clock.wall(ledger.now);
            is_same && safe && *cleaned == Cleaned { ok, exit: status, attempts: cleaning.attempts }
        }
        (Progress::Cleaning { ended: Some(_), .. }, Receipt::Wanted)
        | (Progress::Ended { .. }, Receipt::Wanted | Receipt::NotWanted)
        | (
            Progress::Unwanted { .. }
            | Progress::Starting { .. }
            | Progress::Running { .. }
            | Progress::Restarting { .. }
            | Progress::Stopping(_),
            _,
        ) => false,
    };
    Check::Cleanup.demand(fair, wrong)?;
    let (Progress::Cleaning { exit, unready, .. } | Progress::Ended { exit, unready, .. }) = progress else {
        return Ok(());
    };
    Check::Readiness.demand(*unready == track.runs.unready, wrong)?;
    Check::Cleanup.demand(track.known_exit.as_ref() == Some(exit), wrong)
}

/// Whether there is nothing left of an attempt that an earlier broker began.
fn is_interrupted_wholly(cleaning: &Cleaning) -> bool {
    matches!(cleaning.stage, Stage::Interrupted { .. }) && cleaning.is_over()
}

/// Whether a shutdown has no more time for cleanups.
fn is_full(ledger: &Ledger) -> bool {
    ledger.closing.as_ref().is_some_and(|closing| closing.kills_cleanups(ledger.now))
}

/// Whether a cleanup may be left to the next broker, as far as it is.
#[must_use]
pub fn may_be_left(ledger: &Ledger, child: ChildId) -> bool {
    let cleaning = ledger.tracks.get(&child).and_then(|track| track.cleaning.as_ref());
    let Some(cleaning) = cleaning.filter(|_| ledger.closing.is_some()) else { return false };
    match &cleaning.stage {
        Stage::Due | Stage::Recording | Stage::Recorded => true,
        Stage::Over { status, released } => *released && *status != Some(ExitStatus::Code(0)),
        Stage::Interrupted { .. } => cleaning.is_over(),
        Stage::Ordered { .. }
        | Stage::Running { .. }
        | Stage::Closing { .. }
        | Stage::Closed { .. }
        | Stage::Left => false,
    }
}

/// A cleanup is started.
///
/// # Errors
/// When something of the child is there, or it is not on record, or was done already.
pub fn spawn(ledger: &Ledger, machine: &Machine, run: Run, order: &Arc<SpawnOrder>, exit: &Exit) -> Checked {
    let track = known(ledger, run.child)?;
    let its_turn = track
        .cleaning
        .as_ref()
        .is_some_and(|cleaning| cleaning.incarnation == run.incarnation && cleaning.stage == Stage::Recorded);
    let short = track.cleaning.as_ref().and_then(|cleaning| cleaning.short);
    Check::Cleanup.demand(short.is_none_or(|since| ledger.now >= since + SHORTAGE_PAUSE_FIRST), || {
        format!("{run:?} is tried again without a pause, after a shortage at {short:?}")
    })?;
    Check::Cleanup.demand(its_turn && track.is_live(), || format!("{run:?} is begun, and is {track:?}"))?;
    Check::Cleanup.demand(track.known_exit.as_ref() == Some(exit), || {
        format!("the cleanup {run:?} is told {exit:?}, and its child had {:?}", track.known_exit)
    })?;
    Check::Orders.demand(order.params == track.params && order.run_as == track.run_as, || {
        format!("{run:?} is spawned otherwise than recorded")
    })?;
    has_a_turn(ledger, track)?;
    let past = machine.past(run.child);
    let is_excused = track.cleaning.as_ref().is_some_and(|cleaning| cleaning.is_excused);
    Check::Cleanup.demand(past.cleaned_by != Some(machine.brokers) || is_excused, || {
        format!("the cleanup {run:?} is begun again, although its broker is still the same: {past:?}")
    })?;
    alone(ledger, machine, run, track)
}

/// A cleanup is killed.
///
/// # Errors
/// When it has time left.
pub fn kill(ledger: &Ledger, track: &Track, cleaning: &Cleaning, run: Run) -> Checked {
    let due = match cleaning.stage {
        Stage::Running { since } => ledger.closing.is_some() || ledger.now >= track.cleanup_over_at(since),
        Stage::Over { .. } | Stage::Interrupted { .. } => !cleaning.is_over(),
        Stage::Due
        | Stage::Recording
        | Stage::Recorded
        | Stage::Ordered { .. }
        | Stage::Closing { .. }
        | Stage::Closed { .. }
        | Stage::Left => false,
    };
    let again = cleaning.killed.is_some();
    Check::Cleanup.demand(due || again, || format!("the cleanup {run:?} is killed: {cleaning:?}"))
}

/// A cleanup is killed on the way to its program.
///
/// # Errors
/// When it has time left, or was killed already.
pub fn cuts_short(ledger: &Ledger, track: &Track, cleaning: &Cleaning) -> Checked {
    let Stage::Ordered { since } = cleaning.stage else { return Ok(()) };
    let due = ledger.closing.is_some()
        || ledger.now >= track.cleanup_launched_by(since)
        || ledger.upgrade.is_clearing(ledger.now);
    Check::Cleanup.demand(due && cleaning.killed.is_none(), || {
        format!("the cleanup of {:?} is killed on the way to its program: {cleaning:?}", track.run)
    })
}

/// A child is over: so is its cleanup.
///
/// # Errors
/// When there is one, and it has not come to its end.
pub fn done(track: &Track, truth: &Past) -> Checked {
    if track.params.cleanup.is_none() {
        return Ok(());
    }
    let closed = match track.cleaning.as_ref().map(|cleaning| &cleaning.stage) {
        Some(Stage::Closed { cleaned }) => cleaned.exit.is_none() || truth.cleanups > 0,
        Some(_) | None => false,
    };
    Check::Cleanup.demand(closed, || format!("{:?} is over before its cleanup: {track:?}", track.run))
}

/// After a turn: a cleanup that can go on does.
///
/// # Errors
/// When it stands still.
pub fn goes_on(ledger: &Ledger, track: &Track, cleaning: &Cleaning) -> Checked {
    let (now, full) = (ledger.now, is_full(ledger));
    let fair = match cleaning.stage {
        Stage::Due | Stage::Closed { .. } => false,
        Stage::Recording => !full,
        Stage::Recorded => {
            let pauses = cleaning.short.is_some_and(|since| now < since + SHORTAGE_PAUSE_MAX);
            !full && (pauses || is_held(ledger, track))
        }
        Stage::Ordered { since } => {
            let is_timely =
                now < track.cleanup_launched_by(since) && !full && !ledger.upgrade.is_clearing(now);
            is_timely || cleaning.killed.is_some()
        }
        Stage::Closing { .. } => true,
        Stage::Left => ledger.closing.is_some(),
        Stage::Running { since } => match cleaning.killed {
            None => now < track.cleanup_over_at(since) && !full,
            Some((_, last)) => now < last + nanos(procbroker_core::KILL_AGAIN_AFTER),
        },
        Stage::Over { .. } | Stage::Interrupted { .. } => {
            let last = cleaning.killed.map_or(0, |(_, last)| last);
            let killed = now < last + nanos(procbroker_core::KILL_AGAIN_AFTER);
            !cleaning.is_over() && cleaning.killed.is_some() && killed
        }
    };
    Check::Cleanup.demand(fair, || format!("the cleanup of {:?} stands still: {cleaning:?}", track.run))?;
    let early = cleaning.members != Members::Nothing && !cleaning.has_processes();
    Check::Cleanup.demand(!early, || format!("the cleanup of {:?} left something: {cleaning:?}", track.run))
}
