//! The events that are kept, numbered, and the subscribers that are told of new ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use procbroker_protocol::event::Notification;
use procbroker_protocol::{Child as ChildView, ChildId, Event, EventKind};
use uuid::Uuid;

use crate::authorize;
use crate::config::Config;
use crate::connections::Connections;
use crate::effect::Effect;
use crate::ids::{ConnectionId, SubscriptionId};
use crate::labels::has_labels;
use crate::limits::{EVENT_KEPT_BYTES, EVENTS_KEPT, REQUEST_KEPT_BYTES};
use crate::shown::text_bytes;
use crate::turn::Turn;

/// The events that are kept, as one program of a broker hands them to the next: their numbers go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHistory {
    /// The instance of the broker that began to count.
    pub instance: Uuid,
    /// The number of the next event.
    pub next: u64,
    /// The last events, oldest first, without a gap before `next`.
    pub kept: Vec<Arc<Event>>,
}

impl EventHistory {
    /// Returns that of an instance which begins to count.
    pub(crate) fn beginning(instance: Uuid) -> Self {
        Self { instance, next: 1, kept: Vec::new() }
    }

    /// Whether the numbers are those of one broker that has counted from one on.
    fn is_sound(&self) -> bool {
        let first = self.next.checked_sub(self.kept.len() as u64);
        let numbers = first.into_iter().flat_map(|first| first..self.next);
        first.is_some_and(|first| first >= 1) && self.kept.iter().map(|event| event.seq).eq(numbers)
    }
}

/// The last events, and those who want to know of the next.
#[derive(Debug)]
pub(crate) struct EventLog {
    /// The instance that began to count.
    instance: Uuid,
    next: u64,
    /// How many bytes those take that are kept.
    bytes: usize,
    kept: VecDeque<Arc<Event>>,
    /// By user: nobody is asked about an event that is none of theirs.
    subscribers: BTreeMap<u32, BTreeMap<SubscriptionId, Subscriber>>,
    next_subscription: u64,
}

/// Who is told of events, and of which.
#[derive(Debug)]
pub(crate) struct Subscriber {
    /// The connection that the notifications go to.
    pub(crate) connection: ConnectionId,
    /// The labels that a child has to have.
    pub(crate) labels: BTreeMap<String, String>,
}

impl EventLog {
    /// Returns one that goes on counting.
    pub(crate) fn new(history: EventHistory) -> Self {
        let EventHistory { instance, next, kept } = history;
        let too_many = kept.len().saturating_sub(EVENTS_KEPT);
        let kept: VecDeque<Arc<Event>> = kept.into_iter().skip(too_many).collect();
        let bytes = kept.iter().map(|event| bytes_of(event)).sum();
        Self { instance, next, bytes, kept, subscribers: BTreeMap::new(), next_subscription: 1 }
    }

    /// Goes on where another program was, unless that makes no sense.
    pub(crate) fn go_on(&mut self, history: EventHistory) {
        if history.is_sound() {
            *self = Self::new(history);
        }
    }

    /// Returns what another program goes on with.
    pub(crate) fn history(&self) -> EventHistory {
        let kept = self.kept.iter().cloned().collect();
        EventHistory { instance: self.instance, next: self.next, kept }
    }

