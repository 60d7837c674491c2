//! The exit for lack of work: since when nobody has wanted anything of the broker.

use std::time::Duration;

use crate::time::Instant;
use crate::timers::{Timer, Timers};

/// How long the broker has had nothing to do.
#[derive(Debug, Default)]
pub(crate) struct Idleness {
    /// When its patience ends, while it has nothing to do.
    due: Option<Instant>,
}

impl Idleness {
    /// Begins to wait where the broker `is_idle` and was not before, and waits no more where it is not.
    pub(crate) fn watch(&mut self, is_idle: bool, patience: Duration, now: Instant, timers: &mut Timers) {
        let due = is_idle.then(|| self.due.unwrap_or(now.plus(patience)));
        timers.set(Timer::Idle, self.due, due);
        self.due = due;
    }

    /// Its timer has run out.
    pub(crate) fn timer_ran_out(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patience_begins_when_the_last_work_is_gone_and_anew_after_each() {
        let (mut idleness, timers) = (Idleness::default(), &mut Timers::default());
        let (at, patience) = (Instant::from_nanos, Duration::from_nanos(10));
        idleness.watch(true, patience, at(1), timers);
        idleness.watch(true, patience, at(5), timers);
        assert_eq!(timers.next(), Some(at(11)));
        idleness.watch(false, patience, at(6), timers);
        assert_eq!(timers.next(), None);
        idleness.watch(true, patience, at(7), timers);
        assert_eq!(timers.next(), Some(at(17)));
    }
}
