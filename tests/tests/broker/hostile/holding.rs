//! Processes that hold a child's pipe within the kernel: whatever touches that pipe waits for as long as they like, and no signal
//! ends the wait.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::children::{pid_in, willing, with};
use crate::harness::{Fifo, JsonClient, PATIENCE, STRANGER, Setup, TestBroker, await_end, is_root};

const HOLDS: &str = include_str!("holds.py");

/// A child that says so when it holds its own output.
fn holding(hello: &Fifo, how: &[&str]) -> Value {
    let words = [&["python3", "-c", HOLDS, "-", hello.path().to_str().unwrap()], how].concat();
    json!({"command": words, "env": {"PATH": "/usr/bin:/bin"}})
}

/// A child that has said something and goes on.
fn talkative() -> Value {
    json!({"command": ["sh", "-c", "echo hello; exec sleep infinity"], "ready": {"log": "hello"}})
}

/// A process that holds a child's output and is nobody's child.
struct Outsider(Child);

impl Outsider {
    /// Returns when it does.
    fn holds_output_of(broker: &TestBroker, child: &Value) -> Self {
        let mut hello = broker.fifo(&format!("outsider-of-{}", child["id"]));
        let process = Command::new("python3")
            .args(["-c", HOLDS])
            .args([&broker.pipe_of(child), hello.path()])
            .stdin(Stdio::null())
            .spawn()
            .expect("python3");
        let outsider = Self(process);
        assert_eq!(pid_in(&hello.line()).0, i64::from(outsider.0.id()));
        outsider
    }

    /// Waits until somebody has killed it.
    fn await_kill(mut self) {
        let status = await_end(&mut self.0).expect("it is ended");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks for the output of a child whose pipe is held: whoever looks for it waits for the holder. The answer comes when that has
/// ended.
fn ask_in_vain(client: &mut JsonClient, child: &Value) -> u64 {
    let asked = client.send("logs", json!({"target": child["id"]}));
    // What is asked later over a connection is looked at later.
    client.ok("status", json!({}));
    asked
}

fn is_ended_by_force(client: &mut JsonClient, child: &Value) {
    let ended = client.ok("wait", json!({"target": child["id"]}));
    assert_eq!(ended["child"]["exit"]["signal"], "SIGKILL", "{ended}");
}

#[test]
fn who_holds_their_own_output_is_ended_and_keeps_nobody_from_reading_theirs() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let other = client.create(talkative());
    let mut hello = broker.fifo("hello");
    let hostile = client.create(holding(&hello, &[]));
    assert_eq!(pid_in(&hello.line()).0, hostile["pid"].as_i64().unwrap());
    let asked = ask_in_vain(&mut client, &hostile);
    assert_eq!(client.ok("logs", json!({"target": other["id"]}))["text"], "hello\n");
    client.answer(asked).unwrap();
    is_ended_by_force(&mut client, &hostile);
    assert_eq!(client.got(&other["id"])["state"], "running");
    let (began, id) = (Instant::now(), hostile["id"].as_str().unwrap());
    while !broker.log().lines().any(|line| line.contains("held the output of a child") && line.contains(id)) {
        assert!(began.elapsed() < PATIENCE, "{}", broker.log());
    }
}

#[test]
fn who_hides_that_they_hold_an_output_is_ended_all_the_same() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    let mut root = broker.json();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    let other = root.create(talkative());
    let innocent = client.create(talkative());
    let mut hello = broker.fifo("hello");
    let hostile = client.create(holding(&hello, &["hidden"]));
    hello.line();
    let asked = ask_in_vain(&mut client, &hostile);
    assert_eq!(root.ok("logs", json!({"target": other["id"]}))["text"], "hello\n");
    assert_eq!(client.ok("logs", json!({"target": innocent["id"]}))["text"], "hello\n");
    client.answer(asked).unwrap();
    is_ended_by_force(&mut client, &hostile);
    assert_eq!(root.got(&innocent["id"])["state"], "running");
}

#[test]
fn an_upgrade_goes_on_beside_who_holds_an_output() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let other = client.create(talkative());
    let before = broker.status();
    let outsider = Outsider::holds_output_of(&broker, &other);
    ask_in_vain(&mut client, &other);
    let said = broker.run(&["upgrade", "--json"]);
    assert_eq!(said.status, 0, "{said:?}");
    broker.says("READY=1");
    assert_ne!(broker.status()["instance"], before["instance"]);
    outsider.await_kill();
    assert_eq!(broker.json().ok("logs", json!({"target": other["id"]}))["text"], "hello\n");
}

#[test]
fn the_program_that_takes_over_comes_back_from_an_output_that_is_held() {
    let broker = TestBroker::start();
    let other = broker.json().create(talkative());
    let outsider = Outsider::holds_output_of(&broker, &other);
    // The log thread of the one before sleeps, and has asked that pipe nothing.
    assert_eq!(broker.run(&["upgrade", "--json"]).status, 0);
    broker.says("READY=1");
    assert_eq!(broker.json().ok("logs", json!({"target": other["id"]}))["text"], "hello\n");
    outsider.await_kill();
}

#[test]
fn a_broker_ends_in_order_beside_who_holds_an_output() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    let other = client.create(talkative());
    let outsider = Outsider::holds_output_of(&broker, &other);
    ask_in_vain(&mut client, &other);
    broker.signal(Signal::SIGTERM);
    let ended = broker.ended();
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    outsider.await_kill();
}

#[test]
fn a_broker_that_dies_of_sigkill_while_an_output_is_held_is_followed_by_the_next_one() {
    for asks in [true, false] {
        let mut broker = TestBroker::start();
        let mut client = broker.json();
        let other = client.create(talkative());
        let outsider = Outsider::holds_output_of(&broker, &other);
        if asks {
            ask_in_vain(&mut client, &other);
        }
        broker.die_while_the_next_starts();
        outsider.await_kill();
        let mut client = broker.json();
        assert_eq!(client.got(&other["id"])["state"], "running");
        assert_eq!(client.ok("logs", json!({"target": other["id"]}))["text"], "hello\n");
        broker.stop();
    }
}

#[test]
fn a_child_that_cannot_end_or_start_again_for_who_holds_its_output_is_destroyed() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let impatient = json!({"stop": [{"signal": "TERM", "grace": 0.01}]});
    let child = client.create(with(willing(), &impatient));
    let outsider = Outsider::holds_output_of(&broker, &child);
    client.ok("destroy", json!({"target": child["id"]}));
    outsider.await_kill();

    // It has closed its own before, so that it ends.
    let closed =
        json!({"command": ["sh", "-c", "exec >/dev/null 2>&1; echo closed >\"$1\"; exec sleep infinity"]});
    let mut hello = broker.fifo("hello");
    let mut params = with(closed, &impatient);
    params["command"].as_array_mut().unwrap().extend([json!("sh"), json!(hello.path())]);
    let child = client.create(params);
    hello.line();
    let outsider = Outsider::holds_output_of(&broker, &child);
    let mut watcher = broker.json();
    watcher.ok("events", json!({}));
    client.send("restart", json!({"target": child["id"]}));
    while watcher.notification()["kind"] != "exited" {}
    broker.json().ok("destroy", json!({"target": child["id"]}));
    outsider.await_kill();
}
