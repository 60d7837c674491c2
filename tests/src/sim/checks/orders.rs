//! The order of the orders for one process, the one owner of a name, and who is let in.

use std::sync::Arc;

use procbroker_core::{ConnectionId, Record, Run, RunAs, SpawnOrder};
use procbroker_protocol::{Child, ChildId, Error, Request};

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
    let allowed = ledger.is_administrator(uid)
        || config.allow_users.contains(&uid)
        || config.allow_groups.contains(&link.peer.gid)
        || link.peer.groups.iter().any(|group| config.allow_groups.contains(group));
    let own = ledger.links.values().filter(|other| other.open && other.admitted && other.peer.uid == uid);
    if !allowed {
        Some("permission_denied")
    } else if own.count() >= usize::try_from(config.bounds.max_connections_per_user).unwrap_or(usize::MAX)
        || ledger.open_links >= config.bounds.max_connections
    {
        Some("overloaded")
    } else {
        None
    }
}

/// Something is written to a child's record.
///
/// # Errors
/// When it is not the time for it.
pub fn record(ledger: &Ledger, run: Run, record: &Record) -> Checked {
    match record {
        Record::Intent { order, child } => intent(ledger, run, order, child),
        Record::Progress { child } => {
            let track = known(ledger, run.child)?;
            Check::Orders.demand(track.run == run && track.is_live() && child.id == run.child, || {
                format!("progress of {run:?} is recorded at the wrong time")
            })
        }
        Record::Void => {
            let track = known(ledger, run.child)?;
            let never_was = !track.is_spawned() && track.start != Start::Ordered && track.is_live();
            Check::Orders.demand(never_was, || format!("the record of {run:?} is taken back"))
        }
    }
}

fn intent(ledger: &Ledger, run: Run, order: &SpawnOrder, child: &Child) -> Checked {
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
    let same = *order.params == **params && child.id == run.child && child.owner.uid == asked.peer.uid;
    Check::Privilege.demand(same, || format!("{run:?} is not what was asked for, or not its creator's"))?;
    Check::Privilege.demand(is_entitled(ledger, asked, &order.run_as), || {
        format!("{run:?} gets {:?} from {:?}", order.run_as, asked.peer)
    })?;
    let rights = rights(ledger.config.broker_uid, asked);
    Check::Privilege.demand(rights.as_ref() == Some(&order.run_as), || {
        format!("{run:?} gets {:?} and not {rights:?}", order.run_as)
    })?;
    one_owner(ledger, run, asked, order)
}

/// Whether a child's rights are no more than its creator's.
fn is_entitled(ledger: &Ledger, asked: &Asked, run_as: &RunAs) -> bool {
    let peer = &asked.peer;
    match run_as {
        RunAs::Broker => ledger.config.broker_uid != 0 || peer.uid == 0,
        RunAs::User { uid, gid, groups } => {
            let own = *uid == peer.uid
                && *gid == peer.gid
                && groups.iter().all(|group| group == gid || peer.groups.contains(group));
            ledger.config.broker_uid == 0 && (own || peer.uid == 0)
        }
    }
}

fn one_owner(ledger: &Ledger, run: Run, asked: &Asked, order: &SpawnOrder) -> Checked {
    let uid = asked.peer.uid;
    if let Some(name) = &order.params.name
        && let Some(holder) = ledger.holder(name)
    {
        let holder = holder.run.child;
        return Err(Check::OneOwner.broken(format!("{run:?} gets the name {name} that {holder} holds")));
    }
    if let Some((track, _)) = order.params.request_id.and_then(|id| ledger.first_answer(uid, id)) {
        let first = track.run.child;
        return Err(Check::OneOwner.broken(format!("the request of {run:?} has {first} as its answer")));
    }
    let full = fullness(ledger, uid, order);
    Check::Bounds.demand(full.is_none(), || format!("{run:?} is one too many: {full:?}"))
}

/// Which bound leaves no place for one more child.
#[must_use]
pub fn fullness(ledger: &Ledger, uid: u32, order: &SpawnOrder) -> Option<&'static str> {
    let bounds = &ledger.config.bounds;
    let count = |wanted: &dyn Fn(&&Track) -> bool| {
        u32::try_from(ledger.live_tracks().filter(wanted).count()).unwrap_or(u32::MAX)
    };
    let key = |track: &Track| track.params.limit.as_ref().map(|limit| limit.key.clone());
    if count(&|_| true) >= bounds.max_children {
        return Some("children in all");
    }
    if count(&|track| track.owner.uid == uid) >= bounds.max_children_per_user {
        return Some("children of the user");
    }
    let limit = order.params.limit.as_ref()?;
    (count(&|track| key(track).as_ref() == Some(&limit.key)) >= limit.max).then_some("children of the key")
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
    let shutdown = ledger.closing.is_some();
    Check::Stops.demand(shutdown || track.demands.is_empty(), || {
        format!("{run:?} is spawned after it was to be stopped: {:?}", track.demands)
    })?;
    let Some(name) = &track.params.name else { return Ok(()) };
    let double = machine.families.iter().find(|(other, family)| {
        let named = ledger.tracks.get(&other.child).and_then(|track| track.params.name.as_ref());
        named == Some(name) && family.is_alive()
    });
    Check::OneOwner.demand(double.is_none(), || format!("{run:?} joins {:?}", double.map(|(run, _)| run)))
}

/// A signal of any kind needs a process that was started and is not given free.
///
/// # Errors
/// When there is none.
pub fn reaches_a_process(ledger: &Ledger, run: Run, what: &str) -> Checked {
    let track = known(ledger, run.child)?;
    Check::Orders.demand(track.run == run && track.is_spawned() && track.is_live(), || {
        format!("{what} for {run:?}, which is {:?} and released at {:?}", track.start, track.released)
    })
}

/// A child is given free.
///
/// # Errors
/// When something of it is there, or its record does not say that it has ended.
pub fn release(ledger: &Ledger, machine: &Machine, run: Run) -> Checked {
    let track = known(ledger, run.child)?;
    Check::Orders.demand(track.run == run && track.is_live(), || format!("{run:?} is released twice"))?;
    let left = machine.families.get(&run).filter(|family| family.is_alive());
    Check::Orders.demand(left.is_none(), || {
        format!("{run:?} is released while of its processes are left: {:?}", left.map(|left| &left.processes))
    })?;
    Check::Orders.demand(track.start != Start::Ordered, || format!("{run:?} is released while it spawns"))?;
    let recorded = if track.is_spawned() { track.recorded_start && track.recorded_end } else { track.void };
    Check::Orders.demand(recorded, || format!("{run:?} is released, and its record does not know"))
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
    let crowded = ledger.visible.len() > usize::try_from(bounds.ended_kept).unwrap_or(usize::MAX);
    let aged = oldest.is_some_and(|(at, _)| ledger.now >= at + bounds.ended_kept_for.as_nanos());
    let due = (crowded || aged) && oldest.is_some_and(|(_, id)| id == child);
    Check::Visibility.demand(due, || format!("{child} is forgotten too early"))
}
