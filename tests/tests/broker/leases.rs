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

#[test]
fn those_who_wait_for_a_place_get_it_in_turn_and_who_has_gone_gets_none() {
    let broker = TestBroker::start();
    let limited = |name: &str| json!({"command": ["sleep", "infinity"], "name": name, "limit": {"key": "k", "max": 1, "wait": "1h"}});
    let mut owner = broker.json();
    owner.create(limited("a"));
    let mut waiting: Vec<JsonClient> = Vec::new();
    for name in ["b", "gone", "c"] {
        let mut client = broker.json();
        client.send("create", limited(name));
        // What is answered on the same connection came after it.
        client.ok("status", json!({}));
        waiting.push(client);
    }
    drop(waiting.remove(1));
    while owner.ok("status", json!({}))["connections"] != 3 {}
    for (mut client, name) in waiting.into_iter().zip(["b", "c"]) {
        owner.ok("destroy", json!({"target": {"all": true}}));
        assert_eq!(client.answer(1).expect("a child")["child"]["name"], name);
    }
    let all = owner.ok("list", json!({"all": true}));
    assert_eq!(all["children"].as_array().unwrap().len(), 3, "{all}");
}

mod heavy {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::thread;

    use serde_json::{Value, json};

    use crate::harness::TestBroker;

    /// How many children are renewed, and how many are not.
    const EACH: usize = 500;

    /// One that lives for so many seconds.
    fn timed(pool: &str, ttl: u32) -> Value {
        json!({"command": ["sleep", "infinity"], "labels": {"pool": pool}, "lifetime": {"ttl": ttl}})
    }

    /// Tells the pool and the reason of each child that ends, until all have.
    fn watch(broker: &TestBroker, ends: &Sender<(String, String)>) {
        let mut watcher = broker.json();
        watcher.ok("events", json!({"since": 1}));
        let mut left = 2 * EACH;
        while left > 0 {
            let event = watcher.notification();
            assert_ne!(event["kind"], "lagged", "{event}");
            if event["kind"] == "ended" {
                let (pool, reason) = (&event["child"]["labels"]["pool"], &event["child"]["exit"]["reason"]);
                let told = (pool.as_str().unwrap().to_owned(), reason.as_str().unwrap().to_owned());
                ends.send(told).expect("somebody who waits for ends");
                left -= 1;
            }
        }
    }

    /// Renews those of the pool `kept` about once a second, as the broker measures it.
    fn renew(broker: &TestBroker, first: &Value, goes_on: &AtomicBool) {
        let mut client = broker.json();
        while goes_on.load(Ordering::Relaxed) {
            client.ok("renew", json!({"target": {"labels": {"pool": "kept"}}}));
            let waited = client.refused("wait", json!({"target": first["id"], "timeout": 1}));
            assert_eq!(waited.kind, "timeout");
        }
    }

    fn ends(told: &Receiver<(String, String)>, count: usize) -> BTreeMap<(String, String), usize> {
        let mut ends = BTreeMap::new();
        for _ in 0..count {
            *ends.entry(told.recv().expect("an end")).or_default() += 1;
        }
        ends
    }

    #[test]
    fn of_a_thousand_children_those_that_are_renewed_live_and_the_others_expire() {
        let broker = TestBroker::start();
        let (sender, told) = mpsc::channel();
        let goes_on = AtomicBool::new(true);
        let mut client = broker.json();
        let first = client.create(timed("kept", 10));
        let expired = |pool: &str| BTreeMap::from([((pool.to_owned(), "expired".to_owned()), EACH)]);
        thread::scope(|scope| {
            scope.spawn(|| watch(&broker, &sender));
            let renewing = scope.spawn(|| renew(&broker, &first, &goes_on));
            for _ in 1..EACH {
                client.create(timed("kept", 10));
            }
            // They come later and have more time: when the last of them has ended, each of the others is older than its time.
            for _ in 0..EACH {
                client.create(timed("left", 11));
            }
            assert_eq!(ends(&told, EACH), expired("left"));
            let kept = client.ok("list", json!({"fields": ["state"]}))["children"].take();
            let states = kept.as_array().unwrap().iter().map(|child| &child["state"]);
            assert_eq!(states.filter(|state| **state == "running").count(), EACH, "{kept}");
            goes_on.store(false, Ordering::Relaxed);
            renewing.join().expect("whoever renews them");
            assert_eq!(ends(&told, EACH), expired("kept"));
        });
    }
}
