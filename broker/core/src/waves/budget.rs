//! How the time of a shutdown is shared out: between waves, and between a child's stop and its cleanup.

use std::time::Duration;

use procbroker_protocol::create::StopStep;
use procbroker_protocol::duration::nanos;

use crate::child::Child;
use crate::limits::{CLEANUP_SHARE_DIVISOR, KILL_RESERVE_DIVISOR, KILL_RESERVE_MAX, KILL_RESERVE_MIN};
use crate::time::Instant;

/// The part of the time of a shutdown that the main command leaves to the children of other users than its own, as a divisor, if
/// one of these would like so much.
pub(crate) const OTHERS_SHARE_DIVISOR: u32 = 3;

/// When a shutdown that may take so long is over, and when it kills: the rest of the time is kept for the kill
/// itself to do its work.
pub(crate) fn bounds(now: Instant, timeout: Duration) -> (Instant, Instant) {
    let deadline = now.plus(timeout);
    (deadline, deadline.minus(kill_reserve(timeout)))
}

/// The part of so much time that is kept for a kill to do its work.
pub(crate) fn kill_reserve(time: Duration) -> Duration {
    let least = (time / 2).min(KILL_RESERVE_MIN);
    (time / KILL_RESERVE_DIVISOR).max(least).min(KILL_RESERVE_MAX)
}

/// How much of the time for a child is kept for its cleanup.
pub(crate) fn cleanup_share(child: &Child, time: Duration) -> Duration {
    let share = time / CLEANUP_SHARE_DIVISOR;
    child.params().cleanup.as_ref().map_or(Duration::ZERO, |cleanup| cleanup.timeout.min(share))
}

/// How long a child's stop takes if nothing answers its signals, and its cleanup after that, when there is so much
/// time for all.
pub(crate) fn need(child: &Child, now: Instant, time: Duration) -> Duration {
    child.stop_need(now).saturating_add(cleanup_share(child, time))
}

/// `time` in the proportion of `part` to `whole`.
pub(crate) fn scale(time: Duration, part: Duration, whole: Duration) -> Duration {
    let product = u128::from(nanos(time)) * u128::from(nanos(part));
    let scaled = product / u128::from(nanos(whole)).max(1);
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// The steps with their graces shortened alike, so that together they take no longer than `share`.
pub(crate) fn shortened(steps: &[StopStep], share: Duration) -> Vec<StopStep> {
    let total = steps.iter().fold(Duration::ZERO, |sum, step| sum.saturating_add(step.grace));
    if total <= share {
        return steps.to_vec();
    }
    steps.iter().map(|step| StopStep { grace: scale(step.grace, share, total), ..*step }).collect()
}

/// Returns the steps of a stop by a shutdown that may take so long, where no cleanup and no other wave needs any of the time.
#[must_use]
pub fn steps_within(steps: &[StopStep], timeout: Duration) -> Vec<StopStep> {
    let now = Instant::from_nanos(0);
    let (_, kill_at) = bounds(now, timeout);
    shortened(steps, kill_at.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use procbroker_protocol::Signal;

    fn steps(graces: &[u64]) -> Vec<StopStep> {
        graces
            .iter()
            .map(|grace| StopStep { signal: Signal::TERM, grace: Duration::from_secs(*grace) })
            .collect()
    }

    #[test]
    fn some_of_the_time_is_kept_for_the_last_kill_and_never_more_than_half() {
        let now = Instant::from_nanos(0);
        let kept = |timeout: Duration| {
            let (deadline, kill_at) = bounds(now, timeout);
            assert_eq!(deadline.since(now), timeout);
            deadline.since(kill_at)
        };
        assert_eq!(kept(Duration::from_secs(30)), KILL_RESERVE_MAX);
        assert_eq!(kept(Duration::from_secs(5)), Duration::from_millis(500));
        assert_eq!(kept(Duration::from_secs(1)), KILL_RESERVE_MIN);
        assert_eq!(kept(Duration::from_millis(100)), Duration::from_millis(50));
    }

    #[test]
    fn steps_are_shortened_alike_and_only_where_the_time_is_short() {
        assert_eq!(shortened(&steps(&[10, 20]), Duration::from_secs(3)), steps(&[1, 2]));
        assert_eq!(shortened(&steps(&[10, 20]), Duration::from_secs(30)), steps(&[10, 20]));
        assert_eq!(shortened(&steps(&[10, 20]), Duration::ZERO), steps(&[0, 0]));
    }

    #[test]
    fn a_proportion_of_huge_times_does_not_overflow() {
        let huge = Duration::from_nanos(u64::MAX);
        assert_eq!(scale(huge, huge, huge), huge);
        assert_eq!(scale(huge, huge, Duration::ZERO), huge);
    }
}
