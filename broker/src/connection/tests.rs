//! Connections with real sockets, and a driver that answers when it likes.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Client;

use procbroker_protocol::Response;

use super::*;
use crate::limits::REFUSAL_PATIENCE;
use crate::messages::Outbox;
use crate::os::host::disposal::Disposals;

/// What the outbox of the connection takes.
const OUTBOX: usize = 64;

/// So many requests take more room than the buffers of a socket have.
const REQUESTS: usize = 5_000;

/// After so many turns in which nobody has got on, nobody does.
const IDLE_TURNS: usize = 1_000;

const REQUEST: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"get\",\"params\":{\"target\":\"x\"}}\n";

/// A client that writes and reads as much as it can without waiting.
struct Eager {
    socket: Client,
    unwritten: Vec<u8>,
    answers: usize,
}

impl Eager {
    /// Whether it has got on.
    fn go_on(&mut self) -> bool {
        let written = self.socket.write(&self.unwritten).unwrap_or(0);
        self.unwritten.drain(..written);
        let mut buffer = [0; 4096];
        let read = self.socket.read(&mut buffer).unwrap_or(0);
        self.answers += str::from_utf8(&buffer[..read]).unwrap().matches('\n').count();
        written + read > 0
    }
}

/// What a connection finds around it.
fn context(
    (facts, outbox): (inbox::Sender<Fact>, mpsc::Receiver<Outgoing>),
    transit: Transit,
) -> ConnectionContext {
    ConnectionContext {
        id: ConnectionId(1),
        facts,
        outbox,
        user: 0,
        pid: None,
        baseline: Baseline::of_this_process().unwrap(),
        status_cache: StatusCache::default(),
        login: None,
        pool: BlockingPool::start().unwrap(),
        transit,
        partial_message_timeout: Duration::from_secs(60),
        stalled_patience: Duration::from_secs(60),
        refusals: Arc::new(Semaphore::new(1)),
    }
}

#[tokio::test]
async fn answers_that_come_all_at_once_find_room_however_many_requests_were_sent() {
    let (own, other) = Client::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    let mut client = Eager { socket: own, unwritten: REQUEST.repeat(REQUESTS), answers: 0 };
    let (tell, mut facts) = inbox::inbox(8, 0);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let transit = Transit::within(&procbroker_core::Bounds::default());
    let context = context((tell, outbox), transit);
    let socket = ExposedSocket::new(OwnedFd::from(other), 0, &Disposals::default());
    let connection = tokio::spawn(serve(socket, context));
    answers.try_send(Outgoing::Admitted).unwrap();

    let mut held = Vec::new();
    while client.answers < REQUESTS {
        let mut idle = 0;
        while idle < IDLE_TURNS && client.answers + held.len() < REQUESTS {
            idle = if client.go_on() { 0 } else { idle + 1 };
            tokio::task::yield_now().await;
            while let Some(Fact::Input(Input::Called { call, .. })) = facts.try_recv() {
                held.push(call.number);
                idle = 0;
            }
        }
        assert!(!held.is_empty() || client.answers == REQUESTS, "nobody gets on");
        for number in held.drain(..) {
            let result = Err(Error::new(ErrorKind::NotFound, "there is no child x"));
            answers.try_send(Outgoing::Answer { number, result, load: None }).unwrap();
        }
        while answers.capacity() < OUTBOX {
            client.go_on();
            tokio::task::yield_now().await;
        }
    }
    drop(client);
    connection.await.unwrap();
    assert!(matches!(facts.recv().await, Fact::Input(Input::Disconnected { .. })));
}

