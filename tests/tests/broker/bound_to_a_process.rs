//! Children that live as long as another process, be it seen by this broker or by the next.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, OTHER_STRANGER, STRANGER, Setup, TestBroker, is_root};

/// A client that binds a child to a process that is none of its own namespace, and then one to itself, and lives until its
/// input ends.
const IN_A_NAMESPACE: &str = r"
import json, os, socket, sys
broker = socket.socket(socket.AF_UNIX)
broker.connect(sys.argv[1])
answers = broker.makefile()
for name, pid in (('a', 99), ('b', os.getpid())):
    params = {'command': ['sleep', 'infinity'], 'name': name, 'lifetime': {'pid': pid}}
    broker.sendall(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'create', 'params': params}).encode() + b'\n')
    sys.stdout.write(answers.readline())
sys.stdout.flush()
sys.stdin.read()
";

/// A process that does nothing.
fn owner() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat")
}

fn end(mut owner: Child) {
    owner.kill().unwrap();
    owner.wait().unwrap();
}

fn bound(name: &str, owner: &Child) -> Value {
    with(willing(), &json!({"name": name, "lifetime": {"pid": owner.id()}}))
}

fn state(client: &mut JsonClient, name: &str) -> Value {
    client.ok("get", json!({"target": name}))["child"]["state"].take()
}

/// Why a child has ended, as soon as it has.
fn end_of(client: &mut JsonClient, name: &str) -> Value {
    client.ok("wait", json!({"target": name}))["child"]["exit"]["reason"].take()
}

#[test]
fn a_child_ends_with_its_process_be_that_not_reaped() {
    let broker = TestBroker::start();
    let (mut reaped, mut left, others) = (owner(), owner(), owner());
    for (name, owner) in [("a", &reaped), ("b", &left), ("c", &others), ("d", &others)] {
        // By clients that are gone at once.
        broker.json().create(bound(name, owner));
    }
    let mut client = broker.json();
    reaped.kill().unwrap();
    reaped.wait().unwrap();
    assert_eq!(end_of(&mut client, "a"), "owner_gone");
    left.kill().unwrap();
    assert_eq!(end_of(&mut client, "b"), "owner_gone");
    left.wait().unwrap();
    assert_eq!(client.ok("destroy", json!({"target": "c"}))["children"][0]["exit"]["reason"], "destroyed");
    assert_eq!(state(&mut client, "d"), "running");
    end(others);
    assert_eq!(end_of(&mut client, "d"), "owner_gone");
}

#[test]
fn no_crash_and_no_upgrade_changes_which_process_it_is() {
    let mut broker = TestBroker::start();
    let [first, second, third, fourth] = [0; 4].map(|_| owner());
    let mut client = broker.json();
    for (name, owner) in [("a", &first), ("b", &second), ("c", &third), ("d", &fourth)] {
        client.create(bound(name, owner));
    }
    broker.recorded();
    broker.crash();
    // While nobody is there to see it.
    end(first);
    broker.start_again();
    let mut client = broker.json();
    assert_eq!(end_of(&mut client, "a"), "owner_gone");
    assert_eq!(state(&mut client, "b"), "running");
    end(second);
    assert_eq!(end_of(&mut client, "b"), "owner_gone");
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 0, "{said:?}");
    let mut client = broker.json();
    assert_eq!(state(&mut client, "c"), "running");
    end(third);
    assert_eq!(end_of(&mut client, "c"), "owner_gone");
    assert_eq!(state(&mut client, "d"), "running");
    client.ok("destroy", json!({"target": "d"}));
    end(fourth);
}

#[test]
fn a_process_that_has_ended_is_not_waited_for() {
    let broker = TestBroker::start();
    let mut gone = owner();
    gone.kill().unwrap();
    let mut client = broker.json();
    let params = bound("a", &gone);
    // It is a zombie at first, whenever that is: until then it can be bound to.
    while let Ok(created) = client.call("create", params.clone()) {
        client.ok("destroy", json!({"target": created["child"]["id"]}));
    }
    gone.wait().unwrap();
    let refused = client.refused("create", params);
    assert_eq!(refused.kind, "not_found");
    assert!(refused.message.contains(&gone.id().to_string()), "{refused:?}");
    assert_eq!(
        client.refused("create", with(willing(), &json!({"lifetime": {"pid": 0}}))).kind,
        "invalid_params"
    );
}

#[test]
fn nobody_is_bound_to_what_is_somebody_elses_but_by_root() {
    if !is_root() {
        return;
    }
    let (one, other) = (STRANGER.to_string(), OTHER_STRANGER.to_string());
    let broker =
        Setup::new().flags(["--socket-mode", "666", "--allow-user", &one, "--allow-user", &other]).start();
    let [mut stranger, mut neighbour] =
        [STRANGER, OTHER_STRANGER].map(|user| JsonClient::as_user(broker.socket(), user, &[user]));
    let mut root = broker.json();
    let theirs = stranger.create(with(willing(), &json!({"name": "theirs"})));
    let bound = |name: &str| with(willing(), &json!({"name": name, "lifetime": {"pid": theirs["pid"]}}));
    assert_eq!(neighbour.refused("create", bound("a")).kind, "permission_denied");
    stranger.create(bound("b"));
    root.create(bound("c"));
    let own = with(willing(), &json!({"lifetime": {"pid": broker.pid()}}));
    assert_eq!(stranger.refused("create", own).kind, "permission_denied");
    stranger.ok("destroy", json!({"target": "theirs"}));
    assert_eq!(end_of(&mut root, "b"), "owner_gone");
    assert_eq!(end_of(&mut root, "c"), "owner_gone");
}

#[test]
fn a_client_in_a_pid_namespace_of_its_own_can_bind_a_child_to_itself_alone() {
    let Some(words) = crate::run::init::own_pids() else { return };
    let broker = TestBroker::start();
    let mut client = Command::new(words[0])
        .args(&words[1..])
        .args(["python3", "-c", IN_A_NAMESPACE])
        .arg(broker.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a client");
    let mut answers = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut answer = || serde_json::from_str::<Value>(&answers.next().unwrap().unwrap()).unwrap();
    let refused = answer();
    assert_eq!(refused["error"]["data"]["kind"], "unsupported", "{refused}");
    let taken = answer();
    assert_eq!(taken["result"]["child"]["lifetime"], json!({"pid": 1}), "{taken}");
    let mut watcher = broker.json();
    assert_eq!(state(&mut watcher, "b"), "running");
    drop(client.stdin.take());
    client.wait().unwrap();
    assert_eq!(end_of(&mut watcher, "b"), "owner_gone");
}

#[test]
fn the_command_line_binds_a_child_to_the_shell_that_calls_it() {
    let broker = TestBroker::start();
    let script =
        "\"$0\" create --name a --lifetime pid:$$ -- sleep infinity > /dev/null && \"$0\" get a --json";
    let said = Command::new("sh")
        .args(["-c", script])
        .arg(crate::harness::procbroker())
        .env("PROCBROKER_SOCKET", broker.socket())
        .output()
        .expect("a shell");
    assert!(said.status.success(), "{said:?}");
    let shown: Value = serde_json::from_slice(&said.stdout).expect("a child");
    assert!(shown.to_string().contains(r#""lifetime":{"pid":"#), "{shown}");
    assert_eq!(end_of(&mut broker.json(), "a"), "owner_gone");
}
