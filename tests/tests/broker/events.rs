//! What happens to children, as subscribers are told it.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use procbroker_client::blocking::Broker;
use procbroker_client::protocol::request::EventsParams;
use procbroker_client::{EventKind, Happening};
use serde_json::{Value, json};

use crate::harness::children::{stubborn, willing, with};
use crate::harness::{JsonClient, STRANGER, Setup, TestBroker, is_root};

const CLEANED: &str = r#"{"cleanup": {"command": ["true"]}}"#;

/// A connection that has subscribed.
fn subscribed(broker: &TestBroker, params: Value) -> (JsonClient, Value) {
    let mut client = broker.json();
    let answer = client.ok("events", params);
    (client, answer)
}

/// The next events, whatever they are of.
fn next(client: &mut JsonClient, count: usize) -> Vec<Value> {
    let events: Vec<Value> = (0..count).map(|_| client.notification()).collect();
    assert!(events.iter().all(|event| event["method"] == "event"), "{events:?}");
    events
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().expect("a kind")).collect()
}

/// Reads on until an event of this kind.
fn until(client: &mut JsonClient, kind: &str) -> Vec<Value> {
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Value| event["kind"] != kind) {
        events.extend(next(client, 1));
    }
    events
}

#[test]
fn a_whole_life_is_told_in_its_order() {
    let broker = TestBroker::start();
    let (mut reader, answer) = subscribed(&broker, json!({}));
    let mut client = broker.json();
    let cleaned = serde_json::from_str(CLEANED).unwrap();
    let child = client.create(with(willing(), &cleaned));
    let ended = client.ok("destroy", json!({"target": child["id"]}))["children"][0].take();
    let told = next(&mut reader, 7);
    assert_eq!(kinds(&told), ["created", "started", "ready", "stopping", "exited", "cleaning", "ended"]);
    let first = answer["next"].as_u64().unwrap();
    for (event, seq) in told.iter().zip(first..) {
        assert_eq!((&event["seq"], &event["subscription"]), (&json!(seq), &answer["subscription"]));
        assert_eq!(event["child"]["id"], child["id"]);
    }
    let states: Vec<&str> = told.iter().map(|event| event["child"]["state"].as_str().unwrap()).collect();
    assert_eq!(states[..4], ["starting", "running", "running", "stopping"]);
    assert_eq!(states[5..], ["cleaning", "ended"]);
    assert_eq!(told[1]["child"]["pid"], child["pid"]);
    assert_eq!(told[4]["child"]["exit"]["signal"], "SIGTERM");
    assert_eq!(told[6]["child"], ended);
    assert!(told.windows(2).all(|pair| pair[0]["at"].as_str() <= pair[1]["at"].as_str()));
}

#[test]
fn an_end_without_a_stop_is_told_in_its_order() {
    let broker = TestBroker::start();
    let (mut reader, _) = subscribed(&broker, json!({}));
    let mut client = broker.json();
    client.create(json!({"command": ["sh", "-c", "exit 4"]}));
    let told = until(&mut reader, "ended");
    assert_eq!(kinds(&told), ["created", "started", "ready", "exited", "ended"]);
    assert_eq!(told[3]["child"]["exit"]["code"], 4);
    client.refused("create", json!({"command": ["/no/such/program"]}));
    client.create(with(willing(), &json!({"name": "next"})));
    // Whoever was told that it was created is told that it is over.
    let told = until(&mut reader, "ready");
    let of_failed: Vec<&Value> = told.iter().filter(|event| event["child"]["name"].is_null()).collect();
    if let Some(last) = of_failed.last() {
        assert_eq!(last["kind"], "ended", "{told:?}");
    }
}

#[test]
fn what_happened_before_is_told_to_those_who_ask() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(willing());
    client.ok("destroy", json!({"target": child["id"]}));
    let (mut all, answer) = subscribed(&broker, json!({"since": 1}));
    let told = until(&mut all, "ended");
    assert_eq!(told[0]["seq"], 1);
    let last = told.last().unwrap()["seq"].as_u64().unwrap();
    assert_eq!(answer["next"], last + 1);
    let (mut some, _) = subscribed(&broker, json!({"since": 3}));
    assert_eq!(kinds(&until(&mut some, "ended")), kinds(&told)[2..]);
    // One that asks for nothing before is told only what comes.
    let (mut none, _) = subscribed(&broker, json!({}));
    let (mut coming, _) = subscribed(&broker, json!({"since": last + 1}));
    client.create(willing());
    for reader in [&mut none, &mut coming, &mut all] {
        let event = next(reader, 1).remove(0);
        assert_eq!((&event["seq"], &event["kind"]), (&json!(last + 1), &json!("created")));
    }
}

