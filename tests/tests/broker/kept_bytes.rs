//! What one user makes the broker keep is bounded in bytes: the memory that the kernel counts for it stays small.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, PATIENCE, Setup, TestBroker};

/// The memory that none of this may cost, in MiB: it was a multiple of it before there was a bound.
const ROOM: u64 = 150;

/// How much memory of the broker is resident, in MiB.
fn resident(broker: &TestBroker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.status()["pid"])).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

/// A create with 240 KiB of arguments.
fn long(program: &[&str]) -> Value {
    let argument = "x".repeat(120 << 10);
    let command: Vec<&str> = program.iter().copied().chain([argument.as_str(), argument.as_str()]).collect();
    json!({ "command": command })
}

/// Creates children that end at once, and waits for their ends.
fn end_many(client: &mut JsonClient, count: usize) {
    for _ in 0..count {
        let child = client.create(long(&["true"]));
        client.ok("wait", json!({"target": child["id"]}));
    }
}

#[test]
fn ended_children_with_long_commands_make_room_and_are_shown_shortened() {
    let broker = Setup::new().start();
    let mut client = broker.json();
    let before = resident(&broker);
    end_many(&mut client, 300);
    assert!(resident(&broker) < before + ROOM, "{} of {before} MiB", resident(&broker));
    assert!(broker.log().len() < 8 << 20, "the log has {} bytes", broker.log().len());
    let children = client.ok("list", json!({"all": true}))["children"].clone();
    let shown = children.as_array().unwrap();
    assert!((10..300).contains(&shown.len()), "{}", shown.len());
    for child in shown {
        assert_eq!(child["shortened"], json!(["command"]));
    }
    let whole = client.ok("get", json!({"target": shown[0]["id"]}));
    assert_eq!(whole["child"]["command"], long(&["true"])["command"]);
    assert_eq!(
        (&whole["child"]["shortened"], &whole["spec"]["command"]),
        (&Value::Null, &whole["child"]["command"])
    );
}

#[test]
fn what_was_done_to_many_children_with_long_commands_is_answered() {
    let broker = Setup::new().start();
    let mut client = broker.json();
    end_many(&mut client, 80);
    for _ in 0..60 {
        client.create(long(&["sh", "-c", "exec sleep 1000"]));
    }
    let destroyed = client.ok("destroy", json!({"target": {"all": true}}));
    assert_eq!(destroyed["children"].as_array().unwrap().len(), 60);
    for _ in 0..60 {
        client.create(long(&["sh", "-c", "exec sleep 1000"]));
    }
    let report = client.ok("shutdown", json!({}));
    assert_eq!(report["children"].as_array().unwrap().len(), 60);
}

#[test]
fn creates_that_wait_are_refused_when_there_are_too_many_bytes_of_them() {
    let broker = Setup::new().start();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "n", "ready": "notify", "no_wait": true})));
    let before = resident(&broker);
    let create = with(long(&["true"]), &json!({"name": "n", "if_exists": "reuse"}));
    let mut refused = 0;
    let mut crowd = Vec::new();
    // Each on a connection of its own, so that those that wait hold up none of the others.
    for _ in 0..200 {
        let mut one = broker.json();
        let create = one.send("create", create.clone());
        let status = one.send("status", json!({}));
        one.answer(status).unwrap();
        if one.has_early(&[create]) == [true] {
            assert_eq!(one.answer(create).unwrap_err().kind, "overloaded");
            refused += 1;
        }
        crowd.push(one);
    }
    assert!((100..200).contains(&refused), "{refused} were refused");
    assert!(resident(&broker) < before + ROOM, "{} of {before} MiB", resident(&broker));
    client.ok("destroy", json!({"target": "n"}));
}

#[test]
fn unread_output_of_a_crowd_of_connections_costs_its_user_no_more_than_its_part() {
    let broker = Setup::new().start();
    let mut client = broker.json();
    let script = "yes 0123456789012345678901234567890 | head -c 15000000";
    let child = client.create(json!({"command": ["sh", "-c", script]}));
    client.ok("wait", json!({"target": child["id"]}));
    let before = resident(&broker);
    let logs = json!({"target": child["id"]});
    let mut crowd: Vec<(JsonClient, u64)> = (0..60)
        .map(|_| {
            let mut one = broker.json();
            let asked = one.send("logs", logs.clone());
            (one, asked)
        })
        .collect();
    let (mut last, asked) = crowd.pop().unwrap();
    let refused = last.answer(asked).unwrap_err();
    assert_eq!(refused.kind, "overloaded", "{refused:?}");
    assert!(resident(&broker) < before + ROOM, "{} of {before} MiB", resident(&broker));
    // Who reads is answered when those who do not have gone.
    drop(crowd);
    let text = last.ok("logs", logs)["text"].clone();
    assert_eq!(text.as_str().map(str::len), Some(15_000_000));
}

