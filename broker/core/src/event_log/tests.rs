//! Who is told of which events, and how often.

use super::kept::tests::event;
use super::*;
use crate::limits::{Bounds, EVENTS_A_READ, EVENTS_KEPT};
use crate::time::{Instant, Now};
use procbroker_protocol::Timestamp;
use procbroker_protocol::event::Notification;

fn kept_for_readers() -> usize {
    Bounds::default().events_kept_for_readers()
}

fn log() -> EventLog {
    EventLog::new(EventHistory::beginning(Uuid::max()), EVENTS_KEPT)
}

/// Publishes events about children of these users in one turn, and tells of them.
fn publish(log: &mut EventLog, owners: &[Option<u32>]) -> Vec<ConnectionId> {
    told(log, |log, turn| {
        for owner in owners {
            log.publish(EventKind::Created, event(1, *owner).child.clone(), &config(), turn);
        }
        log.announce(&config(), turn);
    })
    .1
}

/// What is told in a turn, and to whom it is said that there is more.
fn told(
    log: &mut EventLog,
    turn: impl FnOnce(&mut EventLog, &mut Turn<'_>),
) -> (Vec<Notification>, Vec<ConnectionId>) {
    let mut effects = Vec::new();
    let now = Now { instant: Instant::from_nanos(1), wall: Timestamp::from_micros(1) };
    turn(log, &mut Turn::new(now, &mut effects));
    let (mut told, mut unread) = (Vec::new(), Vec::new());
    for effect in effects {
        if let Effect::Publish { notifications, .. } = effect {
            told.extend(notifications);
        } else if let Effect::Unread { connection } = effect {
            unread.push(connection);
        } else {
            panic!("it ordered {effect:?}");
        }
    }
    (told, unread)
}

fn config() -> Config {
    crate::child::tests::config()
}

fn subscribe(log: &mut EventLog, connection: u64, sight: Sight, labels: &[(&str, &str)], since: u64) {
    let id = log.new_subscription();
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let labels = labels.iter().map(text).collect();
    let uid = match sight {
        Sight::All => 0,
        Sight::Own(uid) => uid,
    };
    told(log, |log, turn| log.subscribe(ConnectionId(connection), (uid, sight), (id, labels), since, turn));
}

/// Reads to the end: the numbers of the events, and minus so many that were missed.
fn read(log: &mut EventLog, connection: u64) -> Vec<i64> {
    let mut all = Vec::new();
    loop {
        let (notifications, more) = told(log, |log, turn| log.read(ConnectionId(connection), turn));
        all.extend(notifications);
        if more.is_empty() {
            return all.iter().map(number).collect();
        }
    }
}

fn number(notification: &Notification) -> i64 {
    match notification {
        Notification::Event { event, .. } => i64::try_from(event.seq).unwrap(),
        Notification::Lagged { missed, .. } => -i64::try_from(*missed).unwrap(),
        Notification::Log { .. } => panic!("no output is read"),
    }
}

const ALICE: Option<u32> = Some(7);
const BOB: Option<u32> = Some(8);

#[test]
fn what_happens_orders_no_more_for_many_events_than_for_one() {
    let mut log = log();
    for connection in 1..=5 {
        for _ in 0..3 {
            subscribe(&mut log, connection, Sight::Own(7), &[], 1);
        }
    }
    assert_eq!(publish(&mut log, &[ALICE; 500]).len(), 5);
    assert_eq!(publish(&mut log, &[ALICE; 500]), [], "nobody is told again who has not read");
    let (notifications, more) = told(&mut log, |log, turn| log.read(ConnectionId(1), turn));
    assert!((3..=EVENTS_A_READ).contains(&notifications.len()), "{}", notifications.len());
    assert_eq!(more, [ConnectionId(1)]);
    assert_eq!(read(&mut log, 2).len(), 3 * 1_000);
}

#[test]
fn who_may_not_see_an_event_or_does_not_mean_it_is_not_told_that_there_is_one() {
    let mut log = log();
    subscribe(&mut log, 1, Sight::Own(8), &[], 1);
    subscribe(&mut log, 2, Sight::Own(7), &[("pool", "a")], 1);
    assert_eq!(publish(&mut log, &[ALICE]), []);
    assert_eq!(publish(&mut log, &[ALICE, BOB, None]), [ConnectionId(2), ConnectionId(1)]);
    assert_eq!((read(&mut log, 1), read(&mut log, 2)), (vec![3, 4], vec![4]));
    // Nobody looks at so many for somebody else: who may see them finds out.
    assert_eq!(publish(&mut log, &[ALICE; FRESH_MAX]), [ConnectionId(2)]);
    assert!(read(&mut log, 2).is_empty());
}

const FRESH_MAX: usize = crate::limits::FRESH_EVENTS_LOOKED_AT + 1;

#[test]
fn who_keeps_up_has_missed_nothing_of_what_it_did_not_mean() {
    let mut log = log();
    subscribe(&mut log, 1, Sight::Own(7), &[("pool", "a")], 1);
    for _ in 0..EVENTS_KEPT + 10 {
        publish(&mut log, &[ALICE]);
    }
    publish(&mut log, &[None]);
    assert_eq!(read(&mut log, 1), [i64::try_from(EVENTS_KEPT).unwrap() + 11]);
}

#[test]
fn who_reads_in_the_midst_of_a_turn_is_told_nothing_twice() {
    let mut log = log();
    subscribe(&mut log, 1, Sight::All, &[], 1);
    publish(&mut log, &[ALICE]);
    let (notifications, more) = told(&mut log, |log, turn| {
        log.publish(EventKind::Created, None, &config(), turn);
        log.read(ConnectionId(1), turn);
        let id = log.new_subscription();
        log.subscribe(ConnectionId(1), (0, Sight::All), (id, BTreeMap::new()), 3, turn);
        log.announce(&config(), turn);
    });
    assert_eq!(notifications.iter().map(number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(more, []);
    publish(&mut log, &[BOB]);
    assert_eq!(read(&mut log, 1), [3, 3]);
}

#[test]
fn a_noisy_user_costs_a_quiet_one_no_event() {
    let mut log = log();
    publish(&mut log, &[BOB, BOB]);
    for _ in 0..EVENTS_KEPT {
        publish(&mut log, &[ALICE]);
    }
    subscribe(&mut log, 1, Sight::Own(8), &[], 1);
    subscribe(&mut log, 2, Sight::Own(7), &[], 1);
    subscribe(&mut log, 3, Sight::All, &[], 1);
    assert_eq!(read(&mut log, 1), [1, 2]);
    assert_eq!(read(&mut log, 2)[..2], [-2, 5]);
    assert_eq!(read(&mut log, 3)[..4], [1, 2, -2, 5]);
}

#[test]
fn a_slow_reader_is_told_of_a_gap_where_it_is_and_how_many_events_of_its_own_it_has() {
    let mut log = log();
    subscribe(&mut log, 1, Sight::Own(7), &[], 1);
    publish(&mut log, &[ALICE, ALICE]);
    assert_eq!(read(&mut log, 1), [1, 2]);
    for _ in 0..kept_for_readers() {
        publish(&mut log, &[ALICE, BOB]);
    }
    let told = read(&mut log, 1);
    let (missed, first) = (-told[0], told[1]);
    assert!(missed > 0 && first == 3 + 2 * missed, "{missed} before {first}");
    let all = i64::try_from(told.len()).unwrap() - 1 + missed;
    assert_eq!(all, i64::try_from(kept_for_readers()).unwrap());
}

#[test]
fn more_is_kept_while_somebody_reads_and_no_more_when_all_is_read() {
    let mut log = log();
    let all = EVENTS_KEPT + 100;
    publish(&mut log, &vec![ALICE; all]);
    assert_eq!(log.kept.count(), EVENTS_KEPT);
    let next = log.next();
    subscribe(&mut log, 1, Sight::All, &[], next);
    publish(&mut log, &vec![ALICE; kept_for_readers()]);
    assert_eq!(read(&mut log, 1).len(), kept_for_readers(), "it misses nothing");
    publish(&mut log, &[ALICE]);
    assert_eq!(log.kept.count(), EVENTS_KEPT);
}

#[test]
fn what_is_not_read_at_the_end_can_be_read_without_the_broker() {
    let mut log = log();
    for (connection, sight) in [(1, Sight::All), (2, Sight::Own(7)), (3, Sight::Own(8))] {
        subscribe(&mut log, connection, sight, &[], 1);
    }
    publish(&mut log, &[ALICE]);
    read(&mut log, 2);
    told(&mut log, |log, turn| log.publish(EventKind::Ended, event(1, ALICE).child.clone(), &config(), turn));
    let unread = |(connection, unread): (ConnectionId, UnreadEvents)| {
        (connection.0, unread.map(|notification| number(&notification)).collect::<Vec<_>>())
    };
    let unread: Vec<_> = log.unread().into_iter().map(unread).collect();
    assert_eq!(unread, [(1, vec![1, 2]), (2, vec![2])]);
}

#[test]
fn nothing_is_kept_of_a_connection_that_is_gone() {
    let mut log = log();
    for connection in [1, 2] {
        subscribe(&mut log, connection, Sight::Own(7), &[("pool", "a")], 1);
    }
    publish(&mut log, &[None]);
    read(&mut log, 1);
    let bytes = crate::limits::REQUEST_KEPT_BYTES + 5;
    assert_eq!([1, 2, 3].map(|number| log.close(ConnectionId(number))), [bytes, bytes, 0]);
    assert!(log.readers.is_empty() && log.idle.is_empty(), "{log:?}");
}

#[test]
fn another_program_goes_on_counting_and_has_what_was_kept() {
    let mut log = log();
    publish(&mut log, &[BOB]);
    publish(&mut log, &vec![ALICE; EVENTS_KEPT]);
    let mut next = EventLog::new(EventHistory::beginning(Uuid::nil()), EVENTS_KEPT);
    next.go_on(log.history(), EVENTS_KEPT);
    assert_eq!((next.instance(), next.history()), (Uuid::max(), log.history()));
    for (connection, sight) in [(1, Sight::Own(7)), (2, Sight::Own(8)), (3, Sight::Own(9))] {
        subscribe(&mut next, connection, sight, &[], 1);
    }
    assert_eq!(read(&mut next, 1)[..2], [-1, 3]);
    assert_eq!((read(&mut next, 2), read(&mut next, 3)), (vec![1], vec![]));
}

#[test]
fn what_an_earlier_program_does_not_say_of_users_may_have_been_theirs() {
    let history = EventHistory {
        instance: Uuid::max(),
        next: 13,
        kept: vec![event(11, ALICE), event(12, ALICE)],
        dropped: BTreeMap::new(),
    };
    let mut next = log();
    next.go_on(history, EVENTS_KEPT);
    for (connection, sight) in [(1, Sight::All), (2, Sight::Own(7)), (3, Sight::Own(8))] {
        subscribe(&mut next, connection, sight, &[], 4);
    }
    assert_eq!(
        [1, 2, 3].map(|connection| read(&mut next, connection)),
        [vec![-7, 11, 12], vec![-7, 11, 12], vec![-7]]
    );
}

#[test]
fn a_history_that_makes_no_sense_is_not_gone_on_with() {
    let mut log = log();
    publish(&mut log, &[None; 3]);
    let sound = log.history();
    let mut turned = sound.clone();
    turned.kept.swap(0, 1);
    let ahead = EventHistory { next: 3, ..sound.clone() };
    let none = EventHistory { next: 0, kept: Vec::new(), ..sound.clone() };
    let dropped = [(ALICE, DroppedEvents { count: 1, last: 9 })].into();
    let to_come = EventHistory { dropped, ..sound };
    for history in [turned, ahead, none, to_come] {
        let mut next = EventLog::new(EventHistory::beginning(Uuid::nil()), EVENTS_KEPT);
        next.go_on(history, EVENTS_KEPT);
        assert_eq!((next.instance(), next.next()), (Uuid::nil(), 1));
    }
}
