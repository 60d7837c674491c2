//! How the time of a shutdown is shared out: between waves, and between a child's stop and its cleanup.

use procbroker_protocol::Span;
use procbroker_protocol::create::StopStep;

use crate::child::{Child, Phase, StopStage};
use crate::limits::{CLEANUP_SHARE_DIVISOR, KILL_RESERVE_DIVISOR, KILL_RESERVE_MAX, KILL_RESERVE_MIN};
use crate::time::Instant;

/// When a shutdown that may take so long is over, and when it kills: the rest of the time is kept for the kill
/// itself to do its work.
pub(crate) fn bounds(now: Instant, timeout: Span) -> (Instant, Instant) {
    let part = |divisor: u64| Span::from_nanos(timeout.as_nanos() / divisor);
    let least = part(2).min(KILL_RESERVE_MIN);
    let reserve = part(KILL_RESERVE_DIVISOR).max(least).min(KILL_RESERVE_MAX);
    let deadline = now.plus(timeout);
    (deadline, deadline.minus(reserve))
}

/// How much of the time for a child is kept for its cleanup.
pub(crate) fn cleanup_share(entry: &Child, time: Span) -> Span {
    let share = Span::from_nanos(time.as_nanos() / CLEANUP_SHARE_DIVISOR);
    entry.params().cleanup.as_ref().map_or(Span::ZERO, |cleanup| cleanup.timeout.min(share))
}

/// How long a child's stop takes if nothing answers its signals, and its cleanup after that, when there is so much
/// time for all.
pub(crate) fn need(entry: &Child, now: Instant, time: Span) -> Span {
    let stop = stop_need(entry, now).as_nanos();
    Span::from_nanos(stop.saturating_add(cleanup_share(entry, time).as_nanos()))
}

fn stop_need(entry: &Child, now: Instant) -> Span {
    let sum = |steps: &mut dyn Iterator<Item = &StopStep>| {
        steps.fold(0_u64, |sum, step| sum.saturating_add(step.grace.as_nanos()))
    };
    let nanoseconds = match &entry.phase {
        Phase::Stopping(stopping) => match stopping.stage {
            StopStage::Asking { .. } => {
                stopping.due().since(now).as_nanos().saturating_add(sum(&mut stopping.steps.iter()))
            }
            // The steps that are left are not taken any more.
            StopStage::Killing { .. } => 0,
        },
        Phase::Recording { cancelled: Some(stop) } | Phase::Spawning { stop: Some(stop) } => {
            sum(&mut stop.steps.iter())
        }
        Phase::Cleaning(_) => 0,
        Phase::Recording { cancelled: None }
        | Phase::Queued
        | Phase::Spawning { stop: None }
        | Phase::Running { .. }
        | Phase::Ended => sum(&mut entry.params().stop.iter()),
    };
    Span::from_nanos(nanoseconds)
}

/// `span` in the proportion of `part` to `whole`.
pub(crate) fn scale(span: Span, part: Span, whole: Span) -> Span {
    let product = u128::from(span.as_nanos()) * u128::from(part.as_nanos());
    let scaled = product / u128::from(whole.as_nanos()).max(1);
    Span::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// The steps with their graces shortened alike, so that together they take no longer than `share`.
pub(crate) fn shortened(steps: &[StopStep], share: Span) -> Vec<StopStep> {
    let total = steps.iter().fold(0_u64, |sum, step| sum.saturating_add(step.grace.as_nanos()));
    let total = Span::from_nanos(total);
    if total <= share {
        return steps.to_vec();
    }
    steps.iter().map(|step| StopStep { grace: scale(step.grace, share, total), ..*step }).collect()
}
