//! Promise 6 at its worst: two thousand connections of other users, while one user works.

mod children;
mod holding;
mod lingering;
mod standing_still;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::harness::{JsonClient, OTHER_STRANGER, PATIENCE, STRANGER, Setup, TestBroker, is_root};

/// A user who may not even connect.
const OUTSIDER: u32 = 64_003;

/// What the connections of a crowd do, and who they are.
const CONDUCTS: [(&str, u32); 9] = [
    ("silent", OTHER_STRANGER),
    ("partial", OTHER_STRANGER),
    ("flood", OTHER_STRANGER),
    ("unread", OTHER_STRANGER),
    ("subscribe", OTHER_STRANGER),
    ("pipeline", OTHER_STRANGER),
    ("garbage", OTHER_STRANGER),
    ("churn", OTHER_STRANGER),
    ("refused", OUTSIDER),
];

/// How many connections of each kind there are.
const OF_EACH: usize = 250;

/// How often the user works from a child's start to its end.
const ROUNDS: usize = 40;

/// What the crowd may cost, in MiB: a part of what one user may have is on its way, twice while it is encoded, and some of
/// it is held by each connection.
const ROOM: u64 = 200;

/// What comes and goes for a moment, in descriptors.
const FLEETING: usize = 200;

/// A program that says that it is ready.
const TELLS: &str = "import os, signal, socket
words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
words.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
while True:
    signal.pause()
";

/// A crowd of connections in a process of its own.
struct Crowd(Child);

impl Crowd {
    /// Returns when all of its connections are there.
    fn gather(socket: &Path, conduct: &str, user: u32) -> Self {
        let id = user.to_string();
        let mut process = Command::new("setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "nice", "-n", "19"])
            // The one of the system, since others may be in a closed folder.
            .args(["env", "PATH=/usr/bin:/bin", "python3", "-c", include_str!("hostile/crowd.py")])
            .arg(socket)
            .args([conduct, &OF_EACH.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv and python3");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), OF_EACH.to_string(), "{conduct}");
        Self(process)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How much memory of the broker is resident, in MiB.
fn resident(broker: &TestBroker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

fn descriptors(broker: &TestBroker) -> usize {
    fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count()
}

/// What the broker's metrics say of this.
fn metric(root: &mut JsonClient, name: &str) -> u64 {
    let text = root.ok("metrics", json!({}))["text"].take();
    let line = text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name)).expect("a metric");
    line.trim().parse().unwrap()
}

/// A child's whole life: each answer is the right one.
fn work(client: &mut JsonClient, number: usize) {
    let text = format!("echo hello {number}; exec sleep infinity");
    let ready = json!({"log": format!("hello {number}")});
    let child = client.create(json!({"command": ["sh", "-c", text], "ready": ready}));
    assert_eq!(child["state"], "running");
    assert_eq!(child["owner"]["uid"], STRANGER);
    assert_eq!(client.ok("status", json!({}))["shutting_down"], false);
    let logs = client.ok("logs", json!({"target": child["id"]}));
    assert_eq!(logs["text"], format!("hello {number}\n"));
    let listed = client.ok("list", json!({}));
    assert_eq!(listed["children"], json!([child]));
    let ended = client.ok("destroy", json!({"target": child["id"]}));
    assert_eq!(ended["children"][0]["exit"]["signal"], "SIGTERM");
}

mod heavy {
    use super::*;

    #[test]
    fn two_thousand_hostile_connections_refuse_nobody_an_answer_and_leave_nothing_behind() {
        if !is_root() {
            return;
        }
        let (one, other) = (STRANGER.to_string(), OTHER_STRANGER.to_string());
        let broker = Setup::new()
            .flags(["--socket-mode", "666", "--allow-user", &one, "--allow-user", &other])
            .start();
        let mut root = broker.json();
        let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
        work(&mut client, 0);
        let (memory, open) = (resident(&broker), descriptors(&broker));

        let crowds: Vec<Crowd> =
            CONDUCTS.iter().map(|(conduct, user)| Crowd::gather(broker.socket(), conduct, *user)).collect();
        // What a child tells of itself is heard beside what they say.
        let tells =
            json!({"command": ["python3", "-c", TELLS], "env": {"PATH": "/usr/bin:/bin"}, "ready": "notify"});
        let told = client.create(tells);
        client.ok("destroy", json!({"target": told["id"]}));
        let mut most = (0, 0);
        for number in 1..=ROUNDS {
            work(&mut client, number);
            // Somebody who comes to the door now is let in, too.
            JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]).ok("status", json!({}));
            most = (resident(&broker).max(most.0), descriptors(&broker).max(most.1));
        }
        assert!(root.ok("status", json!({}))["connections"].as_u64() > Some(1_000), "the crowd is there");
        assert!(most.0 < memory + ROOM, "{} MiB, and {memory} before", most.0);
        let bound = open + CONDUCTS.len() * OF_EACH + FLEETING;
        assert!(most.1 < bound, "{} descriptors, and {open} before", most.1);

        drop(crowds);
        let began = Instant::now();
        // The two of this test are left, and what the broker has for itself.
        while root.ok("status", json!({}))["connections"] != 2
            || metric(&mut root, "procbroker_kept_bytes{what=\"answers\"}") > 0
            || metric(&mut root, "procbroker_kept_bytes{what=\"requests\"}") > 0
            || descriptors(&broker) > open + FLEETING / 10
        {
            assert!(began.elapsed() < PATIENCE, "{} {}", broker.status(), descriptors(&broker));
        }
        assert!(resident(&broker) < memory + ROOM / 2, "{} MiB, and {memory} before", resident(&broker));
        work(&mut client, ROUNDS + 1);
    }
}
