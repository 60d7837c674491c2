//! Promise 3: nothing is lost when the broker is killed. The next one manages every child, and knows what became of
//! those that have ended meanwhile.

mod answers;
mod changed_record;
mod ended;
mod stopping;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::children::{attentive, pid_in, script, willing, with, with_anonymous_daemon};
use crate::harness::{JsonClient, Process, Setup, TestBroker};

const SUBREAPER: &[&str] = &["--containment", "subreaper"];

/// What the kernel says about a child's process is enough to hold it by: with cgroups and without.
const BOTH: [&[&str]; 2] = [&[], SUBREAPER];

fn list(broker: &TestBroker, all: bool) -> Vec<Value> {
    let listed = broker.json().ok("list", json!({"all": all}));
    listed["children"].as_array().expect("children").clone()
}

fn wait(client: &mut JsonClient, child: &Value) -> Value {
    client.ok("wait", json!({"target": child["id"]}))["child"].take()
}

fn destroy(client: &mut JsonClient, child: &Value) -> Value {
    client.ok("destroy", json!({"target": child["id"]}))["children"][0].take()
}

fn signals(child: &Value) -> Vec<&str> {
    let steps = child["exit"]["steps"].as_array().expect("steps");
    steps.iter().map(|step| step["signal"].as_str().expect("a signal")).collect()
}

/// A child with everything that a child can have.
fn complete() -> Value {
    json!({
        "command": ["sleep", "infinity"],
        "name": "one",
        "labels": {"pool": "render"},
        "stop": [{"signal": "SIGWINCH", "grace": 0.01}, {"signal": "SIGUSR1", "grace": 300}],
        "stop_order": 3,
        "limit": {"key": "render", "max": 1},
    })
}

#[test]
fn a_child_is_known_again_as_it_was() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let child = broker.json().create(complete());
        broker.recorded();
        let before = broker.status();
        broker.crash_and_start_again();
        let after = broker.status();
        assert_ne!(before["instance"], after["instance"]);
        assert_eq!(before["children"], after["children"]);
        let mut client = broker.json();
        assert_eq!(client.got(&json!("one")), child);
        assert_eq!(client.ok("list", json!({"labels": {"pool": "render"}}))["children"], json!([child]));
        assert!(Process::of(&child).is_alive());
        let ended = destroy(&mut client, &child);
        assert_eq!(signals(&ended), ["SIGWINCH", "SIGUSR1"]);
        assert_eq!((&ended["exit"]["signal"], &ended["exit"]["forced"]), (&json!("SIGUSR1"), &json!(false)));
    }
}

#[test]
fn a_crash_right_after_a_create_loses_nothing() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        for number in 0..10 {
            let name = json!({"name": format!("child-{number}")});
            let child = broker.json().create(with(willing(), &name));
            broker.crash_and_start_again();
            let mut client = broker.json();
            let found = client.ok("get", json!({"target": name["name"]}))["child"].take();
            assert_eq!(
                (&found["id"], &found["pid"], &found["state"]),
                (&child["id"], &child["pid"], &child["state"])
            );
            assert_eq!(signals(&destroy(&mut client, &child)), ["SIGTERM"]);
        }
    }
}

#[test]
fn a_name_and_a_limit_are_held_through_a_crash() {
    let mut broker = TestBroker::start();
    let child = broker.json().create(complete());
    broker.recorded();
    broker.crash_and_start_again();
    let mut client = broker.json();
    assert_eq!(client.refused("create", with(willing(), &json!({"name": "one"}))).kind, "name_taken");
    let limited = with(willing(), &json!({"limit": {"key": "render", "max": 1}}));
    assert_eq!(client.refused("create", limited).kind, "limit_exceeded");
    let reused = client.ok("create", with(complete(), &json!({"if_exists": "reuse"})));
    assert_eq!(reused, json!({"outcome": "existing", "same_spec": true, "child": child}));
    let replaced = client.ok("create", with(complete(), &json!({"if_exists": "replace"})));
    assert_eq!(replaced["outcome"], "replaced");
    assert!(!Process(child["pid"].as_i64().unwrap()).is_alive());
}

