//! What `list`, `wait` and `status` show.

use std::sync::Arc;

use procbroker_core::RunAs;
use procbroker_protocol::create::Account;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::request::{ListParams, Until, WaitParams};
use procbroker_protocol::{Child, ChildId, ChildState, CreateParams, Spec, Status};

use crate::sim::checks::children;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::asked::Asked;
use crate::sim::ledger::track::Track;
use crate::sim::ledger::{Ledger, carries};

/// `list` is answered.
///
/// # Errors
/// When it shows too much, too little, or out of order.
pub fn listed(ledger: &Ledger, uid: u32, params: &ListParams, children: &[Arc<Child>]) -> Checked {
    let wanted = |track: &&Track| {
        (track.is_live() || params.all && !track.forgotten)
            && ledger.may_touch(uid, track.owner)
            && carries(track, &params.labels)
    };
    let expected: Vec<ChildId> = ledger.tracks.values().filter(wanted).map(|track| track.run.child).collect();
    let shown: Vec<ChildId> = children.iter().map(|child| child.id).collect();
    Check::Answers.demand(expected == shown, || format!("{uid} is shown {shown:?} and not {expected:?}"))?;
    children.iter().try_for_each(|child| children::child(ledger, uid, child))
}

/// The specification in an answer to `get`.
///
/// # Errors
/// When it is not what the child was created with, but for what that has become.
pub fn specified(ledger: &Ledger, child: ChildId, spec: Option<&Spec>) -> Checked {
    let track = ledger.tracks.get(&child);
    let told = spec.zip(track).is_some_and(|(spec, track)| {
        let asked = &track.params;
        let (user, groups, cwd) = (asked.user.clone(), asked.groups.clone(), asked.cwd.clone());
        let params = CreateParams { user, groups, cwd, ..spec.params.clone() };
        let uid = match &track.run_as {
            RunAs::Broker => ledger.config.broker_uid,
            RunAs::User { uid, .. } => *uid,
        };
        params == **asked && spec.params.user == Some(Account::Id(uid))
    });
    Check::Answers.demand(told, || format!("{spec:?} is told of {track:?}"))
}

/// `wait` is answered.
///
/// # Errors
/// When what it waits for has not come.
pub fn awaited(ledger: &Ledger, asked: &Asked, params: &WaitParams, child: &Child) -> Checked {
    let meant = asked.meant.as_ref().and_then(|meant| meant.first()) == Some(&child.id);
    let track = ledger.tracks.get(&child.id);
    let come = track.is_some_and(|track| match params.until {
        Until::Ready => track.is_settled() && !track.is_ending() || !track.is_live(),
        Until::Ended => !track.is_live(),
    });
    Check::Answers.demand(meant && come, || {
        format!("a wait until {:?} for {:?} is answered with {child:?}", params.until, asked.meant)
    })
}

/// `status` is answered.
///
/// # Errors
/// When it does not count right.
pub fn status(ledger: &Ledger, status: &Status) -> Checked {
    let live = |state: ChildState| {
        ledger.live_tracks().filter(|track| children::state(track, ledger.now) == state).count()
    };
    let counts = &status.children;
    let told = [
        counts.starting,
        counts.running,
        counts.stopping,
        counts.ended,
        counts.cleaning,
        counts.backoff,
        status.connections,
    ];
    let links = usize::try_from(ledger.open_links).unwrap_or(usize::MAX);
    let expected = [
        live(ChildState::Starting),
        live(ChildState::Running),
        live(ChildState::Stopping),
        ledger.visible.len(),
        live(ChildState::Cleaning),
        live(ChildState::Backoff),
        links,
    ];
    let same = told.iter().zip(expected).all(|(told, expected)| usize::try_from(*told) == Ok(expected));
    Check::Answers.demand(same && status.shutting_down == ledger.closing.is_some(), || {
        format!("status counts {told:?} and not {expected:?}, or is wrong about the shutdown")
    })
}

/// After a turn: no request waits for what has come.
///
/// # Errors
/// When one does.
pub fn wait_goes_on(ledger: &Ledger, asked: &Asked, params: &WaitParams) -> Checked {
    let id = asked.meant.as_ref().and_then(|meant| meant.first());
    let track = id.and_then(|id| ledger.tracks.get(id));
    let open = track.is_some_and(|track| match params.until {
        Until::Ready => (!track.is_settled() || track.is_ending()) && track.is_live(),
        Until::Ended => track.is_live(),
    });
    let patient = params.timeout.is_none_or(|timeout| ledger.now < asked.at.saturating_add(nanos(timeout)));
    Check::Progress.demand(open && patient, || {
        format!("a wait until {:?} for {:?} is not answered", params.until, asked.meant)
    })
}
