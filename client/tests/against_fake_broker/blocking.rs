//! The blocking client.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use procbroker_client::blocking::Broker;
use procbroker_client::protocol::ChildId;
use procbroker_client::protocol::request::{
    EventsParams, LogStream, LogsParams, ManyParams, Scope, SignalParams, Until, WaitParams,
};
use procbroker_client::protocol::response::Logs;
use procbroker_client::{Error, ErrorKind, Happening, Outcome, Request, Response, Select, Signal, Target};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::fake::{Fake, child, created, failure, got_of, none, nowhere};

const HOUR: Duration = Duration::from_secs(3600);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a blocking program beside a broker that the test plays.
fn beside<T: Send>(server: impl AsyncFnOnce(Fake), program: impl FnOnce(&Broker) -> T + Send) -> T {
    let runtime = runtime();
    let fake = runtime.block_on(async { Fake::new() });
    let socket = fake.socket();
    thread::scope(|scope| {
        let program = scope.spawn(move || program(&Broker::at(socket).unwrap()));
        runtime.block_on(server(fake));
        program.join().unwrap()
    })
}

#[test]
fn a_child_is_created_looked_at_and_destroyed() {
    let server = async |fake: Fake| {
        let mut peer = fake.accept().await;
        peer.answer_next(created("a")).await;
        peer.answer_next(got_of(child("b"))).await;
        peer.answer_next(Ok(Response::Children(vec![Arc::new(child("c"))]))).await;
        assert_eq!(peer.try_next().await, None, "the last handle closes the connection");
    };
    beside(server, |broker| {
        let mut created = broker.command("true").name("a").spawn().unwrap();
        assert_eq!(created.outcome, Outcome::Created);
        assert_eq!(created.name().unwrap().as_str(), "a");
        assert_eq!(created.child.refresh().unwrap().name.as_ref().unwrap().as_str(), "b");
        assert_eq!(created.destroy().unwrap().name.as_ref().unwrap().as_str(), "c");
    });
}

#[test]
fn threads_share_the_connection_and_get_their_own_answers() {
    let server = async |fake: Fake| fake.accept().await.answer_gets().await;
    beside(server, |broker| {
        thread::scope(|scope| {
            for number in 0..8 {
                let broker = broker.clone();
                scope.spawn(move || {
                    for call in 0..100 {
                        let name = format!("{number}-{call}");
                        assert_eq!(broker.get(&name).unwrap().name().unwrap().as_str(), name);
                    }
                });
            }
        });
    });
}

#[test]
fn a_thread_that_waits_holds_up_no_other() {
    let (tell_waiting, waiting) = tokio::sync::oneshot::channel();
    let server = async |fake: Fake| {
        let mut peer = fake.accept().await;
        peer.answer_next(created("a")).await;
        let (wait, _) = peer.next().await;
        tell_waiting.send(()).unwrap();
        peer.answer_next(none()).await;
        peer.answer(wait, Ok(Response::Child(Arc::new(child("a"))))).await;
    };
    beside(server, |broker| {
        let created = broker.command("true").spawn().unwrap();
        thread::scope(|scope| {
            let wait = scope.spawn(|| created.wait());
            waiting.blocking_recv().unwrap();
            assert!(broker.destroy("x").unwrap().is_empty());
            assert_eq!(wait.join().unwrap().unwrap().name.as_ref().unwrap().as_str(), "a");
        });
    });
}

