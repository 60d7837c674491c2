//! Creates are answered with what happened to them.

use procbroker_core::Answered;
use procbroker_protocol::create::IfExists;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::response::Created;
use procbroker_protocol::{
    ChildId, CreateParams, Error, ErrorKind, Exit, ExitReason, Holder, Outcome, Response,
};

use crate::sim::checks::{children, orders, places};
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::{Asked, Claim};
use crate::sim::ledger::expected::rights;
use crate::sim::ledger::told::is_of_its_start;
use crate::sim::ledger::track::{Start, Track};
use crate::sim::machine::Machine;

/// A create is answered.
///
/// # Errors
/// When the answer is not what happened.
pub fn answered(
    ledger: &mut Ledger,
    asked: &Asked,
    params: &CreateParams,
    result: &Result<Response, Error>,
) -> Checked {
    match result {
        Ok(Response::Created(created)) => {
            well(ledger, asked, params, created)?;
            remember(ledger, asked, params, created);
            if let Some(call) = ledger.handed_out.get(&asked.fresh.child).copied() {
                ledger.holds(call.connection, created.child.id);
            }
            Ok(())
        }
        Ok(response) => Err(Check::Creates.broken(format!("a create is answered with {response:?}"))),
        Err(error) => {
            badly(ledger, asked, params, error)?;
            let of_its_start = is_of_its_start(&error.kind);
            let started = started(ledger, asked, params).map(|track| track.run.child);
            // What became of the place of one that was replaced is the answer to its create, whatever it is.
            let is_its_answer = |id: &ChildId| *id == asked.fresh.child || asked.is_superseded();
            let failed = started.filter(|id| of_its_start || is_its_answer(id));
            if let Some(track) = failed.and_then(|id| ledger.tracks.get_mut(&id)) {
                // What has started and failed since is taken down when it ends, and may be another one by now.
                let is_told_late = matches!(error.kind, ErrorKind::StartFailed { .. });
                let is_unstarted = !track.is_spawned() && track.runs.count == 0 && !is_told_late;
                track.refused |= is_unstarted || track.superseded;
            }
            Ok(())
        }
    }
}

/// Takes down an answer, for the same request to get it again.
fn remember(ledger: &mut Ledger, asked: &Asked, params: &CreateParams, created: &Created) {
    match (created.outcome, params.request_id) {
        (Outcome::Existing { .. }, Some(request)) => {
            let answer = (created.child.id, created.outcome);
            ledger.found.insert((asked.peer.uid, request), answer);
            ledger.told_found.remove(&(asked.peer.uid, request));
        }
        (Outcome::Existing { .. }, None) => {}
        (Outcome::Created | Outcome::Replaced, _) => {
            if let Some(track) = ledger.tracks.get_mut(&created.child.id) {
                track.outcome = Some(created.outcome);
            }
        }
    }
}

/// It is recorded how a request is answered.
///
/// # Errors
/// When it was answered before, or its child is not there for others.
pub fn remembered(ledger: &Ledger, answered: &Answered) -> Checked {
    let before = ledger.first_answer(answered.uid, answered.request);
    Check::OneOwner.demand(before.is_none(), || format!("{answered:?} is recorded after {before:?}"))?;
    let child = ledger.tracks.get(&answered.child).filter(|track| track.is_live() && !track.is_ending());
    Check::Creates.demand(child.is_some(), || format!("{answered:?} is recorded, and that is not there"))
}

/// Answers are not remembered any more.
///
/// # Errors
/// When one of them is of a child that is visible, and there is room for it.
pub fn unremembered(ledger: &Ledger, machine: &Machine, on_record: &[ChildId]) -> Checked {
    let answers = machine.disk.answers();
    let budget = ledger.config.bounds.remembered_bytes();
    let is_kept = |answered: &&Answered| {
        let is_visible = ledger.tracks.get(&answered.child).is_some_and(|track| !track.forgotten);
        on_record.contains(&answered.id) && is_visible
    };
    let kept = answers.iter().find(is_kept);
    let is_full = answers.len() as u64 * ANSWER_BYTES_MIN > budget.user;
    Check::OneOwner
        .demand(is_full || kept.is_none(), || format!("{kept:?} is forgotten, and its child is visible"))
}

