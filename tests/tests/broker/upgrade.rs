//! The live upgrade: the same process, the same children, and another program, which nobody notices.

mod followers;
mod heavy;
mod late;
mod refusals;
mod surroundings;
mod verb;

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use procbroker_client::ExitStatus;
use procbroker_client::blocking::Broker;
use serde_json::{Value, json};

use crate::harness::children::{willing, with, with_daemon};
use crate::harness::{Process, Setup, TestBroker, procbroker_in, tagged_processes};

/// A broker whose program can be put another one in the place of: `procbroker` in its folder.
fn replaceable() -> Setup {
    let setup = Setup::new();
    let program = procbroker_in(setup.folder());
    // What follows is the path of the common one, which is left out.
    setup.through(["sh".as_ref(), "-c".as_ref(), "shift; exec \"$0\" \"$@\"".as_ref(), program.as_os_str()])
}

/// Upgrades it, and checks that another instance answers.
fn upgrade(broker: &TestBroker) {
    let before = broker.status();
    let said = broker.run(&["upgrade", "--json"]);
    assert_eq!(said.status, 0, "{said:?}");
    // The queue of what an owner does not read is short, and the broker waits for room in it.
    broker.says("READY=1");
    let after = said.json();
    assert_eq!(after["pid"], before["pid"]);
    assert_ne!(after["instance"], before["instance"]);
    assert_eq!(broker.status()["instance"], after["instance"]);
}

#[test]
fn a_request_that_was_answered_with_a_child_that_was_there_gets_that_answer_again() {
    let broker = replaceable().start();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "one"})));
    let request = json!({"request_id": "0190d5a0-0000-7000-8000-000000000001"});
    let reuse = with(willing(), &json!({"name": "one", "if_exists": "reuse"}));
    let first = client.ok("create", with(reuse, &request));
    assert_eq!(first["outcome"], "existing");
    for _ in 0..2 {
        upgrade(&broker);
        assert_eq!(broker.json().ok("create", with(willing(), &request)), first);
    }
}

#[test]
fn nothing_changes_but_the_instance() {
    let broker = replaceable().start();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "a", "labels": {"pool": "p"}})));
    client.create(with(willing(), &json!({"stdout": "null"})));
    let ended = client.create(json!({"command": ["true"], "name": "gone"}));
    client.ok("wait", json!({"target": ended["id"]}));
    let list = client.ok("list", json!({"all": true}));
    let facilities = broker.status()["facilities"].take();
    for _ in 0..2 {
        upgrade(&broker);
        let mut client = broker.json();
        assert_eq!(client.ok("list", json!({"all": true})), list);
        assert_eq!(broker.status()["facilities"], facilities);
    }
    for child in list["children"].as_array().unwrap().iter().filter(|child| !child["pid"].is_null()) {
        assert_eq!(Process::of(child).status("PPid"), [broker.pid().to_string()]);
    }
    let destroyed = broker.json().ok("destroy", json!({"target": "a"}));
    assert_eq!(destroyed["children"][0]["exit"]["signal"], "SIGTERM");
}

#[test]
fn the_verb_says_from_which_version_to_which() {
    let broker = replaceable().start();
    let said = broker.run(&["upgrade"]);
    let version = broker.status()["version"].as_str().unwrap().to_owned();
    let pid = broker.pid();
    let expected = format!("upgraded from version {version} to {version}; the process is {pid} as before\n");
    assert_eq!((said.status, said.out), (0, expected), "{}", said.err);
    assert!(broker.log().contains("handing over to the new program"), "{}", broker.log());
}

#[test]
fn the_method_is_answered_and_the_connection_closed() {
    let broker = replaceable().start();
    let mut client = broker.json();
    assert_eq!(client.ok("upgrade", json!({})), json!({}));
    assert_eq!(client.message(), None);
}

#[test]
fn a_signal_asks_for_it_too() {
    let broker = replaceable().start();
    let before = broker.status();
    broker.signal(Signal::SIGUSR2);
    broker.says("READY=1");
    assert_ne!(broker.status()["instance"], before["instance"]);
}

