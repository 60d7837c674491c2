//! The order of the orders for one process, the one owner of a name, and who is let in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_core::{
    Afterwards, Budget, ConnectionId, Intent, Progress, Receipt, Run, RunAs, Safety, SpawnOrder, bytes_of,
    paired_id,
};
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{Child, ChildId, CreateParams, Error, ExitReason, ExitStatus, Request, Timestamp};

use crate::sim::checks::standstill::is_held;
use crate::sim::checks::{by_command, cleanups, places, runs};
use crate::sim::finding::{Check, Checked, Finding};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::{Asked, Link};
use crate::sim::ledger::expected::rights;
use crate::sim::ledger::track::{Start, Track};
use crate::sim::machine::Machine;

/// What is known of a child that an order is about.
///
/// # Errors
/// When nothing is.
pub fn known(ledger: &Ledger, child: ChildId) -> Result<&Track, Finding> {
    ledger.tracks.get(&child).ok_or_else(|| Check::Orders.broken(format!("{child} is no child")))
}

/// A client is let in.
///
/// # Errors
/// When it may not be.
pub fn admitted(ledger: &Ledger, connection: ConnectionId) -> Checked {
    let verdict = expected_verdict(ledger, fresh_link(ledger, connection)?);
    Check::Bounds.demand(verdict.is_none(), || format!("{connection:?} is admitted, not {verdict:?}"))
}

/// A client is not let in.
///
/// # Errors
/// When it should be.
pub fn refused(ledger: &Ledger, connection: ConnectionId, error: &Error) -> Checked {
    let verdict = expected_verdict(ledger, fresh_link(ledger, connection)?);
    let kind = error.kind.as_str();
    Check::Bounds.demand(verdict == Some(kind), || {
        format!("{connection:?} is refused with {kind} instead of {verdict:?}")
    })
}

fn fresh_link(ledger: &Ledger, connection: ConnectionId) -> Result<&Link, Finding> {
    ledger
        .links
        .get(&connection)
        .filter(|link| link.open && !link.admitted && !link.refused)
        .ok_or_else(|| Check::Bounds.broken(format!("{connection:?} does not wait to be let in")))
}

fn expected_verdict(ledger: &Ledger, link: &Link) -> Option<&'static str> {
    let config = &ledger.config;
    let uid = link.peer.uid;
    let is_member = config.allow_groups.contains(&link.peer.gid)
        || link.peer.groups.iter().any(|group| config.allow_groups.contains(group));
    let is_subordinate =
        config.subordinates.iter().any(|range| (range.first..range.first + range.count).contains(&uid));
    let allowed =
        ledger.is_administrator(uid) || config.allow_users.contains(&uid) || is_member && !is_subordinate;
    let own = ledger.links.values().filter(|other| other.open && other.admitted && other.peer.uid == uid);
    if !allowed {
        Some("permission_denied")
    } else if own.count() >= usize::try_from(config.bounds.max_connections_per_user).unwrap_or(usize::MAX)
        || ledger.open_links >= ledger.open_to(uid, config.bounds.max_connections)
    {
        Some("overloaded")
    } else {
        None
    }
}

