//! What children write is kept within its bound, shown to those who may see it, and followed to its end.

mod flood;

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::harness::children::{script, willing, with};
use crate::harness::{Fifo, JsonClient, OTHER_STRANGER, STRANGER, Setup, TestBroker, await_end, is_root};

/// A child that writes what is said to it.
fn echoing(orders: &Fifo) -> Value {
    script(orders, "while read -r line; do echo \"$line\"; done <\"$1\"")
}

fn logs(client: &mut JsonClient, params: &Value) -> (String, bool) {
    let answer = client.ok("logs", params.clone());
    assert!(answer.get("subscription").is_none(), "{answer}");
    (answer["text"].as_str().expect("a text").to_owned(), answer["truncated"].as_bool().expect("a flag"))
}

fn whole(text: &str) -> (String, bool) {
    (text.to_owned(), false)
}

/// One that follows, on a connection of its own.
struct Follower {
    client: JsonClient,
    subscription: u64,
    first: String,
}

impl Follower {
    fn of(broker: &TestBroker, params: &Value) -> Self {
        let mut client = broker.json();
        let answer = client.ok("logs", with(json!({"follow": true}), params));
        let first = answer["text"].as_str().expect("a text").to_owned();
        Self { client, subscription: answer["subscription"].as_u64().expect("a subscription"), first }
    }

    /// The next piece, and whether it is the last; none for one that says that something was missed.
    fn piece(&mut self) -> Option<(String, bool)> {
        let message = self.client.message().expect("more output");
        let params = &message["params"];
        assert_eq!(params["subscription"], self.subscription, "{message}");
        if message["method"] == "event" {
            assert_eq!(params["kind"], "lagged", "{message}");
            return None;
        }
        assert_eq!((&message["method"], &params["stream"]), (&json!("log"), &json!("stdout")), "{message}");
        Some((params["text"].as_str().expect("a text").to_owned(), params["ended"] == true))
    }

    /// All that comes, until it ends with this.
    fn until(&mut self, end: &str) -> String {
        let mut all = String::new();
        while !all.ends_with(end) {
            let (text, ended) = self.piece().expect("nothing is missed");
            assert!(!ended, "it ended after {all:?}");
            all.push_str(&text);
        }
        all
    }

