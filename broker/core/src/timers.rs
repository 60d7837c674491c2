//! Every deadline of the broker in one ordered set, so that the next one is known at once.

use std::collections::BTreeSet;

use procbroker_protocol::ChildId;

use crate::ids::Ticket;
use crate::time::Instant;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A step of a child's stop, a further kill, the end of its time to get ready, its next probe, its watchdog, the pause
    /// before it runs again, or the end of its cleanup's time.
    Child(ChildId),
    /// The end of the time of a command that finds out whether a child is ready, or a further kill of it.
    Probe(ChildId),
    /// The end of what a child's life hangs on.
    Lease(ChildId),
    /// The end of a request's patience.
    Call(Ticket),
    /// The rest of the places that one turn has not given.
    Places,
    /// The end of an ended child's visibility.
    Retention,
    /// The kill of all that is left, and then the end of the shutdown.
    Shutdown,
    /// The end of the patience of an upgrade.
    Upgrade,
    /// The exit for lack of work.
    Idle,
}

/// The deadlines, ordered by their moment.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Moves a timer from `before` to `after`, either of which may be "not set".
    pub(crate) fn set(&mut self, timer: Timer, before: Option<Instant>, after: Option<Instant>) {
        if before == after {
            return;
        }
        if let Some(moment) = before {
            self.due.remove(&(moment, timer));
        }
        if let Some(moment) = after {
            self.due.insert((moment, timer));
        }
    }

    /// Returns when the next timer runs out, if any is set.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(moment, _)| *moment)
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (moment, _) = self.due.first()?;
        if *moment > now {
            return None;
        }
        self.due.pop_first().map(|(_, timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_run_out_in_the_order_of_their_time_and_never_early() {
        let mut timers = Timers::default();
        let at = Instant::from_nanos;
        timers.set(Timer::Idle, None, Some(at(30)));
        timers.set(Timer::Shutdown, None, Some(at(10)));
        timers.set(Timer::Retention, None, Some(at(20)));
        assert_eq!((timers.next(), timers.pop(at(9))), (Some(at(10)), None));
        let out: Vec<_> = std::iter::from_fn(|| timers.pop(at(25))).collect();
        assert_eq!(out, [Timer::Shutdown, Timer::Retention]);
        assert_eq!(timers.next(), Some(at(30)));
    }

    #[test]
    fn a_timer_that_is_moved_or_taken_back_does_not_run_out_at_its_old_time() {
        let mut timers = Timers::default();
        let at = Instant::from_nanos;
        timers.set(Timer::Idle, None, Some(at(10)));
        timers.set(Timer::Idle, Some(at(10)), Some(at(20)));
        assert_eq!(timers.pop(at(15)), None);
        timers.set(Timer::Idle, Some(at(20)), None);
        assert_eq!((timers.next(), timers.pop(at(99))), (None, None));
    }
}