/// What a client is told that is refused and says nothing but this, if there is no place for who takes time.
async fn told_in_a_crowd(request: &[u8]) -> String {
    let (own, other) = Client::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    (&own).write_all(request).unwrap();
    let (tell, _facts) = inbox::inbox(8, 0);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let transit = Transit::within(&procbroker_core::Bounds::default());
    let refusals = Arc::new(Semaphore::new(0));
    let context = ConnectionContext { refusals, ..context((tell, outbox), transit) };
    answers.try_send(Outgoing::Refused(Error::new(ErrorKind::PermissionDenied, "no"))).unwrap();
    let socket = ExposedSocket::new(OwnedFd::from(other), 0, &Disposals::default());
    let refused = tokio::time::timeout(REFUSAL_PATIENCE, serve(socket, context)).await;
    assert!(refused.is_ok(), "it holds its place");
    let mut text = String::new();
    (&own).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_task_that_panics_comes_to_an_end() {
    let panics = async {
        tokio::task::yield_now().await;
        std::panic::resume_unwind(Box::new("on purpose"))
    };
    assert_eq!(unless_it_panics::<u8>(panics).await, None);
    assert_eq!(unless_it_panics(async { 7 }).await, Some(7));
}

#[tokio::test]
async fn in_a_crowd_whoever_is_refused_is_told_at_once() {
    let silent = told_in_a_crowd(b"").await;
    assert!(silent.contains("permission_denied") && silent.contains("\"id\":null"), "{silent}");
    let asking = told_in_a_crowd(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"status\"}\n").await;
    assert!(asking.contains("permission_denied") && asking.contains("\"id\":7"), "{asking}");
}

/// More than the buffers of a socket take.
const LONG_ANSWER: usize = 4 << 20;

/// A connection, and what its ends are in.
struct Stalled {
    client: Client,
    connection: tokio::task::JoinHandle<()>,
    facts: inbox::Receiver<Fact>,
    /// The driver lets go of a connection when it is told of its end.
    _answers: Outbox,
}

/// A connection with a long answer of which its client has read nothing, while so much is on its way to others.
async fn stalled(to_others: u64) -> Stalled {
    stalled_beside(7, to_others).await
}

/// The same, while so much is on its way to one user.
async fn stalled_beside(user: u32, on_its_way: u64) -> Stalled {
    let (own, other) = Client::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    (&own).write_all(REQUEST).unwrap();
    let (tell, mut facts) = inbox::inbox(8, 0);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let transit = Transit::new(procbroker_core::Budget { user: 8 << 20, all: 64 << 20 });
    let others = transit.add(user, on_its_way);
    let stalled_patience = Duration::from_millis(1);
    let context = ConnectionContext { stalled_patience, ..context((tell, outbox), transit) };
    let socket = ExposedSocket::new(OwnedFd::from(other), 0, &Disposals::default());
    let connection = tokio::spawn(async move {
        serve(socket, context).await;
        drop(others);
    });
    answers.try_send(Outgoing::Admitted).unwrap();
    let Fact::Input(Input::Called { call, .. }) = facts.recv().await else { panic!("a request") };
    let text = "x".repeat(LONG_ANSWER);
    let result = Ok(Response::Metrics(procbroker_protocol::response::Metrics { text }));
    answers.try_send(Outgoing::Answer { number: call.number, result, load: None }).unwrap();
    Stalled { client: own, connection, facts, _answers: answers }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go_of_when_others_need_the_room() {
    let Stalled { mut client, connection, mut facts, _answers } = stalled(40 << 20).await;
    connection.await.unwrap();
    assert!(matches!(facts.recv().await, Fact::Input(Input::Disconnected { .. })));
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() < LONG_ANSWER, "the rest has gone with the connection");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go_of_when_its_user_needs_the_room() {
    let Stalled { client: _client, connection, mut facts, _answers } = stalled_beside(0, 3 << 20).await;
    connection.await.unwrap();
    assert!(matches!(facts.recv().await, Fact::Input(Input::Disconnected { .. })));
}

#[tokio::test]
async fn whoever_has_read_all_is_heard_however_much_its_users_other_connections_do_not_read() {
    let (own, other) = Client::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    let list = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n";
    (&own).write_all(list).unwrap();
    let (tell, mut facts) = inbox::inbox(8, 0);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let transit = Transit::new(procbroker_core::Budget { user: 8 << 20, all: 64 << 20 });
    let _unread = transit.add(0, 8 << 20);
    let context = context((tell, outbox), transit);
    let socket = ExposedSocket::new(OwnedFd::from(other), 0, &Disposals::default());
    let connection = tokio::spawn(serve(socket, context));
    answers.try_send(Outgoing::Admitted).unwrap();
    let Fact::Input(Input::Called { call, .. }) = facts.recv().await else { panic!("a request") };
    let result = Ok(Response::Children(Vec::new()));
    answers.try_send(Outgoing::Answer { number: call.number, result, load: None }).unwrap();
    own.shutdown(std::net::Shutdown::Write).unwrap();
    connection.await.unwrap();
    let mut text = String::new();
    (&own).read_to_string(&mut text).unwrap();
    assert!(text.contains("\"children\":[]"), "{text}");
}

#[tokio::test]
async fn a_client_that_reads_its_answer_late_gets_all_of_it_where_nobody_needs_the_room() {
    let Stalled { mut client, mut connection, facts: _facts, _answers } = stalled(0).await;
    let many_patiences = Duration::from_millis(50);
    assert!(tokio::time::timeout(many_patiences, &mut connection).await.is_err(), "it is closed");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).map(|_| bytes.len())
    });
    connection.await.unwrap();
    assert!(reading.await.unwrap().unwrap() > LONG_ANSWER);
}

