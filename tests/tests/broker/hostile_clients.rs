//! Promise 6: a slow, silent, greedy or hostile client costs itself only.
//!
//! "Not slowed down" is shown by order, not by a clock: while the hostile client is at its worst, others get their
//! answers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::json;

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, PATIENCE, Setup, TestBroker};

/// A new client is served: with a child, from its start to its end.
fn others_are_served(broker: &TestBroker) {
    let mut client = broker.json();
    let child = client.create(willing());
    let ended = client.ok("destroy", json!({"target": child["id"]}));
    assert_eq!(ended["children"][0]["exit"]["signal"], "SIGTERM");
}

fn request(id: usize, method: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method}).to_string() + "\n"
}

/// Sends this again and again, until the broker takes no more of it, or `most` times.
fn send_until_full(stream: &mut UnixStream, bytes: &[u8], most: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    for number in 0..most {
        let mut rest = bytes;
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return number,
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    return number;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    most
}

#[test]
fn a_client_that_says_nothing_holds_up_nobody() {
    let broker = TestBroker::start();
    let _silent: Vec<UnixStream> = (0..20).map(|_| broker.raw()).collect();
    others_are_served(&broker);
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let broker = TestBroker::start();
    let mut owner = broker.json();
    for number in 0..50 {
        owner.create(with(
            willing(),
            &json!({"name": format!("child-{number}"), "labels": {"text": "x".repeat(2000)}}),
        ));
    }
    for method in ["status", "list"] {
        let mut greedy = broker.raw();
        // 100,000 requests, in pieces of 100, until the broker has enough of it.
        let piece: String = (0..100).map(|id| request(id, method)).collect();
        let sent = send_until_full(&mut greedy, piece.as_bytes(), 1000) * 100;
        assert!(sent < 100_000, "{sent} requests were taken without an answer being read");
        others_are_served(&broker);
        // What it was sent is whole answers, and the broker did not keep more than a bound of them.
        others_are_served(&broker);
        drop(greedy);
        others_are_served(&broker);
    }
    // The last of them are forgotten when the broker has seen that they are closed.
    let began = Instant::now();
    while owner.ok("status", json!({}))["connections"] != 1 {
        assert!(began.elapsed() < PATIENCE, "{}", broker.status());
    }
}

#[test]
fn a_hundred_thousand_pipelined_requests_are_all_answered_to_a_client_that_reads() {
    const REQUESTS: usize = 100_000;
    let broker = TestBroker::start();
    let stream = broker.raw();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for first in (0..REQUESTS).step_by(1000) {
            let piece: String = (first..first + 1000).map(|id| request(id, "list")).collect();
            sender.write_all(piece.as_bytes()).unwrap();
        }
    });
    let mut client = JsonClient::over(stream);
    let mut seen = vec![false; REQUESTS];
    for number in 0..REQUESTS {
        if number == REQUESTS / 2 {
            others_are_served(&broker);
        }
        let answer = client.message().expect("an answer");
        let id = answer["id"].as_u64().unwrap_or_else(|| panic!("answer {number} is {answer}"));
        let id = usize::try_from(id).unwrap();
        assert!(!std::mem::replace(&mut seen[id], true), "a second answer to {id}");
        assert!(answer.get("result").is_some(), "{answer}");
    }
    sending.join().unwrap();
}

#[test]
fn a_client_that_closes_in_the_middle_leaves_nothing_behind() {
    let broker = TestBroker::start();
    let mut watcher = broker.json();
    for cut in ["", "{", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sta"] {
        broker.raw().write_all(cut.as_bytes()).unwrap();
    }
    for answers in 0..5 {
        let mut client = broker.json();
        let child = client.create(willing());
        client.send("wait", json!({"target": child["id"]}));
        for _ in 0..answers {
            client.send("list", json!({}));
        }
    }
    // Its children are not tied to the connection, and nobody waits for them any more.
    let left = watcher.ok("destroy", json!({"target": {"all": true}}));
    assert_eq!(left["children"].as_array().unwrap().len(), 5);
    others_are_served(&broker);
}