#[test]
fn a_child_that_ends_after_it_is_reaped_and_its_exit_code_known() {
    let broker = replaceable().start();
    let mut go = broker.fifo("go");
    let script = json!({"command": ["sh", "-c", "read word <\"$1\"; exit 7", "sh", go.path()]});
    let child = broker.json().create(script);
    upgrade(&broker);
    go.say("go");
    let ended = broker.json().ok("wait", json!({"target": child["id"]}));
    assert_eq!(ended["child"]["exit"]["code"], 7, "{ended}");
    assert!(!Process(child["pid"].as_i64().unwrap()).is_alive());
}

#[test]
fn a_child_that_has_ended_before_it_has_its_exit_code() {
    // However close the end is to it: reaped, reported and recorded before, or left to the other program.
    let broker = replaceable().start();
    let mut codes = Vec::new();
    for code in 0..20 {
        let script = format!("(trap '' TERM; exec sleep 0.01) & exit {code}");
        let child = broker.json().create(json!({"command": ["sh", "-c", script]}));
        broker.signal(Signal::SIGUSR2);
        broker.says("READY=1");
        codes.push((code, child["id"].clone()));
    }
    for (code, id) in codes {
        let ended = broker.json().ok("wait", json!({"target": id}));
        assert_eq!(ended["child"]["exit"]["code"], code, "{ended}");
    }
}

#[test]
fn a_stop_in_progress_goes_on_to_its_end() {
    let broker = replaceable().start();
    let mut hello = broker.fifo("hello");
    let script = "trap 'echo told >\"$1\"' TERM; echo ready >\"$1\"; while :; do sleep 0.05; done";
    let stop = json!([{"signal": "SIGTERM", "grace": 1}]);
    let params = json!({"command": ["sh", "-c", script, "sh", hello.path()], "name": "a", "stop": stop});
    broker.json().create(params);
    assert_eq!(hello.line(), "ready");
    broker.json().ok("destroy", json!({"target": "a", "no_wait": true}));
    assert_eq!(hello.line(), "told");
    upgrade(&broker);
    let ended = broker.json().ok("wait", json!({"target": "a"}));
    let exit = &ended["child"]["exit"];
    assert_eq!((&exit["signal"], &exit["forced"]), (&json!("SIGKILL"), &json!(true)), "{ended}");
    assert_eq!(exit["reason"], "destroyed");
    assert_eq!(hello.rest(), Vec::<String>::new(), "a second SIGTERM");
}

#[test]
fn a_cleanup_in_progress_is_not_begun_again() {
    let broker = replaceable().start();
    let (mut hello, mut go) = (broker.fifo("hello"), broker.fifo("go"));
    let script = "echo begun >\"$1\"; read word <\"$2\"; echo done >\"$1\"";
    let cleanup = json!({"command": ["sh", "-c", script, "sh", hello.path(), go.path()]});
    broker.json().create(with(willing(), &json!({"name": "a", "cleanup": cleanup})));
    broker.json().ok("destroy", json!({"target": "a", "no_wait": true}));
    assert_eq!(hello.line(), "begun");
    upgrade(&broker);
    assert_eq!(broker.json().ok("get", json!({"target": "a"}))["child"]["state"], "cleaning");
    go.say("go");
    let ended = broker.json().ok("wait", json!({"target": "a"}));
    assert_eq!(ended["child"]["cleanup"]["attempts"], 1, "{ended}");
    assert_eq!(ended["child"]["cleanup"]["ok"], true);
    assert_eq!(hello.rest(), ["done"]);
}

#[test]
fn a_daemon_of_a_child_is_found_after_it() {
    for containment in ["auto", "subreaper"] {
        let broker = replaceable().flags(["--containment", containment]).start();
        let mut hello = broker.fifo("hello");
        let child = broker.json().create(with_daemon(&hello));
        let line = hello.line();
        assert!(line.starts_with("daemon "), "{line}");
        upgrade(&broker);
        broker.json().ok("destroy", json!({"target": child["id"]}));
        let left = tagged_processes(hello.path());
        assert_eq!(left, [], "{containment}");
    }
}

