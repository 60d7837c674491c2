//! Signals that clients ask for: to whom they go, and what is answered.

use procbroker_core::{self as core, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{Child, ChildId, Error, Request, Signal};
use std::sync::Arc;

use crate::sim::checks::children;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;

/// A signal is sent for a request.
///
/// # Errors
/// When the request does not ask for it.
pub fn requested_signal(
    ledger: &Ledger,
    run: Run,
    signal: Signal,
    scope: Scope,
    request: core::Asked,
) -> Checked {
    let core::Asked { call, by } = request;
    let asked = ledger.calls.get(&call).filter(|_| ledger.waiting.contains(&call));
    let Some(asked) = asked else {
        return Err(Check::Answers.broken(format!("a signal to {run:?} for {call:?}, which does not wait")));
    };
    let wanted = match &asked.request {
        Request::Signal(params) => params.signal == signal && params.scope == scope,
        Request::Create(_)
        | Request::Destroy(_)
        | Request::List(_)
        | Request::Get(_)
        | Request::Wait(_)
        | Request::Restart(_)
        | Request::Renew(_)
        | Request::Logs(_)
        | Request::Events(_)
        | Request::Status(_)
        | Request::Metrics(_)
        | Request::Shutdown(_)
        | Request::Upgrade(_) => false,
    };
    let peer = &asked.peer;
    let needs_right = ledger.config.broker_uid == 0 && peer.uid != 0;
    let right = needs_right.then_some(core::Asker { uid: peer.uid, pid: peer.pid });
    Check::Privilege.demand(by == right, || format!("{signal} goes to {run:?} by the right of {by:?}"))?;
    let meant = asked.meant.as_ref().is_some_and(|meant| meant.contains(&run.child));
    Check::Privilege
        .demand(wanted && meant, || format!("{signal} goes to {run:?}, which {call:?} does not mean"))?;
    Check::Answers
        .demand(!asked.sent.contains(&run.child), || format!("{signal} goes to {run:?} twice for {call:?}"))
}

/// A `signal` is answered with its children.
///
/// # Errors
/// When that is not what became of it.
pub fn signalled(ledger: &Ledger, asked: &Asked, children: &[Arc<Child>]) -> Checked {
    let meant = asked.meant.clone().unwrap_or_default();
    let visible: Vec<ChildId> = meant
        .iter()
        .copied()
        .filter(|id| ledger.tracks.get(id).is_some_and(|track| !track.forgotten))
        .collect();
    let shown: Vec<ChildId> = children.iter().map(|child| child.id).collect();
    Check::Answers
        .demand(visible == shown, || format!("a signal to {visible:?} is answered with {shown:?}"))?;
    let delivered = asked.outcomes.contains(&SignalOutcome::Delivered) || meant.is_empty();
    Check::Answers.demand(delivered && asked.outstanding.is_empty(), || {
        format!("a signal is answered well: {:?}", asked.outcomes)
    })?;
    children.iter().try_for_each(|child| children::child(ledger, asked.peer.uid, child))
}

/// A `signal` is answered with an error.
///
/// # Errors
/// When that is not what became of it.
pub fn unsignalled(ledger: &Ledger, asked: &Asked, error: &Error) -> Checked {
    let spoken = asked.outstanding.is_empty();
    let fair = match error.kind.as_str() {
        "permission_denied" => {
            spoken
                && asked.outcomes.contains(&SignalOutcome::Refused)
                && !asked.outcomes.contains(&SignalOutcome::Delivered)
        }
        "not_found" => {
            spoken && !asked.outcomes.contains(&SignalOutcome::Delivered) && nothing_is_left(ledger, asked)
        }
        _ => false,
    };
    Check::Answers.demand(fair, || format!("a signal fails with {error:?} after {:?}", asked.outcomes))
}

/// Whether there was no such child, or the kernel said that there is no such process, or it had ended.
fn nothing_is_left(ledger: &Ledger, asked: &Asked) -> bool {
    let Some(meant) = &asked.meant else { return true };
    let over = |id: &ChildId| ledger.tracks.get(id).is_none_or(|track| !track.takes_signals(ledger.now));
    asked.outcomes.contains(&SignalOutcome::Gone) || meant.iter().any(over)
}
