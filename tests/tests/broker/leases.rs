//! Children that live as long as somebody holds them, or for a time; and workers that agree about a name.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{JsonClient, TestBroker};

/// A client of its own process, that creates and then holds what it has created until it is killed.
const HOLDER: &str = r"
import socket, sys
broker = socket.socket(socket.AF_UNIX)
broker.connect(sys.argv[1])
broker.sendall(sys.argv[2].encode() + b'\n')
# All of it at once: nobody reads on.
sys.stdout.write(broker.makefile().readline())
sys.stdout.flush()
broker.recv(1)
";

fn held(name: &str) -> Value {
    json!({"command": ["sleep", "infinity"], "name": name, "if_exists": "reuse", "lifetime": "connection"})
}

fn holder(broker: &TestBroker, params: &Value) -> Child {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "create", "params": params});
    let mut holder = Command::new("python3")
        .args(["-c", HOLDER])
        .arg(broker.socket())
        .arg(request.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut answer = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(answer["result"]["child"]["id"].is_string(), "{answer}");
    holder
}

fn kill(mut holder: Child) {
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// Why a child has ended, as soon as it has.
fn end_of(client: &mut JsonClient, name: &str) -> String {
    let ended = client.ok("wait", json!({"target": name}));
    ended["child"]["exit"]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_child_ends_with_the_last_process_that_holds_it() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let [first, second] = [0; 2].map(|_| holder(&broker, &held("a")));
    kill(first);
    assert_eq!(client.ok("get", json!({"target": "a"}))["child"]["state"], "running");
    kill(second);
    assert_eq!(end_of(&mut client, "a"), "owner_gone");
}

#[test]
fn a_child_outlives_a_hundred_holders_that_come_and_go() {
    let broker = TestBroker::start();
    let mut watcher = broker.json();
    let mut holder = broker.json();
    let pid = holder.create(held("a"))["pid"].clone();
    for _ in 0..100 {
        let mut next = broker.json();
        assert_eq!(next.create(held("a"))["pid"], pid);
        // The one before goes when the next has come.
        drop(std::mem::replace(&mut holder, next));
    }
    assert_eq!(watcher.ok("get", json!({"target": "a"}))["child"]["pid"], pid);
    drop(holder);
    assert_eq!(end_of(&mut watcher, "a"), "owner_gone");
}

#[test]
fn a_holder_comes_back_within_linger_and_after_a_crash() {
    let mut broker = TestBroker::start();
    let lingering = |name: &str| {
        let mut params = held(name);
        params["linger"] = json!("1h");
        params
    };
    let mut holder = broker.json();
    let pid = holder.create(lingering("a"))["pid"].clone();
    drop(holder);
    assert_eq!(broker.json().create(lingering("a"))["pid"], pid);
    broker.recorded();
    broker.crash_and_start_again();
    let mut client = broker.json();
    assert_eq!(client.create(lingering("a"))["pid"], pid);
    client.ok("destroy", json!({"target": "a"}));
}

#[test]
fn a_child_lives_while_it_is_renewed_and_expires_then() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    let begin = Instant::now();
    client.create(json!({"command": ["sleep", "infinity"], "name": "a", "lifetime": {"ttl": 2}}));
    while begin.elapsed() < Duration::from_secs(3) {
        client.ok("renew", json!({"target": "a"}));
    }
    assert_eq!(client.ok("get", json!({"target": "a"}))["child"]["state"], "running");
    // Its time goes on without a broker.
    broker.crash_and_start_again();
    let mut client = broker.json();
    assert_eq!(end_of(&mut client, "a"), "expired");
    assert_eq!(client.refused("renew", json!({"target": "a"})).kind, "not_found");
}

#[test]
fn of_eight_workers_that_replace_one_name_none_fails() {
    let broker = TestBroker::start();
    let params = json!({"command": ["sleep", "infinity"], "name": "a", "if_exists": "replace"});
    std::thread::scope(|scope| {
        let workers = [0; 8].map(|_| {
            scope.spawn(|| {
                let mut client = broker.json();
                for _ in 0..4 {
                    let created = client.ok("create", params.clone());
                    assert_eq!(created["child"]["name"], "a");
                }
            })
        });
        for worker in workers {
            worker.join().expect("a worker");
        }
    });
    let list = broker.json().ok("list", json!({}));
    assert_eq!(list["children"].as_array().unwrap().len(), 1);
}

#[test]
fn a_create_waits_for_a_place_and_gets_it() {
    let broker = TestBroker::start();
    let limited = |name: &str, wait: Value| json!({"command": ["sleep", "infinity"], "name": name, "limit": {"key": "k", "max": 1, "wait": wait}});
    let (mut client, mut other) = (broker.json(), broker.json());
    client.create(limited("a", json!("1h")));
    let waiting = other.send("create", limited("b", json!("1h")));
    assert_eq!(client.refused("create", limited("c", json!(0.05))).kind, "limit_exceeded");
    client.ok("destroy", json!({"target": "a"}));
    assert_eq!(other.answer(waiting).expect("a child")["child"]["name"], "b");
}