#[test]
fn a_request_that_was_answered_before_a_crash_starts_nothing_after_it() {
    let mut broker = TestBroker::start();
    let request = json!({"request_id": "0190d5a0-0000-7000-8000-000000000001"});
    let first = broker.json().ok("create", with(willing(), &request));
    broker.recorded();
    broker.crash_and_start_again();
    assert_eq!(broker.json().ok("create", with(willing(), &request)), first);
    assert_eq!(list(&broker, true).len(), 1);
    // It is remembered as long as the child is visible.
    let ended = destroy(&mut broker.json(), &first["child"]);
    broker.recorded();
    broker.crash_and_start_again();
    let again = broker.json().ok("create", with(willing(), &request));
    assert_eq!((&again["outcome"], &again["child"]["id"]), (&json!("created"), &ended["id"]));
    assert_eq!(list(&broker, true), [ended]);
}

#[test]
fn a_request_that_was_answered_with_a_child_that_was_there_gets_that_answer_after_a_crash() {
    let mut broker = TestBroker::start();
    let child = broker.json().create(with(willing(), &json!({"name": "one"})));
    let request = json!({"request_id": "0190d5a0-0000-7000-8000-000000000001"});
    let reuse = json!({"name": "one", "if_exists": "reuse", "stop_order": 1});
    let first = broker.json().ok("create", with(with(willing(), &reuse), &request));
    assert_eq!((&first["outcome"], &first["same_spec"]), (&json!("existing"), &json!(false)));
    // Twice: it is on record still, and not only in the log of what was written last.
    for _ in 0..2 {
        broker.crash_and_start_again();
        assert_eq!(broker.json().ok("create", with(willing(), &request)), first);
        broker.recorded();
    }
    let ended = destroy(&mut broker.json(), &child);
    broker.recorded();
    broker.crash_and_start_again();
    let again = broker.json().ok("create", with(willing(), &request));
    assert_eq!((&again["outcome"], &again["child"]), (&json!("existing"), &ended));
}

#[test]
fn the_output_of_a_child_goes_on_through_a_crash() {
    let mut broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
    let text = "while read word <\"$1.go\"; do echo $word; echo err $word >&2; echo said >\"$1\"; done";
    let child = broker.json().create(with(script(&pipe, text), &json!({"stderr": "log"})));
    for word in ["one", "two", "three"] {
        go.say(word);
        assert_eq!(pipe.line(), "said");
        broker.crash();
        // Nor is what is said while there is no broker lost.
        go.say(&format!("alone-{word}"));
        assert_eq!(pipe.line(), "said");
        broker.start_again();
    }
    let logs = |stream| {
        let asked = json!({"target": child["id"], "stream": stream});
        broker.json().ok("logs", asked)["text"].as_str().unwrap().to_owned()
    };
    for (stream, prefix) in [("stdout", ""), ("stderr", "err ")] {
        // What was kept and not yet taken out of its pipe when the broker died is kept once more, with all that stood in the
        // pipe by then, and nothing is lost.
        let text = logs(stream);
        let mut seen = BTreeSet::new();
        let lines: Vec<_> = text.lines().filter(|line| seen.insert(*line)).collect();
        let said = ["one", "two", "three"]
            .map(|word| [format!("{prefix}{word}"), format!("{prefix}alone-{word}")])
            .concat();
        assert_eq!(lines, said, "{stream}: {text}");
    }
}

#[test]
fn a_signal_to_a_recovered_child_reaches_whom_its_scope_names() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let mut hello = broker.fifo("hello");
        let text = "\"$@\" member & setsid --fork \"$@\" daemon; exec \"$@\" main";
        let attentive = attentive(&hello, "", None)["command"].as_array().unwrap()[..4].to_vec();
        let mut command = vec![json!("sh"), json!("-c"), json!(text), json!("sh")];
        command.extend(attentive);
        let child = broker.json().create(json!({"command": command}));
        hello.lines(3);
        broker.crash_and_start_again();
        let mut client = broker.json();
        for (scope, expected) in [
            ("main", &["main heard"][..]),
            ("group", &["main heard", "member heard"]),
            ("all", &["daemon heard", "main heard", "member heard"]),
        ] {
            client.ok("signal", json!({"target": child["id"], "signal": "USR1", "scope": scope}));
            let mut heard = hello.lines(expected.len());
            heard.sort();
            assert_eq!(heard, expected, "{scope}");
        }
        client.ok("destroy", json!({"target": child["id"], "stop": []}));
    }
}

