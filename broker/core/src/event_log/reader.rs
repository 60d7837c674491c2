//! How far a connection has read the events that it may see, and what it is told next.

use std::collections::BTreeMap;
use std::sync::Arc;

use procbroker_protocol::Event;
use procbroker_protocol::event::Notification;

use super::fresh::FreshEvents;
use super::kept::{At, Kept, bytes_of};
use crate::ids::SubscriptionId;
use crate::labels::has_labels;
use crate::limits::{EVENT_BYTES_A_READ, EVENTS_A_READ, EVENTS_LOOKED_AT_A_READ, REQUEST_KEPT_BYTES};

/// Whose events a subscriber may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Everybody's.
    All,
    /// Those of this user, and the broker's own.
    Own(u32),
}

/// Who is told of events on one connection.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) uid: u32,
    sight: Sight,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
}

/// One subscription to events.
#[derive(Clone, Debug)]
struct Subscription {
    /// The labels that a child has to have.
    labels: BTreeMap<String, String>,
    position: Position,
}

/// How far somebody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Who sees everybody's: the number of the next one.
    All { next: u64 },
    /// The places of the next ones of the user and of the broker.
    Own { own: u64, common: u64 },
}

/// What somebody is told next.
#[derive(Debug)]
enum Step {
    Event(Arc<Event>),
    /// So many events are not kept any more.
    Missed(u64),
    /// All is read.
    End,
}

/// Whether a connection has read all that it may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    More,
}

impl Reader {
    pub(super) fn new(uid: u32, sight: Sight) -> Self {
        Self { uid, sight, subscriptions: BTreeMap::new() }
    }

    /// Adds a subscription to what is kept from a number on, and to all that comes.
    pub(super) fn add(
        &mut self,
        id: SubscriptionId,
        labels: BTreeMap<String, String>,
        since: u64,
        kept: &Kept,
    ) {
        let position = match self.sight {
            Sight::All => Position::All { next: since },
            Sight::Own(uid) => {
                let (own, common) = (kept.of(Some(uid)), kept.of(None));
                Position::Own { own: own.place_from(since), common: common.place_from(since) }
            }
        };
        self.subscriptions.insert(id, Subscription { labels, position });
    }

    /// Returns how many bytes its subscriptions take.
    pub(super) fn bytes(&self) -> u64 {
        let subscriptions = self.subscriptions.values();
        subscriptions.map(|one| REQUEST_KEPT_BYTES + label_bytes(&one.labels)).sum()
    }

    /// All that was told before this turn is read, or is none of what it wants.
    pub(super) fn skip_to(&mut self, fresh: &FreshEvents, kept: &Kept, next: u64) {
        let start = match self.sight {
            Sight::All => Position::All { next: next - fresh.count() },
            Sight::Own(uid) => Position::Own {
                own: kept.of(Some(uid)).end() - fresh.count_of(Some(uid)),
                common: kept.of(None).end() - fresh.count_of(None),
            },
        };
        for subscription in self.subscriptions.values_mut() {
            subscription.position = subscription.position.later(start);
        }
    }

    /// Whether it is told of one of the events of this turn, or may be.
    pub(super) fn wants(&self, fresh: &FreshEvents) -> bool {
        let is_wanted = |event: &Arc<Event>| {
            let is_seen = self.sight.covers(event);
            is_seen && self.subscriptions.values().any(|subscription| subscription.is_meant(event))
        };
        fresh.are_too_many_to_look_at() || fresh.first().iter().any(is_wanted)
    }

    /// Whether there is anything that it has not read.
    pub(super) fn rest(&self, kept: &Kept, next: u64) -> Rest {
        let has_more = |subscription: &Subscription| {
            let mut position = subscription.position;
            !matches!(position.step(self.sight, kept, next), Step::End)
        };
        if self.subscriptions.values().any(has_more) { Rest::More } else { Rest::Nothing }
    }

    /// Reads on: as much as one turn has time for, of which each subscription has its part.
    pub(super) fn read(&mut self, kept: &Kept, next: u64) -> Vec<Notification> {
        let parts = self.subscriptions.len().max(1);
        let part = |all: usize| (all / parts).max(1);
        let (told_max, looks_max) = (part(EVENTS_A_READ), part(EVENTS_LOOKED_AT_A_READ));
        let mut notifications = Vec::new();
        for (id, subscription) in &mut self.subscriptions {
            let (mut told, mut looks, mut bytes) = (0, 0, 0);
            while told < told_max && looks < looks_max && bytes < part(EVENT_BYTES_A_READ) {
                match subscription.next(*id, self.sight, kept, next) {
                    Next::Told(notification) => {
                        bytes += event_bytes(&notification);
                        notifications.push(notification);
                        told += 1;
                    }
                    Next::Passed => {}
                    Next::End => break,
                }
                looks += 1;
            }
        }
        notifications
    }