/// How far a child is is written to its record.
///
/// # Errors
/// When it is not, or is not to be that safe.
pub fn progress(ledger: &Ledger, run: Run, progress: &Progress, how: (Safety, Receipt)) -> Checked {
    let track = known(ledger, run.child)?;
    let wrong = || format!("{run:?} is recorded as {progress:?} ({how:?}), and is {track:?}");
    if let Progress::Unwanted { reason, steps } = progress {
        let waits = matches!(track.start, Start::Recording | Start::Ordered);
        let first = track.demands.first();
        let same = first.is_some_and(|demand| demand.reason == *reason && demand.steps == *steps);
        return Check::Orders.demand(track.is_live() && track.run == run && waits && same, wrong);
    }
    if let Progress::Restarting { .. } = progress {
        return runs::record(track, run, progress, how.1);
    }
    Check::Orders.demand(track.is_live() && track.is_spawned(), wrong)?;
    let at =
        matches!(track.start, Start::Done { at, .. } if started_at(progress) == Some(track.clock.wall(at)));
    Check::Orders.demand(at, wrong)?;
    match (progress, &track.cleaning) {
        (Progress::Starting { runs, .. } | Progress::Running { runs, .. }, None) => {
            Check::Restarts.demand(track.runs.are(runs), wrong)?;
            let ready_by = match progress {
                Progress::Starting { ready_by, .. } => Some(ready_by.as_nanos()),
                _ => None,
            };
            let is_ready = ready_by.is_none();
            Check::Readiness.demand(is_ready == track.is_ready() && ready_by == track.readiness.by, wrong)?;
            Check::Orders.demand(track.run == run && !track.is_ending(), wrong)
        }
        (Progress::Stopping(stopping), None) => {
            let reason = track.demands.first().map(|demand| demand.reason);
            let exit = track.exit.map(|(at, status)| (status, track.clock.wall(at)));
            let same = Some(stopping.reason) == reason && stopping.ended == exit;
            Check::Restarts.demand(
                track.runs.are(&stopping.runs) && is_followed(ledger, track, stopping.afterwards),
                wrong,
            )?;
            Check::Orders.demand(track.run == run && same, wrong)
        }
        (Progress::Ended { exit, cleanup, at, unready, .. }, None) => {
            Check::Readiness.demand(*unready == track.runs.unready, wrong)?;
            let over = track.params.cleanup.is_none() && track.known_exit.as_ref() == Some(exit);
            Check::Orders.demand(over && cleanup.is_none() && *at == ledger.clock.wall(ledger.now), wrong)
        }
        (Progress::Cleaning { .. } | Progress::Ended { .. }, Some(cleaning)) => {
            cleanups::record(ledger, (track, cleaning), run, progress, how)
        }
        (Progress::Cleaning { .. } | Progress::Unwanted { .. } | Progress::Restarting { .. }, None)
        | (
            Progress::Unwanted { .. }
            | Progress::Starting { .. }
            | Progress::Running { .. }
            | Progress::Restarting { .. }
            | Progress::Stopping(_),
            Some(_),
        ) => Err(Check::Orders.broken(wrong())),
    }
}

/// Whether this is what comes after its stop. What a shutdown stops is followed by nothing.
fn is_followed(ledger: &Ledger, track: &Track, afterwards: Afterwards) -> bool {
    // After a while without a broker a child may be late and expire at once, one after the other.
    let is_late_too = afterwards == Afterwards::Policy && track.expired == Some(ledger.now);
    afterwards == track.afterwards()
        || is_late_too
        || ledger.closing.is_some() && afterwards == Afterwards::End
}

fn started_at(progress: &Progress) -> Option<Timestamp> {
    match progress {
        Progress::Unwanted { .. } => None,
        Progress::Starting { started_at, .. } | Progress::Running { started_at, .. } => Some(*started_at),
        Progress::Stopping(stopping) => stopping.started_at,
        Progress::Restarting { started_at, .. }
        | Progress::Cleaning { started_at, .. }
        | Progress::Ended { started_at, .. } => *started_at,
    }
}

/// A child is about to be started.
///
/// # Errors
/// When nobody has asked for it, or not for that, or it is one too many.
pub fn intent(ledger: &Ledger, run: Run, intent: &Intent) -> Checked {
    let call = ledger.handed_out.get(&run.child);
    let asked = call.and_then(|call| ledger.calls.get(call));
    let (Some(call), Some(asked)) = (call, asked) else {
        return Err(Check::Orders.broken(format!("{run:?} was made up")));
    };
    let Request::Create(params) = &asked.request else {
        return Err(Check::Orders.broken(format!("{run:?} comes from no create")));
    };
    Check::Orders.demand(!ledger.tracks.contains_key(&run.child), || format!("{run:?} is recorded twice"))?;
    Check::Creates.demand(ledger.waiting.contains(call), || {
        format!("{run:?} is started for nobody: its creator has its answer, or has gone")
    })?;
    Check::Shutdown.demand(ledger.closing.is_none(), || format!("{run:?} is started during a shutdown"))?;
    let same = *intent.params == **params && intent.id == run.child && intent.owner.uid == asked.peer.uid;
    let same = same && intent.created_at == ledger.clock.wall(ledger.now);
    Check::Privilege.demand(same, || format!("{run:?} is not what was asked for, or not its creator's"))?;
    Check::Privilege.demand(is_entitled(ledger, asked, &intent.run_as), || {
        format!("{run:?} gets {:?} from {:?}", intent.run_as, asked.peer)
    })?;
    let rights = rights(ledger.config.broker_uid, asked);
    Check::Privilege.demand(rights.as_ref() == Some(&intent.run_as), || {
        format!("{run:?} gets {:?} and not {rights:?}", intent.run_as)
    })?;
    let confinement = asked.fresh.caller.as_ref().map(|caller| &caller.confinement);
    Check::Privilege.demand(confinement == Ok(&intent.launch.confinement), || {
        format!("{run:?} is confined by {:?} and its creator by {confinement:?}", intent.launch.confinement)
    })?;
    let anchor = asked.anchor();
    Check::Leases.demand(intent.lease.anchor() == anchor, || {
        format!("{run:?} is to live as long as {:?}, and was to as {anchor:?}", intent.lease)
    })?;
    places::given(ledger, *call, asked)?;
    let better = ledger.better_claim(*call);
    Check::Creates.demand(better.is_none() && !asked.is_superseded(), || {
        format!("{run:?} is started in vain: {better:?} waits for its name, to replace it")
    })?;
    one_owner(ledger, run, asked, &intent.params)
}

