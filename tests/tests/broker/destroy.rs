//! Destroying children: the steps of the stop, to all that descends from them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::children::{
    attentive, pid_in, script, stubborn, willing, with, with_anonymous_daemon, with_daemon,
    with_stubborn_member,
};
use crate::harness::{Fifo, JsonClient, Process, Setup, TestBroker};

fn destroy(client: &mut JsonClient, child: &Value) -> Value {
    client.ok("destroy", json!({"target": child["id"]}))["children"][0].take()
}

fn signals(child: &Value) -> Vec<&str> {
    let steps = child["exit"]["steps"].as_array().expect("steps");
    steps.iter().map(|step| step["signal"].as_str().expect("a signal")).collect()
}

#[test]
fn a_willing_child_ends_by_its_first_signal() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(willing());
    let ended = destroy(&mut client, &child);
    assert_eq!(ended["state"], "ended");
    assert_eq!(ended["pid"], Value::Null);
    assert_eq!(ended["exit"]["signal"], "SIGTERM");
    assert_eq!(ended["exit"]["reason"], "destroyed");
    assert_eq!(ended["exit"]["forced"], false);
    assert_eq!(signals(&ended), ["SIGTERM"]);
    assert!(!Process(child["pid"].as_i64().unwrap()).is_alive());
    // It is over, and destroying it once more changes nothing.
    assert_eq!(destroy(&mut client, &child), ended);
    assert_eq!(client.got(&child["id"]), ended);
}

#[test]
fn a_child_that_ignores_its_signals_is_killed() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    let stop = json!({"stop": [{"signal": "SIGHUP", "grace": 0.01}, {"signal": "TERM", "grace": "10ms"}, {"signal": 2, "grace": 0}]});
    let child = client.create(with(stubborn(&hello), &stop));
    hello.line();
    let ended = destroy(&mut client, &child);
    assert_eq!(signals(&ended), ["SIGHUP", "SIGTERM", "SIGINT", "SIGKILL"]);
    assert_eq!(ended["exit"]["signal"], "SIGKILL");
    assert_eq!(ended["exit"]["forced"], true);
}

#[test]
fn the_steps_are_those_of_the_destroy_if_it_has_any() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "one", "stop": [{"signal": "SIGHUP", "grace": 300}]})));
    let stop = json!([{"signal": "SIGUSR1", "grace": 300}]);
    let ended = client.ok("destroy", json!({"target": "one", "stop": stop}));
    assert_eq!(signals(&ended["children"][0]), ["SIGUSR1"]);
    client.create(with(willing(), &json!({"name": "one", "stop": [{"signal": "SIGHUP", "grace": 300}]})));
    let ended = client.ok("destroy", json!({"target": "one", "stop": []}));
    assert_eq!(signals(&ended["children"][0]), ["SIGKILL"]);
}

/// The descendant that has said hello has ended when the destroy is answered.
fn takes_along(flags: &[&str], kind: fn(&Fifo) -> Value, forced: bool) {
    let broker = Setup::new().flags(flags).start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    let child = client.create(with(kind(&hello), &json!({"stop": [{"signal": "SIGTERM", "grace": 0.05}]})));
    let descendant = pid_in(&hello.line());
    assert!(descendant.is_alive());
    let ended = destroy(&mut client, &child);
    assert!(!descendant.is_alive(), "{ended}");
    assert_eq!(ended["exit"]["signal"], "SIGTERM", "the main process is willing: {ended}");
    assert_eq!(ended["exit"]["forced"], forced, "{ended}");
}

#[test]
fn a_destroy_kills_the_member_of_the_group_that_ignores_its_signal() {
    takes_along(&[], with_stubborn_member, true);
}

#[test]
fn a_destroy_kills_the_member_of_the_group_that_ignores_its_signal_without_cgroups() {
    takes_along(&["--containment", "subreaper"], with_stubborn_member, true);
}

#[test]
fn a_destroy_kills_a_double_forked_daemon() {
    takes_along(&[], with_daemon, true);
}

