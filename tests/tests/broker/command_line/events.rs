//! `events`: which of them are shown, and how it ends.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::shown::Shown;
use super::{DENIED, DONE, NO_BROKER, USAGE, failed};
use crate::harness::children::{willing, with};
use crate::harness::{STRANGER, Said, TestBroker, is_root, procbroker_in};

/// Starts a child and destroys it: `created`, `started`, `ready`, `stopping`, `exited`, `ended`.
fn live(broker: &TestBroker, more: &Value) -> Value {
    let mut client = broker.json();
    let child = client.create(with(willing(), more));
    client.ok("destroy", json!({"target": child["id"]}));
    child
}

#[test]
fn a_pipe_gets_a_line_for_each_event_with_its_number_first() {
    let broker = TestBroker::start();
    let child = live(&broker, &json!({"name": "one"}));
    let mut shown = Shown::by(&broker, &["events", "--since", "1"]);
    let lines: Vec<String> = (0..6).map(|_| shown.line()).collect();
    let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let column = |index: usize| fields.iter().map(|line| line[index]).collect::<Vec<_>>();
    assert_eq!(column(0), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(column(2), ["created", "started", "ready", "stopping", "exited", "ended"]);
    assert!(column(3).iter().all(|id| *id == child["id"]), "{lines:?}");
    assert!(column(4).iter().all(|name| *name == "one"), "{lines:?}");
    let pid = child["pid"].to_string();
    assert_eq!(column(5), ["-", &pid, &pid, &pid, "-", "-"]);
    assert_eq!(column(6), ["-", "-", "-", "-", "SIGTERM", "SIGTERM"]);
    let at = column(1);
    assert!(at.is_sorted() && at.iter().all(|at| at.ends_with('Z')), "{at:?}");
    // It goes on from the number that it is told.
    let mut later = Shown::by(&broker, &["events", "--since", "5"]);
    assert_eq!([later.line(), later.line()], lines[4..]);
    live(&broker, &json!({"name": "two"}));
    for shown in [&mut shown, &mut later] {
        assert!(shown.line().starts_with("7\t"));
    }
}

#[test]
fn a_label_chooses_children_and_several_have_to_be_there_all() {
    let broker = TestBroker::start();
    for labels in [json!({"pool": "a"}), json!({"pool": "b", "tier": "x=y"}), json!({})] {
        live(&broker, &json!({"labels": labels}));
    }
    let chosen = live(&broker, &json!({"labels": {"pool": "a", "tier": "x=y"}}));
    let both = ["events", "--since", "0", "--label", "pool=a", "--label", "tier=x=y", "--json"];
    let mut shown = Shown::by(&broker, &both);
    for kind in ["created", "started", "ready", "stopping", "exited", "ended"] {
        let event: Value = serde_json::from_str(&shown.line()).expect("an object a line");
        assert_eq!((&event["kind"], &event["child"]["id"]), (&json!(kind), &chosen["id"]));
    }
    let mut either = Shown::by(&broker, &["events", "--since", "0", "--label", "pool=a"]);
    let ids: Vec<String> =
        (0..12).map(|_| either.line().split('\t').nth(3).expect("an id").to_owned()).collect();
    assert_ne!(ids[0], ids[11]);
    assert_eq!(chosen["id"], ids[11].as_str());
}

#[test]
fn json_is_what_is_on_the_wire() {
    let broker = TestBroker::start();
    live(&broker, &json!({"name": "one", "cleanup": {"command": ["false"]}}));
    let mut client = broker.json();
    let subscribed = client.ok("events", json!({"since": 1}));
    let mut shown = Shown::by(&broker, &["events", "--since", "1", "--json"]);
    for _ in 0..7 {
        let mut event: Value = serde_json::from_str(&shown.line()).expect("an object a line");
        let mut on_the_wire = client.notification();
        on_the_wire.as_object_mut().unwrap().remove("method");
        // Each connection has numbers of its own.
        assert_eq!(on_the_wire["subscription"].take(), subscribed["subscription"]);
        assert!(event["subscription"].take().is_u64(), "{event}");
        assert_eq!(event, on_the_wire);
    }
}

#[test]
fn without_since_only_what_comes_is_shown() {
    let broker = TestBroker::start();
    live(&broker, &json!({"name": "before"}));
    let mut shown = Shown::by(&broker, &["events"]);
    // It says nothing when it has subscribed; so there is one child after the other until it has.
    while !shown.has_output() {
        live(&broker, &json!({"name": "after"}));
    }
    let first = shown.line();
    assert!(!first.contains("before"), "{first}");
    assert!(first.split('\t').next().unwrap().parse::<u64>().unwrap() > 6, "{first}");
}

#[test]
fn a_reader_that_is_gone_ends_it_though_nothing_happens() {
    let broker = TestBroker::start();
    live(&broker, &json!({}));
    let mut shown = Shown::by(&broker, &["events", "--since", "1"]);
    for _ in 0..6 {
        shown.line();
    }
    shown.close();
    let said = shown.ended();
    assert_eq!((said.status, said.err.as_str()), (DONE, ""), "{said:?}");
}

#[test]
fn it_goes_on_after_a_crash_and_ends_with_the_orderly_end_of_the_broker() {
    let mut broker = TestBroker::start();
    live(&broker, &json!({}));
    let mut shown = Shown::by(&broker, &["events", "--since", "6"]);
    assert!(shown.line().starts_with("6\t"));
    broker.crash_and_start_again();
    assert!(shown.complaint().contains("started anew"));
    broker.json().create(with(willing(), &json!({"name": "next"})));
    let line = shown.line();
    assert!(line.contains("\tcreated\t") && line.contains("\tnext\t"), "{line}");
    broker.signal(Signal::SIGTERM);
    let said = shown.ended();
    broker.ended_in_order();
    assert_eq!(said.status, DONE, "{said:?}");
    assert!(said.out.contains("\tshutting_down\t-\t-\t-\t-\n"), "{said:?}");
    assert!(said.out.contains("\tended\t") && said.err.lines().count() <= 1, "{said:?}");
}

#[test]
fn it_fails_when_the_broker_is_lost_and_none_comes_back() {
    let mut broker = TestBroker::start();
    live(&broker, &json!({}));
    let mut shown = Shown::by(&broker, &["events", "--since", "6"]);
    assert!(shown.line().starts_with("6\t"));
    broker.crash();
    let said = shown.ended();
    assert_eq!(said.status, NO_BROKER, "{said:?}");
    assert!(said.err.contains(broker.socket().to_str().unwrap()), "{said:?}");
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    let broker = TestBroker::start();
    for (arguments, named) in [
        (&["events", "--since", "soon"][..], "--since"),
        (&["events", "--since", "-1"], "-1"),
        (&["events", "--since", "99999999999999999999"], "--since"),
        (&["events", "--label", "pool"], "--label"),
        (&["events", "--label", "pool=a", "--label", "pool=b"], "pool"),
        (&["events", "one"], "one"),
    ] {
        failed(&broker.run(arguments), USAGE, named);
    }
}

#[test]
fn without_a_broker_or_the_right_to_it_it_ends_at_once() {
    let broker = TestBroker::start();
    let nowhere = broker.path("nowhere");
    let arguments = ["events", "--socket", nowhere.to_str().unwrap()];
    failed(&broker.run(&arguments), NO_BROKER, nowhere.to_str().unwrap());
    let said = broker.run(&["events", "--json", "--socket", nowhere.to_str().unwrap()]);
    assert_eq!((said.status, said.out.as_str()), (NO_BROKER, ""), "{said:?}");
    let error: Value = serde_json::from_str(&said.err).expect("an error object");
    assert!(error["message"].as_str().unwrap().contains("nowhere"), "{error}");
    if is_root() {
        let mut events = std::process::Command::new("setpriv");
        let id = STRANGER.to_string();
        events.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        events.arg(procbroker_in(broker.folder())).args(["events", "--socket"]).arg(broker.socket());
        failed(&Said::by(&mut events), DENIED, broker.socket().to_str().unwrap());
    }
}
