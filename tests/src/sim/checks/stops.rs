//! The steps of a stop: their order, their graces, and SIGKILL after them.

use procbroker_core::{Members, Run};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ExitReason, Signal};

use crate::sim::checks::cleanups;
use crate::sim::checks::orders::known;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::Track;

/// The shortest pause between two kills of the same child, in nanoseconds.
const KILL_AGAIN_FIRST: u64 = 10_000_000;

/// A signal of a stop is sent.
///
/// # Errors
/// When it is not the next one, or not the time for it.
pub fn step(ledger: &Ledger, run: Run, signal: Signal, scope: Scope) -> Checked {
    let track = known(ledger, run.child)?;
    if let Some(reach) = track.to_continue {
        return Check::Stops.demand((signal, scope) == (Signal::CONT, reach), || {
            format!("{run:?} may be suspended, and gets {signal} ({scope:?}) after {:?}", track.sent)
        });
    }
    let reason = wanted(ledger, track)?;
    if track.is_to_be_widened() {
        let last = track.sent.last().map(|(_, signal)| *signal);
        return Check::Stops.demand((Some(signal), scope) == (last, Scope::All), || {
            format!("what {run:?} has left outside its group gets {signal} ({scope:?}) instead of {last:?}")
        });
    }
    let next = track.steps().get(track.sent.len()).map(|step| step.signal);
    Check::Stops.demand(track.killed.is_none() && next == Some(signal), || {
        format!("{signal} to {run:?} instead of {next:?} after {:?}", track.sent)
    })?;
    let is_own_end = reason == ExitReason::Exited || track.ended_by_itself;
    let is_outside = track.exit.is_some() && track.members == Members::Outside;
    let reach = if is_own_end || is_outside { Scope::All } else { Scope::Group };
    Check::Stops.demand(scope == reach, || format!("{signal} goes to the {scope:?} of {run:?}"))?;
    let due = track.next_step_at();
    Check::Stops.demand(due.is_none_or(|due| due == ledger.now), || {
        format!("{signal} to {run:?} comes at {} and not at {due:?}", ledger.now)
    })
}

/// SIGKILL is sent.
///
/// # Errors
/// When something less was to be tried before.
pub fn kill(ledger: &Ledger, run: Run) -> Checked {
    let track = known(ledger, run.child)?;
    if let Some(cleaning) = &track.cleaning {
        return cleanups::kill(ledger, track, cleaning, run);
    }
    if track.killed.is_some() {
        return Ok(());
    }
    wanted(ledger, track)?;
    let now = ledger.now;
    let tried = track.sent.len() == track.steps().len();
    let steps_over = tried && track.next_step_at().is_none_or(|due| due == now);
    let time_is_up = track.kill_by.is_some_and(|by| by <= now)
        || ledger.closing.as_ref().is_some_and(|closing| closing.kills(now));
    Check::Stops.demand(steps_over || time_is_up, || {
        format!("{run:?} is killed at {now} after {:?} of {:?}", track.sent, track.steps())
    })
}

/// SIGKILL is sent to a process on the way to its program.
///
/// # Errors
/// When it has time left, or has got it already.
pub fn cuts_short(ledger: &Ledger, run: Run) -> Checked {
    let track = known(ledger, run.child)?;
    if let Some(cleaning) = &track.cleaning {
        return cleanups::cuts_short(ledger, track, cleaning);
    }
    Check::Stops
        .demand(track.killed.is_none(), || format!("{run:?} is killed twice on the way to its program"))?;
    let up = ledger.closing.as_ref().is_some_and(|closing| closing.kills(ledger.now));
    let over = track.launch_over_at().is_some_and(|at| at <= ledger.now);
    let due = track.is_left_behind || up || over || ledger.upgrade.is_clearing(ledger.now);
    Check::Stops.demand(due, || format!("{run:?} is killed on the way to its program: {track:?}"))
}

/// After a turn: a process that is to be stopped is not on its way to its program for longer than a moment.
fn gets_on(ledger: &Ledger, track: &Track) -> Checked {
    let up = ledger.closing.as_ref().is_some_and(|closing| closing.kills(ledger.now));
    let over = track.launch_over_at().is_some_and(|at| at <= ledger.now);
    let due = track.is_left_behind || up || over || ledger.upgrade.is_clearing(ledger.now);
    Check::Stops.demand(!track.is_launching() || !due || track.killed.is_some(), || {
        format!("{:?} hangs on the way to its program, and nobody ends it: {track:?}", track.run)
    })
}

/// Why a child is stopped.
fn wanted(ledger: &Ledger, track: &Track) -> Result<ExitReason, crate::sim::finding::Finding> {
    let reason = track.demands.first().map(|demand| demand.reason);
    let check = if ledger.closing.is_some() { Check::Shutdown } else { Check::Privilege };
    reason.ok_or_else(|| check.broken(format!("{:?} is stopped, and nobody wants that yet", track.run)))
}

/// After a turn: a stop that is wanted has begun, and no step of it is overdue.
///
/// # Errors
/// When a stop stands still.
pub fn goes_on(ledger: &Ledger, track: &Track) -> Checked {
    let (now, run) = (ledger.now, track.run);
    if let Some(cleaning) = &track.cleaning {
        return cleanups::goes_on(ledger, track, cleaning);
    }
    gets_on(ledger, track)?;
    // What is left of it is killed on its own.
    if !track.is_spawned() || track.is_outlived() {
        return Ok(());
    }
    Check::Stops.demand(track.to_continue.is_none(), || {
        format!("{run:?} may be suspended, and is not continued after {:?}", track.sent)
    })?;
    Check::Stops.demand(track.demands.is_empty() || track.is_stopping(), || {
        format!("nobody stops {run:?}: {:?}", track.demands)
    })?;
    if let Some((_, last)) = track.killed {
        let again = last + nanos(procbroker_core::KILL_AGAIN_AFTER);
        let last_call = ledger.closing.as_ref().and_then(|closing| closing.last_call(now));
        let heard = last_call.is_none_or(|at| last + KILL_AGAIN_FIRST >= at);
        return Check::Stops
            .demand(now < again && heard, || format!("SIGKILL to {run:?} is not sent again, since {last}"));
    }
    let up = ledger.closing.as_ref().is_some_and(|closing| closing.kills(now));
    Check::Shutdown.demand(!up, || format!("{run:?} is not killed, and the time for it is over"))?;
    let in_time = track.kill_by.is_none_or(|by| now < by) || !track.is_stopping();
    Check::Shutdown.demand(in_time, || format!("{run:?} takes more than its share of the time"))?;
    let due = track.next_step_at();
    Check::Stops.demand(due.is_none_or(|due| now < due), || {
        format!("the stop of {run:?} stands still since {due:?}")
    })?;
    Check::Stops.demand(!track.is_to_be_widened(), || {
        format!("what {run:?} has left outside its group does not get {:?}", track.sent.last())
    })
}
