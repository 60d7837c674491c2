//! Promise 4: the cleanup of a child runs after it and all its descendants are gone, however it ended.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::children::{
    cleanup, pid_in, script, stubborn, telling_cleanup, willing, with, with_daemon,
};
use crate::harness::{JsonClient, Setup, TestBroker};

const SUBREAPER: &[&str] = &["--containment", "subreaper"];

/// What the answer says about a cleanup that went well at the first attempt.
fn went_well() -> Value {
    json!({"ok": true, "exit": {"code": 0}, "attempts": 1})
}

fn wait(client: &mut JsonClient, child: &Value) -> Value {
    client.ok("wait", json!({"target": child["id"]}))["child"].take()
}

fn destroy(client: &mut JsonClient, child: &Value) -> Value {
    client.ok("destroy", json!({"target": child["id"]}))["children"][0].take()
}

#[test]
fn a_cleanup_runs_after_an_exit_and_knows_the_code() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = with(script(&pipe, "echo child >\"$1\"; exit 7"), &telling_cleanup(&pipe));
    let child = client.create(child);
    let ended = wait(&mut client, &child);
    assert_eq!((&ended["state"], &ended["exit"]["code"]), (&json!("ended"), &json!(7)));
    assert_eq!(ended["cleanup"], went_well());
    assert_eq!(pipe.rest(), ["child", "cleaned exited 7 -"]);
}

#[test]
fn a_cleanup_runs_after_a_crash_and_knows_the_signal() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = client.create(with(willing(), &telling_cleanup(&pipe)));
    // The system does that when memory is short.
    let pid = i32::try_from(child["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(wait(&mut client, &child)["cleanup"], went_well());
    assert_eq!(pipe.rest(), ["cleaned exited - SIGKILL"]);
}

#[test]
fn a_cleanup_runs_after_a_destroy() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = client.create(with(willing(), &telling_cleanup(&pipe)));
    let ended = destroy(&mut client, &child);
    assert_eq!((&ended["exit"]["reason"], &ended["cleanup"]), (&json!("destroyed"), &went_well()));
    assert_eq!(destroy(&mut client, &child), ended, "once more changes nothing");
    assert_eq!(pipe.rest(), ["cleaned destroyed - SIGTERM"]);
}

#[test]
fn a_cleanup_runs_after_a_child_that_had_to_be_killed() {
    let broker = TestBroker::start();
    let (mut hello, mut pipe) = (broker.fifo("hello"), broker.fifo("pipe"));
    let mut client = broker.json();
    let impatient = json!({"stop": [{"signal": "TERM", "grace": 0.01}]});
    let child = client.create(with(with(stubborn(&hello), &telling_cleanup(&pipe)), &impatient));
    hello.line();
    let ended = destroy(&mut client, &child);
    assert_eq!((&ended["exit"]["forced"], &ended["cleanup"]), (&json!(true), &went_well()));
    assert_eq!(pipe.rest(), ["cleaned destroyed - SIGKILL"]);
}

#[test]
fn a_child_that_replaces_another_starts_after_the_cleanup_of_that() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    client.create(with(with(willing(), &telling_cleanup(&pipe)), &json!({"name": "one"})));
    let new = script(&pipe, "echo new >\"$1\"; exec sleep infinity");
    let new = client.ok("create", with(new, &json!({"name": "one", "if_exists": "replace"})));
    assert_eq!(new["outcome"], "replaced");
    assert_eq!(pipe.lines(2), ["cleaned replaced - SIGTERM", "new"]);
}

#[test]
fn a_cleanup_runs_at_the_stop_of_the_broker() {
    for flags in [&[], SUBREAPER] {
        let mut broker = Setup::new().flags(flags).start();
        let mut pipe = broker.fifo("pipe");
        let mut client = broker.json();
        for _ in 0..20 {
            client.create(with(willing(), &telling_cleanup(&pipe)));
        }
        broker.stop();
        assert_eq!(pipe.rest(), ["cleaned shutdown - SIGTERM"; 20]);
    }
}