    /// Reads one more thing, of whichever subscription.
    fn read_one(&mut self, kept: &Kept, next: u64) -> Option<Notification> {
        for (id, subscription) in &mut self.subscriptions {
            loop {
                match subscription.next(*id, self.sight, kept, next) {
                    Next::Told(notification) => return Some(notification),
                    Next::Passed => {}
                    Next::End => break,
                }
            }
        }
        None
    }
}

/// What comes of one look.
enum Next {
    Told(Notification),
    /// It is an event that the subscription does not mean.
    Passed,
    End,
}

impl Subscription {
    fn next(&mut self, id: SubscriptionId, sight: Sight, kept: &Kept, next: u64) -> Next {
        match self.position.step(sight, kept, next) {
            Step::Event(event) if self.is_meant(&event) => {
                Next::Told(Notification::Event { subscription: id.0, event })
            }
            Step::Event(_) => Next::Passed,
            Step::Missed(missed) => Next::Told(Notification::Lagged { subscription: id.0, missed }),
            Step::End => Next::End,
        }
    }

    /// Whether an event is among those asked for: the broker's own always is.
    fn is_meant(&self, event: &Event) -> bool {
        event.child.as_ref().is_none_or(|child| has_labels(child, &self.labels))
    }
}

impl Sight {
    /// Whether it covers an event.
    pub(super) fn covers(self, event: &Event) -> bool {
        match (self, &event.child) {
            (Self::All, _) | (Self::Own(_), None) => true,
            (Self::Own(uid), Some(child)) => child.owner.uid == uid,
        }
    }
}

impl Position {
    /// The later one of two, of the same kind.
    fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::All { next }, Self::All { next: other }) => Self::All { next: next.max(other) },
            (Self::Own { own, common }, Self::Own { own: other, common: other_common }) => {
                Self::Own { own: own.max(other), common: common.max(other_common) }
            }
            (Self::All { .. }, Self::Own { .. }) | (Self::Own { .. }, Self::All { .. }) => self,
        }
    }

    /// Goes on by one event, or over those that are not kept any more; `next` is the number of the next event of all.
    fn step(&mut self, sight: Sight, kept: &Kept, next: u64) -> Step {
        match (self, sight) {
            (Self::All { next: mine }, _) => {
                let event = kept.first_from(*mine);
                let there = event.map_or(next, |event| event.seq);
                if there > *mine {
                    return Step::Missed(there - std::mem::replace(mine, there));
                }
                let Some(event) = event else { return Step::End };
                *mine += 1;
                Step::Event(Arc::clone(event))
            }
            (Self::Own { .. }, Sight::All) => Step::End,
            (Self::Own { own, common }, Sight::Own(uid)) => {
                match (kept.of(Some(uid)).at(*own), kept.of(None).at(*common)) {
                    (At::Dropped(count), _) => {
                        *own += count;
                        Step::Missed(count)
                    }
                    (_, At::Dropped(count)) => {
                        *common += count;
                        Step::Missed(count)
                    }
                    (At::Event(event), At::Event(other)) if other.seq < event.seq => {
                        *common += 1;
                        Step::Event(Arc::clone(other))
                    }
                    (At::Event(event), _) => {
                        *own += 1;
                        Step::Event(Arc::clone(event))
                    }
                    (At::Nothing, At::Event(event)) => {
                        *common += 1;
                        Step::Event(Arc::clone(event))
                    }
                    (At::Nothing, At::Nothing) => Step::End,
                }
            }
        }
    }
}

/// What a connection has not read yet when the broker exits: it goes on by itself, as fast as its client reads.
#[derive(Clone, Debug)]
pub struct UnreadEvents {
    pub(super) kept: Arc<Kept>,
    /// The number of the next event of all.
    pub(super) next: u64,
    pub(super) reader: Reader,
}

impl Iterator for UnreadEvents {
    type Item = Notification;

    fn next(&mut self) -> Option<Notification> {
        self.reader.read_one(&self.kept, self.next)
    }
}

/// Returns how many bytes the labels of a subscription take.
pub(crate) fn label_bytes(labels: &BTreeMap<String, String>) -> u64 {
    let texts: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    u64::try_from(texts).unwrap_or(u64::MAX)
}

fn event_bytes(notification: &Notification) -> usize {
    match notification {
        Notification::Event { event, .. } => bytes_of(event),
        Notification::Lagged { .. } | Notification::Log { .. } => 0,
    }
}