#[test]
fn children_are_signalled_waited_for_and_read_by_name_and_labels() {
    let one = || Ok(Response::Children(vec![Arc::new(child("a"))]));
    let server = async |fake: Fake| {
        let mut peer = fake.accept().await;
        let mut asked = Vec::new();
        for answer in [one(), one(), one(), one(), Ok(Response::Child(Arc::new(child("a"))))] {
            asked.push(peer.answer_next(answer).await);
        }
        asked.push(peer.answer_next(failure(ErrorKind::Timeout(None))).await);
        let logs = Logs {
            text: "at work\n".to_owned(),
            truncated: false,
            subscription: None,
            dropped: 0,
            position: 0,
            id: ChildId::from_uuid(Uuid::nil()),
        };
        asked.push(peer.answer_next(Ok(Response::Logs(logs))).await);
        let name = Target::from_text("a").unwrap();
        let pool = Target::Labels([("pool".to_owned(), "p".to_owned())].into());
        let hangup = |target, scope| Request::Signal(SignalParams { target, signal: Signal::HUP, scope });
        let wait = |until, timeout| Request::Wait(WaitParams { target: name.clone(), until, timeout });
        let everything = LogsParams {
            target: name.clone(),
            stream: LogStream::Stdout,
            tail: None,
            follow: false,
            since: None,
            timestamps: false,
            position: None,
        };
        // A wait's time is cut by what has passed before it was sent.
        if let Some(Request::Wait(WaitParams { timeout: Some(timeout), .. })) = asked.get_mut(5) {
            assert!(*timeout <= HOUR);
            *timeout = HOUR;
        }
        assert_eq!(
            asked,
            [
                hangup(name.clone(), Scope::Main),
                hangup(pool.clone(), Scope::All),
                Request::Restart(ManyParams { target: name.clone() }),
                Request::Renew(ManyParams { target: pool }),
                wait(Until::Ready, None),
                wait(Until::Ended, Some(HOUR)),
                Request::Logs(everything),
            ]
        );
    };
    beside(server, |broker| {
        let pool = Select::live().label("pool", "p");
        assert_eq!(broker.signal("a", "HUP").unwrap().len(), 1);
        assert_eq!(broker.signal_to(&pool, 1, Scope::All).unwrap().len(), 1);
        assert_eq!(broker.restart("a").unwrap().len(), 1);
        assert_eq!(broker.renew(&pool).unwrap().len(), 1);
        assert_eq!(broker.wait_ready("a").unwrap().name.as_ref().unwrap().as_str(), "a");
        assert_eq!(broker.wait_timeout("a", HOUR).unwrap(), None);
        assert_eq!(broker.logs("a").unwrap().text, "at work\n");
        assert!(matches!(broker.wait("a b"), Err(Error::Invalid(_))));
    });
}

#[test]
fn it_works_and_ends_within_a_tokio_runtime() {
    let server = async |fake: Fake| {
        let mut peer = fake.accept().await;
        peer.answer_next(created("a")).await;
        let mut second = fake.accept().await;
        second.answer_next(none()).await;
        assert_eq!(second.try_next().await, None);
    };
    beside(server, |broker| {
        runtime().block_on(async {
            assert_eq!(broker.command("true").spawn().unwrap().outcome, Outcome::Created);
            let own = Broker::at(broker.socket()).unwrap();
            assert!(own.destroy("x").unwrap().is_empty());
        });
    });
}

#[test]
fn a_broker_that_was_restarted_between_two_calls_is_found_again() {
    let (tell_gone, gone) = tokio::sync::oneshot::channel();
    let server = async |fake: Fake| {
        let mut peer = fake.accept().await;
        peer.answer_next(none()).await;
        drop(peer);
        tell_gone.send(()).unwrap();
        fake.accept().await.answer_next(none()).await;
    };
    beside(server, |broker| {
        broker.destroy("x").unwrap();
        gone.blocking_recv().unwrap();
        broker.destroy("x").unwrap();
    });
}

#[test]
fn events_are_told() {
    let server = async |fake: Fake| {
        let _first = fake.accept().await;
        let mut peer = fake.accept().await;
        assert_eq!(peer.subscribe(Uuid::new_v4(), 1).await, None);
        peer.tell(procbroker_client::protocol::Notification::Lagged { subscription: 3, missed: 3 }).await;
        assert_eq!(peer.try_next().await, None);
    };
    beside(server, |broker| {
        let mut events = broker.events(EventsParams::default()).unwrap();
        assert_eq!(events.next().unwrap(), Happening::Lagged { missed: 3 });
    });
}

#[test]
fn a_missing_broker_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = Broker::at(nowhere(folder.path())).unwrap_err();
    assert!(matches!(error, Error::NotThere { .. }), "{error:?}");
}
