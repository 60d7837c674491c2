//! Children that have ended stay visible for a while, and leave nothing when that is over.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, Setup, TestBroker};

/// A child that has ended, with a line of output.
fn ended(client: &mut JsonClient, more: &Value) -> Value {
    let child = client.create(with(json!({"command": ["echo", "x"]}), more));
    client.ok("wait", json!({"target": child["id"]}))["child"].take()
}

fn ids(client: &mut JsonClient, params: Value) -> Vec<String> {
    let list = client.ok("list", params);
    let children = list["children"].as_array().expect("children");
    children.iter().map(|child| child["id"].as_str().expect("an id").to_owned()).collect()
}

/// How many files there are whose name begins with the child's id.
fn files_of(broker: &TestBroker, child: &Value) -> usize {
    fn count(folder: &Path, id: &str) -> usize {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        entries
            .map(|entry| match entry.path() {
                path if path.is_dir() => count(&path, id),
                _ => usize::from(entry.file_name().to_string_lossy().starts_with(id)),
            })
            .sum()
    }
    count(&broker.state_dir(), child["id"].as_str().expect("an id"))
}

#[test]
fn an_ended_child_is_shown_to_those_who_ask_for_it() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = ended(&mut client, &json!({"name": "one", "labels": {"pool": "p"}}));
    assert_eq!((&child["state"], &child["pid"]), (&json!("ended"), &Value::Null));
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
    for params in [json!({"all": true}), json!({"all": true, "labels": {"pool": "p"}})] {
        assert_eq!(client.ok("list", params)["children"], json!([child]));
    }
    assert_eq!(client.got(&child["id"]), child);
    assert_eq!(client.ok("wait", json!({"target": child["id"]}))["child"], child);
    assert_eq!(client.ok("wait", json!({"target": child["id"], "until": "ready"}))["child"], child);
    assert_eq!(broker.status()["children"]["ended"], 1);
}

#[test]
fn children_are_listed_from_the_oldest_to_the_youngest() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let mut created = Vec::new();
    for number in 0..20 {
        let child = match number % 3 {
            0 => ended(&mut client, &json!({})),
            _ => client.create(willing()),
        };
        created.push(child["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(ids(&mut client, json!({"all": true})), created);
    let live: Vec<String> =
        (0..20).filter(|number| number % 3 != 0).map(|number| created[number].clone()).collect();
    assert_eq!(ids(&mut client, json!({})), live);
}

#[test]
fn the_oldest_ended_children_are_forgotten_with_their_output() {
    let broker = Setup::new().flags(["--ended-max", "2"]).start();
    let mut client = broker.json();
    let living = client.create(with(willing(), &json!({"name": "living"})));
    let children: Vec<Value> = (0..4).map(|_| ended(&mut client, &json!({}))).collect();
    let shown = ids(&mut client, json!({"all": true}));
    let expected = [&living, &children[2], &children[3]].map(|child| child["id"].as_str().expect("an id"));
    assert_eq!(shown, expected);
    // What the log thread was told of the last is done after what it was told before.
    client.ok("logs", json!({"target": children[3]["id"]}));
    for child in &children[..2] {
        assert_eq!(client.refused("get", json!({"target": child["id"]})).kind, "not_found");
        assert_eq!(files_of(&broker, child), 0, "output is left of {child}");
    }
    for child in &children[2..] {
        assert_eq!(client.ok("logs", json!({"target": child["id"]}))["text"], "x\n");
        assert_eq!(files_of(&broker, child), 1, "output is gone of {child}");
    }
    assert_eq!(client.ok("get", json!({"target": "living"}))["child"]["state"], "running");
}

#[test]
fn a_name_means_the_live_child_that_has_it() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let first = ended(&mut client, &json!({"name": "one"}));
    let second = client.create(with(willing(), &json!({"name": "one"})));
    assert_ne!(first["id"], second["id"]);
    assert_eq!(client.got(&json!("one")), second);
    client.ok("destroy", json!({"target": "one"}));
    assert_eq!(client.got(&first["id"]), first);
}

#[test]
fn a_thousand_short_lives_leave_the_broker_as_it_was() {
    let broker = Setup::new().flags(["--ended-max", "10"]).start();
    let mut client = broker.json();
    ended(&mut client, &json!({}));
    let before = broker.process().descriptors().len();
    for _ in 0..10 {
        let children: Vec<u64> =
            (0..100).map(|_| client.send("create", json!({"command": ["true"]}))).collect();
        let mut waits = Vec::new();
        for id in children {
            let child = client.answer(id).expect("a child")["child"].take();
            waits.push(client.send("wait", json!({"target": child["id"]})));
        }
        for wait in waits {
            // Some were forgotten before they were asked for.
            if let Err(refused) = client.answer(wait) {
                assert_eq!(refused.kind, "not_found");
            }
        }
    }
    while broker.status()["children"]["ended"] != 10 {}
    let after = broker.process().descriptors().len();
    // It keeps up to 32 spare control groups open, which it makes ahead when it has the time.
    assert!(after <= before + 40, "{before} descriptors before, {after} after");
}
