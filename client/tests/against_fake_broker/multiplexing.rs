//! Many calls over one connection.

use std::sync::Arc;

use procbroker_client::protocol::request::ListParams;
use procbroker_client::{Request, Response, Select};
use tokio::join;

use crate::fake::{Fake, got, got_of, none};

#[tokio::test]
async fn answers_out_of_order_reach_their_callers() {
    let fake = Fake::new();
    let broker = fake.broker();
    let client = async { join!(broker.get("a"), broker.get("b"), broker.get("c")) };
    let server = async {
        let mut peer = fake.accept().await;
        let requests = [peer.next().await, peer.next().await, peer.next().await];
        for (id, request) in requests.into_iter().rev() {
            peer.answer(id, got_of(got(&request))).await;
        }
        peer
    };
    let ((a, b, c), _peer) = join!(client, server);
    let names = [a, b, c].map(|child| child.unwrap().name().unwrap().to_string());
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_many_tasks_get_their_own_answers() {
    let fake = Fake::new();
    let broker = fake.broker();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let broker = broker.clone();
            tokio::spawn(async move {
                for call in 0..100 {
                    let name = format!("{task}-{call}");
                    let child = broker.get(&name).await.unwrap();
                    assert_eq!(child.name().unwrap().as_str(), name);
                }
            })
        })
        .collect();
    drop(broker);
    fake.accept().await.answer_gets().await;
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_call_disturbs_no_other() {
    let fake = Fake::new();
    let broker = fake.broker();
    let mut peer = {
        let dropped = broker.get("dropped");
        tokio::pin!(dropped);
        let mut peer = tokio::select! {
            peer = fake.accept() => peer,
            _ = &mut dropped => panic!("nobody answered"),
        };
        tokio::select! {
            biased;
            _ = &mut dropped => panic!("nobody answered"),
            (id, _) = peer.next() => assert_eq!(id, 1),
        }
        peer
    };
    let server = async {
        let (id, request) = peer.next().await;
        assert_eq!(id, 2);
        peer.answer(1, none()).await;
        peer.answer(id, got_of(got(&request))).await;
    };
    let (child, ()) = join!(broker.get("kept"), server);
    assert_eq!(child.unwrap().name().unwrap().as_str(), "kept");
}

#[tokio::test]
async fn the_connection_closes_with_the_last_handle() {
    let fake = Fake::new();
    let broker = fake.broker();
    let server = async {
        let mut peer = fake.accept().await;
        let (id, request) = peer.next().await;
        peer.answer(id, got_of(got(&request))).await;
        peer
    };
    let (child, mut peer) = join!(broker.get("a"), server);
    drop(broker.clone());
    drop(broker);
    // The child holds the connection still.
    let child = child.unwrap();
    let (waited, ()) = join!(child.wait(), async {
        let (id, _) = peer.next().await;
        peer.answer(id, Ok(Response::Child(Arc::clone(child.info())))).await;
    });
    assert_eq!(waited.unwrap().id, child.id());
    drop(child);
    assert_eq!(peer.try_next().await, None);
}

#[tokio::test]
async fn requests_larger_than_the_socket_takes_arrive_whole_and_in_order() {
    let fake = Fake::new();
    let broker = fake.broker();
    let large = Select::live().label("k", "v".repeat(900_000));
    let client = async {
        let (a, b, c, d) =
            join!(broker.list(&large), broker.list(&large), broker.list(&large), broker.list(&large));
        for list in [a, b, c, d] {
            assert!(list.unwrap().is_empty());
        }
    };
    let server = async {
        let mut peer = fake.accept().await;
        for _ in 0..4 {
            let request = peer.answer_next(none()).await;
            assert_eq!(request, Request::List(ListParams::from(&large)));
        }
        peer
    };
    let ((), _peer) = join!(client, server);
}

#[tokio::test]
async fn a_backlog_of_requests_keeps_no_answer_from_being_read() {
    let fake = Fake::new();
    let broker = fake.broker();
    let large = Select::live().label("k", "v".repeat(1_000_000));
    let many = async {
        let calls: Vec<_> = (0..16)
            .map(|_| {
                let (broker, large) = (broker.clone(), large.clone());
                tokio::spawn(async move { broker.list(&large).await.map(|children| children.len()) })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 0);
        }
    };
    let server = async {
        let mut peer = fake.accept().await;
        let (first, _) = peer.next().await;
        // The client has more to write than the socket takes; this answer, larger than the socket takes, is
        // written without reading on.
        let text = "x".repeat(4_000_000);
        let logs = procbroker_client::protocol::response::Logs {
            text,
            truncated: false,
            subscription: None,
            dropped: 0,
            position: 0,
            id: procbroker_client::protocol::ChildId::from_uuid(uuid::Uuid::nil()),
        };
        peer.answer(first + 1_000_000, Ok(Response::Logs(logs))).await;
        peer.answer(first, none()).await;
        for _ in 1..16 {
            peer.answer_next(none()).await;
        }
        peer
    };
    let ((), _peer) = join!(many, server);
}