#[test]
fn only_events_of_children_with_the_labels_are_told() {
    let broker = TestBroker::start();
    let (mut reader, _) = subscribed(&broker, json!({"labels": {"pool": "a", "tier": "1"}}));
    let mut client = broker.json();
    for labels in [json!({"pool": "b", "tier": "1"}), json!({}), json!({"pool": "a"})] {
        client.create(with(willing(), &json!({"labels": labels})));
    }
    let meant = client.create(with(willing(), &json!({"labels": {"pool": "a", "tier": "1", "more": ""}})));
    let told = next(&mut reader, 3);
    assert_eq!(kinds(&told), ["created", "started", "ready"]);
    assert!(told.iter().all(|event| event["child"]["id"] == meant["id"]));
}

#[test]
fn events_of_others_are_not_told() {
    if !is_root() {
        return;
    }
    let stranger = STRANGER.to_string();
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &stranger]).start();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    broker.json().create(willing());
    client.ok("events", json!({"since": 1}));
    broker.json().create(willing());
    let own = client.create(willing());
    let told = next(&mut client, 3);
    assert!(told.iter().all(|event| event["child"]["id"] == own["id"]), "{told:?}");
}

#[test]
fn a_reader_that_does_not_read_is_told_how_much_it_missed() {
    const SUBSCRIPTIONS: usize = 16;
    const CHILDREN: usize = 1_000;
    // Some two thousand events are kept.
    let broker = Setup::new().flags(["--max-kept-bytes", "12582912"]).start();
    let mut slow = broker.json();
    // Each of them is sent each event, so that there is no room soon.
    for _ in 0..SUBSCRIPTIONS {
        slow.ok("events", json!({}));
    }
    let (mut quick, _) = subscribed(&broker, json!({}));
    let quick = std::thread::spawn(move || {
        let told = next(&mut quick, CHILDREN * 3);
        told.windows(2).all(|pair| pair[0]["seq"].as_u64().unwrap() + 1 == pair[1]["seq"])
    });
    let mut client = broker.json();
    for _ in 0..10 {
        let ids: Vec<u64> = (0..CHILDREN / 10).map(|_| client.send("create", willing())).collect();
        for id in ids {
            client.answer(id).expect("a child");
        }
    }
    assert!(quick.join().expect("a reader"), "one that reads misses nothing");
    // Each subscription hears of everything, or of how much it does not hear of.
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut missed = 0;
    while seen.len() < SUBSCRIPTIONS || seen.values().any(|last| *last < CHILDREN as u64 * 3) {
        let told = next(&mut slow, 1).remove(0);
        let last = seen.entry(told["subscription"].as_u64().unwrap()).or_default();
        if told["kind"] == "lagged" {
            let gap = told["missed"].as_u64().unwrap();
            (*last, missed) = (*last + gap, missed + gap);
        } else {
            *last += 1;
            assert_eq!(told["seq"], *last, "{told}");
        }
    }
    assert!(missed > 0, "nothing was missed");
    client.ok("destroy", json!({"target": {"all": true}}));
}

#[test]
fn the_stop_of_the_broker_is_told_before_that_of_its_children() {
    let mut broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let (mut reader, _) = subscribed(&broker, json!({"labels": {"pool": "a"}}));
    let stop = json!({"stop": [{"signal": "TERM", "grace": 0.05}], "labels": {"pool": "a"}});
    broker.json().create(with(stubborn(&hello), &stop));
    hello.line();
    next(&mut reader, 3);
    broker.signal(Signal::SIGTERM);
    let told = until(&mut reader, "ended");
    assert_eq!(kinds(&told), ["shutting_down", "stopping", "exited", "ended"]);
    // It is of no child, and told whatever the labels are.
    assert!(told[0]["child"].is_null());
    assert_eq!(
        (&told[3]["child"]["exit"]["reason"], &told[3]["child"]["exit"]["forced"]),
        (&json!("shutdown"), &json!(true))
    );
    assert_eq!(reader.message(), None);
    broker.ended_in_order();
}

