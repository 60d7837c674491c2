//! Events and logs.

use std::sync::Arc;
use std::time::SystemTime;

use procbroker_client::protocol::request::{EventsParams, LogStream, LogsParams, OneParams};
use procbroker_client::protocol::response::Logs;
use procbroker_client::protocol::{ChildId, ErrorKind, Notification};
use procbroker_client::{Error, Event, EventKind, Happening, LogChunk, Request, Response, Target};
use tokio::join;
use uuid::Uuid;

use crate::fake::{Fake, Peer, failure};

fn event(seq: u64) -> Notification {
    let event = Event { seq, at: SystemTime::now().into(), kind: EventKind::Created, child: None };
    Notification::Event { subscription: 3, event: Arc::new(event) }
}

fn seq(happening: Result<Happening, Error>) -> u64 {
    match happening {
        Ok(Happening::Event(event)) => event.seq,
        other => panic!("{other:?} instead of an event"),
    }
}

fn log(text: &str, ended: bool) -> Notification {
    Notification::Log {
        subscription: 1,
        stream: LogStream::Stdout,
        text: text.to_owned(),
        ended,
        position: POSITION,
    }
}

#[tokio::test]
async fn events_go_on_where_they_were_after_a_loss() {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async {
        let mut events = broker.events(EventsParams::default()).await.unwrap();
        assert_eq!(events.next_seq(), 41);
        let seen = [seq(events.next().await), seq(events.next().await), seq(events.next().await)];
        (seen, events)
    };
    let server = async {
        let instance = Uuid::new_v4();
        let mut peer = fake.accept().await;
        assert_eq!(peer.subscribe(instance, 41).await, None);
        peer.tell(event(41)).await;
        peer.tell(event(42)).await;
        drop(peer);
        // One that is lost before either answer is made again as well.
        fake.accept().await.next().await;
        let mut peer = fake.accept().await;
        peer.answer_status(instance).await;
        peer.next().await;
        drop(peer);
        let mut peer = fake.accept().await;
        assert_eq!(peer.subscribe(instance, 43).await, Some(43));
        peer.tell(event(43)).await;
        peer
    };
    let ((seen, _events), _peer) = join!(client, server);
    assert_eq!(seen, [41, 42, 43]);
}

#[tokio::test]
async fn kept_events_that_were_not_seen_yet_are_asked_for_again() {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async {
        let mut events =
            broker.events(EventsParams { since: Some(5), ..EventsParams::default() }).await.unwrap();
        seq(events.next().await)
    };
    let server = async {
        let instance = Uuid::new_v4();
        assert_eq!(fake.accept().await.subscribe(instance, 100).await, Some(5));
        let mut peer = fake.accept().await;
        assert_eq!(peer.subscribe(instance, 100).await, Some(5));
        peer.tell(event(5)).await;
        peer
    };
    assert_eq!(join!(client, server).0, 5);
}

#[tokio::test]
async fn what_was_missed_is_counted() {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async {
        let mut events = broker.events(EventsParams::default()).await.unwrap();
        (events.next().await.unwrap(), events.next_seq())
    };
    let server = async {
        let mut peer = fake.accept().await;
        peer.subscribe(Uuid::new_v4(), 10).await;
        peer.tell(Notification::Lagged { subscription: 3, missed: 7 }).await;
        peer
    };
    assert_eq!(join!(client, server).0, (Happening::Lagged { missed: 7 }, 17));
}

/// What a subscriber who has seen everything below 500 is told when another instance answers, which has counted up to
/// this number by then and tells its first event; and the number that is asked for when that is lost in turn.
async fn told_by_another_instance(next: u64) -> ([Happening; 2], u64, Option<u64>) {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async {
        let mut events = broker.events(EventsParams::default()).await.unwrap();
        let told = [events.next().await.unwrap(), events.next().await.unwrap()];
        let next = events.next_seq();
        (told, next, seq(events.next().await))
    };
    let server = async {
        assert_eq!(fake.accept().await.subscribe(Uuid::new_v4(), 500).await, None);
        let other = Uuid::new_v4();
        let mut peer = fake.accept().await;
        assert_eq!(peer.subscribe(other, next).await, Some(0), "its events are wanted from its beginning");
        peer.tell(event(1)).await;
        drop(peer);
        let mut peer = fake.accept().await;
        let since = peer.subscribe(other, next).await;
        peer.tell(event(2)).await;
        (peer, since)
    };
    let ((told, next, _last), (_peer, since)) = join!(client, server);
    (told, next, since)
}

#[tokio::test]
async fn a_restart_is_noticed_whatever_the_new_broker_has_counted_to() {
    for next in [2, 500, 501, 100_000] {
        let ([first, second], next_seq, since) = told_by_another_instance(next).await;
        assert_eq!(first, Happening::Restarted, "at {next}");
        assert!(matches!(second, Happening::Event(event) if event.seq == 1), "at {next}");
        // It is told once, and its numbers are those of the other instance from then on.
        assert_eq!((next_seq, since), (2, Some(2)), "at {next}");
    }
}