#[test]
fn a_create_of_a_client_that_is_gone_is_not_lost_track_of() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let text = "echo there >\"$1\"; exec sleep infinity";
    let mut client = broker.json();
    client.send("create", json!({"command": ["sh", "-c", text, "sh", hello.path()], "name": "orphan"}));
    drop(client);
    assert_eq!(hello.line(), "there");
    // The child may say hello before the broker has heard that it was spawned.
    let child = broker.json().ok("wait", json!({"target": "orphan", "until": "ready"}))["child"].take();
    assert_eq!(child["state"], "running");
}

#[test]
fn three_hundred_connections_are_served_at_once() {
    let broker = TestBroker::start();
    let mut clients: Vec<JsonClient> = (0..300).map(|_| broker.json()).collect();
    let ids: Vec<u64> = clients.iter_mut().map(|client| client.send("status", json!({}))).collect();
    for (client, id) in clients.iter_mut().zip(ids) {
        client.answer(id).unwrap();
    }
    assert_eq!(clients[0].ok("status", json!({}))["connections"], 300);
}

#[test]
fn a_connection_over_the_bound_is_told_so_and_closed() {
    // Root and the broker's user have some more in all than the bound for everybody.
    for (all, own, least, most) in [("3", "64", 3, 64), ("64", "3", 3, 3)] {
        let flags = ["--max-connections", all, "--max-connections-per-user", own];
        let broker = Setup::new().flags(flags).start();
        let mut admitted: Vec<JsonClient> = Vec::new();
        let mut refused = loop {
            let mut client = broker.json();
            client.send("status", json!({}));
            let answer = client.message().expect("a word before the end");
            if answer.get("result").is_none() {
                assert_eq!(answer["error"]["data"]["kind"], "overloaded", "{flags:?}: {answer}");
                assert_eq!(answer["id"], 1);
                break client;
            }
            admitted.push(client);
            assert!(admitted.len() <= most, "{flags:?}: {} connections", admitted.len());
        };
        assert!(refused.message().is_none(), "closed after the refusal");
        assert!(admitted.len() >= least, "{flags:?}: {} connections", admitted.len());
        // A place that is given up can be taken, once the broker has seen it.
        let before = admitted.len();
        admitted.pop();
        while admitted[0].ok("status", json!({}))["connections"] == before {}
        broker.json().ok("status", json!({}));
    }
}

#[test]
fn a_refused_binary_client_gets_a_line_that_it_can_read() {
    let broker = Setup::new().flags(["--max-connections-per-user", "1"]).start();
    let mut admitted = broker.json();
    admitted.ok("status", json!({}));
    let mut refused = broker.raw();
    refused.write_all(b"PBRK\x01\x00\x01\x00").unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with('{') && answer.ends_with('\n') && answer.contains("overloaded"), "{answer}");
    assert_eq!(admitted.ok("status", json!({}))["connections"], 1);
    drop(admitted);
}

#[test]
fn requests_over_the_pipelining_bound_are_refused_and_not_carried_out() {
    let broker = Setup::new().flags(["--max-pipelined", "4"]).start();
    let mut client = broker.json();
    let child = client.create(with(willing(), &json!({"name": "one"})));
    let waits: Vec<u64> = (0..4).map(|_| client.send("wait", json!({"target": "one"}))).collect();
    let refused = client.refused("create", with(willing(), &json!({"name": "two"})));
    assert_eq!((refused.kind.as_str(), refused.code), ("overloaded", 9), "{refused:?}");
    let mut other = broker.json();
    assert_eq!(other.ok("list", json!({}))["children"].as_array().unwrap().len(), 1);
    other.ok("destroy", json!({"target": child["id"]}));
    for wait in waits {
        client.answer(wait).unwrap();
    }
    client.create(with(willing(), &json!({"name": "two"})));
}

#[test]
fn garbage_of_every_length_costs_its_own_connection_only() {
    let broker = TestBroker::start();
    // A fixed sequence without a pattern (xorshift), so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    for length in 0..400 {
        bytes.clear();
        for _ in 0..length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(u8::try_from(state >> 56).unwrap());
        }
        let prefix: &[u8] = match length % 3 {
            0 => b"",
            1 => b"{",
            _ => b"PBRK\x01\x00\x01\x00",
        };
        let mut stream = broker.raw();
        // The broker may have closed already, which is one right answer to garbage.
        let _ = stream.write_all(prefix).and_then(|()| stream.write_all(&bytes));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    others_are_served(&broker);
}
