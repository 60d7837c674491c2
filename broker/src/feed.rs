//! Events on their way to one client: the driver never waits for it, and what it misses is counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procbroker_protocol::Notification;
use tokio::sync::mpsc;

use crate::limits::{EVENT_BYTES, EVENTS_WAITING};
use crate::transit::{Load, Transit};

/// How many events each subscription has missed since it was told last.
#[derive(Clone, Debug, Default)]
struct Missed(Arc<Mutex<BTreeMap<u64, u64>>>);

impl Missed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        // Each change to it is whole at every point at which a holder could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end: events go in here, and never wait for a client.
#[derive(Debug)]
pub struct Feed {
    events: mpsc::Sender<(Notification, Load)>,
    missed: Missed,
    transit: Transit,
    user: u32,
}

/// The connection's end: events come out here, as fast as its client reads.
#[derive(Debug)]
pub struct FeedReader {
    events: mpsc::Receiver<(Notification, Load)>,
    missed: Missed,
}

/// Both ends of a new feed.
#[must_use]
pub fn feed(transit: Transit, user: u32) -> (Feed, FeedReader) {
    let (events, received) = mpsc::channel(EVENTS_WAITING);
    let missed = Missed::default();
    (Feed { events, missed: missed.clone(), transit, user }, FeedReader { events: received, missed })
}

impl Feed {
    /// Sends an event if there is room for it, and counts it as missed else. After a gap nothing more is sent
    /// until the reader has been told of the gap, so that everything comes in its order.
    pub fn publish(&self, subscription: u64, notification: Notification) {
        let mut missed = self.missed.lock();
        if !missed.contains_key(&subscription)
            && let Some(load) = self.room(bytes_of(&notification))
            && self.events.try_send((notification, load)).is_ok()
        {
            return;
        }
        *missed.entry(subscription).or_default() += 1;
    }

    /// Room for an event. A reader that has read all before it has a share for it.
    fn room(&self, bytes: u64) -> Option<Load> {
        if self.events.capacity() == self.events.max_capacity() {
            self.transit.try_add_to_share(self.user, bytes)
        } else {
            self.transit.try_add(self.user, bytes)
        }
    }
}

impl FeedReader {
    /// What comes next, if it is there: an event, or how many were missed once all before them are read.
    pub fn try_next(&mut self) -> Option<Notification> {
        if let Ok((notification, _)) = self.events.try_recv() {
            return Some(notification);
        }
        let (subscription, missed) = self.missed.lock().pop_first()?;
        Some(Notification::Lagged { subscription, missed })
    }

    /// Waits for what comes next; for ever once the driver has gone.
    ///
    /// Nothing is lost when this is given up in the midst of waiting.
    pub async fn next(&mut self) -> Notification {
        if let Some(notification) = self.try_next() {
            return notification;
        }
        match self.events.recv().await {
            Some((notification, _)) => notification,
            None => std::future::pending().await,
        }
    }
}

/// Returns about how many bytes an event takes that waits.
fn bytes_of(notification: &Notification) -> u64 {
    let texts = match notification {
        Notification::Event { event, .. } => event.child.as_ref().map_or(0, |child| {
            let words: usize = child.command.iter().map(String::len).sum();
            words + child.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        }),
        Notification::Log { text, .. } => text.len(),
        Notification::Lagged { .. } => 0,
    };
    EVENT_BYTES + texts as u64
}

#[cfg(test)]
mod tests {
    use procbroker_protocol::{Event, EventKind, Timestamp};

    use super::*;

    /// A feed whose user has room for everything.
    fn roomy() -> (Feed, FeedReader) {
        feed(Transit::new(procbroker_core::Budget { user: 1 << 40, all: 1 << 41 }), 7)
    }

    #[test]
    fn a_user_misses_what_it_has_no_room_for_and_is_told() {
        let budget = procbroker_core::Budget { user: 3 * EVENT_BYTES, all: 1 << 40 };
        let (feed, mut reader) = feed(Transit::new(budget), 7);
        (1..=5).for_each(|seq| feed.publish(1, event(1, seq)));
        let told: Vec<_> = std::iter::from_fn(|| reader.try_next()).collect();
        let lagged = Notification::Lagged { subscription: 1, missed: 2 };
        assert_eq!(told, [event(1, 1), event(1, 2), event(1, 3), lagged]);
    }

    #[test]
    fn a_reader_that_keeps_up_misses_nothing_whatever_else_is_on_its_way_to_its_user() {
        let transit = Transit::within(&procbroker_core::Bounds::default());
        let (feed, mut reader) = feed(transit.clone(), 7);
        let others = transit.add(7, u64::MAX / 2);
        for seq in 1..=100 {
            feed.publish(1, event(1, seq));
            assert_eq!(reader.try_next(), Some(event(1, seq)));
        }
        for seq in [101, 102] {
            feed.publish(1, event(1, seq));
        }
        let told: Vec<_> = std::iter::from_fn(|| reader.try_next()).collect();
        assert_eq!(told, [event(1, 101), Notification::Lagged { subscription: 1, missed: 1 }]);
        drop(others);
    }

    fn event(subscription: u64, seq: u64) -> Notification {
        let at = Timestamp::from_micros(0);
        let event = Arc::new(Event { seq, at, kind: EventKind::ShuttingDown, child: None });
        Notification::Event { subscription, event }
    }

    #[test]
    fn a_reader_that_keeps_up_misses_nothing() {
        let (feed, mut reader) = roomy();
        for seq in 1..=3 * EVENTS_WAITING as u64 {
            feed.publish(1, event(1, seq));
            assert_eq!(reader.try_next(), Some(event(1, seq)));
        }
        assert_eq!(reader.try_next(), None);
    }

    #[test]
    fn a_slow_reader_is_told_once_how_much_it_missed_between_what_came_before_and_after() {
        let (feed, mut reader) = roomy();
        let room = EVENTS_WAITING as u64;
        for seq in 1..=room + 5 {
            feed.publish(1, event(1, seq));
        }
        for seq in 1..=room {
            assert_eq!(reader.try_next(), Some(event(1, seq)));
            // There is room again, and still a gap that it has not been told of.
            feed.publish(1, event(1, room + 5 + seq));
        }
        assert_eq!(reader.try_next(), Some(Notification::Lagged { subscription: 1, missed: 5 + room }));
        feed.publish(1, event(1, 9));
        assert_eq!(reader.try_next(), Some(event(1, 9)));
        assert_eq!(reader.try_next(), None);
    }

    #[test]
    fn what_one_subscription_missed_is_not_told_to_another() {
        let (feed, mut reader) = roomy();
        for seq in 0..EVENTS_WAITING as u64 {
            feed.publish(1, event(1, seq));
        }
        feed.publish(2, event(2, 0));
        while reader.try_next() != Some(Notification::Lagged { subscription: 2, missed: 1 }) {}
        assert_eq!(reader.try_next(), None);
    }
}
