//! State: what the lives of children hang on, apart from the broker's own: the connections that hold each, its time, or another
//! process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procbroker_protocol::{ChildId, ExitReason};

use crate::anchor::Anchor;
use crate::ids::ConnectionId;
use crate::limits::STOOD_STILL_AFTER;
use crate::time::Instant;
use crate::timers::{Timer, Timers};

/// The live children whose life hangs on something, and what each connection holds.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    bound: BTreeMap<ChildId, Lease>,
    held: BTreeMap<ConnectionId, BTreeSet<ChildId>>,
    anchored: BTreeMap<Anchor, BTreeSet<ChildId>>,
}

/// What the life of one child hangs on.
#[derive(Debug)]
pub(crate) enum Lease {
    /// The connections that hold it.
    Connections {
        /// Each of them once, however often it was answered with the child.
        holders: BTreeSet<ConnectionId>,
        /// How long the child lives on after the last one.
        linger: Duration,
        /// When that is over, while nobody holds it.
        until: Option<Instant>,
    },
    /// Its time to live.
    Time {
        /// How much it gets anew when it is renewed.
        length: Duration,
        /// When it is over.
        until: Instant,
        /// When it was to be over, before it was put off because the broker had not run: that is done once.
        promised: Instant,
    },
    /// A process of somebody else: the child ends with it.
    Process(Anchor),
}

impl Lease {
    /// Returns the lease of a child that nobody holds at first.
    pub(crate) fn unheld(linger: Duration, until: Instant) -> Self {
        Self::Connections { holders: BTreeSet::new(), linger, until: Some(until) }
    }

    /// Returns the lease of a child with a time to live.
    pub(crate) fn timed(length: Duration, until: Instant) -> Self {
        Self::Time { length, until, promised: until }
    }

    /// Returns that of one that an earlier broker has left: if it was over before now, it is not put off.
    pub(crate) fn timed_before(length: Duration, until: Instant, now: Instant) -> Self {
        Self::Time { length, until, promised: until.max(now) }
    }

    /// Returns when the child ends, as far as that is known: when its time to live is over, or it has lingered long enough.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self {
            Self::Connections { until, .. } => *until,
            Self::Time { until, .. } => Some(*until),
            Self::Process(_) => None,
        }
    }

    fn reason(&self) -> ExitReason {
        match self {
            Self::Connections { .. } | Self::Process(_) => ExitReason::OwnerGone,
            Self::Time { .. } => ExitReason::Expired,
        }
    }
}

impl Leases {
    /// Binds the life of a child. Returns the process that is to be watched from now on, if there is one more.
    pub(crate) fn insert(&mut self, child: ChildId, lease: Lease, timers: &mut Timers) -> Option<Anchor> {
        timers.set(Timer::Lease(child), None, lease.until());
        let anchor = match &lease {
            Lease::Connections { .. } | Lease::Time { .. } => None,
            Lease::Process(anchor) => Some(*anchor),
        };
        self.bound.insert(child, lease);
        let anchored = self.anchored.entry(anchor?).or_default();
        anchored.insert(child);
        anchor.filter(|_| anchored.len() == 1)
    }

    /// Has a connection hold a child, if that lives by its connections.
    pub(crate) fn hold(&mut self, child: ChildId, connection: ConnectionId, timers: &mut Timers) {
        let Some(Lease::Connections { holders, until, .. }) = self.bound.get_mut(&child) else {
            return;
        };
        holders.insert(connection);
        timers.set(Timer::Lease(child), until.take(), None);
        self.held.entry(connection).or_default().insert(child);
    }

    /// Lets go of all that a connection holds, because it is closed. Returns what lingers from now on, and until when.
    pub(crate) fn close(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        timers: &mut Timers,
    ) -> Vec<(ChildId, Instant)> {
        let mut lingering = Vec::new();
        for child in self.held.remove(&connection).unwrap_or_default() {
            if let Some(Lease::Connections { holders, linger, until }) = self.bound.get_mut(&child)
                && holders.remove(&connection)
                && holders.is_empty()
            {
                let over = now.plus(*linger);
                *until = Some(over);
                timers.set(Timer::Lease(child), None, *until);
                if over > now {
                    lingering.push((child, over));
                }
            }
        }
        lingering
    }

    /// Gives a child its whole time again, and returns when that is over. `None` where it has no time to live.
    pub(crate) fn renew(&mut self, child: ChildId, now: Instant, timers: &mut Timers) -> Option<Instant> {
        let Some(Lease::Time { length, until, promised }) = self.bound.get_mut(&child) else {
            return None;
        };
        *promised = now.plus(*length);
        let before = std::mem::replace(until, now.plus(*length));
        timers.set(Timer::Lease(child), Some(before), Some(*until));
        Some(*until)
    }

    /// Whether a child has a time to live.
    pub(crate) fn is_timed(&self, child: ChildId) -> bool {
        matches!(self.bound.get(&child), Some(Lease::Time { .. }))
    }

    /// Takes the lease of a child whose timer has run out, and returns why the child ends. Where the broker is late to see that
    /// its time to live is over, who renews it has once more as much as that has cost, within its whole time.
    pub(crate) fn run_out(
        &mut self,
        child: ChildId,
        now: Instant,
        timers: &mut Timers,
    ) -> Option<ExitReason> {
        if let Some(Lease::Time { length, until, promised }) = self.bound.get_mut(&child)
            && until == promised
            && now.since(*until) > STOOD_STILL_AFTER
        {
            *until = now.plus(now.since(*until).min(*length));
            timers.set(Timer::Lease(child), None, Some(*until));
            return None;
        }
        self.take(child).map(|lease| lease.reason())
    }

    /// Returns the first of the children whose lives hang on a process.
    pub(crate) fn anchored_to(&self, anchor: Anchor) -> Option<ChildId> {
        self.anchored.get(&anchor)?.first().copied()
    }

    /// Forgets the lease of a child that is over. Returns the process that no life hangs on any more, if there is one.
    pub(crate) fn remove(&mut self, child: ChildId, timers: &mut Timers) -> Option<Anchor> {
        let lease = self.take(child)?;
        timers.set(Timer::Lease(child), lease.until(), None);
        match lease {
            Lease::Connections { .. } | Lease::Time { .. } => None,
            Lease::Process(anchor) => Some(anchor).filter(|anchor| !self.anchored.contains_key(anchor)),
        }
    }

    fn take(&mut self, child: ChildId) -> Option<Lease> {
        let lease = self.bound.remove(&child)?;
        match &lease {
            Lease::Connections { holders, .. } => {
                for holder in holders {
                    forget(&mut self.held, holder, child);
                }
            }
            Lease::Process(anchor) => forget(&mut self.anchored, anchor, child),
            Lease::Time { .. } => {}
        }
        Some(lease)
    }
}

/// Takes a child from what something is known by, and that too when it was the last one.
fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ChildId>>, key: &K, child: ChildId) {
    if let Some(children) = index.get_mut(key) {
        children.remove(&child);
        if children.is_empty() {
            index.remove(key);
        }
    }
}
