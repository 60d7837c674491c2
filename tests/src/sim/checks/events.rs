//! What subscribers are sent, and whose output is read.

use procbroker_core::{Call, ConnectionId};
use procbroker_protocol::event::Notification;
use procbroker_protocol::{ChildId, Request};

use crate::sim::agenda::wall;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;

/// A subscriber is sent something.
///
/// # Errors
/// When he is not there, or may not see it.
pub fn published(ledger: &Ledger, connection: ConnectionId, notification: &Notification) -> Checked {
    let link = ledger.links.get(&connection).filter(|link| link.open && link.admitted);
    let Some(link) = link else {
        return Err(
            Check::Answers.broken(format!("{connection:?} is not there, and is sent {notification:?}"))
        );
    };
    let Notification::Event { event, .. } = notification else { return Ok(()) };
    Check::Answers.demand(event.at <= wall(ledger.now), || format!("{event:?} is yet to come"))?;
    let Some(child) = &event.child else { return Ok(()) };
    Check::Privilege.demand(ledger.may_touch(link.peer.uid, child.owner), || {
        format!("user {} is told of {} of {:?}", link.peer.uid, child.id, child.owner)
    })
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
