//! What subscribers are sent, and whose output is read.

use std::collections::BTreeMap;

use procbroker_core::{Call, Config, ConnectionId, EventHistory};
use procbroker_protocol::event::Notification;
use procbroker_protocol::{ChildId, EventKind, Request};

use crate::sim::checks::readiness;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;

/// A subscriber is sent something.
///
/// # Errors
/// When he is not there, or may not see it.
pub fn published(ledger: &mut Ledger, connection: ConnectionId, notification: &Notification) -> Checked {
    let link = ledger.links.get(&connection).filter(|link| link.open && link.admitted);
    Check::Answers
        .demand(link.is_some(), || format!("{connection:?} is not there, and is sent {notification:?}"))?;
    let Notification::Event { event, .. } = notification else { return Ok(()) };
    Check::Answers.demand(ledger.clock.moment(event.at, ledger.now).is_some(), || {
        format!("{event:?} is yet to come")
    })?;
    readiness::told(ledger, event)?;
    let link = ledger.links.get(&connection);
    let (Some(link), Some(child)) = (link, &event.child) else { return Ok(()) };
    Check::Privilege.demand(ledger.may_touch(link.peer.uid, child.owner), || {
        format!("user {} is told of {} of {:?}", link.peer.uid, child.id, child.owner)
    })
}

/// A broker has begun, after an upgrade with what the earlier program told of.
///
/// # Errors
/// When events are lost by the upgrade, or counted otherwise than one after the other.
pub fn go_on(before: Option<&EventHistory>, after: &EventHistory, config: &Config) -> Checked {
    let (instance, last) = before.map_or((config.instance, 0), |before| (before.instance, before.next - 1));
    Check::Events.demand(after.instance == instance && after.next > last, || {
        format!("events are counted from {} on, by {}: before {before:?}", after.next, after.instance)
    })?;
    let numbers = after.kept.iter().map(|event| event.seq);
    let first = after.next - after.kept.len() as u64;
    Check::Events.demand(numbers.eq(first..after.next), || format!("events have a gap: {after:?}"))?;
    let is_kept = before.is_none_or(|before| {
        let gone_on =
            after.kept.iter().skip_while(|event| event.seq < before.next - before.kept.len() as u64);
        let expected = before.kept.iter().filter(|event| event.seq >= first);
        gone_on.zip(expected).all(|(after, before)| after == before)
    });
    Check::Events.demand(is_kept, || format!("events have changed in an upgrade: {before:?} and {after:?}"))
}

/// Another program has taken over: whatever was told of a child that is over, its end was, too.
///
/// # Errors
/// When those who follow events would wait for the end of a child for ever.
pub fn ends_are_told(ledger: &Ledger, history: &EventHistory) -> Checked {
    let mut last = BTreeMap::new();
    for event in &history.kept {
        if let Some(child) = &event.child {
            last.insert(child.id, event.kind);
        }
    }
    let is_over = |id: &ChildId| ledger.tracks.get(id).is_none_or(|track| !track.is_live());
    let untold = last.into_iter().find(|(id, kind)| *kind != EventKind::Ended && is_over(id));
    Check::Events.demand(untold.is_none(), || format!("the last that was told of a child is {untold:?}"))
}

/// The output of a child is read.
///
/// # Errors
/// When nobody asked for it who may.
pub fn log(ledger: &Ledger, call: Call, child: ChildId) -> Checked {
    let asked = ledger.calls.get(&call).filter(|asked| !asked.answered && !asked.reading);
    let meant = asked.is_some_and(|asked| {
        matches!(asked.request, Request::Logs(_))
            && asked.meant.as_ref().is_some_and(|meant| meant.contains(&child))
    });
    Check::Privilege.demand(meant, || format!("the output of {child} is read for {call:?}"))
}
