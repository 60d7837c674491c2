//! What subscribers are sent, and whose output is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use procbroker_core::{Broker, Call, Config, ConnectionId, Effect, EventHistory};
use procbroker_protocol::event::Notification;
use procbroker_protocol::{ChildId, EventKind, Request};

use crate::sim::checks::readiness;
use crate::sim::finding::{Check, Checked, Finding};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::readers::Reading;

/// A turn is over: takes down what has happened in it, before anybody is told. Answers how many gaps are told.
///
/// # Errors
/// When it has not happened, or has been told before.
pub fn happened(ledger: &mut Ledger, broker: &Broker, effects: &[Effect]) -> Result<u64, Finding> {
    let new: Vec<_> = broker.events_from(ledger.readers.next).cloned().collect();
    for event in new {
        Check::Answers.demand(ledger.clock.moment(event.at, ledger.now).is_some(), || {
            format!("{event:?} is yet to come")
        })?;
        ledger.readers.next = event.seq + 1;
        ledger.readers.fresh.push(Arc::clone(&event));
        ledger.readers.events.insert(event.seq, event);
    }
    let gap = |notification: &&Notification| matches!(notification, Notification::Lagged { .. });
    let gaps = effects.iter().map(|effect| match effect {
        Effect::Publish { notifications, .. } => notifications.iter().filter(gap).count(),
        _ => 0,
    });
    let gaps = gaps.sum::<usize>() as u64;
    if gaps > 0 {
        ledger.readers.kept = broker.events_from(0).map(|event| event.seq).collect();
    }
    Ok(gaps)
}

/// A client is told that there are events to be read.
///
/// # Errors
/// When it is not there, has subscribed to none, or was told before and has not asked.
pub fn roused(ledger: &Ledger, connection: ConnectionId) -> Checked {
    let has_subscribed = ledger.readers.subscriptions.keys().any(|(of, _)| *of == connection);
    Check::Events.demand(has_subscribed && !ledger.readers.roused.contains(&connection), || {
        format!("{connection:?} is told that there are events: {:?}", ledger.readers.roused)
    })
}

/// A client is sent events.
///
/// # Errors
/// When it is not there, has not asked, or is sent something else than what comes next.
pub fn published(ledger: &mut Ledger, connection: ConnectionId, notifications: &[Notification]) -> Checked {
    let link = ledger.links.get(&connection).filter(|link| link.open && link.admitted);
    let has_asked = ledger.readers.asking == Some(connection);
    Check::Answers.demand(link.is_some() && has_asked, || {
        format!("{connection:?} is not there, or has not asked, and is sent {notifications:?}")
    })?;
    notifications.iter().try_for_each(|notification| told(ledger, connection, notification))
}

/// A subscriber is told of an event, or of a gap.
///
/// # Errors
/// When it may not see it, is not meant, or has missed one before without being told.
pub fn told(ledger: &mut Ledger, connection: ConnectionId, notification: &Notification) -> Checked {
    let (Notification::Event { subscription, .. } | Notification::Lagged { subscription, .. }) = notification
    else {
        return Err(Check::Events.broken(format!("{connection:?} is sent {notification:?} by the core")));
    };
    let key = (connection, *subscription);
    let Some(mut reading) = ledger.readers.subscriptions.get(&key).cloned() else {
        return Err(Check::Events.broken(format!("{key:?} is no subscription, and gets {notification:?}")));
    };
    match notification {
        Notification::Lagged { missed, .. } => reading.missed += missed,
        Notification::Event { event, .. } => {
            if let Some(child) = &event.child {
                Check::Privilege.demand(ledger.may_touch(reading.uid, child.owner), || {
                    format!("user {} is told of {} of {:?}", reading.uid, child.id, child.owner)
                })?;
            }
            let is_so = ledger.readers.events.get(&event.seq) == Some(event);
            Check::Events.demand(is_so && ledger.is_wanted(&reading, event), || {
                format!("{reading:?} is told of {event:?}")
            })?;
            Check::Events
                .demand(event.seq >= reading.next, || format!("{reading:?} is told again of {event:?}"))?;
            reading.missed -= passed(ledger, &reading, event.seq)?;
            reading.next = event.seq + 1;
        }
        Notification::Log { .. } => {}
    }
    ledger.readers.subscriptions.insert(key, reading);
    Ok(())
}

/// A subscriber goes on at an event behind others. Answers how many of those it has missed: it may have been told of more, which
/// come later. The broker's own events and a user's are dropped apart, so that a gap in the one may be told before what is
/// left of the other.
///
/// # Errors
/// When it has missed some without being told.
fn passed(ledger: &Ledger, reading: &Reading, seq: u64) -> Result<u64, Finding> {
    let passed = ledger.readers.events.range(reading.next..seq).map(|(_, event)| event);
    let wanted: Vec<u64> =
        passed.filter(|event| ledger.is_wanted(reading, event)).map(|event| event.seq).collect();
    let untold = wanted.len() as u64;
    Check::Events.demand(untold <= reading.missed, || {
        format!("{reading:?} goes on at {seq}, and wants {wanted:?} before")
    })?;
    Check::Events.demand(!wanted.iter().any(|seq| ledger.readers.kept.contains(seq)), || {
        format!("{reading:?} is told to have missed {wanted:?}, some of which are kept")
    })?;
    Ok(untold)
}

/// After a turn: who has read everything, or was told that there is more, waits for nothing in vain.
///
/// # Errors
/// When there is something for somebody who does not know of it.
pub fn after(ledger: &mut Ledger) -> Checked {
    for event in std::mem::take(&mut ledger.readers.fresh) {
        readiness::told(ledger, &event)?;
    }
    if ledger.exited {
        return Ok(());
    }
    let readers = &ledger.readers;
    let resting = readers.subscriptions.iter().filter(|((of, _), _)| !readers.roused.contains(of));
    let resting: Vec<_> = resting.map(|(key, reading)| (*key, reading.clone())).collect();
    for (key, reading) in resting {
        passed(ledger, &reading, ledger.readers.next.max(reading.next))?;
        let next = ledger.readers.next.max(reading.next);
        if let Some(reading) = ledger.readers.subscriptions.get_mut(&key) {
            (reading.next, reading.missed) = (next, 0);
        }
    }
    Ok(())
}

/// The broker has left: what was not read comes without it.
///
/// # Errors
/// When some of it is missing, or is not what comes next.
pub fn last(ledger: &mut Ledger, broker: &Broker) -> Checked {
    ledger.readers.kept = broker.events_from(0).map(|event| event.seq).collect();
    for (connection, unread) in broker.unread_events() {
        for notification in unread {
            told(ledger, connection, &notification)?;
        }
    }
    let end = ledger.readers.next;
    let readings: Vec<_> = ledger.readers.subscriptions.values().cloned().collect();
    readings.iter().try_for_each(|reading| passed(ledger, reading, end.max(reading.next)).map(drop))
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
    let is_ordered = after.kept.iter().zip(after.kept.iter().skip(1)).all(|(one, other)| one.seq < other.seq);
    Check::Events.demand(is_ordered, || format!("events are not in their order: {after:?}"))?;
    let is_kept = before.is_none_or(|before| {
        let old: Vec<_> = after.kept.iter().filter(|event| event.seq < before.next).collect();
        // What the new program tells itself may take the place of some.
        let is_full = after.kept.len() >= config.bounds.events_kept;
        old.iter().all(|event| before.kept.contains(event)) && (old.len() == before.kept.len() || is_full)
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