#[test]
fn a_connection_has_no_more_subscriptions_than_its_bound() {
    let broker = Setup::new().flags(["--max-subscriptions", "2"]).start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["true"]}));
    client.ok("wait", json!({"target": child["id"]}));
    let first = client.ok("events", json!({}));
    let second = client.ok("events", json!({}));
    assert_ne!(first["subscription"], second["subscription"]);
    let refused = client.refused("events", json!({}));
    assert_eq!(refused.kind, "limit_exceeded");
    assert!(refused.message.contains("--max-subscriptions"), "{}", refused.message);
    let live = client.create(willing());
    assert_eq!(client.refused("logs", json!({"target": live["id"], "follow": true})).kind, "limit_exceeded");
    // Another connection has its own; one that follows an ended child is free again.
    let mut other = broker.json();
    for _ in 0..5 {
        other.ok("logs", json!({"target": child["id"], "follow": true}));
        assert_eq!(other.notification()["ended"], true);
    }
    other.ok("events", json!({}));
}

#[test]
fn the_rust_client_goes_on_after_a_crash() {
    let mut broker = TestBroker::start();
    let client = Broker::at(broker.socket()).expect("a broker");
    let mut events = client.events(EventsParams::default()).expect("a subscription");
    let child = client.command("sleep").arg("infinity").spawn().unwrap();
    let mut told = |kind| match events.next().unwrap() {
        Happening::Event(event) => {
            assert_eq!((event.kind, event.child.as_ref().unwrap().id), (kind, child.id()));
        }
        Happening::Lagged { .. } | Happening::Restarted => panic!("nothing was missed"),
    };
    told(EventKind::Created);
    told(EventKind::Started);
    told(EventKind::Ready);
    broker.recorded();
    broker.crash_and_start_again();
    child.destroy().unwrap();
    let mut kinds = Vec::new();
    let mut restarts = 0;
    while kinds.last() != Some(&EventKind::Ended) {
        match events.next().unwrap() {
            Happening::Event(event) if event.child.as_ref().is_some_and(|of| of.id == child.id()) => {
                kinds.push(event.kind);
            }
            Happening::Event(_) => {}
            Happening::Restarted => restarts += 1,
            Happening::Lagged { missed } => panic!("{missed} were missed"),
        }
    }
    assert_eq!(kinds, [EventKind::Stopping, EventKind::Exited, EventKind::Ended]);
    assert!(restarts <= 1);
}

#[test]
fn what_has_not_been_read_at_the_exit_comes_all_the_same() {
    const CHILDREN: usize = 60;
    let mut broker = TestBroker::start();
    let (mut reader, _) = subscribed(&broker, json!({"since": 1}));
    let mut client = broker.json();
    let ids: Vec<u64> = (0..CHILDREN).map(|_| client.send("create", willing())).collect();
    for id in ids {
        client.answer(id).expect("a child");
    }
    broker.signal(Signal::SIGTERM);
    let mut last = 0;
    while let Some(event) = reader.message() {
        let seq = event["params"]["seq"].as_u64().expect("a number");
        assert_eq!(seq, last + 1);
        last = seq;
    }
    assert_eq!(
        last,
        1 + CHILDREN as u64 * 6,
        "each child is created, started, ready, stopping, exited and ended"
    );
    broker.ended_in_order();
}

#[test]
fn a_noisy_user_costs_no_other_its_history() {
    if !is_root() {
        return;
    }
    let stranger = STRANGER.to_string();
    let flags = ["--socket-mode", "666", "--allow-user", &stranger, "--max-kept-bytes", "4194304"];
    let broker = Setup::new().flags(flags).start();
    let quiet = broker.json().create(willing());
    let mut noisy = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    // There is room for some six hundred events.
    for _ in 0..300 {
        let child = noisy.create(json!({"command": ["true"]}));
        noisy.ok("wait", json!({"target": child["id"]}));
    }
    let mut reader = broker.json();
    reader.ok("events", json!({"since": 1}));
    let told = next(&mut reader, 4);
    assert_eq!(kinds(&told), ["created", "started", "ready", "lagged"]);
    assert!(told[..3].iter().all(|event| event["child"]["id"] == quiet["id"]));
    noisy.ok("events", json!({"since": 1}));
    assert_eq!(kinds(&next(&mut noisy, 1)), ["lagged"]);
}
