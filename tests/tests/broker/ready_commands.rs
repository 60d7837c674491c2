//! Children that a command finds ready: with what it runs, and that nothing of it is left when nobody needs it any more.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{Fifo, JsonClient, Process, STRANGER, Setup, TestBroker, is_root, tagged_processes};

/// A child that is asked by a shell script, in the folder of the test.
fn asked(broker: &TestBroker, script: &str) -> Value {
    let ready = json!({"command": ["sh", "-c", script]});
    with(willing(), &json!({"name": "a", "ready": ready, "cwd": broker.folder(), "ready_timeout": "1h"}))
}

/// A script that tells its number, and hangs unless there was a file `go` before.
fn hanging(pipe: &Fifo) -> String {
    let pipe = pipe.path().display();
    // What it starts has left its group and its session.
    format!(
        "test -e go && go=1; setsid sleep infinity & echo $$ > {pipe}; test -n \"$go\" || exec sleep infinity; kill $!"
    )
}

/// The process that has told its number last.
fn told(pipe: &mut Fifo) -> Process {
    Process(pipe.line().parse().expect("a number"))
}

fn state(client: &mut JsonClient) -> Value {
    client.ok("get", json!({"target": "a"}))["child"]["state"].take()
}

fn touch(broker: &TestBroker, name: &str) {
    fs::write(broker.folder().join(name), "").unwrap();
}

fn is_ready(client: &mut JsonClient) {
    let child = client.ok("wait", json!({"target": "a", "until": "ready"}))["child"].take();
    assert_eq!(child["state"], "running", "{child}");
}

#[test]
fn a_create_is_answered_when_a_command_has_succeeded_that_runs_as_the_child_does() {
    let broker = TestBroker::start();
    let script = "test \"$COLOUR\" = red && test -n \"$PROCBROKER_CHILD_ID\" && test $(ulimit -n) = 77 && \
                  test \"$(umask)\" = 0027 && test -e go && ls /proc/self/fd | wc -l > descriptors";
    let extras = json!({"env": {"COLOUR": "red"}, "rlimits": {"nofile": 77}, "umask": "027"});
    let mut client = broker.json();
    let created = client.send("create", with(asked(&broker, script), &extras));
    assert_eq!(state(&mut client), "starting");
    touch(&broker, "go");
    let child = client.answer(created).unwrap()["child"].take();
    assert_eq!(child["state"], "running");
    // 0, 1 and 2, and the folder that is read.
    assert_eq!(fs::read_to_string(broker.folder().join("descriptors")).unwrap().trim(), "4");
    // It says nothing in the child's name.
    assert_eq!(client.ok("logs", json!({"target": "a"}))["text"], "");
}

#[test]
fn nothing_of_a_command_is_left_when_its_child_is_destroyed() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let created = client.send("create", asked(&broker, &hanging(&pipe)));
    let probe = told(&mut pipe);
    assert!(probe.is_alive());
    broker.json().ok("destroy", json!({"target": "a"}));
    assert!(!probe.is_alive());
    assert_eq!(tagged_processes(broker.folder()).len(), 1, "nobody but the broker");
    assert_eq!(client.answer(created).unwrap_err().kind, "start_failed");
}

#[test]
fn a_command_that_takes_too_long_is_ended_and_another_one_asks() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let created = client.send("create", asked(&broker, &hanging(&pipe)));
    let first = told(&mut pipe);
    touch(&broker, "go");
    let second = told(&mut pipe);
    assert!(!first.is_alive());
    assert_ne!(first, second);
    assert_eq!(client.answer(created).unwrap()["child"]["state"], "running");
    // The child, the broker, and none that a command has started.
    assert_eq!(tagged_processes(broker.folder()).len(), 2);
}

#[test]
fn a_crash_leaves_nothing_of_a_command_and_another_one_asks() {
    let mut broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    client.create(with(asked(&broker, &hanging(&pipe)), &json!({"no_wait": true})));
    let first = told(&mut pipe);
    broker.recorded();
    broker.crash();
    assert!(first.is_alive());
    touch(&broker, "go");
    broker.start_again();
    let mut client = broker.json();
    is_ready(&mut client);
    let second = told(&mut pipe);
    assert!(!first.is_alive());
    assert_ne!(first, second);
    assert_eq!(tagged_processes(broker.folder()).len(), 2, "the child and the broker");
}

#[test]
fn an_upgrade_leaves_nothing_of_a_command_and_another_one_asks() {
    let broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    client.create(with(asked(&broker, &hanging(&pipe)), &json!({"no_wait": true})));
    let first = told(&mut pipe);
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 0, "{said:?}");
    touch(&broker, "go");
    assert!(!first.is_alive());
    is_ready(&mut broker.json());
}

#[test]
fn a_command_runs_as_the_childs_user() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    let script = format!("test \"$(id -u) $(id -G)\" = '{STRANGER} {STRANGER}'");
    client.create(asked(&broker, &script));
    assert_eq!(state(&mut client), "running");
}

#[test]
fn the_command_line_takes_the_words_of_a_command() {
    let broker = TestBroker::start();
    let file: &Path = &broker.folder().join("go");
    touch(&broker, "go");
    let path = file.to_str().unwrap();
    let words = [
        "create",
        "--name",
        "a",
        "--ready-command",
        "test",
        "--ready-command",
        "-e",
        "--ready-command",
        path,
    ];
    let said = broker.run(&[&words[..], &["--", "sleep", "infinity"]].concat());
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(state(&mut broker.json()), "running");
}

#[test]
fn a_command_that_is_not_there_is_named_by_the_create_that_fails_and_once_in_the_log() {
    let mut broker = TestBroker::start();
    let ready = json!({"command": ["no-such-program"], "interval": 0.01});
    let params = with(willing(), &json!({"name": "a", "ready": ready, "ready_timeout": 0.2}));
    let refused = broker.json().refused("create", params);
    assert_eq!(refused.kind, "timeout");
    assert_eq!(refused.data["probe"], json!({"errno": 2, "errno_name": "ENOENT", "step": "exec"}));
    let why = "the ready command \"no-such-program\" could not be started: exec failed with ENOENT";
    assert!(refused.message.contains(why), "{}", refused.message);
    assert_eq!(broker.stop().lines_with("not found ready: ").len(), 1);
}

#[test]
fn a_create_that_fails_for_its_time_names_how_its_command_ended() {
    let broker = TestBroker::start();
    let ready = json!({"command": ["sh", "-c", "exit 7"], "interval": 0.01});
    // Enough for one of them, even on a machine that has much to do.
    let params = with(willing(), &json!({"ready": ready, "ready_timeout": 3}));
    let refused = broker.json().refused("create", params);
    assert_eq!((&*refused.kind, &refused.data["probe"]), ("timeout", &json!({"exit": {"code": 7}})));
}