    /// All that comes, up to the end; and whether something was missed.
    fn rest(&mut self) -> (String, bool) {
        let (mut all, mut missed) = (String::new(), false);
        loop {
            match self.piece() {
                None => missed = true,
                Some((text, ended)) => {
                    all.push_str(&text);
                    if ended {
                        return (all, missed);
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_child_has_written_is_shown_whole_or_by_its_last_lines() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let command = json!({"name": "one", "command": ["sh", "-c", "echo one; echo two >&2; printf three"]});
    for (stderr, stdout_text, stderr_text) in [
        ("stdout", "one\ntwo\nthree", "one\ntwo\nthree"),
        ("log", "one\nthree", "two\n"),
        ("null", "one\nthree", ""),
    ] {
        let child = client.create(with(command.clone(), &json!({"stderr": stderr})));
        let target = &child["id"];
        client.ok("wait", json!({"target": target}));
        assert_eq!(logs(&mut client, &json!({"target": target})), whole(stdout_text));
        assert_eq!(logs(&mut client, &json!({"target": "one", "stream": "stderr"})), whole(stderr_text));
        assert_eq!(logs(&mut client, &json!({"target": target, "tail": 1})), whole("three"));
        assert_eq!(logs(&mut client, &json!({"target": target, "tail": 0})), whole(""));
    }
    assert_eq!(client.refused("logs", json!({"target": "nobody"})).kind, "not_found");
    assert_eq!(client.refused("logs", json!({"target": "one", "tail": -1})).kind, "invalid_params");
}

#[test]
fn a_child_that_opens_its_output_by_name_wipes_nothing() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let script = "echo one; echo two > /dev/stderr; echo three";
    client.create(json!({"name": "one", "command": ["sh", "-c", script]}));
    client.ok("wait", json!({"target": "one"}));
    assert_eq!(logs(&mut client, &json!({"target": "one"})), whole("one\ntwo\nthree\n"));
}

#[test]
fn lines_are_shown_with_their_times_and_only_those_since_a_time() {
    let broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    let mut client = broker.json();
    client.create(with(echoing(&orders), &json!({"name": "one"})));
    let mut times = Vec::new();
    for line in ["first", "second", "third"] {
        orders.say(line);
        let line = format!("{line}\n");
        let stamped = loop {
            let (text, _) = logs(&mut client, &json!({"target": "one", "tail": 1, "timestamps": true}));
            if text.ends_with(&line) {
                break text;
            }
        };
        let (time, rest) = stamped.split_once(' ').expect("a time and a line");
        assert!(rest == line && time.ends_with('Z') && time.len() == 27, "{stamped}");
        times.push(time.to_owned());
        // Times are told apart from a thousandth of a second on.
        let said = std::time::Instant::now();
        while said.elapsed() < std::time::Duration::from_millis(3) {
            client.ok("status", json!({}));
        }
    }
    assert!(times.is_sorted(), "{times:?}");
    let all = format!("{} first\n{} second\n{} third\n", times[0], times[1], times[2]);
    assert_eq!(logs(&mut client, &json!({"target": "one", "timestamps": true})), whole(&all));
    assert_eq!(logs(&mut client, &json!({"target": "one", "since": times[1]})), whole("second\nthird\n"));
    assert_eq!(logs(&mut client, &json!({"target": "one", "since": "1h", "tail": 1})), whole("third\n"));
    assert_eq!(logs(&mut client, &json!({"target": "one", "since": 0})), whole(""));
    for (flags, expected) in [
        (&["-t"][..], all.as_str()),
        (&["--since", &times[1]], "second\nthird\n"),
        (&["--since", "1h", "-n", "1", "--timestamps"], all.lines().last().unwrap()),
    ] {
        let said = broker.run(&[&["logs", "one"], flags].concat());
        assert_eq!((said.out.trim_end(), said.err.as_str()), (expected.trim_end(), ""), "{said:?}");
    }
    let mut follower =
        Follower::of(&broker, &json!({"target": "one", "since": times[2], "timestamps": true}));
    assert_eq!(follower.first, format!("{} third\n", times[2]));
    orders.say("fourth");
    let stamped = follower.until("\n");
    assert!(stamped.ends_with("Z fourth\n") && stamped > format!("{} ", times[2]), "{stamped}");
    // The next broker knows them too.
    let mut broker = broker;
    broker.crash_and_start_again();
    let (text, _) = logs(&mut broker.json(), &json!({"target": "one", "timestamps": true}));
    assert_eq!(text, format!("{all}{stamped}"));
}

#[test]
fn a_child_that_writes_nothing_takes_no_file_and_leaves_no_pipe() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["true"], "stderr": "log"}));
    client.ok("wait", json!({"target": child["id"]}));
    assert_eq!(logs(&mut client, &json!({"target": child["id"]})), whole(""));
    assert_eq!(broker.kept_of(&child), 0);
    assert!(!broker.pipe_of(&child).exists());
}

#[test]
fn a_file_of_output_that_has_a_second_name_is_neither_written_to_nor_shown() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let mut orders = broker.fifo("orders");
    let child = client.create(echoing(&orders));
    let target = json!({"target": child["id"]});
    orders.say("one");
    while logs(&mut client, &target).0 != "one\n" {}
    let name = format!("{}.out", child["id"].as_str().unwrap());
    std::fs::hard_link(broker.state_dir().join("logs").join(&name), broker.path("link")).unwrap();
    orders.say("two");
    assert_eq!(client.refused("logs", target.clone()).kind, "internal");
    client.ok("destroy", target);
    assert_eq!(std::fs::read_to_string(broker.path("link")).unwrap(), "one\n");
}

#[test]
fn the_output_of_all_children_is_held_to_its_bound_and_the_newest_is_kept() {
    let broker = Setup::new().flags(["--log-bytes", "256k", "--log-total", "1M"]).start();
    let mut client = broker.json();
    let children: Vec<Value> = (0..12)
        .map(|_| {
            let child = client.create(json!({"command": ["seq", "30000"]}));
            client.ok("wait", json!({"target": child["id"]}));
            assert!(logs(&mut client, &json!({"target": child["id"], "tail": 1})).0 == "30000\n");
            child
        })
        .collect();
    let kept: u64 = children.iter().map(|child| broker.kept_of(child)).sum();
    assert!((512 << 10..=1 << 20).contains(&kept), "{kept} bytes are held");
    assert_eq!(broker.kept_of(&children[0]), 0);
    assert_eq!(logs(&mut client, &json!({"target": children[0]["id"]})), (String::new(), true));
}