#[test]
fn a_daemon_without_environment_is_found_by_its_output_after_a_crash_too() {
    let mut broker = Setup::new().flags(SUBREAPER).start();
    let mut hello = broker.fifo("hello");
    let child = broker.json().create(with_anonymous_daemon(&hello));
    let daemon = pid_in(&hello.line());
    broker.recorded();
    broker.crash_and_start_again();
    destroy(&mut broker.json(), &child);
    assert!(!daemon.is_alive());
}

#[test]
fn who_looks_into_a_childs_output_from_outside_is_not_taken_for_its_daemon_after_a_crash() {
    let mut broker = Setup::new().flags(SUBREAPER).start();
    let child = broker.json().create(willing());
    let output = File::options().read(true).open(format!("/proc/{}/fd/1", child["pid"])).unwrap();
    let mut watcher = Command::new("cat").stdin(Stdio::piped()).stdout(output).env_clear().spawn().unwrap();
    broker.recorded();
    broker.crash_and_start_again();
    destroy(&mut broker.json(), &child);
    assert_eq!(watcher.try_wait().unwrap(), None);
    drop(watcher.stdin.take());
    assert!(watcher.wait().unwrap().success());
}

#[test]
fn a_process_that_has_let_go_of_its_environment_holds_up_no_end_of_a_child() {
    const LETS_GO: &str = "import ctypes, os, sys
fields = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
begin, end = int(fields[47]) & ~4095, int(fields[48]) + 4095 & ~4095
os.setsid()
assert ctypes.CDLL(None).munmap(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin)) == 0
os.write(1, b'.')
sys.stdin.read()
os._exit(0)";
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let child = broker.json().create(willing());
        broker.recorded();
        let mut beside = Command::new("python3");
        // What stands before the environment is a page of this, and nothing that is needed.
        beside.args(["-c", LETS_GO, &"x".repeat(3 * 4096)]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut beside = beside.spawn().unwrap();
        beside.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        broker.crash_and_start_again();
        assert_eq!(signals(&destroy(&mut broker.json(), &child)), ["SIGTERM"]);
        drop(beside.stdin.take());
        assert!(beside.wait().unwrap().success());
    }
}

#[test]
fn a_broker_can_be_killed_ten_times_in_a_row() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let mut children = Vec::new();
        for number in 0..10 {
            let name = json!({"name": format!("child-{number}")});
            children.push(broker.json().create(with(willing(), &name)));
            broker.recorded();
            broker.crash_and_start_again();
            assert_eq!(list(&broker, false), children);
        }
        let mut client = broker.json();
        for child in &children {
            assert_eq!(signals(&destroy(&mut client, child)), ["SIGTERM"]);
        }
    }
}

#[test]
fn a_broker_that_is_killed_while_it_starts_loses_nothing() {
    let mut broker = TestBroker::start();
    let children: Vec<Value> = (0..20).map(|_| broker.json().create(willing())).collect();
    broker.recorded();
    broker.crash();
    for _ in 0..20 {
        let mut process = broker.setup().command().spawn().expect("the program");
        // It listens before it reads the record.
        while let Err(error) = UnixStream::connect(broker.socket()) {
            assert!([ErrorKind::ConnectionRefused, ErrorKind::NotFound].contains(&error.kind()), "{error}");
            assert_eq!(process.try_wait().unwrap(), None, "{}", broker.log());
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    broker.start_again();
    assert_eq!(list(&broker, false), children);
}

#[test]
fn a_bound_that_was_lowered_ends_nobody() {
    let mut broker = TestBroker::start();
    let children: Vec<Value> = (0..5).map(|_| broker.json().create(willing())).collect();
    broker.recorded();
    broker.crash();
    broker.add_flags(&["--max-children", "2", "--max-children-per-user", "2"]);
    broker.start_again();
    assert_eq!(list(&broker, false), children);
    let mut client = broker.json();
    for child in &children[..4] {
        assert_eq!(client.refused("create", willing()).kind, "limit_exceeded");
        destroy(&mut client, child);
    }
    client.create(willing());
    assert_eq!(client.refused("create", willing()).kind, "limit_exceeded");
}

#[test]
fn a_restart_in_order_finds_the_ended_children_and_their_output() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["echo", "said"]}));
    let ended = wait(&mut client, &child);
    drop(client);
    broker.stop();
    broker.start_again();
    assert_eq!(list(&broker, true), [ended]);
    assert_eq!(broker.json().ok("logs", json!({"target": child["id"]}))["text"], "said\n");
}