#[test]
fn a_client_that_waits_goes_on_with_its_wait() {
    let broker = replaceable().start();
    let client = Broker::at(broker.socket()).unwrap();
    let child = client.command("sleep").arg("infinity").name("a").spawn().unwrap();
    let waiting = {
        let child = child.clone();
        thread::spawn(move || child.wait().unwrap())
    };
    upgrade(&broker);
    child.signal("SIGTERM").unwrap();
    let ended = waiting.join().unwrap();
    assert!(matches!(ended.exit.as_ref().unwrap().status, ExitStatus::Signal(_)), "{ended:?}");
    let upgrade = client.upgrade().unwrap();
    assert_ne!(upgrade.before.instance, upgrade.after.instance);
}

#[test]
fn children_of_a_broker_that_was_killed_go_through_it() {
    let mut broker = replaceable().start();
    let mut go = broker.fifo("go");
    let script = json!({"command": ["sh", "-c", "read word <\"$1\"; exit 7", "sh", go.path()], "name": "a"});
    let child = broker.json().create(script);
    let other = broker.json().create(with(willing(), &json!({"name": "b"})));
    broker.recorded();
    broker.crash_and_start_again();
    upgrade(&broker);
    upgrade(&broker);
    let shown = |name: &str| broker.json().ok("get", json!({"target": name}))["child"].take();
    assert_eq!((&shown("a")["pid"], &shown("b")["pid"]), (&child["pid"], &other["pid"]));
    go.say("go");
    let ended = broker.json().ok("wait", json!({"target": "a"}));
    let exit = &ended["child"]["exit"];
    assert!(exit["code"] == 7 || exit["unknown"] == true, "{ended}");
    let destroyed = broker.json().ok("destroy", json!({"target": "b"}));
    assert_eq!(destroyed["children"].as_array().map(Vec::len), Some(1));
    assert!(!Process(other["pid"].as_i64().unwrap()).is_alive());
}

#[test]
fn what_tells_the_broker_to_stop_is_not_lost_in_it() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut broker = replaceable().start();
        broker.json().create(willing());
        broker.signal(Signal::SIGUSR2);
        broker.signal(signal);
        broker.ended_in_order();
        let mut broker = replaceable().start();
        broker.json().create(willing());
        // Here the other program is at work already, or just about to be.
        let mut client = broker.json();
        client.ok("upgrade", json!({}));
        broker.signal(signal);
        broker.ended_in_order();
    }
}

#[test]
fn its_lock_is_never_free_and_never_somebody_elses() {
    let broker = replaceable().start();
    let (over, path) = (AtomicBool::new(false), broker.state_dir().join("lock"));
    thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut looks = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let file = File::open(&path).expect("the lock of the state folder");
                assert!(Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err(), "it is free");
                looks += 1;
            }
            looks
        });
        for _ in 0..5 {
            upgrade(&broker);
        }
        over.store(true, Ordering::Relaxed);
        assert!(looker.join().unwrap() > 5);
    });
    assert_eq!(broker.setup().refuses().code(), Some(1));
}

#[test]
fn events_keep_their_numbers_and_those_who_subscribe_again_miss_none() {
    let broker = replaceable().start();
    let mut client = broker.json();
    let first = client.ok("events", json!({"since": 0}))["next"].as_u64().unwrap();
    client.create(with(willing(), &json!({"name": "a"})));
    let mut seen: Vec<Value> = (0..3).map(|_| client.notification()).collect();
    let before = broker.status();
    upgrade(&broker);
    let mut client = broker.json();
    let after = client.ok("status", json!({}));
    assert_eq!(after["events_instance"], before["instance"]);
    let since = seen[2]["seq"].as_u64().unwrap() + 1;
    assert_eq!(client.ok("events", json!({"since": since}))["next"], since);
    client.ok("destroy", json!({"target": "a"}));
    seen.extend((0..3).map(|_| client.notification()));
    let kinds: Vec<&str> = seen.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "started", "ready", "stopping", "exited", "ended"]);
    let numbers: Vec<u64> = seen.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(first..first + 6), "{numbers:?}");
    // What was told before is there for others, too.
    let mut another = broker.json();
    another.ok("events", json!({"since": first}));
    let again: Vec<Value> = (0..6).map(|_| another.notification()).collect();
    let plain = |events: &[Value]| -> Vec<Value> {
        let member = |event: &Value| json!([event["seq"], event["at"], event["kind"], event["child"]]);
        events.iter().map(member).collect()
    };
    assert_eq!(plain(&again), plain(&seen));
}
