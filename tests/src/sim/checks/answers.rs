//! One answer for each request, on its connection, with what its method promises.

use procbroker_core::Call;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::{ChildState, Error, ErrorKind, Got, Request, Response};

use crate::sim::checks::{children, creates, leases, queries, runs, shutdown, targets, upgrades};
use crate::sim::finding::{Check, Checked, Finding};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;
use crate::sim::ledger::upgrade::Upgrade;

/// A request is answered.
///
/// # Errors
/// When it does not wait for an answer, or not for this one.
pub fn answer(ledger: &mut Ledger, call: Call, result: &Result<Response, Error>) -> Checked {
    let Some(asked) = ledger.calls.get(&call) else {
        return Err(Check::Answers.broken(format!("{call:?} was never asked")));
    };
    Check::Answers.demand(!asked.answered, || format!("{call:?} is answered twice"))?;
    Check::Answers.demand(ledger.waiting.contains(&call), || {
        format!("{call:?} is answered, and its connection is not there")
    })?;
    let asked = asked.clone();
    if let Some(kind) = asked.refusal {
        // One whose child was replaced is told first that nothing takes its place any more.
        let is_shutting_down = matches!(result, Err(error) if error.kind == ErrorKind::ShuttingDown);
        let is_told_first = ledger.closing.is_some() && is_shutting_down && asked.request_key().is_some();
        return if is_told_first { Ok(()) } else { refusal(call, kind, result) };
    }
    if let Err(error) = result {
        let by_renew = matches!(asked.request, Request::Renew(_)) && error.kind == ErrorKind::Unsupported;
        let impossible =
            ["overloaded", "invalid_params", "unsupported", "method_not_found", "invalid_request"];
        Check::Answers.demand(by_renew || !impossible.contains(&error.kind.as_str()), || {
            format!("{call:?} is answered with {error:?} and is {:?}", asked.request)
        })?;
    }
    match (&asked.request, result) {
        (Request::Create(params), result) => creates::answered(ledger, &asked, params, result),
        (request, Err(Error { kind: ErrorKind::ShuttingDown, .. })) => {
            ledger.farewell |= !matches!(request, Request::Upgrade(_) | Request::Restart(_));
            Check::Answers.demand(ledger.closing.is_some(), || format!("{call:?}: there is no shutdown"))
        }
        (Request::Shutdown(_), Ok(Response::ShutDown(report))) => {
            ledger.farewell = true;
            shutdown::answered(report)
        }
        (_, Ok(response)) => method(ledger, &asked, response),
        (_, Err(error)) => failure(ledger, &asked, error),
    }
}

fn refusal(call: Call, kind: &str, result: &Result<Response, Error>) -> Checked {
    let told = result.as_ref().err().map(|error| error.kind.as_str());
    Check::Answers
        .demand(told == Some(kind), || format!("{call:?} is to be refused with {kind}, and is: {result:?}"))
}

fn method(ledger: &Ledger, asked: &Asked, response: &Response) -> Checked {
    let uid = asked.peer.uid;
    match (&asked.request, response) {
        (Request::Destroy(params), Response::Children(children)) => {
            let meant = asked.meant.clone().unwrap_or_default();
            let shown: Vec<_> = children.iter().map(|child| child.id).collect();
            Check::Answers.demand(asked.meant.is_some() && meant == shown, || {
                format!("a destroy of {:?} is answered with {shown:?}", asked.meant)
            })?;
            let over = |id| ledger.tracks.get(id).is_some_and(|track| !track.is_live());
            Check::Answers.demand(params.no_wait || meant.iter().all(over), || {
                format!("a destroy is answered before {meant:?} have ended")
            })?;
            children.iter().try_for_each(|child| {
                Check::Answers.demand(params.no_wait || child.state == ChildState::Ended, || {
                    format!("a destroy is answered with {} that is {:?}", child.id, child.state)
                })?;
                children::as_then(ledger, uid, child)
            })
        }
        (Request::Renew(_), Response::Children(children)) => leases::renewed(ledger, asked, children),
        (Request::Signal(_), Response::Children(children)) => targets::signalled(ledger, asked, children),
        (Request::List(params), Response::Children(children)) => {
            queries::listed(ledger, uid, params, children)
        }
        (Request::Get(_), Response::Got(Got { child, spec })) => {
            let found = asked.meant.as_ref().and_then(|meant| meant.first()) == Some(&child.id);
            Check::Answers.demand(found, || format!("get of {:?} gives {}", asked.meant, child.id))?;
            queries::specified(ledger, child.id, spec.as_deref())?;
            children::child(ledger, uid, child)
        }
        (Request::Wait(params), Response::Child(child)) => {
            queries::awaited(ledger, asked, params, child)?;
            children::child(ledger, uid, child)
        }
        (Request::Restart(_), Response::Children(children)) => runs::answered(ledger, asked, children),
        (Request::Events(_), Response::Subscribed(_)) => Ok(()),
        (Request::Upgrade(_), Response::Upgraded) => upgrades::answered(ledger),
        (Request::Status(_), Response::Status(status)) => queries::status(ledger, status),
        (request, response) => {
            Err(Check::Answers.broken(format!("{:?} is answered with {response:?}", request.method())))
        }
    }
}

fn failure(ledger: &Ledger, asked: &Asked, error: &Error) -> Checked {
    let unfair = || -> Finding {
        Check::Answers.broken(format!("{:?} of {:?} fails with {error:?}", asked.request, asked.meant))
    };
    match &asked.request {
        Request::Signal(_) => targets::unsignalled(ledger, asked, error),
        Request::Renew(params) => leases::not_renewed(ledger, asked, params, error),
        Request::Restart(params) if error.kind == ErrorKind::NotFound => {
            let late = params.target.is_single() && asked.wishes.is_empty();
            if asked.meant.is_none() || late { Ok(()) } else { Err(unfair()) }
        }
        Request::Restart(_) if asked.not_started_again.is_some() => runs::unanswered(asked, error),
        Request::Wait(params) if error.kind == ErrorKind::Timeout(None) => {
            let due = params.timeout.map(|timeout| asked.at.saturating_add(nanos(timeout)));
            if due == Some(ledger.now) { Ok(()) } else { Err(unfair()) }
        }
        Request::Upgrade(_) => {
            let refused = ledger.upgrade == Upgrade::Refused && error.kind == ErrorKind::Internal;
            if refused { Ok(()) } else { Err(unfair()) }
        }
        // The bound on subscriptions is far off, and may be reached.
        Request::Logs(_) | Request::Events(_) if error.kind == ErrorKind::LimitExceeded => Ok(()),
        Request::Wait(_) | Request::Get(_) | Request::Destroy(_) | Request::Logs(_) => {
            let missing = error.kind == ErrorKind::NotFound && asked.meant.is_none();
            if missing { Ok(()) } else { Err(unfair()) }
        }
        Request::Create(_)
        | Request::List(_)
        | Request::Restart(_)
        | Request::Events(_)
        | Request::Status(_)
        | Request::Metrics(_)
        | Request::Shutdown(_) => Err(unfair()),
    }
}