/// Sends more of this to each of them, as much as they take, again and again while somebody else is served.
fn press(broker: &TestBroker, crowd: &mut [UnixStream], bytes: &[u8]) {
    let mut sent = vec![0; crowd.len()];
    for _ in 0..30 {
        for (stream, sent) in crowd.iter_mut().zip(&mut sent) {
            stream.set_nonblocking(true).unwrap();
            while *sent < bytes.len() {
                match stream.write(&bytes[*sent..]) {
                    Ok(length) => *sent += length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        broker.status();
    }
}

#[test]
fn messages_that_are_not_finished_cost_their_user_no_more_than_its_part() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let before = resident(&broker);
    let mut crowd: Vec<UnixStream> = (0..400).map(|_| broker.raw()).collect();
    let begun = format!("{{\"id\":1,\"method\":\"list\",\"params\":{{\"labels\":{{\"{}", "x".repeat(900_000));
    press(&broker, &mut crowd, begun.as_bytes());
    assert!(resident(&broker) < before + ROOM, "{} of {before} MiB", resident(&broker));
    // What is short is taken all the same, and what is long when there is room again.
    let child = client.create(willing());
    client.ok("destroy", json!({"target": child["id"]}));
    drop(crowd);
    let refused = client.refused("get", json!({"target": "x".repeat(900_000)}));
    assert_ne!(refused.kind, "overloaded", "{refused:?}");
}

#[test]
fn labels_of_subscriptions_cost_their_user_no_more_than_its_part() {
    let broker = TestBroker::start();
    let before = resident(&broker);
    let labels = json!({"labels": {"x": "y".repeat(900_000)}});
    let mut refused = 0;
    let mut crowd: Vec<JsonClient> = (0..20).map(|_| broker.json()).collect();
    for client in &mut crowd {
        for _ in 0..16 {
            if let Err(error) = client.call("events", labels.clone()) {
                assert_eq!(error.kind, "overloaded", "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 300, "{refused} of 320 were refused");
    assert!(resident(&broker) < before + ROOM, "{} of {before} MiB", resident(&broker));
    drop(crowd);
    // The places are given back when the broker has seen that they are closed.
    while broker.json().call("events", labels.clone()).is_err() {}
}

#[test]
fn output_that_is_followed_and_not_read_costs_its_user_no_more_than_its_part() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let (mut go, mut done) = (broker.fifo("go"), broker.fifo("done"));
    let script = "read go <\"$1\"; yes 0123456789 | head -c 12000000; echo done >\"$2\"; exec sleep infinity";
    let child = client.create(json!({"command": ["sh", "-c", script, "sh", go.path(), done.path()]}));
    let before = resident(&broker);
    let follow = json!({"target": child["id"], "follow": true});
    let mut crowd: Vec<JsonClient> = (0..240).map(|_| broker.json()).collect();
    for one in &mut crowd {
        for _ in 0..8 {
            let asked = one.send("logs", follow.clone());
            one.answer(asked).unwrap();
        }
    }
    let mut reader = broker.json();
    let mut seen = reader.ok("logs", follow)["text"].as_str().unwrap().len();
    go.say("go");
    // Its pipe takes 64 KiB: nearly all has been offered to the crowd by then.
    assert_eq!(done.line(), "done");
    // Who reads gets everything all the same, however much of its user's is not read.
    while seen < 12_000_000 {
        seen += reader.notification()["text"].as_str().unwrap().len();
    }
    assert!(resident(&broker) < before + ROOM / 2, "{} of {before} MiB", resident(&broker));
    drop(crowd);
}

#[test]
fn a_client_that_does_not_read_takes_one_descriptor() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    end_many(&mut client, 40);
    let open = |broker: &TestBroker| fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count();
    let before = open(&broker);
    let mut crowd: Vec<UnixStream> = (0..60).map(|_| broker.raw()).collect();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "list", "params": {"all": true}});
    press(&broker, &mut crowd, format!("{request}\n").repeat(20).as_bytes());
    // What is done for a moment takes some as well.
    assert!(open(&broker) <= before + 60 + 20, "{} descriptors, and {before} before", open(&broker));
    drop(crowd);
}

/// How much memory the broker has that is no file's, in KiB.
fn anonymous(broker: &TestBroker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn connections_that_have_had_their_answers_cost_little_and_nothing_once_they_are_gone() {
    const COUNT: u64 = 600;
    let broker = TestBroker::start();
    let long = json!({"labels": {"long": "x".repeat(8_000)}});
    for _ in 0..7 {
        broker.json().create(with(willing(), &long));
    }
    broker.json().ok("list", json!({}));
    let before = anonymous(&broker);
    let mut clients: Vec<JsonClient> = (0..COUNT).map(|_| broker.json()).collect();
    for client in &mut clients {
        assert_eq!(client.ok("list", json!({}))["children"].as_array().unwrap().len(), 7);
    }
    let idle = anonymous(&broker);
    assert!(idle < before + COUNT * 32, "{before} KiB before, {idle} with {COUNT} idle connections");
    drop(clients);
    let began = Instant::now();
    while anonymous(&broker) > before + 3_000 {
        assert!(began.elapsed() < PATIENCE, "{before} KiB before, {} after", anonymous(&broker));
        std::thread::yield_now();
    }
}

#[test]
fn lists_that_a_crowd_of_connections_does_not_read_cost_their_user_no_more_than_its_part() {
    let broker = Setup::new().start();
    let mut client = broker.json();
    let labels: serde_json::Map<String, Value> =
        (0..60).map(|number| (format!("label-{number}"), json!("x".repeat(200)))).collect();
    for _ in 0..40 {
        client.create(with(willing(), &json!({"labels": labels})));
    }
    let before = resident(&broker);
    let mut crowd: Vec<JsonClient> = (0..600).map(|_| broker.json()).collect();
    for one in &mut crowd {
        // What is asked later over a connection is answered later, and each waits for nobody.
        one.send("list", json!({}));
        one.send("list", json!({}));
    }
    // Who has read all that was said is heard beside them.
    let mut last = broker.json();
    assert!(last.ok("list", json!({"fields": ["id"]}))["children"].as_array().unwrap().len() == 40);
    assert!(resident(&broker) < before + ROOM, "{} of {before} MiB", resident(&broker));
    drop(crowd);
    assert_eq!(last.ok("list", json!({}))["children"].as_array().unwrap().len(), 40);
    client.ok("destroy", json!({"target": {"all": true}}));
}
