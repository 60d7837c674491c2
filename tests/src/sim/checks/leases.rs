//! Leases: what is renewed lives on, also after a crash, and what cannot be is refused.

use procbroker_core::{Anchor, Progress, Recovered};
use procbroker_protocol::request::ManyParams;
use procbroker_protocol::{Child, Error};

use crate::sim::checks::children;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;
use crate::sim::ledger::track::Track;

/// A `renew` is answered with what it has renewed.
///
/// # Errors
/// When that is not what it meant.
pub fn renewed(ledger: &Ledger, asked: &Asked, children: &[std::sync::Arc<Child>]) -> Checked {
    let shown: Vec<_> = children.iter().map(|child| child.id).collect();
    Check::Leases.demand(asked.meant.as_ref() == Some(&shown), || {
        format!("a renew of {:?} is answered with {shown:?}", asked.meant)
    })?;
    children.iter().try_for_each(|child| {
        let track = ledger.tracks.get(&child.id);
        let is_renewable = track.is_some_and(|track| !track.is_doomed() && track.time_to_live().is_some());
        Check::Leases.demand(is_renewable, || format!("{track:?} is renewed"))?;
        children::child(ledger, asked.peer.uid, child)
    })
}

/// A `renew` is refused.
///
/// # Errors
/// When what it means could be renewed, or is refused otherwise.
pub fn not_renewed(ledger: &Ledger, asked: &Asked, params: &ManyParams, error: &Error) -> Checked {
    let track = asked.meant.as_ref().and_then(|meant| ledger.tracks.get(meant.first()?));
    let expected = match track {
        None => Some("not_found"),
        Some(track) if track.is_doomed() => Some("not_found"),
        Some(track) if track.time_to_live().is_none() => Some("unsupported"),
        Some(_) => None,
    };
    let fair = params.target.is_single() && expected == Some(error.kind.as_str());
    Check::Leases.demand(fair, || format!("a renew of {track:?} is refused with {error:?}"))
}

/// A process is watched.
///
/// # Errors
/// When it is already.
pub fn watches(ledger: &Ledger, anchor: Anchor) -> Checked {
    Check::Leases.demand(!ledger.watched.contains(&anchor), || format!("{anchor:?} is watched twice"))
}

/// A process is watched no longer.
///
/// # Errors
/// When it is not watched, or a child lives as long as it.
pub fn unwatches(ledger: &Ledger, anchor: Anchor) -> Checked {
    let is_watched = ledger.watched.contains(&anchor);
    Check::Leases.demand(is_watched, || format!("{anchor:?} is watched no longer, and was not"))
}

/// A process whose end would end a child is watched.
///
/// # Errors
/// When it is not.
pub fn is_watched(ledger: &Ledger, track: &Track) -> Checked {
    let Some(anchor) = track.anchor.filter(|_| !track.is_doomed()) else { return Ok(()) };
    Check::Leases.demand(ledger.watched.contains(&anchor), || {
        format!("nobody would tell the end of {anchor:?}, by which {track:?} lives")
    })
}

/// After a death of the broker a child has the time that its clients were told of.
///
/// # Errors
/// When it has less, or more.
pub fn kept(before: &Track, recovered: &Recovered) -> Checked {
    let anchor = recovered.intent.lease.anchor();
    Check::Leases.demand(before.anchor == anchor, || {
        format!("{before:?} is on record as living as long as {anchor:?}")
    })?;
    let is_running = match &recovered.progress {
        None | Some(Progress::Unwanted { .. }) => false,
        Some(progress) => {
            !matches!(progress, Progress::Ended { .. } | Progress::Cleaning { .. } | Progress::Stopping(_))
        }
    };
    let (Some(told), true) = (before.told.lives_until, is_running) else {
        return Ok(());
    };
    let now = recovered.intent.lease.expires().map(procbroker_core::Instant::as_nanos);
    Check::Leases.demand(now.is_some_and(|now| now >= told && Some(now) <= before.lives_until), || {
        format!("{before:?} was to live until {told} at the least, and is on record as {now:?}")
    })
}
