//! Long stops on a terminal: who is waited for is shown, and Ctrl-C ends the waiting alone.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::DONE;
use crate::harness::children::{stubborn, willing, with};
use crate::harness::{TestBroker, await_end, procbroker};

/// The exit status of what SIGINT has ended, as a shell has it.
const INTERRUPTED: i32 = 130;

/// A verb on a terminal of script(1). It is ended with the test, whatever becomes of that.
struct OnTerminal {
    script: Child,
    said: String,
}

impl OnTerminal {
    fn run(broker: &TestBroker, arguments: &str) -> Self {
        let line = format!("stty columns 80; exec {} {arguments}", procbroker().display());
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.env("PROCBROKER_SOCKET", broker.socket()).env("TERM", "xterm").env("NO_COLOR", "1");
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self { script: script.spawn().unwrap(), said: String::new() }
    }

    /// Reads on until this text has come. A verb that does not say it is found by the test runner.
    fn until(&mut self, text: &str) {
        let output = self.script.stdout.as_mut().expect("an open output");
        let mut chunk = [0; 1024];
        while !self.said.contains(text) {
            let length = output.read(&mut chunk).unwrap();
            assert_ne!(length, 0, "it never said {text:?}: {}", self.said);
            self.said.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    }

    /// Types.
    fn types(&mut self, keys: &[u8]) {
        self.script.stdin.as_mut().expect("an open input").write_all(keys).unwrap();
    }

    /// Its exit status, and all that it has said.
    fn ended(mut self) -> (i32, String) {
        let mut rest = Vec::new();
        self.script.stdout.as_mut().expect("an open output").read_to_end(&mut rest).unwrap();
        let status = await_end(&mut self.script).expect("the verb ends").code().expect("an exit status");
        (status, std::mem::take(&mut self.said) + &String::from_utf8_lossy(&rest))
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It may have ended, and been reaped, already.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// A child that ends only by force, and its name.
fn stubborn_child(broker: &TestBroker, name: &str) {
    let mut hello = broker.fifo(name);
    broker.json().create(with(stubborn(&hello), &json!({"name": name})));
    hello.line();
}

#[test]
fn a_long_stop_shows_whom_it_waits_for_and_leaves_the_result_alone() {
    let broker = TestBroker::start();
    stubborn_child(&broker, "one");
    let mut stop = OnTerminal::run(&broker, "destroy one --stop TERM:300s");
    stop.until("one  SIGTERM, 1 of 300 s\r\n");
    stop.until("one  SIGTERM, 2 of 300 s\r\n");
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
    let (status, said) = stop.ended();
    assert_eq!(status, DONE, "{said:?}");
    let (_, result) = said.rsplit_once("\x1b[1A\x1b[J").expect("the line is taken away");
    assert!(result.starts_with("NAME") && result.lines().count() == 2, "{result:?}");
}

#[test]
fn a_stop_that_had_begun_before_shows_no_step_of_somebody_elses() {
    let broker = TestBroker::start();
    stubborn_child(&broker, "one");
    broker.run(&["destroy", "one", "--stop", "TERM:300s", "--no-wait"]);
    let mut stop = OnTerminal::run(&broker, "destroy one --stop HUP:200s");
    stop.until("one  stopping\r\n");
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
    let (status, said) = stop.ended();
    assert_eq!(status, DONE, "{said:?}");
    assert!(!said.contains("SIGHUP"), "{said:?}");
}

#[test]
fn stops_of_children_that_are_not_named_show_their_own_steps() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let steps = json!({"name": "one", "labels": {"pool": "p"}, "stop": [{"signal": "SIGHUP", "grace": 300}]});
    broker.json().create(with(stubborn(&hello), &steps));
    hello.line();
    let mut stop = OnTerminal::run(&broker, "destroy --label pool=p");
    stop.until("one  SIGHUP, 1 of 300 s\r\n");
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
    let (status, said) = stop.ended();
    assert_eq!(status, DONE, "{said:?}");
}

#[test]
fn a_shutdown_shows_the_steps_of_those_that_are_stopped() {
    let mut broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let steps = json!({"name": "one", "stop": [{"signal": "SIGHUP", "grace": 300}]});
    broker.json().create(with(stubborn(&hello), &steps));
    hello.line();
    let mut stop = OnTerminal::run(&broker, "shutdown --timeout 1h");
    stop.until("one  SIGHUP, 1 of 300 s\r\n");
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
    let (status, said) = stop.ended();
    assert_eq!(status, DONE, "{said:?}");
    broker.ended();
}

#[test]
fn a_wait_shows_how_the_child_is() {
    let broker = TestBroker::start();
    stubborn_child(&broker, "one");
    let mut wait = OnTerminal::run(&broker, "wait one --timeout 300s");
    wait.until("one  running, 1 of 300 s\r\n");
    wait.types(b"\x03");
    let (status, said) = wait.ended();
    assert_eq!(status, INTERRUPTED, "{said:?}");
    assert!(said.contains("nothing was stopped"), "{said:?}");
    assert_eq!(broker.json().ok("get", json!({"target": "one"}))["child"]["state"], "running");
}

#[test]
fn ctrl_c_ends_the_waiting_and_the_stop_goes_on() {
    let broker = TestBroker::start();
    stubborn_child(&broker, "one");
    let mut stop = OnTerminal::run(&broker, "destroy one --stop TERM:300s");
    stop.until("one  SIGTERM");
    stop.types(b"\x03");
    let (status, said) = stop.ended();
    assert_eq!(status, INTERRUPTED, "{said:?}");
    assert!(said.contains("the stop goes on"), "{said:?}");
    assert_eq!(broker.json().ok("get", json!({"target": "one"}))["child"]["state"], "stopping");
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
}

#[test]
fn after_ctrl_c_the_stop_of_every_child_goes_on_however_many_are_named() {
    let broker = TestBroker::start();
    let names: Vec<String> = (0..40).map(|number| format!("n{number}")).collect();
    for name in &names {
        stubborn_child(&broker, name);
    }
    let line = format!("destroy {} --stop TERM:300s", names.join(" "));
    let mut stop = OnTerminal::run(&broker, &line);
    stop.until("n0  SIGTERM");
    stop.types(b"\x03");
    let (status, said) = stop.ended();
    assert_eq!(status, INTERRUPTED, "{said:?}");
    assert!(said.contains("procbroker: the stop goes on"), "{said:?}");
    let mut client = broker.json();
    for name in &names {
        assert_eq!(client.ok("get", json!({"target": name}))["child"]["state"], "stopping", "{name}");
    }
    client.ok("signal", json!({"target": {"all": true}, "signal": "KILL"}));
}

#[test]
fn a_create_that_waits_until_its_child_is_ready_shows_it_and_leaves_it_alone() {
    let broker = TestBroker::start();
    for (name, shown) in [("--name one", "one  starting, 1 of 300 s\r\n"), ("", "starting, 1 of 300 s\r\n")] {
        let mut create = OnTerminal::run(
            &broker,
            &format!("create {name} --ready notify --ready-timeout 300s -- sleep 1000"),
        );
        create.until(shown);
        create.types(b"\x03");
        let (status, said) = create.ended();
        assert_eq!(status, INTERRUPTED, "{said:?}");
        assert!(said.contains("the child was started, and goes on: 'procbroker list' shows it"), "{said:?}");
    }
    let children = broker.json().ok("list", json!({}));
    let states: Vec<_> =
        children["children"].as_array().unwrap().iter().map(|child| &child["state"]).collect();
    assert_eq!(states, ["starting", "starting"]);
}

#[test]
fn a_create_that_waits_for_a_place_says_so_and_starts_nothing_after_ctrl_c() {
    let broker = TestBroker::start();
    broker.json().create(with(willing(), &json!({"limit": {"key": "k", "max": 1}})));
    for name in ["--name two", ""] {
        let mut create =
            OnTerminal::run(&broker, &format!("create {name} --limit k=1 --limit-wait 300s -- sleep 1000"));
        create.until("waiting for a place, 1 of 300 s\r\n");
        create.types(b"\x03");
        let (status, said) = create.ended();
        assert_eq!(status, INTERRUPTED, "{said:?}");
        assert!(said.contains("procbroker: nothing was started\r\n"), "{said:?}");
    }
    broker.json().ok("destroy", json!({"target": {"all": true}}));
    assert_eq!(broker.json().ok("list", json!({}))["children"], json!([]));
}

#[test]
fn a_create_in_the_place_of_another_child_shows_the_stop_of_that() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let steps = json!({"name": "one", "stop": [{"signal": "SIGHUP", "grace": 300}]});
    let before = broker.json().create(with(stubborn(&hello), &steps));
    hello.line();
    let mut create = OnTerminal::run(&broker, "create --name one --if-exists replace -- sleep 1000");
    create.until("one  SIGHUP, 1 of 300 s\r\n");
    create.types(b"\x03");
    let (status, said) = create.ended();
    assert_eq!(status, INTERRUPTED, "{said:?}");
    assert!(said.contains("the stop of the child before goes on, and nothing is started"), "{said:?}");
    let mut client = broker.json();
    client.ok("signal", json!({"target": "one", "signal": "KILL"}));
    client.ok("wait", json!({"target": before["id"]}));
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
}

#[test]
fn a_program_on_a_terminal_is_told_what_goes_on_after_ctrl_c() {
    let broker = TestBroker::start();
    stubborn_child(&broker, "one");
    let mut client = broker.json();
    client.ok("events", json!({}));
    let mut stop = OnTerminal::run(&broker, "destroy one --json --stop TERM:300s");
    while client.notification()["kind"] != "stopping" {}
    stop.types(b"\x03");
    let (status, said) = stop.ended();
    assert_eq!(status, INTERRUPTED, "{said:?}");
    assert!(said.contains("{\"message\":\"the stop goes on"), "{said:?}");
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
}

#[test]
fn a_long_name_is_cut_and_what_is_waited_for_is_not() {
    let broker = TestBroker::start();
    let long = "n".repeat(70);
    let mut hello = broker.fifo("hello");
    broker.json().create(with(stubborn(&hello), &json!({"name": long})));
    hello.line();
    let mut stop = OnTerminal::run(&broker, &format!("destroy {long} --stop TERM:300s"));
    stop.until(&format!("{}…  SIGTERM, 1 of 300 s\r\n", "n".repeat(56)));
    broker.json().ok("signal", json!({"target": long, "signal": "KILL"}));
    assert_eq!(stop.ended().0, DONE);
}

#[test]
fn a_shutdown_over_a_stop_that_had_begun_shows_the_time_that_is_left() {
    let mut broker = TestBroker::start();
    stubborn_child(&broker, "one");
    broker.run(&["destroy", "one", "--stop", "TERM:300s", "--no-wait"]);
    let mut stop = OnTerminal::run(&broker, "shutdown --timeout 1h");
    stop.until("one  stopping, 1 of at most 3600 s\r\n");
    broker.json().ok("signal", json!({"target": "one", "signal": "KILL"}));
    let (status, said) = stop.ended();
    assert_eq!(status, DONE, "{said:?}");
    broker.ended();
}

#[test]
fn a_long_stop_is_quiet_in_a_pipe() {
    let broker = TestBroker::start();
    stubborn_child(&broker, "one");
    let said = broker.run(&["destroy", "one", "--stop", "TERM:1200ms"]);
    assert_eq!((said.status, said.out.lines().count(), said.err.as_str()), (DONE, 1, ""), "{said:?}");
}