#[test]
fn a_destroy_kills_a_double_forked_daemon_without_cgroups() {
    takes_along(&["--containment", "subreaper"], with_daemon, true);
}

#[test]
fn a_destroy_kills_a_daemon_without_environment_where_there_are_cgroups() {
    if TestBroker::start().status()["facilities"]["containment"] == "cgroup" {
        takes_along(&[], with_anonymous_daemon, false);
    }
}

#[test]
fn a_daemon_without_environment_is_found_by_its_output_without_cgroups() {
    let broker = Setup::new().flags(["--containment", "subreaper"]).start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    let stop = json!({"stop": [{"signal": "SIGTERM", "grace": 300}]});
    let child = client.create(with(with_anonymous_daemon(&hello), &stop));
    let daemon = pid_in(&hello.line());
    let ended = destroy(&mut client, &child);
    assert!(!daemon.is_alive());
    assert_eq!((signals(&ended), &ended["exit"]["forced"]), (vec!["SIGTERM"], &json!(false)));
}

#[test]
fn a_daemon_is_asked_to_end_before_it_is_killed() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let broker = Setup::new().flags(flags).start();
        let mut hello = broker.fifo("hello");
        let mut client = broker.json();
        let daemon = "trap \"echo asked >$1; exit\" TERM; echo daemon $$ >\"$1\"; sleep infinity & wait";
        let text = format!("setsid --fork sh -c '{daemon}' daemon \"$1\"; exec sleep infinity");
        let stop = json!({"stop": [{"signal": "SIGTERM", "grace": 300}]});
        let child = client.create(with(script(&hello, &text), &stop));
        let daemon = pid_in(&hello.line());
        let ended = destroy(&mut client, &child);
        assert_eq!(hello.line(), "asked");
        assert!(!daemon.is_alive());
        assert_eq!(
            (signals(&ended), &ended["exit"]["forced"]),
            (vec!["SIGTERM"], &json!(false)),
            "{flags:?}"
        );
    }
}

#[test]
fn a_child_that_ends_by_itself_takes_its_descendants_along() {
    let broker = TestBroker::start();
    let (mut hello, mut go) = (broker.fifo("hello"), broker.fifo("go"));
    let mut client = broker.json();
    let text = "sh -c 'trap \"\" TERM; echo member $$ >\"$1/hello\"; exec sleep infinity' member \"$1\" & \
                read word <\"$1/go\"; exit 7";
    let command = json!(["sh", "-c", text, "sh", broker.folder()]);
    let child = client.create(json!({"command": command, "stop": [{"signal": "TERM", "grace": 0.05}]}));
    let member = pid_in(&hello.line());
    go.say("end");
    let ended = client.ok("wait", json!({"target": child["id"]}))["child"].take();
    assert!(!member.is_alive());
    assert_eq!((&ended["exit"]["code"], &ended["exit"]["reason"]), (&json!(7), &json!("exited")), "{ended}");
}

#[test]
fn a_second_destroy_joins_the_first() {
    let broker = TestBroker::start();
    let (mut hello, mut go) = (broker.fifo("hello"), broker.fifo("go"));
    let (mut first, mut second) = (broker.json(), broker.json());
    let stop = json!({"stop": [{"signal": "SIGTERM", "grace": 300}]});
    let child = first.create(with(attentive(&hello, "child", Some(&go)), &stop));
    assert_eq!(hello.line(), "child there");
    let one = first.send("destroy", json!({"target": child["id"]}));
    assert_eq!(hello.line(), "child asked");
    let other = second.send("destroy", json!({"target": child["id"]}));
    let state = second.ok("get", json!({"target": child["id"]}))["child"]["state"].take();
    assert_eq!(state, "stopping");
    go.say("end");
    let ended = first.answer(one).unwrap();
    assert_eq!(second.answer(other).unwrap(), ended);
    assert_eq!(signals(&ended["children"][0]), ["SIGTERM"]);
    assert_eq!(ended["children"][0]["exit"]["code"], 3);
}

