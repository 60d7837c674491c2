//! Every verb against a real broker: what it prints, and its exit status.

mod events;
mod flags;
mod progress;
mod reflexes;
mod shown;

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::children::{stubborn, willing, with};
use crate::harness::{Process, STRANGER, Said, Setup, TestBroker, is_root, procbroker_in};

/// The exit statuses that scripts rely on.
pub(crate) const DONE: i32 = 0;
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const NOT_FOUND: i32 = 3;
const TAKEN: i32 = 4;
pub(crate) const NO_BROKER: i32 = 5;
pub(crate) const DENIED: i32 = 6;
const TIMED_OUT: i32 = 7;

/// What a verb prints on a terminal, by script(1).
fn on_a_terminal(broker: &TestBroker, columns: usize, arguments: &str) -> Said {
    let line = format!("stty columns {columns}; {} {arguments}", crate::harness::procbroker().display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("PROCBROKER_SOCKET", broker.socket()).env("TERM", "xterm");
    Said::by(&mut command)
}

/// Checks that a verb has failed in this way, and has said so on one line.
pub(crate) fn failed(said: &Said, status: i32, contains: &str) {
    assert_eq!((said.status, said.out.as_str()), (status, ""), "{said:?}");
    assert!(said.err.starts_with("procbroker: ") && said.err.lines().count() == 1, "{said:?}");
    assert!(said.err.contains(contains), "{said:?}");
}

#[test]
fn create_prints_the_id_alone_and_passes_on_the_working_directory() {
    let broker = TestBroker::start();
    let mut create =
        broker.verb(&["create", "--name", "one", "--label", "pool=p", "--", "sleep", "infinity"]);
    let said = Said::by(create.current_dir(broker.folder()));
    assert_eq!((said.status, said.err.as_str()), (DONE, ""), "{said:?}");
    let child = broker.json().ok("get", json!({"target": "one"}))["child"].take();
    assert_eq!(said.out, format!("{}\n", child["id"].as_str().unwrap()));
    assert_eq!(child["labels"], json!({"pool": "p"}));
    assert_eq!(Process::of(&child).cwd(), broker.folder());
}

#[test]
fn every_flag_of_create_reaches_the_child() {
    let broker = TestBroker::start();
    let said = broker.run(&[
        "create",
        "--name",
        "one",
        "--cwd",
        "/usr",
        "--env",
        "A=b=c",
        "--env-clear",
        "--umask",
        "027",
        "--stop",
        "SIGHUP:1s,TERM",
        "--stop-order",
        "-3",
        "--rlimit",
        "nofile=99",
        "--limit",
        "key=1",
        "--stdout",
        "null",
        "--stderr",
        "null",
        "--json",
        "--",
        "sleep",
        "infinity",
    ]);
    assert_eq!(said.status, DONE, "{said:?}");
    let created = said.json();
    assert_eq!((&created["outcome"], &created["child"]["stop_order"]), (&json!("created"), &json!(-3)));
    let process = Process::of(&created["child"]);
    assert_eq!(process.cwd(), std::path::Path::new("/usr"));
    assert_eq!(process.environment()["A"], "b=c");
    assert!(!process.environment().contains_key("HOME"));
    assert_eq!(process.status("Umask"), ["0027"]);
    assert_eq!(process.limit("Max open files").1, "99");
    assert!(process.descriptors().values().all(|place| place == std::path::Path::new("/dev/null")));
    failed(&broker.run(&["create", "--limit", "key=1", "--", "true"]), TAKEN, "key");
    let ended = broker.run(&["destroy", "one", "--json"]).json();
    assert_eq!(ended["children"][0]["exit"]["steps"][0]["signal"], "SIGHUP");
}

#[test]
fn if_exists_chooses_what_happens_to_the_live_child() {
    let broker = TestBroker::start();
    let create =
        |how: &str| broker.run(&["create", "--name", "one", "--if-exists", how, "--", "sleep", "infinity"]);
    let first = create("fail");
    failed(&create("fail"), TAKEN, "one");
    assert_eq!(create("reuse").out, first.out);
    let other = create("replace");
    assert_eq!(other.status, DONE);
    assert_ne!(other.out, first.out);
}

#[test]
fn json_output_is_what_is_on_the_wire() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "one", "labels": {"pool": "p"}})));
    client.create(willing());
    for (arguments, method, params) in [
        (&["list", "--json"][..], "list", json!({})),
        (&["list", "--label", "pool=p", "--json"], "list", json!({"labels": {"pool": "p"}})),
        (&["get", "one", "--json"], "get", json!({"target": "one"})),
        (&["wait", "one", "--until", "ready", "--json"], "wait", json!({"target": "one", "until": "ready"})),
        (&["signal", "one", "CONT", "--json"], "signal", json!({"target": "one", "signal": "CONT"})),
        (&["signal", "one", "0x", "--json"], "", Value::Null),
        (&["destroy", "one", "--json"], "get", json!({"target": "one"})),
    ] {
        let said = broker.run(arguments);
        match method {
            "" => assert_eq!(said.status, USAGE, "{arguments:?}: {said:?}"),
            // A destroyed child has no name any more, so its id is asked for.
            "get" if arguments[0] == "destroy" => {
                let shown = said.json();
                let target = json!({"target": shown["children"][0]["id"]});
                assert_eq!(shown["children"][0], client.ok("get", target)["child"]);
            }
            _ => assert_eq!(said.json(), client.ok(method, params), "{arguments:?}"),
        }
    }
    assert_eq!(broker.run(&["list", "--all", "--json"]).json(), client.ok("list", json!({"all": true})));
    let status = broker.run(&["status", "--json"]).json();
    assert_eq!((&status["pid"], &status["children"]["running"]), (&json!(broker.pid()), &json!(1)));
    let refused = broker.run(&["get", "nobody", "--json"]);
    assert_eq!((refused.status, refused.out.as_str()), (NOT_FOUND, ""));
    let error: Value = serde_json::from_str(&refused.err).expect("the error object");
    let wire = client.refused("get", json!({"target": "nobody"}));
    assert_eq!((&error["code"], &error["message"]), (&json!(wire.code), &json!(wire.message)));
    let report = broker.run(&["shutdown", "--json"]).json();
    assert_eq!(report["children"].as_array().unwrap().len(), 1);
    broker.ended_in_order();
}

