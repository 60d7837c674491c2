//! What a child finds when it starts, read from the kernel and not from what the child says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use crate::harness::children::{script, willing, with};
use crate::harness::{JsonClient, Process, Setup, TestBroker};

fn process(child: &Value) -> Process {
    Process::of(child)
}

/// What a child has written, once it has ended: to its standard output, and to a standard error of its own.
fn output(client: &mut JsonClient, params: Value) -> (String, String) {
    let child = client.create(params);
    client.ok("wait", json!({"target": child["id"]}));
    let text = |stream| {
        let answer = client.ok("logs", json!({"target": child["id"], "stream": stream}));
        answer["text"].as_str().expect("a text").to_owned()
    };
    let [stdout, stderr] = ["stdout", "stderr"].map(text);
    (stdout, stderr)
}

fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, wanted, found);
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

#[test]
fn the_environment_names_the_broker_and_the_child() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(with(willing(), &json!({"name": "one"})));
    let environment = process(&child).environment();
    assert_eq!(environment["PROCBROKER_SOCKET"], broker.socket().to_str().unwrap());
    assert_eq!(environment["PROCBROKER_CHILD_ID"], child["id"].as_str().unwrap());
    assert_eq!(environment["PROCBROKER_CHILD_NAME"], "one");
    let nameless = process(&client.create(willing())).environment();
    assert!(!nameless.contains_key("PROCBROKER_CHILD_NAME"));
}

#[test]
fn the_environment_is_the_brokers_own_less_what_was_meant_for_it() {
    let broker = Setup::new().env("FLAVOUR", "vanilla").env("WATCHDOG_USEC", "60000000").start();
    let mut client = broker.json();
    let environment =
        process(&client.create(with(willing(), &json!({"env": {"TOPPING": "nuts"}})))).environment();
    assert_eq!((environment["FLAVOUR"].as_str(), environment["TOPPING"].as_str()), ("vanilla", "nuts"));
    for key in environment.keys() {
        let meant_for_the_broker =
            key.starts_with("LISTEN_") || key.starts_with("WATCHDOG_") || key == "NOTIFY_SOCKET";
        assert!(!meant_for_the_broker, "{key} is passed on");
    }
    let changed =
        process(&client.create(with(willing(), &json!({"env": {"FLAVOUR": "mint"}})))).environment();
    assert_eq!(changed["FLAVOUR"], "mint");
}

#[test]
fn a_cleared_environment_has_what_was_given_and_the_brokers_variables() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child =
        client.create(with(willing(), &json!({"name": "one", "env_clear": true, "env": {"A": "b=c"}})));
    let expected: BTreeMap<String, String> = [
        ("A", "b=c"),
        ("PROCBROKER_CHILD_ID", child["id"].as_str().unwrap()),
        ("PROCBROKER_CHILD_NAME", "one"),
        ("PROCBROKER_SOCKET", broker.socket().to_str().unwrap()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    assert_eq!(process(&child).environment(), expected);
}

#[test]
fn a_client_cannot_forge_what_identifies_a_child() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let forged = json!({"PROCBROKER_CHILD_ID": "another", "PROCBROKER_CHILD_NAME": "another", "PROCBROKER_SOCKET": "/tmp/x"});
    // Refusing it is as good as setting it right.
    let Ok(created) = client.call("create", with(willing(), &json!({"env": forged}))) else { return };
    let environment = process(&created["child"]).environment();
    assert_eq!(environment["PROCBROKER_CHILD_ID"], created["child"]["id"].as_str().unwrap());
    assert_eq!(environment["PROCBROKER_SOCKET"], broker.socket().to_str().unwrap());
    assert_ne!(environment.get("PROCBROKER_CHILD_NAME").map(String::as_str), Some("another"));
}

#[test]
fn a_program_is_looked_up_in_the_childs_own_path() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for folder in ["here", "there"] {
        fs::create_dir(broker.path(folder)).unwrap();
        let program = broker.path(folder).join("which-one");
        fs::write(&program, format!("#!/bin/sh\necho {folder}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = |first: &str| format!("{}:/usr/bin:/bin", broker.path(first).display());
    for (params, expected) in [
        (json!({"command": ["which-one"], "env": {"PATH": path("here")}}), "here\n"),
        (json!({"command": ["which-one"], "env": {"PATH": path("there")}, "env_clear": true}), "there\n"),
        (json!({"command": ["./which-one"], "cwd": broker.path("there")}), "there\n"),
        (json!({"command": ["there/which-one"], "cwd": broker.folder()}), "there\n"),
    ] {
        assert_eq!(output(&mut client, params.clone()).0, expected, "{params}");
    }
    // With neither, the usual folders.
    assert_eq!(output(&mut client, json!({"command": ["echo", "x"], "env_clear": true})).0, "x\n");
    let refused = client.refused("create", json!({"command": ["which-one"]}));
    assert_eq!(refused.data["errno_name"], "ENOENT");
}

#[test]
fn the_working_directory_is_the_root_unless_another_is_given() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    assert_eq!(process(&client.create(willing())).cwd(), Path::new("/"));
    let child = client.create(with(willing(), &json!({"cwd": broker.folder()})));
    assert_eq!(process(&child).cwd(), broker.folder());
}

#[test]
fn the_umask_is_what_was_asked_for() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    assert_eq!(process(&client.create(willing())).status("Umask"), ["0022"]);
    assert_eq!(process(&client.create(with(willing(), &json!({"umask": "077"})))).status("Umask"), ["0077"]);
}

