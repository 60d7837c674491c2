//! The events: their numbers, those that are kept, and who has yet to read which.
//!
//! A subscriber is not sent events; it is told once that there are some, and reads them when its client has room. What happens
//! so costs the same however many subscribers there are, and what each of them reads is read in the turn of its own user.

mod fresh;
mod kept;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use procbroker_protocol::{Child as ChildView, ChildId, Event, EventKind};
use uuid::Uuid;

use crate::authorize;
use crate::config::Config;
use crate::effect::Effect;
use crate::ids::{ConnectionId, SubscriptionId};
use crate::limits::Bounds;
use crate::turn::Turn;
use fresh::FreshEvents;
pub use kept::DroppedEvents;
use kept::Kept;
pub use reader::UnreadEvents;
use reader::{Reader, Rest};
pub(crate) use reader::{Sight, label_bytes};

/// The events that are kept, as one program of a broker hands them to the next: their numbers go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHistory {
    /// The instance of the broker that began to count.
    pub instance: Uuid,
    /// The number of the next event.
    pub next: u64,
    /// The events that are kept, oldest first.
    pub kept: Vec<Arc<Event>>,
    /// What is not kept any more of those about each user's children, and of the broker's own.
    pub dropped: BTreeMap<Option<u32>, DroppedEvents>,
}

impl EventHistory {
    /// Returns that of an instance which begins to count.
    pub(crate) fn beginning(instance: Uuid) -> Self {
        Self { instance, next: 1, kept: Vec::new(), dropped: BTreeMap::new() }
    }

    /// Whether the numbers are those of one broker that has counted from one on.
    fn is_sound(&self) -> bool {
        let numbers = || self.kept.iter().map(|event| event.seq);
        let counts_up = numbers().zip(numbers().skip(1)).all(|(one, other)| one < other);
        let dropped = self.dropped.values().map(|dropped| dropped.last);
        counts_up
            && self.next >= 1
            && numbers().chain(dropped).all(|number| number < self.next)
            && numbers().all(|number| number >= 1)
    }

    /// Returns up to which number events are missing of which is not said whose they were: all of them, where it is not
    /// said of each.
    fn unknown_up_to(&self) -> u64 {
        let counted: u64 = self.dropped.values().fold(0, |sum, dropped| sum.saturating_add(dropped.count));
        let first = self.kept.first().map_or(self.next, |event| event.seq);
        if counted.saturating_add(self.kept.len() as u64) + 1 >= self.next { 0 } else { first - 1 }
    }
}

/// The events that are kept, and those who want to know of the next.
#[derive(Debug)]
pub(crate) struct EventLog {
    /// The instance that began to count.
    instance: Uuid,
    next: u64,
    kept: Kept,
    readers: BTreeMap<ConnectionId, Reader>,
    /// Those of them who have read all, by user. The others were told that there is something, and have not read it.
    idle: BTreeMap<u32, BTreeSet<ConnectionId>>,
    fresh: FreshEvents,
    next_subscription: u64,
}

impl EventLog {
    /// Returns one that goes on counting.
    pub(crate) fn new(history: EventHistory, events_kept: usize) -> Self {
        let unknown = history.unknown_up_to();
        let EventHistory { instance, next, kept, dropped } = history;
        let mut kept = Kept::taken_over(kept, dropped, unknown);
        kept.drop_beyond(events_kept, u64::MAX);
        let (readers, idle, fresh) = Default::default();
        Self { instance, next, kept, readers, idle, fresh, next_subscription: 1 }
    }

    /// Goes on where another program was, unless that makes no sense.
    pub(crate) fn go_on(&mut self, history: EventHistory, events_kept: usize) {
        if history.is_sound() {
            *self = Self::new(history, events_kept);
        }
    }

    /// Returns what another program goes on with.
    pub(crate) fn history(&self) -> EventHistory {
        let kept = self.kept.from(0).cloned().collect();
        EventHistory { instance: self.instance, next: self.next, kept, dropped: self.kept.dropped() }
    }

    /// Returns the events that are kept from a number on, whoever may see them.
    pub(crate) fn kept_from(&self, number: u64) -> impl Iterator<Item = &Arc<Event>> {
        self.kept.from(number)
    }

    /// Returns the children that were told of, as far as that is kept, and not of their end.
    pub(crate) fn unended(&self) -> BTreeSet<ChildId> {
        let mut unended = BTreeSet::new();
        for event in self.kept.from(0) {
            match (&event.child, event.kind) {
                (Some(child), EventKind::Ended) => drop(unended.remove(&child.id)),
                (Some(child), _) => drop(unended.insert(child.id)),
                (None, _) => {}
            }
        }
        unended
    }

    /// Returns the instance that began to count.
    pub(crate) fn instance(&self) -> Uuid {
        self.instance
    }

    /// Returns a new number for a subscription, of events or of a log.
    pub(crate) fn new_subscription(&mut self) -> SubscriptionId {
        let id = SubscriptionId(self.next_subscription);
        self.next_subscription += 1;
        id
    }