#[tokio::test]
async fn a_restart_is_told_although_a_first_wait_for_it_was_given_up() {
    let fake = Fake::new();
    let broker = fake.broker();
    let (mut events, ()) = join!(async { broker.events(EventsParams::default()).await.unwrap() }, async {
        fake.accept().await.subscribe(Uuid::new_v4(), 500).await;
    });
    let other = Uuid::new_v4();
    let mut given_up = tokio::select! {
        biased;
        happening = events.next() => panic!("{happening:?}"),
        peer = async {
            let mut peer = fake.accept().await;
            peer.answer_status(other).await;
            // What follows shows that the status was read.
            peer.next().await;
            peer
        } => peer,
    };
    assert_eq!(given_up.try_next().await, None, "the wait that was given up closes its connection");
    let (told, _peer) = join!(events.next(), async {
        let mut peer = fake.accept().await;
        assert_eq!(peer.subscribe(other, 600).await, Some(0));
        peer
    });
    assert_eq!(told.unwrap(), Happening::Restarted);
}

#[tokio::test]
async fn dropping_a_subscription_closes_its_connection_alone() {
    let fake = Fake::new();
    let broker = fake.broker();
    let (events, mut peer) = join!(broker.events(EventsParams::default()), async {
        let mut peer = fake.accept().await;
        peer.subscribe(Uuid::new_v4(), 1).await;
        peer
    });
    drop(events.unwrap());
    assert_eq!(peer.try_next().await, None);
    let target = Target::Name("a".parse().unwrap());
    let request = Request::Get(OneParams { target });
    let (got, ()) = join!(broker.call(request), async {
        fake.accept().await.answer_next(failure(ErrorKind::NotFound)).await;
    });
    assert!(got.unwrap_err().is_not_found());
}

/// Where the output goes on behind each piece that is told.
const POSITION: u64 = 77;

const CHILD: ChildId = ChildId::from_uuid(Uuid::from_u128(9));

fn everything(name: &str) -> LogsParams {
    LogsParams {
        target: Target::Name(name.parse().unwrap()),
        stream: LogStream::Stdout,
        tail: None,
        follow: false,
        since: None,
        timestamps: false,
        position: None,
    }
}

fn first(text: &str) -> Logs {
    let text = text.to_owned();
    Logs { text, truncated: false, subscription: Some(1), dropped: 0, position: 4, id: CHILD }
}

/// Follows a log with what the test tells.
async fn followed(tell: impl AsyncFnOnce(&mut Peer)) -> (Vec<LogChunk>, Option<Error>) {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async {
        let mut log = broker.follow(everything("a")).await.unwrap();
        assert_eq!(log.first().text, "old\n");
        let mut chunks = Vec::new();
        loop {
            match log.next().await {
                Ok(Some(chunk)) => chunks.push(chunk),
                Ok(None) => return (chunks, None),
                Err(error) => return (chunks, Some(error)),
            }
        }
    };
    let server = async {
        let mut peer = fake.accept().await;
        let request = peer.answer_next(Ok(Response::Logs(first("old\n")))).await;
        assert!(matches!(&request, Request::Logs(params) if params.follow), "{request:?}");
        tell(&mut peer).await;
    };
    join!(client, server).0
}

fn text(text: &str) -> LogChunk {
    LogChunk::Text { stream: LogStream::Stdout, text: text.to_owned() }
}

#[tokio::test]
async fn a_log_is_followed_to_its_end() {
    let (chunks, error) = followed(async |peer| {
        peer.tell(log("one\n", false)).await;
        peer.tell(Notification::Lagged { subscription: 1, missed: 2 }).await;
        peer.tell(log("two\n", true)).await;
    })
    .await;
    assert_eq!(chunks, [text("one\n"), LogChunk::Lagged { missed: 2 }, text("two\n")]);
    assert!(error.is_none());
}

#[tokio::test]
async fn a_log_whose_connection_is_lost_goes_on_where_it_was() {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async {
        let mut log = broker.follow(everything("a")).await.unwrap();
        let mut chunks = Vec::new();
        while let Some(chunk) = log.next().await.unwrap() {
            chunks.push(chunk);
        }
        chunks
    };
    let server = async {
        let mut peer = fake.accept().await;
        peer.answer_next(Ok(Response::Logs(first("old\n")))).await;
        peer.tell(log("one\n", false)).await;
        drop(peer);
        // One that is lost before the answer is made again as well.
        fake.accept().await.next().await;
        let mut peer = fake.accept().await;
        let again = peer.answer_next(Ok(Response::Logs(first("")))).await;
        peer.tell(log("two\n", true)).await;
        again
    };
    let (chunks, again) = join!(client, server);
    assert_eq!(chunks, [text("one\n"), text("two\n")]);
    let expected = LogsParams {
        target: Target::Id(CHILD),
        tail: None,
        follow: true,
        position: Some(POSITION),
        ..everything("a")
    };
    assert_eq!(again, Request::Logs(expected));
}

#[tokio::test]
async fn a_log_that_cannot_be_gone_on_with_is_not_taken_for_ended() {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async {
        let mut log = broker.follow(everything("a")).await.unwrap();
        log.next().await
    };
    let server = async {
        let mut peer = fake.accept().await;
        peer.answer_next(Ok(Response::Logs(first("old\n")))).await;
        drop(peer);
        fake.accept().await.answer_next(failure(ErrorKind::NotFound)).await;
    };
    let (next, ()) = join!(client, server);
    assert!(matches!(next, Err(Error::Broker(error)) if error.kind == ErrorKind::NotFound));
}
