//! After each turn: nothing that could go on stands still, and nothing spins.

use procbroker_core::{Instant, Members};
use procbroker_protocol::Request;
use procbroker_protocol::duration::nanos;

use crate::sim::checks::{
    by_command, creates, leases, orders, queries, readiness, runs, shutdown, stops, upgrades,
};
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;
use crate::sim::ledger::track::{Start, Track};

/// How many processes are started at a time for one user.
const SPAWNS_OF_ONE_USER: u32 = 16;

/// How many places are free for each of them beyond the first, where the user is no administrator.
const FREE_FOR_EACH: u32 = 8;

/// Searches the book for what should have been ordered in this turn.
///
/// # Errors
/// When something is missing.
pub fn after(ledger: &mut Ledger, next_deadline: Option<Instant>) -> Checked {
    ledger.notice_unready();
    ledger.notice_leases();
    let waiting: Vec<_> = ledger.waiting.iter().copied().collect();
    ledger.note_replacements();
    if ledger.exited {
        return Ok(());
    }
    ledger.note_seekers();
    ledger.note_waiting_holders();
    ledger.follow_waves();
    ledger.note_unwanted();
    ledger.follow_idleness();
    let late = next_deadline.is_some_and(|due| due.as_nanos() <= ledger.now);
    Check::Progress.demand(!late, || format!("the next deadline {next_deadline:?} is over"))?;
    for track in ledger.live_tracks() {
        started(ledger, track)?;
        leases::is_watched(ledger, track)?;
        stops::goes_on(ledger, track)?;
        readiness::goes_on(ledger, track)?;
        by_command::goes_on(ledger, track)?;
    }
    for call in waiting {
        if let Some(asked) = ledger.calls.get(&call) {
            answered(ledger, asked)?;
        }
    }
    for link in ledger.links.values().filter(|link| link.open) {
        Check::Bounds.demand(link.admitted, || format!("{:?} is neither let in nor refused", link.peer))?;
    }
    visibility(ledger)?;
    upgrades::goes_on(ledger)?;
    shutdown::goes_on(ledger)
}

/// A start that can go on does, and an end is seen.
fn started(ledger: &Ledger, track: &Track) -> Checked {
    let run = track.run;
    if let Some(between) = &track.runs.between {
        return runs::goes_on(ledger, track, between);
    }
    match track.start {
        Start::Recording | Start::Ordered => Ok(()),
        Start::Recorded { written: true } if track.demands.is_empty() && is_held(ledger, track) => Ok(()),
        Start::Recorded { .. } | Start::Failed | Start::Killed => {
            Err(Check::Progress.broken(format!("the start of {run:?} stands still: {:?}", track.start)))
        }
        Start::Done { .. } => {
            let over = track.exit.is_some() && track.members == Members::Nothing && track.cleaning.is_none();
            let over = over && !track.is_outlived() || track.is_about_to_be_over();
            Check::Progress.demand(!over, || format!("{run:?} is over, and holds what it held"))
        }
    }
}

/// Whether no more may be started now for this user: too much is being started, or an upgrade is under way.
#[must_use]
pub fn is_held(ledger: &Ledger, track: &Track) -> bool {
    if ledger.upgrade.holds_spawns() {
        return true;
    }
    let count = |wanted: &dyn Fn(&&Track) -> bool| {
        ledger.live_tracks().filter(wanted).map(Track::in_flight).sum::<u32>()
    };
    let uid = track.owner.uid;
    let own = count(&|other| other.owner.uid == uid);
    let most = ledger.config.bounds.max_spawns_in_flight;
    if uid == 0 || uid == ledger.config.broker_uid {
        return count(&|_| true) >= most || own >= SPAWNS_OF_ONE_USER;
    }
    let free = most.saturating_sub((most / 10).max(1)).saturating_sub(count(&|_| true));
    free == 0 || own >= SPAWNS_OF_ONE_USER.min(free / FREE_FOR_EACH).max(1)
}

fn answered(ledger: &Ledger, asked: &Asked) -> Checked {
    let late = || Check::Progress.broken(format!("{:?} is not answered at once", asked.request));
    if asked.refusal.is_some() {
        return Err(late());
    }
    match &asked.request {
        Request::Create(params) => creates::goes_on(ledger, asked, params),
        Request::Wait(params) => queries::wait_goes_on(ledger, asked, params),
        Request::Destroy(params) => {
            let live = asked.meant.iter().flatten().any(|id| ledger.live.contains(id));
            if live && !params.no_wait { Ok(()) } else { Err(late()) }
        }
        Request::Signal(_) => {
            let unspawned =
                asked.meant.iter().flatten().any(|id| {
                    ledger.tracks.get(id).is_some_and(|track| track.is_live() && !track.is_spawned())
                });
            if unspawned || !asked.outstanding.is_empty() { Ok(()) } else { Err(late()) }
        }
        Request::Shutdown(_) => {
            Check::Shutdown.demand(ledger.closing.is_some(), || "a shutdown does not begin".to_owned())
        }
        Request::Logs(_) => {
            if asked.reading {
                Ok(())
            } else {
                Err(late())
            }
        }
        Request::Upgrade(_) => {
            if ledger.upgrade.is_under_way() {
                Ok(())
            } else {
                Err(late())
            }
        }
        Request::Restart(_) => runs::wish_goes_on(ledger, asked),
        Request::List(_)
        | Request::Get(_)
        | Request::Renew(_)
        | Request::Events(_)
        | Request::Status(_)
        | Request::Metrics(_) => Err(late()),
    }
}

fn visibility(ledger: &Ledger) -> Checked {
    let bounds = &ledger.config.bounds;
    let many = ledger.visible.len() > usize::try_from(bounds.ended_kept).unwrap_or(usize::MAX);
    let old = ledger
        .visible
        .front()
        .is_some_and(|(at, _)| ledger.now >= at.saturating_add(nanos(bounds.ended_kept_for)));
    let heavy = !orders::crowded_users(ledger).is_empty();
    Check::Visibility.demand(!many && !old && !heavy, || {
        format!("{} ended children are visible, since {:?}", ledger.visible.len(), ledger.visible.front())
    })?;
    let unseen = ledger.tracks.values().find(|track| track.void && !track.is_live() && !track.forgotten);
    Check::Visibility.demand(unseen.is_none(), || format!("{unseen:?} never was, and is visible"))
}