#[test]
fn what_a_child_writes_is_followed_to_its_end() {
    let broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    let mut client = broker.json();
    client.create(with(echoing(&orders), &json!({"name": "one"})));
    orders.say("before");
    let mut early = Follower::of(&broker, &json!({"target": "one"}));
    // Whether the child has written by then is open; that it is shown once is not.
    let first = if early.first.is_empty() { early.until("\n") } else { early.first.clone() };
    assert_eq!(first, "before\n");
    let mut late = Follower::of(&broker, &json!({"target": "one", "tail": 0}));
    assert_eq!(late.first, "");
    for line in ["caf\u{e9}", "after"] {
        orders.say(line);
        assert_eq!(early.until("\n"), format!("{line}\n"));
        assert_eq!(late.until("\n"), format!("{line}\n"));
    }
    client.ok("destroy", json!({"target": "one"}));
    for follower in [&mut early, &mut late] {
        assert_eq!(follower.rest(), whole(""));
    }
    let mut after = Follower::of(&broker, &json!({"target": "one", "tail": 1}));
    assert_eq!(after.first, "after\n");
    assert_eq!(after.rest(), whole(""));
}

#[test]
fn a_client_that_has_said_everything_is_sent_the_rest_and_then_closed() {
    let broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    let mut client = broker.json();
    client.create(with(echoing(&orders), &json!({"name": "one"})));
    let mut follower = Follower::of(&broker, &json!({"target": "one"}));
    follower.client.half_close();
    orders.say("more");
    assert_eq!(follower.until("\n"), "more\n");
    client.ok("destroy", json!({"target": "one"}));
    assert_eq!(follower.rest(), whole(""));
    assert_eq!(follower.client.message(), None);
}

#[test]
fn a_child_whose_output_is_not_kept_has_none_and_is_followed_to_its_end() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "one", "stdout": "null"})));
    assert_eq!(logs(&mut client, &json!({"target": "one"})), whole(""));
    let mut follower = Follower::of(&broker, &json!({"target": "one"}));
    client.ok("destroy", json!({"target": "one"}));
    assert_eq!(follower.first, "");
    assert_eq!(follower.rest(), whole(""));
}

#[test]
fn a_follower_that_does_not_read_holds_up_nobody() {
    let broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    let mut done = broker.fifo("done");
    let mut client = broker.json();
    // More than sockets and queues can hold, and less than the bound.
    let text = "read -r go <\"$1\"; seq 1 1000000; echo done >\"$2\"; exec sleep infinity";
    let command = json!({"command": ["sh", "-c", text, "sh", orders.path(), done.path()], "name": "one"});
    client.create(command);
    let mut slow = Follower::of(&broker, &json!({"target": "one"}));
    let mut quick = Follower::of(&broker, &json!({"target": "one"}));
    orders.say("go");
    assert_eq!(quick.until("\n999999\n1000000\n").lines().count(), 1_000_000);
    assert_eq!(done.line(), "done");
    assert_eq!(broker.status()["children"]["running"], 1);
    assert_eq!(logs(&mut client, &json!({"target": "one", "tail": 1})), whole("1000000\n"));
    // The child's end is not held up either, and the slow one is sent all that there was.
    client.ok("destroy", json!({"target": "one"}));
    let (rest, missed) = slow.rest();
    assert!(rest.ends_with("\n999999\n1000000\n") && !missed);
    assert_eq!(rest.lines().count(), 1_000_000);
}

#[test]
fn a_follower_that_is_too_slow_is_told_that_it_has_missed_something() {
    let broker = Setup::new().flags(["--log-bytes", "64KiB"]).start();
    let mut orders = broker.fifo("orders");
    let mut done = broker.fifo("done");
    let mut client = broker.json();
    let text = "read -r go <\"$1\"; seq 1 600000; echo done >\"$2\"; exec sleep infinity";
    let child = client.create(json!({"command": ["sh", "-c", text, "sh", orders.path(), done.path()]}));
    let mut slow = Follower::of(&broker, &json!({"target": child["id"]}));
    orders.say("go");
    assert_eq!(done.line(), "done");
    client.ok("destroy", json!({"target": child["id"]}));
    let (rest, missed) = slow.rest();
    assert!(missed && rest.ends_with("\n599999\n600000\n"), "{missed}, {} bytes", rest.len());
    // Where something is missing, a line may have lost its end, and nothing else is in its place.
    assert!(rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'\n'), "a hole was shown");
}

#[test]
fn the_output_of_a_child_is_held_to_its_bound_and_its_end_is_kept() {
    let broker = Setup::new().flags(["--log-bytes", "1MiB"]).start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["seq", "1", "4000000"], "name": "one"}));
    client.ok("wait", json!({"target": "one"}));
    let (text, truncated) = logs(&mut client, &json!({"target": "one"}));
    assert!(broker.kept_of(&child) <= 1 << 20, "{} bytes are held", broker.kept_of(&child));
    assert!(truncated && text.len() > 3 << 18, "{} bytes", text.len());
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(numbers[0]..=4_000_000), "lines are missing after {}", numbers[0]);
    let lines = json!({"target": "one", "tail": 2});
    assert_eq!(logs(&mut client, &lines), whole("3999999\n4000000\n"));
}

