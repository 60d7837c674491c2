//! What children write, as clients are shown it: at once, and piece by piece as it comes.

use nix::sys::signal::Signal;
use procbroker_client::LogChunk;
use procbroker_client::blocking::Broker;
use procbroker_client::protocol::Target;
use procbroker_client::protocol::request::{LogStream, LogsParams};
use serde_json::{Value, json};

use crate::harness::children::{script, willing, with};
use crate::harness::{JsonClient, STRANGER, Setup, TestBroker, is_root, result_of};

/// One that repeats each line that is written to `PIPE.go`, until that is `end`.
const ECHO: &str =
    "while read word <\"$1.go\"; do [ $word = end ] && exit 0; echo $word; echo said >\"$1\"; done";

fn logs(client: &mut JsonClient, params: Value) -> (String, bool) {
    let answer = client.ok("logs", params);
    assert!(answer["subscription"].is_null(), "{answer}");
    (answer["text"].as_str().expect("text").to_owned(), answer["truncated"].as_bool().expect("whether"))
}

fn ended(client: &mut JsonClient, script: &str, more: &Value) -> Value {
    let child = client.create(with(json!({"command": ["sh", "-c", script]}), more));
    client.ok("wait", json!({"target": child["id"]}))["child"].take()
}

/// What a subscription sends until the end.
fn to_the_end(client: &mut JsonClient, subscription: &Value) -> String {
    let mut text = String::new();
    loop {
        let piece = client.notification();
        assert_eq!((&piece["method"], &piece["subscription"]), (&json!("log"), subscription));
        text.push_str(piece["text"].as_str().expect("text"));
        if piece["ended"] == true {
            return text;
        }
    }
}

#[test]
fn the_last_lines_are_shown_or_all_of_them() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = ended(&mut client, "seq 10; printf unfinished", &json!({}));
    let target = &child["id"];
    let all = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\nunfinished";
    assert_eq!(logs(&mut client, json!({"target": target})), (all.to_owned(), false));
    for (tail, expected) in [(0, ""), (1, "unfinished"), (3, "9\n10\nunfinished"), (11, all), (1000, all)] {
        let shown = logs(&mut client, json!({"target": target, "tail": tail}));
        assert_eq!(shown, (expected.to_owned(), false), "the last {tail}");
    }
    let said = broker.run(&["logs", target.as_str().unwrap(), "--tail", "2"]);
    assert_eq!((said.status, said.out.as_str()), (0, "10\nunfinished"), "{said:?}");
}

#[test]
fn each_stream_has_its_own_text() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let says = "echo out; echo err >&2";
    let both = ended(&mut client, says, &json!({}));
    let apart = ended(&mut client, says, &json!({"stderr": "log"}));
    let silent = ended(&mut client, says, &json!({"stdout": "null"}));
    for (child, stream, text) in [
        (&both, "stdout", "out\nerr\n"),
        (&both, "stderr", "out\nerr\n"),
        (&apart, "stdout", "out\n"),
        (&apart, "stderr", "err\n"),
        (&silent, "stdout", ""),
    ] {
        let shown = logs(&mut client, json!({"target": child["id"], "stream": stream}));
        assert_eq!(shown, (text.to_owned(), false), "{stream} of {child}");
    }
    assert_eq!(client.refused("logs", json!({"target": "nobody"})).kind, "not_found");
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = ended(&mut client, "printf 'a\\377\\303\\244\\n'", &json!({}));
    assert_eq!(logs(&mut client, json!({"target": child["id"]})).0, "a\u{fffd}ä\n");
}

#[test]
fn output_is_followed_to_the_end_of_the_child() {
    let broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
    let mut client = broker.json();
    let child = client.create(script(&pipe, ECHO));
    go.say("before");
    assert_eq!(pipe.line(), "said");
    let answer = client.ok("logs", json!({"target": child["id"], "follow": true}));
    assert_eq!((&answer["text"], &answer["truncated"]), (&json!("before\n"), &json!(false)));
    for word in ["one", "two"] {
        go.say(word);
        assert_eq!(pipe.line(), "said");
        let piece = client.notification();
        assert_eq!((&piece["text"], &piece["stream"]), (&json!(format!("{word}\n")), &json!("stdout")));
        assert_ne!(piece["ended"], true);
    }
    // The connection serves other requests meanwhile.
    client.ok("status", json!({}));
    go.say("end");
    assert_eq!(to_the_end(&mut client, &answer["subscription"]), "");
    client.ok("status", json!({}));
}

#[test]
fn what_is_left_of_an_ended_child_is_followed_to_its_end() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = ended(&mut client, "seq 3", &json!({}));
    let answer = client.ok("logs", json!({"target": child["id"], "follow": true}));
    assert_eq!(answer["text"], "1\n2\n3\n");
    assert_eq!(to_the_end(&mut client, &answer["subscription"]), "");
}