#[test]
fn piped_output_has_a_line_for_each_child_with_fields_between_tabs() {
    let broker = TestBroker::start();
    let child = broker.json().create(with(willing(), &json!({"name": "one"})));
    let said = broker.run(&["list"]);
    let fields: Vec<&str> = said.out.trim_end_matches('\n').split('\t').collect();
    let pid = child["pid"].to_string();
    assert_eq!(fields[..4], [child["id"].as_str().unwrap(), "one", "running", &pid]);
    assert_eq!(fields[7..], ["sleep infinity", "-"]);
    let destroyed = broker.run(&["destroy", "--all"]);
    assert_eq!(destroyed.out.lines().count(), 1, "{destroyed:?}");
    assert!(destroyed.out.contains("\tended\t") && destroyed.out.contains("SIGTERM"), "{destroyed:?}");
    assert_eq!(broker.run(&["list"]).out, "");
    assert_eq!(broker.run(&["list", "--all"]).out.lines().count(), 1);
}

#[test]
fn a_terminal_gets_tables() {
    let mut broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"name": "one"})));
    let list = on_a_terminal(&broker, 120, "list");
    assert_eq!(list.status, DONE, "{list:?}");
    for word in ["NAME", "STATE", "one", "running", "sleep infinity"] {
        assert!(list.out.contains(word), "no {word} in {}", list.out);
    }
    let status = on_a_terminal(&broker, 120, "status");
    assert!(status.out.contains(&broker.pid().to_string()), "{}", status.out);
    let create = on_a_terminal(&broker, 120, "create --name two -- sleep infinity");
    assert!(create.out.contains("created two"), "{}", create.out);
    let shutdown = on_a_terminal(&broker, 120, "shutdown");
    assert!(shutdown.out.contains("stopped 2 children"), "{}", shutdown.out);
    broker.ended_in_order();
}

