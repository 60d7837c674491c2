//! Processes that stand still in the midst of execve(2): whoever asks the kernel about one can wait for ever.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::children::willing;
use crate::harness::{STRANGER, Setup, TestBroker, is_root};

/// One that stands still, with a connection to the broker that another process has as well.
struct StandingStill {
    process: Child,
    told: BufReader<ChildStdout>,
}

impl StandingStill {
    /// Returns when it does; none where nobody here can have a file system of their own.
    fn beside(broker: &TestBroker) -> Option<Self> {
        if !is_root() || !Path::new("/dev/fuse").exists() {
            return None;
        }
        let mut process = Command::new("python3")
            .args(["-c", include_str!("standing_still.py")])
            .arg(broker.socket())
            .arg(STRANGER.to_string())
            .arg(broker.path("silent"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let told = BufReader::new(process.stdout.take().unwrap());
        let mut standing = Self { process, told };
        assert_eq!(standing.line(), "stands still");
        Some(standing)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Asks for a child over its connection.
    fn create(&mut self) -> Value {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for StandingStill {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn open_to_strangers() -> Setup {
    Setup::new().flags(["--socket-mode", "666", "--allow-user", &STRANGER.to_string()])
}

#[test]
fn a_caller_that_stands_still_holds_up_nobody_and_gets_its_child() {
    let broker = open_to_strangers().start();
    let Some(mut standing) = StandingStill::beside(&broker) else { return };
    let answer = standing.create();
    assert_eq!(answer["result"]["outcome"], "created", "{answer}");
    let mut client = broker.json();
    let child = client.create(willing());
    client.ok("destroy", json!({"target": child["id"]}));
    drop(standing);
}

#[test]
fn what_is_known_of_a_run_that_has_ended_stays_true_beside_a_process_that_stands_still() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let mut broker = open_to_strangers().flags(flags).start();
        let restart = json!({"policy": "always", "backoff": "1h", "backoff_max": "1h"});
        let mut watcher = broker.json();
        watcher.ok("events", json!({}));
        for (name, ready) in [("one", json!("spawn")), ("asked", json!({"command": ["true"]}))] {
            let script = json!(["sh", "-c", "exit 7"]);
            let extras =
                json!({"command": script, "name": name, "ready": ready, "no_wait": true, "restart": restart});
            broker.json().create(extras);
            while watcher.notification()["kind"] != "restarting" {}
        }
        let Some(standing) = StandingStill::beside(&broker) else { return };
        broker.recorded();
        broker.crash_and_start_again();
        let mut client = broker.json();
        for name in ["one", "asked"] {
            let child = client.got(&json!(name));
            assert_eq!((&child["state"], &child["restarts"]), (&json!("backoff"), &json!(1)), "{child}");
            assert_eq!(child["exit"]["code"], 7, "{child}");
        }
        drop(standing);
        broker.stop();
    }
}

#[test]
fn a_process_that_stands_still_holds_up_neither_a_start_after_a_crash_nor_an_end() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let mut broker = open_to_strangers().flags(flags).start();
        let child = broker.json().create(willing());
        let Some(standing) = StandingStill::beside(&broker) else { return };
        broker.recorded();
        broker.crash_and_start_again();
        let ended = broker.json().ok("destroy", json!({"target": child["id"]}))["children"][0].take();
        assert_eq!((&ended["exit"]["signal"], &ended["exit"]["forced"]), (&json!("SIGTERM"), &json!(false)));
        drop(standing);
        broker.stop();
    }
}