#[test]
fn a_client_that_has_closed_its_side_is_sent_the_rest() {
    let broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
    let child = broker.json().create(script(&pipe, ECHO));
    let mut client = broker.json();
    let asked = client.send("logs", json!({"target": child["id"], "follow": true}));
    client.half_close();
    let answer = client.answer(asked).unwrap();
    go.say("one");
    assert_eq!(pipe.line(), "said");
    go.say("end");
    assert_eq!(to_the_end(&mut client, &answer["subscription"]), "one\n");
    assert_eq!(client.message(), None);
}

#[test]
fn the_rust_client_follows_to_the_end() {
    let broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
    let child = broker.json().create(with(script(&pipe, ECHO), &json!({"name": "one"})));
    go.say("before");
    assert_eq!(pipe.line(), "said");
    let client = Broker::at(broker.socket()).expect("a broker");
    let target: Target = serde_json::from_value(child["name"].clone()).unwrap();
    let params = LogsParams {
        target,
        stream: LogStream::Stdout,
        tail: Some(5),
        follow: true,
        since: None,
        timestamps: false,
        position: None,
    };
    let mut follow = client.follow(params).expect("a subscription");
    assert_eq!(follow.first().text, "before\n");
    go.say("after");
    let text = "after\n".to_owned();
    assert_eq!(follow.next().unwrap(), Some(LogChunk::Text { stream: LogStream::Stdout, text }));
    go.say("end");
    assert_eq!(follow.next().unwrap(), None);
}

#[test]
fn the_oldest_output_is_released_beyond_the_bound() {
    let broker = Setup::new().flags(["--log-bytes", "64k"]).start();
    let mut client = broker.json();
    let child = ended(&mut client, "seq 200000", &json!({}));
    let (text, truncated) = logs(&mut client, json!({"target": child["id"]}));
    assert!(truncated && text.len() > 32 << 10, "{} bytes are kept", text.len());
    assert!(text.ends_with("199999\n200000\n"));
    let lines: Vec<u32> = text.lines().map(|line| line.parse().expect("a whole line")).collect();
    assert!(lines.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert!(broker.kept_of(&child) <= 64 << 10, "the disk has it still");
    let tail = logs(&mut client, json!({"target": child["id"], "tail": 2}));
    assert_eq!(tail, ("199999\n200000\n".to_owned(), false));
}

#[test]
fn a_follower_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    const LINES: u32 = 700_000;
    let broker = TestBroker::start();
    let mut slow = broker.json();
    let mut client = broker.json();
    let mut go = broker.fifo("go");
    let command =
        json!({"command": ["sh", "-c", format!("read word <\"$1\"; seq {LINES}"), "sh", go.path()]});
    let child = client.create(command);
    let answer = slow.ok("logs", json!({"target": child["id"], "follow": true}));
    go.say("on");
    let ended = client.ok("wait", json!({"target": child["id"]}));
    assert_eq!(ended["child"]["exit"]["code"], 0);
    for _ in 0..100 {
        client.ok("status", json!({}));
    }
    let text = to_the_end(&mut slow, &answer["subscription"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), usize::try_from(LINES).unwrap());
    assert!(lines.iter().zip(1..=LINES).all(|(line, number)| *line == number.to_string()));
}

#[test]
fn the_output_of_others_is_not_there() {
    if !is_root() {
        return;
    }
    let stranger = STRANGER.to_string();
    let broker = Setup::new().flags(["--socket-mode", "666", "--allow-user", &stranger]).start();
    let own = broker.json().create(with(willing(), &json!({"name": "of-root"})));
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    for target in [&own["id"], &own["name"]] {
        for follow in [false, true] {
            let refused = client.refused("logs", json!({"target": target, "follow": follow}));
            assert_eq!(refused.kind, "not_found", "{refused:?}");
        }
    }
    let child = ended(&mut client, "echo mine", &json!({}));
    assert_eq!(logs(&mut client, json!({"target": child["id"]})).0, "mine\n");
    // Root sees everything; the file itself is root's.
    assert_eq!(logs(&mut broker.json(), json!({"target": child["id"]})).0, "mine\n");
}

#[test]
fn output_that_is_on_its_way_at_the_exit_is_sent_or_said_not_to_be() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    // More than the buffers of a socket take.
    let child = ended(&mut client, "head -c 4000000 /dev/zero | tr '\\0' x", &json!({}));
    let ids: Vec<u64> = (0..8).map(|_| client.send("logs", json!({"target": child["id"]}))).collect();
    broker.status();
    broker.signal(Signal::SIGTERM);
    while let Some(message) = client.message() {
        assert!(ids.contains(&message["id"].as_u64().expect("an id")), "{message:.200}");
        match result_of(&message) {
            Ok(result) => assert_eq!(result["text"].as_str().expect("text").len(), 4_000_000),
            Err(refused) => {
                assert_eq!(refused.kind, "shutting_down");
                assert!(refused.message.contains("before it has sent the output"), "{}", refused.message);
            }
        }
    }
    broker.ended_in_order();
}