/// The cleanup looks whether the daemon of its child is alive.
fn runs_after_descendants(flags: &[&str]) {
    let broker = Setup::new().flags(flags).start();
    let (mut hello, mut pipe) = (broker.fifo("hello"), broker.fifo("pipe"));
    let mut client = broker.json();
    let look =
        "pid=$(cat \"$1.daemon\"); grep -qs . /proc/$pid/cmdline && echo alive >\"$1\" || echo gone >\"$1\"";
    let more = with(cleanup(&pipe, look), &json!({"stop": [{"signal": "TERM", "grace": 0.02}]}));
    for by_itself in [false, true] {
        let child = client.create(with(with_daemon(&hello), &more));
        let daemon = pid_in(&hello.line());
        std::fs::write(broker.path("pipe.daemon"), daemon.0.to_string()).unwrap();
        if by_itself {
            client.ok("signal", json!({"target": child["id"], "signal": "KILL"}));
            wait(&mut client, &child);
        } else {
            destroy(&mut client, &child);
        }
        assert!(!daemon.is_alive());
        assert_eq!(pipe.rest(), ["gone"]);
    }
}

#[test]
fn a_cleanup_begins_when_the_last_descendant_is_gone() {
    runs_after_descendants(&[]);
}

#[test]
fn a_cleanup_begins_when_the_last_descendant_is_gone_without_cgroups() {
    runs_after_descendants(SUBREAPER);
}

#[test]
fn a_spawn_that_fails_is_not_followed_by_a_cleanup() {
    let mut broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = with(json!({"command": ["/no/such/program"]}), &telling_cleanup(&pipe));
    assert_eq!(client.refused("create", child).kind, "spawn_failed");
    broker.stop();
    assert_eq!(pipe.rest(), [""; 0]);
}

#[test]
fn all_wait_for_the_end_of_a_cleanup() {
    let broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
    let mut client = broker.json();
    let slow = cleanup(&pipe, "echo cleaning >\"$1\"; read word <\"$1.go\"");
    let child =
        client.create(with(with(willing(), &slow), &json!({"name": "one", "limit": {"key": "k", "max": 1}})));
    let waiting = client.send("wait", json!({"target": "one"}));
    let destroyed = client.send("destroy", json!({"target": "one"}));
    assert_eq!(pipe.line(), "cleaning");
    let joined = client.send("destroy", json!({"target": "one"}));
    let new = with(willing(), &json!({"name": "one", "if_exists": "reuse"}));
    let reused = client.send("create", new.clone());
    // None of them has been answered: the answers to these come first.
    let listed = client.ok("list", json!({}))["children"][0].take();
    assert_eq!((&listed["id"], &listed["state"]), (&child["id"], &json!("cleaning")));
    assert_eq!((&listed["exit"]["signal"], &listed["pid"]), (&json!("SIGTERM"), &Value::Null));
    assert_eq!(client.ok("status", json!({}))["children"]["cleaning"], 1);
    let taken = with(willing(), &json!({"name": "one"}));
    assert_eq!(client.refused("create", taken).kind, "name_taken");
    let limited = with(willing(), &json!({"limit": {"key": "k", "max": 1}}));
    assert_eq!(client.refused("create", limited).kind, "limit_exceeded");
    assert_eq!(client.has_early(&[waiting, destroyed, joined, reused]), [false; 4]);
    go.say("on");
    let ended = client.answer(waiting).unwrap()["child"].take();
    assert_eq!(ended["cleanup"], went_well());
    assert_eq!(client.answer(destroyed).unwrap()["children"][0], ended);
    assert_eq!(client.answer(joined).unwrap()["children"][0], ended);
    let reused = client.answer(reused).unwrap();
    assert_eq!(reused["outcome"], "created");
    assert_ne!(reused["child"]["id"], child["id"]);
}