/// What an answer takes at the least that is remembered, in bytes.
const ANSWER_BYTES_MIN: u64 = 128;

/// The child that was started for a create, or for the same request before it.
fn started<'a>(ledger: &'a Ledger, asked: &Asked, params: &CreateParams) -> Option<&'a Track> {
    ledger.tracks.get(&asked.fresh.child).or_else(|| same_request(ledger, asked, params).next())
}

/// The children that this request has started as far as they are visible, the last one first: a request
/// that has failed starts another.
fn same_request<'a>(
    ledger: &'a Ledger,
    asked: &Asked,
    params: &CreateParams,
) -> impl Iterator<Item = &'a Track> {
    let started = params.request_id.map(|request| ledger.started_for(asked.peer.uid, request));
    started.into_iter().flatten().filter(|track| !track.forgotten)
}

fn well(ledger: &Ledger, asked: &Asked, params: &CreateParams, created: &Created) -> Checked {
    let child = &created.child;
    let uid = asked.peer.uid;
    children::child(ledger, uid, child)?;
    let Some(track) = ledger.tracks.get(&child.id) else { return Ok(()) };
    let first = params.request_id.and_then(|id| ledger.first_answer(uid, id));
    if let Some((first, then)) = first {
        let same = first.run.child == child.id;
        Check::OneOwner.demand(same && then.is_none_or(|then| then == created.outcome), || {
            format!("a request that was answered {then:?} with {first:?} is now answered with {created:?}")
        })?;
    }
    match created.outcome {
        Outcome::Existing { .. } if first.is_some() => Ok(()),
        Outcome::Existing { same_spec } => {
            let fair = asked.if_exists() == IfExists::Reuse
                && track.params.name.is_some()
                && track.params.name.as_ref() == asked.wanted_name()
                && track.is_live()
                && track.has_come_to(asked.wants_only_a_process())
                && !track.is_ending();
            Check::Creates.demand(fair, || format!("{params:?} finds {track:?}"))?;
            let same = is_same(ledger, asked, params, track);
            Check::Creates.demand(same == same_spec, || {
                format!("{params:?} is said to be the same ({same_spec}) as {:?}", track.params)
            })
        }
        outcome @ (Outcome::Created | Outcome::Replaced) => {
            let own = track.run.child == asked.fresh.child || first.is_some();
            // Who asks again for what was created is told so, whatever has become of it.
            let is_over = !track.is_live() && !track.is_unanswered();
            let was_told = first.is_some() && !track.is_unanswered();
            let has_come = track.has_come_to(track.params.no_wait) || was_told || is_over;
            let good = has_come && !track.refused && !track.superseded;
            Check::Creates.demand(own && good, || {
                format!("{params:?} is answered with {track:?}, which it did not start")
            })?;
            let replaces = track.params.if_exists == IfExists::Replace;
            Check::Creates.demand(outcome == Outcome::Created || replaces, || {
                format!("{params:?} is said to have replaced")
            })
        }
    }
}

/// Whether a child runs and stops as it would if this create had started it.
fn is_same(ledger: &Ledger, asked: &Asked, params: &CreateParams, track: &Track) -> bool {
    let other = &track.params;
    let (params, wanted, anchor) = match &asked.claim {
        Claim::Own | Claim::Yielded => (params, rights(ledger.config.broker_uid, asked), asked.anchor()),
        Claim::Superseded(params, rights, anchor) => (params.as_ref(), rights.clone(), *anchor),
    };
    wanted.as_ref() == Some(&track.run_as)
        && anchor == track.anchor
        && params.command == other.command
        && params.labels == other.labels
        && params.stop == other.stop
        && params.stop_order == other.stop_order
        && key_of(params) == key_of(other)
        && params.cleanup == other.cleanup
        && params.ready == other.ready
        && params.watchdog == other.watchdog
        && params.ready_timeout == other.ready_timeout
        && params.lifetime == other.lifetime
        && params.linger == other.linger
        && params.restart == other.restart
}

/// The key of the limit under which a child is to have its place.
fn key_of(params: &CreateParams) -> Option<&str> {
    params.limit.as_ref().map(|limit| limit.key.as_str())
}