/// Whether a child's rights are no more than its creator's.
fn is_entitled(ledger: &Ledger, asked: &Asked, run_as: &RunAs) -> bool {
    let peer = &asked.peer;
    match run_as {
        RunAs::Broker => ledger.config.broker_uid != 0 || peer.uid == 0,
        RunAs::User { uid, gid, groups } => {
            let own = *uid == peer.uid && *gid == peer.gid && *groups == peer.groups;
            ledger.config.broker_uid == 0 && (own || peer.uid == 0)
        }
    }
}

fn one_owner(ledger: &Ledger, run: Run, asked: &Asked, params: &CreateParams) -> Checked {
    let uid = asked.peer.uid;
    if let Some(name) = &params.name
        && let Some(holder) = ledger.holder(name)
    {
        let holder = holder.run.child;
        return Err(Check::OneOwner.broken(format!("{run:?} gets the name {name} that {holder} holds")));
    }
    if let Some((track, _)) = params.request_id.and_then(|id| ledger.first_answer(uid, id)) {
        let first = track.run.child;
        return Err(Check::OneOwner.broken(format!("the request of {run:?} has {first} as its answer")));
    }
    let full = fullness(ledger, uid, params);
    // The place of one that has ended another for it was kept.
    let full = full.filter(|full| *full != KEY || asked.kept_for.is_none());
    Check::Bounds.demand(full.is_none(), || format!("{run:?} is one too many: {full:?}"))
}

/// What bounds children under a limit.
pub const KEY: &str = "children of the key";

/// Which bound leaves no place for one more child.
#[must_use]
pub fn fullness(ledger: &Ledger, uid: u32, params: &CreateParams) -> Option<&'static str> {
    fullness_without(ledger, uid, params, None)
}

/// Which bound leaves no place for one that takes that of another child.
#[must_use]
pub fn fullness_without(
    ledger: &Ledger,
    uid: u32,
    params: &CreateParams,
    replaced: Option<&Track>,
) -> Option<&'static str> {
    let bounds = &ledger.config.bounds;
    let replaced_child = replaced.map(|track| track.run.child);
    let count = |wanted: &dyn Fn(&&Track) -> bool| {
        // One that never was takes nobody a place.
        let placed = ledger.live_tracks().filter(|track| !track.never_was());
        let placed = placed.filter(|track| Some(track.run.child) != replaced_child);
        u32::try_from(placed.filter(wanted).count()).unwrap_or(u32::MAX)
    };
    if count(&|_| true) >= ledger.open_to(uid, bounds.max_children) {
        return Some("children in all");
    }
    if count(&|track| track.owner.uid == uid) >= bounds.max_children_per_user {
        return Some("children of the user");
    }
    if is_too_heavy(ledger, uid, params, replaced) {
        return Some("bytes of children");
    }
    let limit = params.limit.as_ref()?;
    (ledger.taken_under(&limit.key) >= limit.max).then_some(KEY)
}

/// Whether one more child would take more bytes than its user's live children may, or all users' may.
fn is_too_heavy(ledger: &Ledger, uid: u32, params: &CreateParams, replaced: Option<&Track>) -> bool {
    let Budget { user, all } = ledger.config.bounds.children_bytes();
    let sum = |wanted: &dyn Fn(&&Track) -> bool| {
        ledger.live_tracks().filter(wanted).map(|track| bytes_of(&track.params)).sum::<u64>()
    };
    let given_back =
        replaced.filter(|track| track.owner.uid == uid).map_or(0, |track| bytes_of(&track.params));
    let more = bytes_of(params).saturating_sub(given_back);
    let left = if ledger.is_administrator(uid) { 0 } else { all / 10 };
    sum(&|track| track.owner.uid == uid) + more > user || sum(&|_| true) + more > all - left
}