#[test]
fn a_destroy_with_no_wait_is_answered_while_the_child_stops() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    let stop = json!({"name": "one", "stop": [{"signal": "TERM", "grace": 300}]});
    client.create(with(stubborn(&hello), &stop));
    hello.line();
    let answer = client.ok("destroy", json!({"target": "one", "no_wait": true}));
    assert_eq!(answer["children"][0]["state"], "stopping");
    // The name is taken until it has ended; the kill is what ends it.
    assert_eq!(client.refused("create", with(willing(), &json!({"name": "one"}))).kind, "name_taken");
    client.ok("signal", json!({"target": "one", "signal": "KILL", "scope": "all"}));
    let ended = client.ok("wait", json!({"target": answer["children"][0]["id"]}));
    assert_eq!(ended["child"]["exit"]["signal"], "SIGKILL");
}

#[test]
fn a_destroy_by_labels_ends_those_and_no_others() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for (pool, tier) in [("render", "1"), ("render", "2"), ("mail", "1")] {
        client.create(with(willing(), &json!({"labels": {"pool": pool, "tier": tier}})));
    }
    let ended = client.ok("destroy", json!({"target": {"labels": {"pool": "render"}}}));
    assert_eq!(ended["children"].as_array().unwrap().len(), 2);
    let left = client.ok("list", json!({}));
    assert_eq!(left["children"].as_array().unwrap().len(), 1);
    assert_eq!(left["children"][0]["labels"], json!({"pool": "mail", "tier": "1"}));
    client.ok("destroy", json!({"target": {"all": true}}));
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
    assert_eq!(client.ok("destroy", json!({"target": {"all": true}}))["children"], json!([]));
}

#[test]
fn the_way_a_child_ends_is_reported_as_it_was() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["sh", "-c", "exit 42"]}));
    let exit = client.ok("wait", json!({"target": child["id"]}))["child"]["exit"].take();
    assert_eq!(
        (&exit["code"], &exit["reason"], &exit["forced"]),
        (&json!(42), &json!("exited"), &json!(false))
    );
    assert_eq!(exit["steps"], json!([]));
    let child = client.create(willing());
    // Sent by somebody else than the broker.
    kill(Pid::from_raw(i32::try_from(child["pid"].as_i64().unwrap()).unwrap()), Signal::SIGUSR1).unwrap();
    let exit = client.ok("wait", json!({"target": child["id"]}))["child"]["exit"].take();
    assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGUSR1"), &json!("exited")));
    assert!(exit.get("code").is_none());
}

#[test]
fn a_signal_reaches_whom_its_scope_names() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    // One in the group, one outside of it, and the main process, all of them the same program.
    let text = "\"$@\" member & setsid --fork \"$@\" daemon; exec \"$@\" main";
    let attentive = attentive(&hello, "", None)["command"].as_array().unwrap()[..4].to_vec();
    let mut command = vec![json!("sh"), json!("-c"), json!(text), json!("sh")];
    command.extend(attentive);
    let child = client.create(json!({"command": command}));
    let mut there = hello.lines(3);
    there.sort();
    assert_eq!(there, ["daemon there", "main there", "member there"]);
    let target = &child["id"];
    for (scope, expected) in [
        (Value::Null, &["main heard"][..]),
        (json!("main"), &["main heard"]),
        (json!("group"), &["main heard", "member heard"]),
        (json!("all"), &["daemon heard", "main heard", "member heard"]),
    ] {
        let answer = client.ok("signal", json!({"target": target, "signal": "USR1", "scope": scope}));
        assert_eq!(answer["children"][0]["id"], *target);
        let mut heard = hello.lines(expected.len());
        heard.sort();
        assert_eq!(heard, expected, "{scope}");
    }
    client.ok("destroy", json!({"target": target, "stop": []}));
    assert_eq!(client.refused("signal", json!({"target": target, "signal": 10})).kind, "not_found");
}
