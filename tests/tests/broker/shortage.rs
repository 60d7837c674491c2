//! No more descriptors, no more processes: creates fail with clear errors, and the broker lives on and recovers.

use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::json;

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, PATIENCE, Refused, Setup, TestBroker, is_root, user_of_this_process};

/// Creates as many as it takes to fail, and says how many there are and what the last was answered.
fn create_until_refused(client: &mut JsonClient) -> (usize, Refused) {
    for number in 0..200 {
        match client.call("create", willing()) {
            Ok(_) => {}
            Err(refused) => return (number, refused),
        }
    }
    panic!("200 children, and no shortage");
}

/// The error is one that a person can act on, and all that was started can be ended and started again.
fn recovers(broker: &TestBroker, client: &mut JsonClient, (created, refused): (usize, Refused)) {
    assert!(created > 0, "{refused:?}");
    assert!(
        ["spawn_failed", "overloaded", "limit_exceeded"].contains(&refused.kind.as_str()),
        "{created} created: {refused:?}"
    );
    assert!(!refused.message.is_empty());
    if refused.kind == "spawn_failed" {
        assert!(refused.data["errno"].as_i64().is_some_and(|errno| errno > 0), "{refused:?}");
    }
    assert_eq!(client.ok("list", json!({}))["children"].as_array().unwrap().len(), created, "{refused:?}");
    // A failed create holds no name, wherever the next one finds a place.
    let _ = client.call("create", with(willing(), &json!({"name": "one"})));
    client.ok("destroy", json!({"target": {"all": true}}));
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
    let again = client.create(with(willing(), &json!({"name": "one"})));
    assert_eq!(again["state"], "running");
    assert!(broker.log().lines().count() < 2000, "the log is flooded");
}

#[test]
fn a_broker_without_descriptors_says_so_and_recovers() {
    let broker = Setup::new().through(["prlimit", "--nofile=96:96"]).start();
    let mut client = broker.json();
    let outcome = create_until_refused(&mut client);
    recovers(&broker, &mut client, outcome);
}

#[test]
fn a_broker_with_hardly_any_descriptors_does_not_start_and_says_how_many_it_needs() {
    let ended = Setup::new().through(["prlimit", "--nofile=64:64"]).refuses();
    assert_eq!(ended.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("at most 64 open files, 96 are needed"), "{}", ended.log);
}

#[test]
fn few_descriptors_bound_the_children_and_status_says_so() {
    let flags = ["--max-children-per-user", "10000"];
    let broker = Setup::new().flags(flags).through(["prlimit", "--nofile=128:128"]).start();
    let mut client = broker.json();
    let limits = client.ok("status", json!({}))["limits"].clone();
    let bound = limits["max_children"].as_u64().unwrap();
    assert!((1..64).contains(&bound), "{limits}");
    assert_eq!(limits["max_children_per_user"], bound);
    assert!(broker.log().contains(&format!("at most {bound} children")), "{}", broker.log());
    let (created, refused) = create_until_refused(&mut client);
    assert_eq!((created as u64, refused.kind.as_str()), (bound, "limit_exceeded"), "{refused:?}");
    recovers(&broker, &mut client, (created, refused));
}

#[test]
fn a_crowd_of_connections_leaves_descriptors_to_children_and_is_forgotten() {
    let broker = Setup::new().through(["prlimit", "--nofile=96:96"]).start();
    let mut client = broker.json();
    let bound = client.ok("status", json!({}))["limits"]["max_connections"].as_u64().unwrap();
    assert!((2..48).contains(&bound), "{}", broker.status());
    // Those beyond the bound are refused, or wait in the listener's queue.
    let crowd: Vec<UnixStream> = (0..100).map(|_| broker.raw()).collect();
    for _ in 0..10 {
        let child = client.create(willing());
        client.ok("destroy", json!({"target": child["id"]}));
    }
    drop(crowd);
    // Each is forgotten when the broker has seen that it is closed.
    let began = Instant::now();
    while client.ok("status", json!({}))["connections"] != 1 {
        assert!(began.elapsed() < PATIENCE, "{}", broker.status());
    }
    let child = client.create(willing());
    assert_eq!(client.ok("destroy", json!({"target": child["id"]}))["children"][0]["state"], "ended");
}

#[test]
fn a_broker_without_processes_says_so_and_recovers() {
    if !is_root() {
        return;
    }
    // The limit counts all processes and threads of a user.
    let broker = Setup::new().user(user_of_this_process()).through(["prlimit", "--nproc=40:40"]).start();
    let mut client = broker.json();
    let outcome = create_until_refused(&mut client);
    assert_eq!(outcome.1.data["errno_name"], "EAGAIN", "{:?}", outcome.1);
    recovers(&broker, &mut client, outcome);
}

#[test]
fn a_broker_without_processes_answers_everything_that_needs_a_thread() {
    if !is_root() {
        return;
    }
    // So the new program is not even asked: it takes a process.
    let user = user_of_this_process();
    let broker = Setup::new().user(user).through(["prlimit", "--nproc=40:40"]).start();
    let mut client = broker.json();
    let child = client.create(with(willing(), &json!({"name": "first"})));
    let outcome = create_until_refused(&mut client);
    let pid = client.ok("status", json!({}))["pid"].clone();
    let logs = client.ok("logs", json!({"target": "first", "tail": 5}));
    assert!(logs["text"].is_string(), "{logs}");
    let named = client.call("create", with(willing(), &json!({"user": user.to_string()})));
    assert_eq!(named.unwrap_err().kind, "spawn_failed");
    client.ok("list", json!({"fields": ["usage"]}));
    let refused = client.call("upgrade", json!({})).unwrap_err();
    assert!(!refused.message.is_empty());
    assert_eq!(client.ok("status", json!({}))["pid"], pid, "{}", broker.log());
    client.ok("destroy", json!({"target": child["id"]}));
    recovers(&broker, &mut client, outcome);
}