    /// Returns the number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Has a connection of a user told of every event that it may see from a number on.
    pub(crate) fn subscribe(
        &mut self,
        connection: ConnectionId,
        (uid, sight): (u32, Sight),
        (id, labels): (SubscriptionId, BTreeMap<String, String>),
        since: u64,
        turn: &mut Turn<'_>,
    ) {
        let Self { next, kept, readers, idle, fresh, .. } = self;
        let mut is_new = false;
        let reader = readers.entry(connection).or_insert_with(|| {
            is_new = true;
            Reader::new(uid, sight)
        });
        let was_idle = is_new || rouse(idle, uid, connection);
        if was_idle {
            reader.skip_to(fresh, kept, *next);
        }
        reader.add(id, labels, since, kept);
        if was_idle {
            self.settle(connection, turn);
        }
    }

    /// Drops the subscriptions of a connection that is gone, and returns how many bytes they took.
    pub(crate) fn close(&mut self, connection: ConnectionId) -> u64 {
        let Some(reader) = self.readers.remove(&connection) else {
            return 0;
        };
        rouse(&mut self.idle, reader.uid, connection);
        reader.bytes()
    }

    /// Keeps that something has happened, to a child or to the broker itself.
    pub(crate) fn publish(
        &mut self,
        kind: EventKind,
        child: Option<Arc<ChildView>>,
        config: &Config,
        turn: &Turn<'_>,
    ) {
        let all_are_idle = self.idle.values().map(BTreeSet::len).sum::<usize>() == self.readers.len();
        let nobody_reads = self.readers.is_empty() || all_are_idle && self.fresh.count() == 0;
        let event = Arc::new(Event { seq: self.next, at: turn.now.wall, kind, child });
        self.next += 1;
        self.fresh.add(&event);
        self.kept.push(event);
        let Bounds { events_kept, .. } = config.bounds;
        let count = if nobody_reads { events_kept } else { config.bounds.events_kept_for_readers() };
        self.kept.drop_beyond(count, config.bounds.event_bytes());
    }

    /// Tells those who have read all that there are events for them.
    pub(crate) fn announce(&mut self, config: &Config, turn: &mut Turn<'_>) {
        if self.fresh.count() == 0 {
            return;
        }
        let fresh = std::mem::take(&mut self.fresh);
        let is_concerned = |uid: u32| {
            let of_own = fresh.count_of(Some(uid)) + fresh.count_of(None);
            of_own > 0 || authorize::is_administrator(config, uid)
        };
        let concerned = self.idle.iter().filter(|(uid, _)| is_concerned(**uid));
        let concerned: Vec<ConnectionId> = concerned.flat_map(|(_, idle)| idle).copied().collect();
        for connection in concerned {
            let Some(reader) = self.readers.get_mut(&connection).filter(|reader| reader.wants(&fresh)) else {
                continue;
            };
            reader.skip_to(&fresh, &self.kept, self.next);
            if reader.rest(&self.kept, self.next) == Rest::More {
                rouse(&mut self.idle, reader.uid, connection);
                turn.order(Effect::Unread { connection });
            }
        }
    }

    /// A connection has room for events: it gets the next ones, and is told if there are more.
    pub(crate) fn read(&mut self, connection: ConnectionId, turn: &mut Turn<'_>) {
        let Some(reader) = self.readers.get_mut(&connection) else {
            return;
        };
        if self.idle.get(&reader.uid).is_some_and(|idle| idle.contains(&connection)) {
            return;
        }
        let notifications = reader.read(&self.kept, self.next);
        if !notifications.is_empty() {
            turn.order(Effect::Publish { connection, notifications });
        }
        self.settle(connection, turn);
    }

    /// Tells a connection that there is something to read, or waits until there is.
    fn settle(&mut self, connection: ConnectionId, turn: &mut Turn<'_>) {
        let Some(reader) = self.readers.get(&connection) else {
            return;
        };
        match reader.rest(&self.kept, self.next) {
            Rest::More => turn.order(Effect::Unread { connection }),
            Rest::Nothing => drop(self.idle.entry(reader.uid).or_default().insert(connection)),
        }
    }

    /// Returns what each connection has not read.
    pub(crate) fn unread(&self) -> Vec<(ConnectionId, UnreadEvents)> {
        let (kept, next) = (Arc::new(self.kept.clone()), self.next);
        let unread = |(connection, reader): (&ConnectionId, &Reader)| {
            let mut reader = reader.clone();
            if self.idle.get(&reader.uid).is_some_and(|idle| idle.contains(connection)) {
                reader.skip_to(&self.fresh, &kept, next);
            }
            let has_more = reader.rest(&kept, next) == Rest::More;
            has_more.then(|| (*connection, UnreadEvents { kept: Arc::clone(&kept), next, reader }))
        };
        self.readers.iter().filter_map(unread).collect()
    }

    /// Returns how many bytes the events take that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.kept.bytes()
    }
}

/// Takes a connection out of those that have read all. Answers whether it was one.
fn rouse(idle: &mut BTreeMap<u32, BTreeSet<ConnectionId>>, uid: u32, connection: ConnectionId) -> bool {
    let Some(own) = idle.get_mut(&uid) else {
        return false;
    };
    let was_idle = own.remove(&connection);
    if own.is_empty() {
        idle.remove(&uid);
    }
    was_idle
}

#[cfg(test)]
mod tests;