#[test]
fn the_output_of_others_is_not_shown() {
    if !is_root() {
        return;
    }
    let broker = Setup::new()
        .flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()])
        .flags(["--allow-user", &OTHER_STRANGER.to_string()])
        .start();
    let mut owner = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    owner.create(json!({"command": ["echo", "secret"], "name": "one", "lifetime": "broker"}));
    owner.ok("wait", json!({"target": "one"}));
    assert_eq!(logs(&mut owner, &json!({"target": "one"})), whole("secret\n"));
    assert_eq!(logs(&mut broker.json(), &json!({"target": "one"})), whole("secret\n"));
    let mut other = JsonClient::as_user(broker.socket(), OTHER_STRANGER, &[OTHER_STRANGER]);
    for follow in [false, true] {
        let refused = other.refused("logs", json!({"target": "one", "follow": follow}));
        assert!(["not_found", "permission_denied"].contains(&refused.kind.as_str()), "{refused:?}");
        assert!(!refused.message.contains("secret"), "{refused:?}");
    }
}

#[test]
fn a_child_of_another_user_can_open_its_output_by_name() {
    if !is_root() {
        return;
    }
    let broker = TestBroker::start();
    let mut client = broker.json();
    // Neither wipes what is there.
    let script = "echo one > /dev/stdout && echo two > /dev/stderr && echo three";
    for (name, stderr, expected) in [
        ("one", "stdout", ["one\ntwo\nthree\n", "one\ntwo\nthree\n"]),
        ("two", "log", ["one\nthree\n", "two\n"]),
    ] {
        client.create(json!({
            "command": ["sh", "-c", script], "name": name, "stderr": stderr, "user": STRANGER, "groups": [],
        }));
        let child = client.ok("wait", json!({"target": name}))["child"].take();
        assert_eq!(child["exit"]["code"], 0, "{child}");
        for (stream, expected) in ["stdout", "stderr"].into_iter().zip(expected) {
            assert_eq!(logs(&mut client, &json!({"target": name, "stream": stream})), whole(expected));
        }
    }
}

/// `procbroker logs --follow`, and what it writes.
fn following(broker: &TestBroker, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = broker.verb(&["logs", "--follow", "one"]);
    let mut process = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the program");
    let output = BufReader::new(process.stdout.take().expect("a pipe"));
    (process, output)
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    line
}

#[test]
fn the_command_line_shows_output_as_it_is_and_follows_it() {
    let broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    let mut client = broker.json();
    client.create(with(echoing(&orders), &json!({"name": "one"})));
    let (mut raw, mut raw_output) = following(&broker, &[]);
    let (mut json_process, mut json_output) = following(&broker, &["--json"]);
    let answer: Value = serde_json::from_str(&line(&mut json_output)).expect("the answer");
    assert_eq!(answer["text"], "");
    orders.say("\u{1b}[31mred");
    assert_eq!(line(&mut raw_output), "\u{1b}[31mred\n");
    let piece: Value = serde_json::from_str(&line(&mut json_output)).expect("a piece");
    assert_eq!(piece["text"], "\u{1b}[31mred\n");
    let said = broker.run(&["logs", "one", "--tail", "1"]);
    assert_eq!((said.status, said.out.as_str()), (0, "\u{1b}[31mred\n"), "{said:?}");
    client.ok("destroy", json!({"target": "one"}));
    let end: Value = serde_json::from_str(&line(&mut json_output)).expect("the end");
    assert_eq!((&end["text"], &end["ended"]), (&json!(""), &json!(true)));
    for (process, output) in [(&mut raw, &mut raw_output), (&mut json_process, &mut json_output)] {
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert_eq!(await_end(process).expect("an end").code(), Some(0));
    }
    let said = broker.run(&["logs", "nobody"]);
    assert_eq!((said.status, said.out.as_str()), (3, ""), "{said:?}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_quietly_even_while_the_child_is_silent() {
    let broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    broker.json().create(with(echoing(&orders), &json!({"name": "one"})));
    orders.say("first");
    let (mut process, mut output) = following(&broker, &[]);
    assert_eq!(line(&mut output), "first\n");
    drop(output);
    assert_eq!(await_end(&mut process).expect("an end").code(), Some(0));
}