#[test]
fn a_child_has_a_session_and_a_group_of_its_own() {
    let broker = TestBroker::start();
    let child = process(&broker.json().create(willing()));
    assert_eq!(child.group_and_session(), (child.0, child.0));
}

#[test]
fn a_child_has_three_descriptors_and_no_more() {
    let broker = TestBroker::start();
    // Plenty of them are open in the broker meanwhile.
    let mut clients: Vec<JsonClient> = (0..50).map(|_| broker.json()).collect();
    for client in &mut clients {
        client.ok("status", json!({}));
    }
    // A shell that waits has none of its own open; one that loads its libraries or redirects something would.
    let mut hello = broker.fifo("hello");
    let child = clients[0].create(script(&hello, "sleep infinity & (echo there >\"$1\"); wait"));
    assert_eq!(hello.line(), "there");
    let descriptors = process(&child).descriptors();
    assert_eq!(descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{descriptors:?}");
    assert_eq!(descriptors[&0], Path::new("/dev/null"));
    assert_eq!(descriptors[&1], broker.pipe_of(&child));
    assert_eq!(descriptors[&1], descriptors[&2]);
}

#[test]
fn a_child_starts_with_default_signals_and_an_empty_mask() {
    // The broker itself is started with some ignored and some blocked, as a shell's nohup or a test runner may do.
    let broker = Setup::new()
        .through([
            "env",
            "--ignore-signal=HUP",
            "--ignore-signal=USR1",
            "--block-signal=USR2",
            "--block-signal=TERM",
        ])
        .start();
    let child = process(&broker.json().create(willing()));
    for set in ["SigIgn", "SigBlk", "SigCgt"] {
        assert_eq!(child.status(set), ["0000000000000000"], "{set}");
    }
}

#[test]
fn a_child_runs_as_its_caller() {
    let broker = TestBroker::start();
    let child = broker.json().create(willing());
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    assert_eq!(child["owner"], json!({"uid": uid, "gid": gid}));
    assert_eq!(process(&child).status("Uid"), vec![uid.to_string(); 4]);
    assert_eq!(process(&child).status("Gid"), vec![gid.to_string(); 4]);
}

#[test]
fn resource_limits_are_set_and_otherwise_those_that_the_broker_was_started_with() {
    let broker = Setup::new().through(["prlimit", "--nofile=256:4096"]).start();
    let mut client = broker.json();
    // The broker raises its own soft limit, and gives the old one to its children.
    assert_eq!(broker.process().limit("Max open files"), ("4096".to_owned(), "4096".to_owned()));
    let plain = process(&client.create(willing()));
    assert_eq!(plain.limit("Max open files"), ("256".to_owned(), "4096".to_owned()));
    let limited = with(willing(), &json!({"rlimits": {"nofile": 100, "core": 0, "cpu": "unlimited"}}));
    let limited = process(&client.create(limited));
    assert_eq!(limited.limit("Max open files"), ("100".to_owned(), "100".to_owned()));
    assert_eq!(limited.limit("Max core file size"), ("0".to_owned(), "0".to_owned()));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= 4096, "this machine has too few descriptors for this test");
}

#[test]
fn output_goes_where_it_was_sent() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let both = ["sh", "-c", "echo out; echo err >&2; echo more"];
    let (stdout, _) = output(&mut client, json!({"command": both}));
    assert_eq!(stdout, "out\nerr\nmore\n");
    let apart = output(&mut client, json!({"command": both, "stderr": "log"}));
    assert_eq!(apart, ("out\nmore\n".to_owned(), "err\n".to_owned()));
    let (stdout, stderr) = output(&mut client, json!({"command": both, "stdout": "null", "stderr": "log"}));
    assert_eq!((stdout.as_str(), stderr.as_str()), ("", "err\n"));
    let (stdout, _) = output(&mut client, json!({"command": both, "stderr": "null"}));
    assert_eq!(stdout, "out\nmore\n");
}

#[test]
fn inherited_output_goes_where_the_brokers_goes() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(
        json!({"command": ["sh", "-c", "echo out; echo err >&2"], "stdout": "inherit", "stderr": "inherit"}),
    );
    client.ok("wait", json!({"target": child["id"]}));
    let mut line = String::new();
    BufReader::new(broker.stdout()).read_line(&mut line).unwrap();
    assert_eq!(line, "out\n");
    assert!(broker.log().lines().any(|line| line == "err"), "{}", broker.log());
}

#[test]
fn output_is_private_to_the_brokers_user() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    output(&mut client, json!({"command": ["echo", "secret"], "umask": "000"}));
    let mut files = Vec::new();
    find(&broker.state_dir(), &|_| true, &mut files);
    assert!(!files.is_empty());
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", file.display());
    }
}

#[test]
fn the_parent_of_a_child_is_the_broker_and_an_orphan_finds_it_too() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let child = broker.json().create(script(
        &hello,
        "sh -c 'echo $$ >\"$1\"; exec sleep infinity' sh \"$1\" & exec sleep infinity",
    ));
    assert_eq!(process(&child).status("PPid"), [broker.pid().to_string()]);
    let member = Process(hello.line().parse().unwrap());
    assert_eq!(member.status("PPid"), [child["pid"].to_string()]);
}