/// A pool in which no more work of root's is taken, until what is returned with it is dropped.
async fn full_pool() -> (BlockingPool, std::sync::mpsc::Sender<()>) {
    let pool = BlockingPool::start().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    let (tell, mut begun) = mpsc::unbounded_channel();
    loop {
        let (gate, tell) = (Arc::clone(&released), tell.clone());
        let job = move || {
            let _ = tell.send(());
            let _ = gate.lock().map(|gate| gate.recv());
        };
        tokio::select! {
            biased;
            refused = pool.run(0, job) => {
                assert_eq!(refused, Err(crate::blocking_pool::PoolError::Full));
                // The threads that work for root have begun: none of what waits makes room any more.
                if begun.recv().await.is_some() && begun.recv().await.is_some() {
                    break;
                }
            }
            () = std::future::ready(()) => {}
        }
    }
    while pool_takes_more(&pool, &released).await {}
    (pool, release)
}

async fn pool_takes_more(
    pool: &BlockingPool,
    gate: &Arc<std::sync::Mutex<std::sync::mpsc::Receiver<()>>>,
) -> bool {
    let gate = Arc::clone(gate);
    tokio::select! {
        biased;
        _ = pool.run(0, move || drop(gate.lock().map(|gate| gate.recv()))) => false,
        () = std::future::ready(()) => true,
    }
}

#[tokio::test]
async fn what_was_done_is_answered_however_much_work_of_its_user_waits() {
    let (pool, release) = full_pool().await;
    let (own, other) = Client::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    for method in ["list", "destroy"] {
        let target = if method == "list" { "" } else { "\"target\":{\"all\":true}" };
        let request = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":\"{method}\",\"method\":\"{method}\",\"params\":{{{target}}}}}\n"
        );
        (&own).write_all(request.as_bytes()).unwrap();
    }
    let (tell, mut facts) = inbox::inbox(8, 0);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let transit = Transit::within(&procbroker_core::Bounds::default());
    let context = ConnectionContext { pool, ..context((tell, outbox), transit) };
    let socket = ExposedSocket::new(OwnedFd::from(other), 0, &Disposals::default());
    let connection = tokio::spawn(serve(socket, context));
    answers.try_send(Outgoing::Admitted).unwrap();
    let child = Arc::new(serde_json::from_str(CHILD).unwrap());
    for _ in 0..2 {
        let Fact::Input(Input::Called { call, .. }) = facts.recv().await else { panic!("a request") };
        let children = vec![Arc::clone(&child); crate::limits::CHILDREN_ENCODED_INLINE + 1];
        let result = Ok(Response::Children(children));
        answers.try_send(Outgoing::Answer { number: call.number, result, load: None }).unwrap();
    }
    drop(answers);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        (&own).read_to_string(&mut text).unwrap();
        text
    });
    connection.await.unwrap();
    let text = reader.join().unwrap();
    let [list, destroy] = ["list", "destroy"].map(|method| {
        let id = format!("\"id\":\"{method}\"");
        text.lines().find(|line| line.contains(&id)).unwrap()
    });
    assert!(list.contains("overloaded"), "a question is refused: {list}");
    assert!(destroy.contains("\"children\":[{"), "{destroy:.200}");
    drop(release);
}

const CHILD: &str = r#"{"id": "01900000-0000-7000-8000-000000000001", "name": null, "labels": {}, "command": ["true"],
    "pid": 7, "owner": {"uid": 0, "gid": 0}, "state": "running", "created_at": "2026-11-23T14:52:17Z", "started_at": null,
    "restarts": 0, "lifetime": "broker", "stop_order": 0, "exit": null, "cleanup": null, "containment": "cgroup",
    "status_text": null}"#;
