//! Children that come back: by their policy, and by hand, across a crash of the broker too.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use procbroker_protocol::Timestamp;
use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, TestBroker};

/// What is told of a child from its beginning to its end: each kind, and when that was, in milliseconds.
fn history(client: &mut JsonClient) -> Vec<(String, u64)> {
    client.ok("events", json!({"since": 1}));
    let mut told = Vec::new();
    loop {
        let event = client.notification();
        let at: Timestamp = serde_json::from_value(event["at"].clone()).expect("a time");
        let kind = event["kind"].as_str().expect("a kind").to_owned();
        let is_over = kind == "ended";
        told.push((kind, at.as_micros() / 1_000));
        if is_over {
            return told;
        }
    }
}

#[test]
fn a_child_that_cannot_live_is_started_again_after_pauses_that_double_up_to_the_longest() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    client.create(json!({
        "command": ["false"],
        "restart": {"policy": "on-failure", "max": 4, "backoff": 0.05, "backoff_max": 0.15},
    }));
    let told = history(&mut client);
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    let run = ["started", "ready", "exited"];
    let again = [&["restarting"][..], &run].concat();
    assert_eq!(kinds, [&["created"][..], &run, &again.repeat(4), &["ended"]].concat());
    let at = |wanted: &str| -> Vec<u64> {
        told.iter().filter(|(kind, _)| kind == wanted).map(|(_, at)| *at).collect()
    };
    let (ends, starts) = (at("restarting"), at("started"));
    let pauses: Vec<u64> = ends.iter().zip(starts.iter().skip(1)).map(|(from, to)| to - from).collect();
    // In whole milliseconds of a clock that is read twice.
    let least = [50, 100, 150, 150].map(|pause| pause - 1);
    assert!(pauses.iter().zip(least).all(|(pause, least)| *pause >= least), "{pauses:?}");
}

#[test]
fn a_child_that_somebody_destroys_in_its_pause_is_not_started_again() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(json!({
        "command": ["false"],
        "restart": {"policy": "always", "backoff": "1h", "backoff_max": "1h"},
    }));
    let mut watcher = broker.json();
    watcher.ok("events", json!({"since": 1}));
    while watcher.notification()["kind"] != "restarting" {}
    let destroyed: Value = client.ok("destroy", json!({"target": child["id"]}))["children"][0].take();
    assert_eq!((&destroyed["state"], &destroyed["restarts"]), (&json!("ended"), &json!(1)));
    assert_eq!((&destroyed["exit"]["code"], &destroyed["exit"]["reason"]), (&json!(1), &json!("destroyed")));
}

#[test]
fn a_child_that_cannot_live_is_restarted_as_often_as_it_may_be_and_cleaned_up_once() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let mark = broker.path("cleaned");
    let text = format!("echo cleaned >>{}", mark.display());
    let child = client.create(json!({
        "command": ["sh", "-c", "echo here; exit 3"],
        "restart": {"policy": "on-failure", "max": 3, "backoff": 0.01},
        "cleanup": {"command": ["sh", "-c", text]},
    }));
    let ended = client.ok("wait", json!({"target": child["id"]}))["child"].clone();
    assert_eq!((&ended["restarts"], &ended["exit"]["gave_up"]), (&json!(3), &json!(true)));
    assert_eq!((&ended["exit"]["code"], &ended["exit"]["reason"]), (&json!(3), &json!("exited")));
    // All runs write to one output.
    let logs = client.ok("logs", json!({"target": child["id"]}));
    assert_eq!(logs["text"], "here\nhere\nhere\nhere\n");
    assert_eq!(fs::read_to_string(mark).unwrap(), "cleaned\n");
}

#[test]
fn a_restart_by_hand_gives_a_child_another_process_and_nothing_else() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let before = client.create(with(willing(), &json!({"name": "one"})));
    let answer = client.ok("restart", json!({"target": "one"}));
    let after = &answer["children"][0];
    assert_eq!((&after["id"], &after["state"]), (&before["id"], &json!("running")));
    assert_eq!(after["restarts"], 1);
    assert_ne!(after["pid"], before["pid"]);
    let refused = client.refused("restart", json!({"target": "none"}));
    assert_eq!(refused.kind, "not_found");
}

#[test]
fn a_restart_whose_program_cannot_be_executed_any_more_tells_why() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    let program = broker.path("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let params = json!({"command": [program, "1000"]});
    client.create(with(params.clone(), &json!({"name": "once"})));
    client.create(with(params.clone(), &json!({"name": "pooled", "labels": {"pool": "a"}})));
    let always = json!({"policy": "always", "backoff": "1h", "backoff_max": "1h"});
    client.create(with(params, &json!({"name": "again", "restart": always})));
    fs::set_permissions(&program, Permissions::from_mode(0o644)).unwrap();
    let refused = client.refused("restart", json!({"target": "once"}));
    assert_eq!((refused.kind.as_str(), refused.code), ("spawn_failed", 5), "{refused:?}");
    let told = (&refused.data["errno"], &refused.data["errno_name"], &refused.data["step"]);
    assert_eq!(told, (&json!(13), &json!("EACCES"), &json!("exec")));
    let program = program.display().to_string();
    assert!(
        refused.message.starts_with(&format!("cannot start {program:?} again: exec failed")),
        "{refused:?}"
    );
    let ended = client.got(&json!("once"));
    assert_eq!((&ended["state"], &ended["exit"]["reason"]), (&json!("ended"), &json!("start_failed")));
    // Its policy has it wait for the next attempt, and that is told at once.
    let refused = client.refused("restart", json!({"target": "again"}));
    assert!(refused.message.ends_with("its policy starts it again later"), "{refused:?}");
    assert_eq!(client.got(&json!("again"))["state"], "backoff");
    // Of many, it is one that shows what has become of it.
    let answer = client.ok("restart", json!({"target": {"labels": {"pool": "a"}}}));
    assert_eq!(answer["children"][0]["exit"]["reason"], "start_failed");
    assert_eq!(broker.stop().lines_with("not started: exec failed with EACCES").len(), 3);
}

#[test]
fn a_child_that_dies_while_no_broker_is_there_is_restarted_by_the_next_one_and_never_twice() {
    let mut broker = TestBroker::start();
    let params = with(willing(), &json!({"name": "one", "restart": {"policy": "always", "backoff": 0.01}}));
    let child = broker.json().create(params);
    broker.recorded();
    broker.crash();
    let pid = i32::try_from(child["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    broker.start_again();
    let mut client = broker.json();
    client.ok("events", json!({"since": 1}));
    let ready = loop {
        let event = client.notification();
        if event["kind"] == "ready" {
            break event["child"].clone();
        }
    };
    assert_eq!((&ready["id"], &ready["restarts"]), (&child["id"], &json!(1)));
    assert_ne!(ready["pid"], child["pid"]);
    broker.recorded();
    broker.crash_and_start_again();
    let same = broker.json().ok("get", json!({"target": "one"}))["child"].clone();
    assert_eq!((&same["pid"], &same["restarts"]), (&ready["pid"], &json!(1)));
}