/// Whether the ended children that are visible take more bytes than there is room for beside the live ones: with which
/// user, or with all of them.
#[must_use]
pub fn crowded_users(ledger: &Ledger) -> Vec<u32> {
    let Budget { user, all } = ledger.config.bounds.children_bytes();
    let ended = |wanted: Option<u32>| {
        let tracks = ledger.visible.iter().filter_map(|(_, id)| ledger.tracks.get(id));
        let tracks = tracks.filter(move |track| wanted.is_none_or(|uid| track.owner.uid == uid));
        tracks.map(|track| bytes_of(&track.params)).sum::<u64>()
    };
    let live = |wanted: Option<u32>| {
        let tracks =
            ledger.live_tracks().filter(move |track| wanted.is_none_or(|uid| track.owner.uid == uid));
        tracks.map(|track| bytes_of(&track.params)).sum::<u64>()
    };
    let owners =
        ledger.visible.iter().filter_map(|(_, id)| ledger.tracks.get(id)).map(|track| track.owner.uid);
    let owners: BTreeSet<u32> = owners.collect();
    let is_full = live(None) + ended(None) > all;
    owners.into_iter().filter(|uid| is_full || live(Some(*uid)) + ended(Some(*uid)) > user).collect()
}

/// A process is to be started.
///
/// # Errors
/// When its intent is not on record, or another process of its name is there.
pub fn spawn(ledger: &Ledger, machine: &Machine, run: Run, order: &Arc<SpawnOrder>) -> Checked {
    let track = known(ledger, run.child)?;
    let recorded = track.run == run && track.start == Start::Recorded { written: true } && track.is_live();
    Check::Orders.demand(recorded, || format!("{run:?} is spawned, and is {:?}", track.start))?;
    Check::Orders.demand(order.params == track.params && order.run_as == track.run_as, || {
        format!("{run:?} is spawned otherwise than recorded")
    })?;
    Check::Upgrade
        .demand(!ledger.upgrade.holds_spawns(), || format!("{run:?} is spawned during an upgrade"))?;
    let shutdown = ledger.closing.is_some();
    Check::Stops.demand(shutdown || track.demands.is_empty(), || {
        format!("{run:?} is spawned after it was to be stopped: {:?}", track.demands)
    })?;
    has_a_turn(ledger, track)?;
    match &track.runs.between {
        Some(between) => runs::begins(ledger, run, between)?,
        None => Check::Recovery
            .demand(!machine.past(run.child).has_run, || format!("{run:?} is started a second time"))?,
    }
    alone(ledger, machine, run, track)
}

/// A process is started only where its user has a place for it.
///
/// # Errors
/// When there is none.
pub fn has_a_turn(ledger: &Ledger, track: &Track) -> Checked {
    Check::Bounds.demand(!is_held(ledger, track), || {
        format!(
            "a process of {:?} is started, and its user {} has no place for it",
            track.run, track.owner.uid
        )
    })
}

/// No process of a child, or of another one with its name, is there, whichever broker has started it.
///
/// # Errors
/// When there is one.
pub fn alone(ledger: &Ledger, machine: &Machine, run: Run, track: &Track) -> Checked {
    let name = track.params.name.as_ref();
    let double = machine.families.values().filter(|family| family.is_alive()).find(|other| {
        let named = ledger.tracks.get(&other.child).and_then(|track| track.params.name.as_ref());
        let is_its_own = [run.child, paired_id(run.child)].contains(&other.child);
        is_its_own || name.is_some() && named == name
    });
    Check::OneOwner.demand(double.is_none(), || format!("{run:?} joins {double:?}"))
}

/// A signal of any kind needs a process that was started and is not given free.
///
/// # Errors
/// When there is none.
pub fn reaches_a_process(ledger: &Ledger, machine: &Machine, run: Run, what: &str) -> Checked {
    let track = known(ledger, run.child)?;
    let is_there = match &track.cleaning {
        None => track.run == run && track.is_spawned() && track.known_exit.is_none(),
        Some(cleaning) => cleaning.incarnation == run.incarnation && cleaning.has_processes(),
    };
    let is_its_own = machine.family(run).is_some_and(|family| family.child == run.child);
    // Of one whose command is all that is left nobody may be there, and that is what its signal is answered with.
    let is_its_own = is_its_own || track.is_outlived() && machine.family(run).is_none();
    Check::Orders.demand(is_there && is_its_own && track.is_live(), || {
        format!("{what} for {run:?}, which is {:?} and released at {:?}", track.start, track.released)
    })
}

