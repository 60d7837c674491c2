//! Connections with real sockets, and a driver that answers when it likes.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Client;

use interprocess::os::unix::uds_local_socket::tokio::Stream as UdSocket;

use super::*;

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

#[tokio::test]
async fn answers_that_come_all_at_once_find_room_however_many_requests_were_sent() {
    let (own, other) = Client::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    let mut client = Eager { socket: own, unwritten: REQUEST.repeat(REQUESTS), answers: 0 };
    let (tell, mut facts) = mpsc::channel(8);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let partial_message_timeout = Duration::from_secs(60);
    let surroundings = Surroundings {
        id: ConnectionId(1),
        facts: tell,
        outbox,
        user: 0,
        pid: None,
        standpoint: Standpoint::of_this_process().unwrap(),
        sight: Sight::default(),
        login: None,
        pool: BlockingPool::start().unwrap(),
        transit: Transit::new(procbroker_core::Bounds::default().answer_bytes()),
        partial_message_timeout,
        refusals: Arc::new(Semaphore::new(1)),
    };
    let stream = Stream::UdSocket(UdSocket::try_from(OwnedFd::from(other)).unwrap());
    let connection = tokio::spawn(serve(stream, surroundings));
    answers.try_send(Outgoing::Admitted).unwrap();

    let mut held = Vec::new();
    while client.answers < REQUESTS {
        let mut idle = 0;
        while idle < IDLE_TURNS && client.answers + held.len() < REQUESTS {
            idle = if client.go_on() { 0 } else { idle + 1 };
            tokio::task::yield_now().await;
            while let Ok(Fact::Input(Input::Called { call, .. })) = facts.try_recv() {
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
    assert!(matches!(facts.recv().await, Some(Fact::Input(Input::Disconnected { .. }))));
}

/// What a client is told that is refused and says nothing but this, if there is no place for who takes time.
async fn told_in_a_crowd(request: &[u8]) -> String {
    let (own, other) = Client::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    (&own).write_all(request).unwrap();
    let (tell, _facts) = mpsc::channel(8);
    let (answers, outbox) = mpsc::channel(OUTBOX);
    let surroundings = Surroundings {
        id: ConnectionId(1),
        facts: tell,
        outbox,
        user: 0,
        pid: None,
        standpoint: Standpoint::of_this_process().unwrap(),
        sight: Sight::default(),
        login: None,
        pool: BlockingPool::start().unwrap(),
        transit: Transit::new(procbroker_core::Bounds::default().answer_bytes()),
        partial_message_timeout: Duration::from_secs(60),
        refusals: Arc::new(Semaphore::new(0)),
    };
    answers.try_send(Outgoing::Refused(Error::new(ErrorKind::PermissionDenied, "no"))).unwrap();
    let stream = Stream::UdSocket(UdSocket::try_from(OwnedFd::from(other)).unwrap());
    let refused = tokio::time::timeout(REFUSAL_PATIENCE, serve(stream, surroundings)).await;
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
