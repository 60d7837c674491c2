//! What clients were told holds after the broker's death too: a child that is known stays known, an end stays that end,
//! a stop goes on, and a create that has failed has not succeeded after all.

use std::collections::BTreeSet;

use procbroker_core::{Answered, Progress, Recovered, Unready};
use procbroker_protocol::{ChildId, ExitReason, Outcome};

use crate::sim::checks::leases;
use crate::sim::disk::Loss;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::told::{End, Told};

/// What is on record at a start is what clients were told.
///
/// # Errors
/// When it is not.
pub fn kept(ledger: &mut Ledger, found: &[Recovered], loss: Loss) -> Checked {
    for recovered in found {
        let Some(track) = ledger.tracks.get_mut(&recovered.intent.id) else { continue };
        if loss != Loss::Power {
            leases::kept(track, recovered)?;
        }
        match loss {
            Loss::Power => track.told.weaken(),
            Loss::Process | Loss::Nothing => {}
        }
        let told = &track.told;
        let progress = recovered.progress.as_ref();
        let fair = has_failed(told, progress) && is_stopped(told, progress) && has_ended(told, progress);
        let fair = fair && is_ready(told, progress);
        Check::Recovery.demand(fair, || {
            format!("{} is on record as {progress:?}, and clients were told {told:?}", recovered.intent.id)
        })?;
    }
    one_answer(ledger, found)
}

/// What requests were answered with that was there already is on record, as long as that is.
///
/// # Errors
/// When it is not, or otherwise.
pub fn answers_kept(ledger: &Ledger, found: &[Recovered], answers: &[Answered], loss: Loss) -> Checked {
    if loss == Loss::Power {
        return Ok(());
    }
    let is_there = |id: ChildId| found.iter().any(|child| child.intent.id == id);
    let told = ledger.told_found.iter().filter_map(|key| Some((key, ledger.found.get(key)?)));
    let is_visible = |id: &ChildId| ledger.tracks.get(id).is_some_and(|track| !track.forgotten);
    for ((uid, request), (child, outcome)) in told.filter(|(_, (child, _))| is_visible(child)) {
        let is_kept = |it: &Answered| {
            (it.uid, it.request, it.child) == (*uid, *request, *child)
                && Outcome::Existing { same_spec: it.same_spec } == *outcome
        };
        Check::Recovery.demand(!is_there(*child) || answers.iter().any(is_kept), || {
            format!(
                "the request {request} of user {uid} was answered with {child}, and on record is {answers:?}"
            )
        })?;
    }
    Ok(())
}

/// A request starts another child only if it is on record that the one before has failed.
fn one_answer(ledger: &Ledger, found: &[Recovered]) -> Checked {
    let mut answered = BTreeSet::new();
    let failed: BTreeSet<ChildId> = found
        .iter()
        .filter(|child| is_on_record_as_failed(child.progress.as_ref()))
        .map(|child| child.intent.id)
        .collect();
    // One that was replaced before it was ready may have failed too, and that is not on record.
    let mut good = ledger.tracks.values().filter(|track| {
        !track.void && !track.refused && !track.is_replaced() && !failed.contains(&track.run.child)
    });
    let double = good.find(|track| {
        let request = track.params.request_id;
        request.is_some_and(|request| !answered.insert((track.owner.uid, request)))
    });
    Check::OneOwner.demand(double.is_none(), || {
        format!("{double:?} has the same request as another, and neither failed")
    })
}

/// A create that has failed has not been, or its child is on record as one that was not started well.
fn has_failed(told: &Told, progress: Option<&Progress>) -> bool {
    !told.failed
        || reason(progress) == Some(ExitReason::StartFailed)
        || unready(progress) == Some(Unready::Ever)
}

/// Whether the create of a child that never was ready has failed, as far as is on record.
fn is_on_record_as_failed(progress: Option<&Progress>) -> bool {
    reason(progress) == Some(ExitReason::StartFailed) && unready(progress) == Some(Unready::Ever)
}

/// One that has said that it is ready does not say so again.
fn is_ready(told: &Told, progress: Option<&Progress>) -> bool {
    let Some(restarts) = told.ready else { return true };
    match progress {
        None | Some(Progress::Unwanted { .. }) => false,
        Some(Progress::Starting { runs, .. }) => runs.restarts > restarts,
        Some(
            Progress::Running { .. }
            | Progress::Restarting { .. }
            | Progress::Stopping(_)
            | Progress::Cleaning { .. }
            | Progress::Ended { .. },
        ) => unready(progress) != Some(Unready::Ever),
    }
}

/// How much of a child was not ready, as far as is on record.
fn unready(progress: Option<&Progress>) -> Option<Unready> {
    match progress? {
        Progress::Unwanted { .. } => None,
        Progress::Starting { runs, .. }
        | Progress::Running { runs, .. }
        | Progress::Restarting { runs, .. } => Some(runs.unready),
        Progress::Stopping(stopping) => Some(stopping.runs.unready),
        Progress::Cleaning { unready, .. } | Progress::Ended { unready, .. } => Some(*unready),
    }
}

fn is_stopped(told: &Told, progress: Option<&Progress>) -> bool {
    // That it was lost with the machine, or that its create has failed, may be known better by now.
    let better = matches!(reason(progress), Some(ExitReason::BrokerLost | ExitReason::StartFailed));
    told.stopped.is_none() || told.stopped == reason(progress) || better
}

fn has_ended(told: &Told, progress: Option<&Progress>) -> bool {
    let Some((_, End { exit, cleanup })) = &told.ended else { return true };
    match progress {
        Some(Progress::Ended { exit: on_record, cleanup: outcome, .. }) => {
            exit == on_record && cleanup == outcome
        }
        Some(
            Progress::Unwanted { .. }
            | Progress::Starting { .. }
            | Progress::Running { .. }
            | Progress::Restarting { .. }
            | Progress::Stopping(_)
            | Progress::Cleaning { .. },
        )
        | None => false,
    }
}

/// Why a child ends, as far as is on record.
fn reason(progress: Option<&Progress>) -> Option<ExitReason> {
    match progress? {
        Progress::Unwanted { reason, .. } => Some(*reason),
        Progress::Starting { .. } | Progress::Running { .. } => None,
        Progress::Restarting { unwanted, .. } => unwanted.as_ref().map(|(reason, _)| *reason),
        Progress::Stopping(stopping) => Some(stopping.reason),
        Progress::Cleaning { exit, .. } | Progress::Ended { exit, .. } => Some(exit.reason),
    }
}
