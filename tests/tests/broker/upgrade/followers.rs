//! Those who follow what a child writes, over upgrades and a crash: each has every line once, in order.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use procbroker_client::LogChunk;
use procbroker_client::blocking::{Broker, LogFollow};
use procbroker_protocol::Target;
use procbroker_protocol::request::{LogStream, LogsParams};
use serde_json::json;

use super::heavy::counter;
use super::{replaceable, upgrade};
use crate::harness::{PATIENCE, TestBroker};

const UPGRADES: usize = 10;

/// Where the Python client is.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/python/src");

const FOLLOW: &str = "
import sys
from procbroker import Broker
with Broker(sys.argv[1]) as broker, broker.follow('counter') as follow:
    for piece in follow:
        sys.stdout.write(piece)
        sys.stdout.flush()
    assert not follow.truncated and follow.missed == 0, follow.missed
";

fn follow(broker: &TestBroker, name: &str) -> LogFollow {
    let params = LogsParams {
        target: Target::from_text(name).unwrap(),
        stream: LogStream::Stdout,
        tail: None,
        follow: true,
        since: None,
        timestamps: false,
        position: None,
    };
    Broker::at(broker.socket()).unwrap().follow(params).unwrap()
}

/// All that comes, up to the end.
fn rest(mut follow: LogFollow) -> String {
    let mut text = follow.first().text.clone();
    while let Some(chunk) = follow.next().unwrap() {
        match chunk {
            LogChunk::Text { text: piece, .. } => text.push_str(&piece),
            LogChunk::Lagged { missed } => panic!("{missed} pieces were missed"),
        }
    }
    text
}

/// Lets a program write to a file what it follows, and waits until it has something.
fn started(mut program: Command, output: &Path) -> Child {
    let file = File::create(output).unwrap();
    let program = program.stdin(Stdio::null()).stdout(file).spawn().unwrap();
    let began = Instant::now();
    while fs::metadata(output).unwrap().len() == 0 {
        assert!(began.elapsed() < PATIENCE, "{} stays empty", output.display());
        thread::yield_now();
    }
    program
}

/// What it has written when it has come to its end.
fn followed(mut program: Child, output: &Path) -> String {
    assert!(program.wait().unwrap().success());
    fs::read_to_string(output).unwrap()
}

#[test]
fn every_line_comes_once_and_in_order_over_ten_upgrades() {
    let broker = replaceable().start();
    let child = counter(&broker);
    let in_rust = follow(&broker, "counter");
    let in_rust = thread::spawn(move || rest(in_rust));
    let (shown, read) = (broker.path("shown"), broker.path("read"));
    let by_verb = started(broker.verb(&["logs", "--follow", "counter"]), &shown);
    let mut python = Command::new("python3");
    python.args(["-c", FOLLOW]).arg(broker.socket()).env("PYTHONPATH", PYTHON);
    let in_python = started(python, &read);
    for _ in 0..UPGRADES {
        upgrade(&broker);
    }
    let mut client = broker.json();
    client.ok("destroy", json!({"target": "counter"}));
    let all = client.ok("logs", json!({"target": child["id"]}));
    let all = all["text"].as_str().unwrap();
    let numbers = all.lines().filter_map(|line| line.parse::<u64>().ok());
    assert!(numbers.clone().count() > UPGRADES && numbers.eq(1..all.lines().count() as u64), "{all:.100}");
    for (follower, text) in [
        ("the Rust client", in_rust.join().unwrap()),
        ("the command line", followed(by_verb, &shown)),
        ("the Python client", followed(in_python, &read)),
    ] {
        let differs = text.lines().zip(all.lines()).position(|(one, other)| one != other);
        let (ours, whole) = (text.lines().count(), all.lines().count());
        assert!(text == all, "{follower} has {ours} of {whole} lines, and differs from line {differs:?} on");
    }
}

#[test]
fn a_follower_goes_on_after_a_crash() {
    let mut broker = replaceable().start();
    let mut go = broker.fifo("go");
    let script = "while read word <\"$1\"; do echo \"$word\"; [ \"$word\" = end ] && exit; done";
    broker.json().create(json!({"command": ["sh", "-c", script, "sh", go.path()], "name": "echo"}));
    let mut follow = follow(&broker, "echo");
    go.say("before");
    let text = |chunk| match chunk {
        Some(LogChunk::Text { text, .. }) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(follow.first().text.clone() + &text(follow.next().unwrap()), "before\n");
    broker.recorded();
    broker.crash_and_start_again();
    // It has opened the pipe again by then: what a child writes that ends before that goes with it.
    assert_eq!(broker.json().ok("get", json!({"target": "echo"}))["child"]["state"], "running");
    go.say("end");
    assert_eq!(text(follow.next().unwrap()), "end\n");
    assert_eq!(follow.next().unwrap(), None);
}

#[test]
fn a_position_leads_any_client_to_what_comes_behind_it() {
    let broker = replaceable().start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["printf", "one\ntwo\nthree\n"]}));
    client.ok("wait", json!({"target": child["id"]}));
    let answer = client.ok("logs", json!({"target": child["id"], "position": 4}));
    assert_eq!(
        (&answer["text"], &answer["position"], &answer["id"]),
        (&json!("two\nthree\n"), &json!(14), &child["id"])
    );
    let answer = client.ok("logs", json!({"target": child["id"], "position": 4, "follow": true}));
    assert_eq!((&answer["text"], &answer["position"]), (&json!(""), &json!(4)));
    let piece = client.notification();
    assert_eq!((&piece["text"], &piece["position"]), (&json!("two\nthree\n"), &json!(14)));
    let refused = client.refused("logs", json!({"target": child["id"], "position": 4, "tail": 1}));
    assert_eq!(refused.kind, "invalid_params");
    // Nothing is behind the end of what was ever written, and that is told.
    let beyond = client.ok("logs", json!({"target": child["id"], "position": 99}));
    assert_eq!(
        (&beyond["text"], &beyond["truncated"], &beyond["position"]),
        (&json!(""), &json!(true), &json!(14))
    );
}