#[test]
fn wait_tells_how_a_child_ended() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    client.create(json!({"name": "short", "command": ["sh", "-c", "exit 5"]}));
    let id = client.ok("list", json!({"all": true}))["children"][0]["id"].as_str().unwrap().to_owned();
    let said = broker.run(&["wait", &id]);
    assert_eq!((said.status, said.out.lines().count()), (DONE, 1), "{said:?}");
    assert_eq!(said.out.split('\t').nth(6), Some("5"), "{said:?}");
    client.create(with(willing(), &json!({"name": "long"})));
    failed(&broker.run(&["wait", "long", "--timeout", "10ms"]), TIMED_OUT, "long");
    assert_eq!(broker.run(&["wait", "long", "--until", "ready"]).status, DONE);
    assert_eq!(broker.run(&["wait", &id, "--until", "ready"]).status, FAILED);
}

#[test]
fn signal_and_destroy_act_on_their_target() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    client.create(with(stubborn(&hello), &json!({"name": "one", "labels": {"pool": "p"}})));
    hello.line();
    client.create(with(willing(), &json!({"name": "three", "labels": {"pool": "p"}})));
    let said = broker.run(&["signal", "one", "three", "CONT"]);
    assert_eq!((said.status, said.out.lines().count()), (DONE, 2), "{said:?}");
    let said = broker.run(&["signal", "--label", "pool=p", "KILL", "--scope", "all"]);
    assert_eq!((said.status, said.out.lines().count()), (DONE, 2), "{said:?}");
    failed(&broker.run(&["signal", "KILL", "three"]), USAGE, "procbroker signal three KILL");
    client.create(with(willing(), &json!({"labels": {"pool": "q"}})));
    client.create(with(stubborn(&hello), &json!({"labels": {"pool": "q"}})));
    hello.line();
    let said = broker.run(&["destroy", "--label", "pool=q", "--stop", "TERM:10ms"]);
    assert_eq!((said.status, said.out.lines().count()), (DONE, 2), "{said:?}");
    client.create(with(willing(), &json!({"name": "two"})));
    assert_eq!(broker.run(&["destroy", "two", "--no-wait"]).status, DONE);
    // Nothing left is nothing to complain about.
    assert_eq!(broker.run(&["destroy", "--all"]).status, DONE);
}

#[test]
fn each_kind_of_failure_has_its_exit_status() {
    let broker = TestBroker::start();
    let run = |arguments: &[&str]| broker.run(arguments);
    failed(&run(&["create", "--", "no-such-program"]), FAILED, "no-such-program");
    for usage in [
        &["create"][..],
        &["create", "--name", "no spaces", "--", "true"],
        &["create", "--stop", "SIGNOPE", "--", "true"],
        &["destroy"],
        &["destroy", "one", "--all"],
        &["signal", "one"],
        &["list", "--labels"],
        &["wait", "one", "--until", "later"],
    ] {
        let said = run(usage);
        assert_eq!((said.status, said.out.as_str()), (USAGE, ""), "{usage:?}: {said:?}");
        assert!(!said.err.is_empty(), "{usage:?}");
    }
    // What only the broker can know is wrong is a usage error too.
    assert_eq!(run(&["create", "--if-exists", "reuse", "--", "true"]).status, USAGE);
    for absent in
        [&["get", "nobody"][..], &["destroy", "nobody"], &["wait", "nobody"], &["signal", "nobody", "HUP"]]
    {
        failed(&run(absent), NOT_FOUND, "nobody");
    }
    run(&["create", "--name", "one", "--", "sleep", "infinity"]);
    failed(&run(&["create", "--name", "one", "--", "true"]), TAKEN, "one");
    let nowhere = broker.path("nowhere");
    let mut list = broker.verb(&["list"]);
    failed(&Said::by(list.env("PROCBROKER_SOCKET", &nowhere)), NO_BROKER, nowhere.to_str().unwrap());
    failed(
        &Said::by(&mut broker.verb(&["list", "--socket", nowhere.to_str().unwrap()])),
        NO_BROKER,
        "nowhere",
    );
    failed(&run(&["wait", "one", "--timeout", "1ms"]), TIMED_OUT, "one");
}