fn badly(ledger: &Ledger, asked: &Asked, params: &CreateParams, error: &Error) -> Checked {
    let any = |failed: &dyn Fn(&Track) -> bool| match ledger.tracks.get(&asked.fresh.child) {
        Some(own) => failed(own),
        None => same_request(ledger, asked, params).any(failed),
    };
    // It may be one that was there already, or is not visible any more.
    let all = |failed: &dyn Fn(&Track) -> bool| any(failed) || requested(ledger, asked, params).any(failed);
    let fair = match &error.kind {
        ErrorKind::NameTaken(told) => return name_taken(ledger, asked, params, *told, &error.message),
        ErrorKind::ShuttingDown => ledger.closing.is_some(),
        ErrorKind::Timeout(None) if is_kept_waiting(ledger, asked) => true,
        ErrorKind::Timeout(failure) => all(&|track| {
            let is_late = track.demands.first().is_some_and(|it| it.reason == ExitReason::StartFailed);
            let is_told_why = track.readiness.failure.as_ref() == failure.as_deref();
            track.is_unanswered() && is_late && is_told_why && track.readiness.by == Some(ledger.now)
        }),
        ErrorKind::SpawnFailed(_) => any(&|track| match track.start {
            Start::Failed => true,
            // It was killed for another program, or since it took too long.
            Start::Killed => track.demands.iter().all(|demand| demand.reason == ExitReason::StartFailed),
            Start::Recording | Start::Recorded { .. } | Start::Ordered | Start::Done { .. } => false,
        }),
        ErrorKind::Internal => any(&|track| track.start == Start::Recorded { written: false }),
        ErrorKind::StartFailed { exit, .. } if exit.reason == ExitReason::Replaced => {
            let holder = asked.wanted_name().and_then(|name| ledger.holder(name));
            // Who was told of one that was there, and comes again to wait until it is ready, is told how it ended.
            let is_known = asked.request_key().is_some_and(|key| ledger.found.contains_key(&key));
            let failed = |track: &Track| has_failed(track, exit);
            asked.is_superseded() && holder.is_none() || is_known && all(&failed)
        }
        ErrorKind::StartFailed { exit, .. } => all(&|track| {
            let is_unstarted = matches!(track.start, Start::Recorded { written: true } | Start::Killed)
                && track.demands.first().is_some_and(|demand| demand.reason == exit.reason)
                && exit.reason != ExitReason::StartFailed
                && exit.forced == track.killed.is_some();
            is_unstarted || has_failed(track, exit)
        }),
        ErrorKind::LimitExceeded => {
            !any(&|track| !track.refused && !track.superseded)
                && orders::fullness(ledger, asked.peer.uid, params)
                    .is_some_and(|full| full != orders::KEY || places::is_refused_in_time(ledger, asked))
        }
        ErrorKind::ParseError
        | ErrorKind::InvalidRequest
        | ErrorKind::MethodNotFound
        | ErrorKind::InvalidParams
        | ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::Overloaded
        | ErrorKind::Unsupported => false,
    };
    Check::Creates.demand(fair, || {
        let track = started(ledger, asked, params);
        format!("{params:?} fails with {error:?}, and its child is {track:?}")
    })
}

/// Whether a create has waited for the name of a child that never was for as long as its own child may take to be ready.
fn is_kept_waiting(ledger: &Ledger, asked: &Asked) -> bool {
    let holder = asked.wanted_name().and_then(|name| ledger.holder(name));
    let params = match &asked.claim {
        Claim::Own | Claim::Yielded => asked.create(),
        Claim::Superseded(params, ..) => Some(params.as_ref()),
    };
    let until = params.map(|params| asked.at.saturating_add(nanos(params.ready_timeout.0)));
    holder.is_some_and(Track::never_was) && until.is_some_and(|until| until <= ledger.now)
}

/// Whether a child has ended in this way before it was ever ready.
fn has_failed(track: &Track, exit: &Exit) -> bool {
    track.is_unanswered() && !track.is_live() && track.known_exit.as_ref() == Some(exit)
}

