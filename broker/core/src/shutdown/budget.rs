//! How the time of a shutdown is shared out: between waves, and between a child's stop and its cleanup.

use procbroker_protocol::Span;
use procbroker_protocol::create::StopStep;

use crate::child::Child;
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
pub(crate) fn cleanup_share(child: &Child, time: Span) -> Span {
    let share = Span::from_nanos(time.as_nanos() / CLEANUP_SHARE_DIVISOR);
    child.params().cleanup.as_ref().map_or(Span::ZERO, |cleanup| cleanup.timeout.min(share))
}

/// How long a child's stop takes if nothing answers its signals, and its cleanup after that, when there is so much
/// time for all.
pub(crate) fn need(child: &Child, now: Instant, time: Span) -> Span {
    let stop = child.stop_need(now).as_nanos();
    Span::from_nanos(stop.saturating_add(cleanup_share(child, time).as_nanos()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use procbroker_protocol::Signal;

    fn steps(graces: &[u64]) -> Vec<StopStep> {
        graces.iter().map(|grace| StopStep { signal: Signal::TERM, grace: Span::from_secs(*grace) }).collect()
    }

    #[test]
    fn some_of_the_time_is_kept_for_the_last_kill_and_never_more_than_half() {
        let now = Instant::from_nanos(0);
        let kept = |timeout: Span| {
            let (deadline, kill_at) = bounds(now, timeout);
            assert_eq!(deadline.since(now), timeout);
            deadline.since(kill_at)
        };
        assert_eq!(kept(Span::from_secs(30)), KILL_RESERVE_MAX);
        assert_eq!(kept(Span::from_secs(5)), Span::from_millis(500));
        assert_eq!(kept(Span::from_secs(1)), KILL_RESERVE_MIN);
        assert_eq!(kept(Span::from_millis(100)), Span::from_millis(50));
    }

    #[test]
    fn steps_are_shortened_alike_and_only_where_the_time_is_short() {
        assert_eq!(shortened(&steps(&[10, 20]), Span::from_secs(3)), steps(&[1, 2]));
        assert_eq!(shortened(&steps(&[10, 20]), Span::from_secs(30)), steps(&[10, 20]));
        assert_eq!(shortened(&steps(&[10, 20]), Span::ZERO), steps(&[0, 0]));
    }

    #[test]
    fn a_proportion_of_huge_times_does_not_overflow() {
        let huge = Span::from_nanos(u64::MAX);
        assert_eq!(scale(huge, huge, huge), huge);
        assert_eq!(scale(huge, huge, Span::ZERO), huge);
    }
}
