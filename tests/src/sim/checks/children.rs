//! A child is shown as it is, and only to those who may see it.

use procbroker_protocol::{Child, ChildState, Exit, ExitReason, ExitStatus};

use crate::sim::finding::{Check, Checked, Finding};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::{Start, Track};

/// A child is shown to a user, as it is now.
///
/// # Errors
/// When it is not his to see, or is not so.
pub fn child(ledger: &Ledger, uid: u32, child: &Child) -> Checked {
    let track = seen(ledger, uid, child)?;
    let state = state(track, ledger.now);
    // Several that end in one turn do so one after the other, and what is told of that shows the next one as it was before.
    let was_between = matches!(child.state, ChildState::Backoff | ChildState::Starting);
    let is_so = child.state == state || was_between && track.is_about_to_be_over();
    Check::Children.demand(is_so, || {
        format!("{} is shown as {:?} and is {state:?}: {track:?}", child.id, child.state)
    })?;
    details(track, child)
}

/// A child is shown to a user, as it was a while ago.
///
/// # Errors
/// When it is not his to see, or was never so.
pub fn as_then(ledger: &Ledger, uid: u32, child: &Child) -> Checked {
    let track = seen(ledger, uid, child)?;
    details(track, child)
}

fn seen<'a>(ledger: &'a Ledger, uid: u32, child: &Child) -> Result<&'a Track, Finding> {
    let track = ledger
        .tracks
        .get(&child.id)
        .ok_or_else(|| Check::Children.broken(format!("{} is shown and is no child", child.id)))?;
    Check::Privilege.demand(ledger.may_touch(uid, track.owner), || {
        format!("user {uid} is shown {} of {:?}", child.id, track.owner)
    })?;
    let params = &track.params;
    let same = child.owner == track.owner
        && child.name == params.name
        && child.labels == params.labels
        && child.command == params.command
        && child.stop_order == params.stop_order
        && child.created_at == track.clock.wall(track.born)
        && child.restarts == track.runs.count;
    Check::Children.demand(same, || format!("{child:?} is shown and is {track:?}"))?;
    Ok(track)
}

/// In which state a child is.
#[must_use]
pub fn state(track: &Track, now: u64) -> ChildState {
    if !track.is_live() {
        ChildState::Ended
    } else if track.is_pausing(now) {
        ChildState::Backoff
    } else if !track.is_spawned() {
        ChildState::Starting
    } else if track.cleaning.is_some() {
        ChildState::Cleaning
    } else if track.is_stopping() || track.exit.is_some() {
        ChildState::Stopping
    } else if !track.is_ready() {
        ChildState::Starting
    } else {
        ChildState::Running
    }
}

fn details(track: &Track, child: &Child) -> Checked {
    let id = child.id;
    let last = track.runs.between.as_ref().map(|between| track.clock.wall(between.started_at));
    let (pid, started_at) = match track.start {
        Start::Done { at, pid } => {
            let over = matches!(child.state, ChildState::Cleaning | ChildState::Ended);
            let alive = track.exit.is_none() && track.known_exit.is_none() && !over;
            (alive.then_some(pid), Some(track.clock.wall(at)))
        }
        Start::Recording | Start::Recorded { .. } | Start::Ordered | Start::Failed | Start::Killed => {
            (None, last)
        }
    };
    Check::Children.demand(child.pid == pid && child.started_at == started_at, || {
        format!(
            "{id} is shown with the process {:?} of {:?} and has {pid:?} of {started_at:?}",
            child.pid, child.started_at
        )
    })?;
    let cleaned = track.cleaned.as_ref().filter(|_| child.state == ChildState::Ended);
    Check::Cleanup.demand(child.cleanup.as_ref() == cleaned, || {
        format!("{id} is shown with the cleanup {:?} and had {cleaned:?}", child.cleanup)
    })?;
    let exit = expected_exit(track, child);
    Check::Children.demand(child.exit.is_some() == exit.is_some(), || {
        format!("{id} is shown with the exit {:?} and has {exit:?}", child.exit)
    })?;
    let (Some(shown), Some(exit)) = (&child.exit, exit) else { return Ok(()) };
    // One that was destroyed between two runs, or as it waited for its turn to begin the next, may be shown as it was before.
    let is_between = matches!(child.state, ChildState::Backoff | ChildState::Starting);
    let reason = if is_between { shown.reason } else { exit.reason };
    let exit = Exit { reason, ..exit };
    Check::Children.demand(*shown == exit, || format!("{id} is shown with {shown:?} and has {exit:?}"))
}

/// How a child has ended, as far as it has.
fn expected_exit(track: &Track, child: &Child) -> Option<Exit> {
    track.exit_now().or_else(|| {
        let never_was = child.state == ChildState::Ended && !track.is_spawned();
        never_was.then(|| {
            let reason = match (track.start, track.demands.first()) {
                (Start::Recorded { written: true } | Start::Killed, Some(demand)) => demand.reason,
                _ => ExitReason::StartFailed,
            };
            let at = child.exit.as_ref().map_or_else(|| track.clock.wall(0), |exit| exit.at);
            let exit = track.exit_with(0, ExitStatus::Unknown);
            Exit { reason, at, ..exit }
        })
    })
}
