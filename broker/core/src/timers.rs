//! Every deadline of the broker in one ordered set, so that the next one is known at once.

use std::collections::BTreeSet;

use procbroker_protocol::ChildId;

use crate::pending::Ticket;
use crate::time::Instant;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A step of a child's stop, a further kill, or the end of its time to get ready.
    Child(ChildId),
    /// The end of a request's patience.
    Call(Ticket),
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

    /// The earliest deadline.
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