/// The children that this request is about, or was answered with, whether or not they are visible.
fn requested<'a>(
    ledger: &'a Ledger,
    asked: &Asked,
    params: &CreateParams,
) -> impl Iterator<Item = &'a Track> {
    let (uid, request) = (asked.peer.uid, params.request_id);
    let found = request.and_then(|request| ledger.found.get(&(uid, request)));
    let found = found.and_then(|(id, _)| ledger.tracks.get(id));
    let started = ledger.tracks.values().filter(move |track| {
        track.owner.uid == uid && request.is_some() && track.params.request_id == request
    });
    started.chain(found)
}

fn name_taken(
    ledger: &Ledger,
    asked: &Asked,
    params: &CreateParams,
    told: Option<Holder>,
    message: &str,
) -> Checked {
    let holder = asked.wanted_name().and_then(|name| ledger.holder(name));
    let Some(holder) = holder else {
        return Err(Check::Creates.broken(format!("{params:?} fails, and nobody has the name")));
    };
    Check::Creates
        .demand(!holder.never_was(), || format!("{params:?} fails because of {holder:?}, which never was"))?;
    let own = ledger.may_touch(asked.peer.uid, holder.owner);
    Check::Creates.demand(!own || asked.if_exists() == IfExists::Fail, || {
        format!("{params:?} fails because of {holder:?}")
    })?;
    let told = told.map(|told| told.id);
    let expected = own.then_some(holder.run.child);
    let named = message.contains(&holder.run.child.to_string());
    Check::Privilege.demand(told == expected && (own || !named), || {
        format!("user {} is told of {told:?}, and the name is held by {holder:?}", asked.peer.uid)
    })
}

/// After a turn: a create that waits has something to wait for.
///
/// # Errors
/// When it has not.
pub fn goes_on(ledger: &Ledger, asked: &Asked, params: &CreateParams) -> Checked {
    if asked.reading {
        // The last words of its child are.
        return Ok(());
    }
    // Nobody is refused because of a child that never was, as long as its process may still end in time.
    let holder = asked.wanted_name().and_then(|name| ledger.holder(name));
    if ledger.closing.is_none() && holder.is_some_and(Track::never_was) {
        return Check::Progress.demand(!is_kept_waiting(ledger, asked), || {
            format!("{params:?} waits for {holder:?}, which never was, for too long")
        });
    }
    // The same request once more waits for what the first one waits for, and for nothing if that was answered.
    let starts =
        |track: &Track| track.is_live() && track.is_unanswered() && !track.has_come_to(track.params.no_wait);
    let own = |track: &Track| track.run.child == asked.fresh.child;
    let started = ledger.tracks.get(&asked.fresh.child);
    // One that was replaced, and whose place was taken by none, is nothing to wait for.
    let good = || same_request(ledger, asked, params).find(|track| !track.refused && !track.superseded);
    let started = started.or_else(good);
    if asked.is_superseded() {
        // The same request may have come again, and have started another child.
        let good = good();
        if good.is_some_and(starts) {
            return Ok(());
        }
    } else if let Some(track) = started {
        let starts = starts(track) && !track.refused;
        // One that passes for another, with parameters of its own, may wait for something else still.
        let is_other = !own(track) && *track.params != *params;
        if starts || !is_other {
            return Check::Progress.demand(starts, || format!("{params:?} is not answered: {track:?}"));
        }
    }
    // The child of the same request may not be as far as that wants it.
    let known = params.request_id.and_then(|id| ledger.first_answer(asked.peer.uid, id));
    if known.is_some_and(|(track, then)| then.is_none() && starts(track)) {
        return Ok(());
    }
    Check::Shutdown
        .demand(ledger.closing.is_none(), || format!("{params:?} is not refused during a shutdown"))?;
    let holder = asked.wanted_name().and_then(|name| ledger.holder(name));
    let Some(holder) = holder else {
        return places::goes_on(ledger, asked);
    };
    if asked.seeks {
        // The name was taken since by one that it does not join.
        return places::goes_on(ledger, asked);
    }
    let fair = match asked.if_exists() {
        IfExists::Fail => false,
        IfExists::Reuse => !holder.has_come_to(asked.wants_only_a_process()) || holder.is_ending(),
        IfExists::Replace => !holder.demands.is_empty(),
    };
    Check::Progress.demand(fair && ledger.may_touch(asked.peer.uid, holder.owner), || {
        format!("{params:?} waits for {holder:?}")
    })
}