#[test]
fn a_create_says_what_it_could_not_be_done_for_want_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let broker = TestBroker::start();
    let text = broker.path("text");
    std::fs::write(&text, "echo hello\n").unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = text.to_str().unwrap();
    let none = broker.path("none").to_str().unwrap().to_owned();
    let no_folder = format!("the folder \"{none}\" does not exist");
    let cases: [(&[&str], &str); 6] = [
        (&["--cwd", &none, "--", "sleep", "1"], &no_folder),
        (&["--rlimit", "nofile=4000000000", "--", "true"], "nofile=4000000000 is above the hard limit"),
        (&["--", "sleep 1000"], "program and arguments are separate words"),
        (&["--", "/none/such"], "it is not there, or the interpreter"),
        (&["--", "/etc/passwd"], "may not execute it"),
        (&["--", text], "a script begins with a line such as #!/bin/sh"),
    ];
    for (arguments, why) in cases {
        failed(&broker.run(&[&["create"], arguments].concat()), FAILED, why);
    }
}

#[test]
fn those_who_may_not_are_told_so() {
    if !is_root() {
        return;
    }
    let as_stranger = |broker: &TestBroker, arguments: &[&str]| {
        let id = STRANGER.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.arg(procbroker_in(broker.folder())).args(arguments);
        Said::by(command.env("PROCBROKER_SOCKET", broker.socket()))
    };
    // The file's mode says no, then the broker does.
    let broker = TestBroker::start();
    failed(&as_stranger(&broker, &["list"]), DENIED, broker.socket().to_str().unwrap());
    let broker = Setup::new().flags(["--socket-mode", "666"]).start();
    assert_eq!(as_stranger(&broker, &["list"]).status, DENIED);
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()]).start();
    assert_eq!(as_stranger(&broker, &["list"]).status, DONE);
    assert_eq!(as_stranger(&broker, &["shutdown"]).status, DENIED);
    assert_eq!(as_stranger(&broker, &["create", "--user", "root", "--", "true"]).status, DENIED);
}

#[test]
fn a_broker_that_cannot_start_says_so_in_the_form_of_its_log() {
    let broker = TestBroker::start();
    let socket = broker.path("other.sock");
    let serve = |format, level| {
        let socket = socket.to_str().unwrap();
        let flags = ["--state-dir", "/dev/null/x", "--log-format", format, "--log", level];
        broker.run(&[&["serve", "--socket", socket], &flags[..]].concat())
    };
    for level in ["info", "off"] {
        let said = serve("json", level);
        assert_eq!(said.status, FAILED, "{said:?}");
        let lines: Vec<Value> =
            said.err.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        let last = lines.last().expect("a line");
        assert_eq!((&last["level"], last["timestamp"].is_string()), (&json!("ERROR"), true), "{last}");
        let message = last["message"].as_str().unwrap();
        assert!(message.starts_with("cannot start") && message.contains("/dev/null/x"), "{last}");
    }
    let said = serve("text", "info");
    assert!(said.err.lines().last().unwrap().starts_with("procbroker: cannot start"), "{said:?}");
}

#[test]
fn shutdown_ends_the_broker_and_reports() {
    let mut broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    broker
        .json()
        .create(with(stubborn(&hello), &json!({"name": "one", "stop": [{"signal": "TERM", "grace": 300}]})));
    hello.line();
    let said = broker.run(&["shutdown", "--timeout", "300ms"]);
    assert_eq!((said.status, said.out.lines().count()), (DONE, 1), "{said:?}");
    assert!(said.out.contains("SIGKILL"), "{said:?}");
    broker.ended_in_order();
}

#[test]
fn output_to_a_reader_that_is_gone_is_no_failure() {
    let broker = TestBroker::start();
    for _ in 0..20 {
        broker.json().create(with(willing(), &json!({"labels": {"text": "x".repeat(4000)}})));
    }
    let mut list = broker.verb(&["list", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(list.stdout.take());
    assert_eq!(list.wait().unwrap().code(), Some(DONE));
}