/// A run is given free.
///
/// # Errors
/// When something of it is there.
pub fn release(ledger: &Ledger, machine: &Machine, run: Run) -> Checked {
    let track = known(ledger, run.child)?;
    let is_its_turn = match &track.cleaning {
        None => track.run == run && !track.recorded_end,
        Some(cleaning) => {
            let never_was = [cleaning.short, cleaning.turned_back].contains(&Some(ledger.now));
            cleaning.incarnation == run.incarnation && (cleaning.is_over() || never_was)
        }
    };
    Check::Orders.demand(is_its_turn && track.is_live(), || {
        format!("{run:?} is released at a wrong time: {track:?}")
    })?;
    let left = machine.family(run).filter(|family| family.is_alive());
    Check::Orders.demand(left.is_none(), || {
        format!("{run:?} is released while of its processes are left: {:?}", left.map(|left| &left.processes))
    })?;
    let spawns = machine.flights.contains_key(&run);
    Check::Orders.demand(!spawns, || format!("{run:?} is released while it spawns"))?;
    by_command::is_gone(machine, track)
}

/// Another run is to come, and the sign that one was executed is taken away.
///
/// # Errors
/// When something of the child is there, of which the next broker would know nothing.
pub fn awaits_run(machine: &Machine, child: ChildId) -> Checked {
    let is_free = machine.search(child).is_none();
    Check::Orders.demand(is_free, || format!("the next run of {child} is awaited beside one that is there"))
}

/// A child is over.
///
/// # Errors
/// When something of it is there, or its record does not say so.
pub fn ended(ledger: &Ledger, machine: &Machine, child: &Child) -> Checked {
    let track = known(ledger, child.id)?;
    Check::Orders.demand(track.is_live() && track.known_exit.is_some(), || {
        format!("{} is said to be over, and is {track:?}", child.id)
    })?;
    Check::Orders.demand(track.recorded_start && track.recorded_end, || {
        format!("{} is over, and its record does not know", child.id)
    })?;
    let held = machine.bound.keys().find(|run| [child.id, paired_id(child.id)].contains(&run.child));
    Check::Growth.demand(held.is_none(), || format!("{held:?} is over, and was never given free"))?;
    let truth = machine.past(child.id);
    let status = child.exit.as_ref().map(|exit| exit.status);
    // Of a run that came and went while no broker was there, nobody may know.
    let is_last_known = child.restarts > 0 && status.is_some_and(|it| truth.statuses_before.contains(&it));
    // The last runs of a child may be lost with the machine.
    let is_lost = child.exit.as_ref().is_some_and(|exit| exit.reason == ExitReason::BrokerLost)
        && !truth.statuses_before.is_empty();
    let is_true = status == Some(ExitStatus::Unknown) || status == truth.status || is_last_known || is_lost;
    Check::Children
        .demand(is_true, || format!("{} ended with {:?}, not {status:?}", child.id, truth.status))?;
    cleanups::done(track, &truth)
}

/// The ended child that has to make place where more than these are visible: the first one of those users who have the most.
fn outnumbering(ledger: &Ledger, kept: u32) -> Option<ChildId> {
    if ledger.visible.len() <= usize::try_from(kept).unwrap_or(usize::MAX) {
        return None;
    }
    let owner = |id: &ChildId| ledger.tracks.get(id).map(|track| track.owner.uid);
    let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    for (_, id) in &ledger.visible {
        *counts.entry(owner(id)).or_default() += 1;
    }
    let most = counts.values().max().copied();
    ledger.visible.iter().map(|(_, id)| *id).find(|id| counts.get(&owner(id)).copied() == most)
}

/// A child becomes invisible.
///
/// # Errors
/// When it is to be visible still.
pub fn forget(ledger: &Ledger, child: ChildId) -> Checked {
    let track = known(ledger, child)?;
    Check::Orders.demand(!track.is_live() && !track.forgotten, || {
        format!("{child} is forgotten while it is live, or twice")
    })?;
    if track.void {
        return Ok(());
    }
    let bounds = &ledger.config.bounds;
    let oldest = ledger.visible.front().copied();
    let is_outnumbering = outnumbering(ledger, bounds.ended_kept) == Some(child);
    let aged = oldest.is_some_and(|(at, _)| ledger.now >= at + nanos(bounds.ended_kept_for));
    let is_oldest_of_its_user = || {
        let own =
            |id: &ChildId| ledger.tracks.get(id).is_some_and(|other| other.owner.uid == track.owner.uid);
        ledger.visible.iter().map(|(_, id)| *id).find(own) == Some(child)
    };
    let is_heavy = crowded_users(ledger).contains(&track.owner.uid) && is_oldest_of_its_user();
    let due = is_heavy || is_outnumbering || aged && oldest.is_some_and(|(_, id)| id == child);
    Check::Visibility.demand(due, || format!("{child} is forgotten too early"))
}