    /// Returns the children that were told of, as far as that is kept, and not of their end.
    pub(crate) fn unended(&self) -> BTreeSet<ChildId> {
        let mut unended = BTreeSet::new();
        for event in &self.kept {
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

    /// Returns how many of the events from `since` on are not kept any more, and those that are.
    pub(crate) fn since(&self, since: u64) -> (u64, impl Iterator<Item = &Arc<Event>>) {
        let first = self.kept.front().map_or(self.next, |event| event.seq);
        (first.saturating_sub(since), self.kept.iter().filter(move |event| event.seq >= since))
    }

    /// Has a subscriber told of every event from now on.
    pub(crate) fn subscribe(&mut self, uid: u32, id: SubscriptionId, subscriber: Subscriber) {
        self.subscribers.entry(uid).or_default().insert(id, subscriber);
    }

    /// Drops a subscription whose connection is gone.
    pub(crate) fn unsubscribe(&mut self, uid: u32, id: SubscriptionId) -> Option<Subscriber> {
        let own = self.subscribers.get_mut(&uid)?;
        let subscriber = own.remove(&id);
        if own.is_empty() {
            self.subscribers.remove(&uid);
        }
        subscriber
    }

    /// Keeps that something has happened, to a child or to the broker itself, and tells the subscribers.
    pub(crate) fn publish(
        &mut self,
        kind: EventKind,
        child: Option<Arc<ChildView>>,
        (connections, config): (&Connections, &Config),
        turn: &mut Turn<'_>,
    ) {
        let event =
            self.keep(config.bounds.event_bytes(), |seq| Event { seq, at: turn.now.wall, kind, child });
        let owner = event.child.as_ref().map(|child| child.owner.uid);
        let is_concerned =
            |uid: u32| owner.is_none_or(|owner| owner == uid || authorize::is_administrator(config, uid));
        let concerned = self.subscribers.iter().filter(|(uid, _)| is_concerned(**uid));
        for (&id, subscriber) in concerned.flat_map(|(_, own)| own) {
            subscriber.tell(id, &event, (connections, config), turn);
        }
    }

    /// Returns how many bytes the events take that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// Keeps an event, and the last ones before it that there is room for.
    fn keep(&mut self, room: u64, event: impl FnOnce(u64) -> Event) -> Arc<Event> {
        let event = Arc::new(event(self.next));
        self.next += 1;
        self.bytes += bytes_of(&event);
        self.kept.push_back(Arc::clone(&event));
        while self.kept.len() > EVENTS_KEPT || self.bytes() > room {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= bytes_of(&oldest);
        }
        event
    }
}

/// Returns how many bytes an event takes. What it tells of its child is its own: the next one tells something else.
fn bytes_of(event: &Event) -> usize {
    EVENT_KEPT_BYTES + event.child.as_deref().map_or(0, text_bytes)
}

impl Subscriber {
    /// Returns how many bytes it takes.
    pub(crate) fn bytes(&self) -> u64 {
        REQUEST_KEPT_BYTES + self.label_bytes()
    }

    /// Returns how many bytes it takes beside those of any request.
    pub(crate) fn label_bytes(&self) -> u64 {
        let texts: usize = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        u64::try_from(texts).unwrap_or(u64::MAX)
    }

    /// Sends an event, if it is among those asked for and the client may see its child.
    pub(crate) fn tell(
        &self,
        id: SubscriptionId,
        event: &Arc<Event>,
        (connections, config): (&Connections, &Config),
        turn: &mut Turn<'_>,
    ) {
        let connection = self.connection;
        let Some(uid) = connections.get(connection).map(|connection| connection.peer().uid) else {
            return;
        };
        let is_meant = event.child.as_ref().is_none_or(|child| {
            authorize::may_act_on(config, uid, child.owner.uid) && has_labels(child, &self.labels)
        });
        if is_meant {
            let notification = Notification::Event { subscription: id.0, event: Arc::clone(event) };
            turn.order(Effect::Publish { connection, notification });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use procbroker_protocol::Timestamp;

    const ROOM: u64 = 1 << 30;

    fn event(seq: u64) -> Event {
        Event { seq, at: Timestamp::from_micros(seq), kind: EventKind::ShuttingDown, child: None }
    }

    #[test]
    fn events_are_numbered_without_a_gap_from_one_on() {
        let mut log = EventLog::new(EventHistory::beginning(Uuid::nil()));
        let seqs: Vec<u64> = (0..3).map(|_| log.keep(ROOM, event).seq).collect();
        assert_eq!((seqs, log.next()), (vec![1, 2, 3], 4));
    }

    #[test]
    fn no_more_bytes_of_events_are_kept_than_there_is_room_for() {
        let mut log = EventLog::new(EventHistory::beginning(Uuid::nil()));
        let room = 10 * log_bytes();
        for _ in 0..25 {
            log.keep(room, event);
        }
        assert_eq!((log.kept.len(), log.bytes(), log.since(1).0), (10, room, 15));
    }

    fn log_bytes() -> u64 {
        u64::try_from(bytes_of(&event(1))).unwrap()
    }

    #[test]
    fn the_oldest_event_goes_first_and_is_counted_as_missed() {
        let mut log = EventLog::new(EventHistory::beginning(Uuid::nil()));
        for _ in 0..EVENTS_KEPT + 5 {
            log.keep(ROOM, event);
        }
        let (missed, kept) = log.since(3);
        assert_eq!((missed, kept.count()), (3, EVENTS_KEPT));
        let (missed, kept) = log.since(log.next() - 2);
        assert_eq!((missed, kept.count()), (0, 2));
    }

    #[test]
    fn another_program_goes_on_counting_and_has_what_was_kept() {
        let mut log = EventLog::new(EventHistory::beginning(Uuid::max()));
        for _ in 0..3 {
            log.keep(ROOM, event);
        }
        let mut next = EventLog::new(EventHistory::beginning(Uuid::nil()));
        next.go_on(log.history());
        assert_eq!((next.instance(), next.keep(ROOM, event).seq), (Uuid::max(), 4));
        assert_eq!(next.since(2).1.map(|event| event.seq).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn a_history_with_a_gap_is_not_gone_on_with() {
        let mut log = EventLog::new(EventHistory::beginning(Uuid::max()));
        for _ in 0..3 {
            log.keep(ROOM, event);
        }
        let sound = log.history();
        let mut gap = sound.clone();
        gap.kept.remove(1);
        let mut ahead = sound.clone();
        ahead.next += 1;
        let none = EventHistory { next: 0, kept: Vec::new(), ..sound };
        for history in [gap, ahead, none] {
            let mut next = EventLog::new(EventHistory::beginning(Uuid::nil()));
            next.go_on(history);
            assert_eq!((next.instance(), next.next()), (Uuid::nil(), 1));
        }
    }
}
