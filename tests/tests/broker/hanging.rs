//! Programs that are never executed: somebody holds a lease on the file, as a file system does that does not answer. Their
//! processes are ended by whatever would stop them, and nobody waits for them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, STRANGER, Setup, TestBroker, is_root, tagged_processes};

/// Says when it has a lease, and when somebody waits for it to let go, which it never does.
const HOLDS: &str = "
import fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
signal.sigwait([signal.SIGIO])
print('asked', flush=True)
signal.pause()
";

/// A program that is not executed before this is dropped.
struct Leased {
    path: PathBuf,
    holder: Child,
    lines: BufReader<ChildStdout>,
}

impl Leased {
    fn new(path: PathBuf) -> Self {
        fs::copy("/bin/sleep", &path).unwrap();
        let mut holder = Command::new("python3")
            .args(["-c", HOLDS])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let lines = BufReader::new(holder.stdout.take().unwrap());
        let mut leased = Self { path, holder, lines };
        leased.says("held");
        leased
    }

    /// Waits until a process is about to execute it, and hangs.
    fn hangs(&mut self) {
        self.says("asked");
    }

    fn says(&mut self, word: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }

    fn command(&self) -> Value {
        json!([self.path.to_str().unwrap(), "infinity"])
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A child of this program, with a cleanup that leaves a file behind.
fn hanging(broker: &TestBroker, leased: &Leased) -> (Value, PathBuf) {
    let cleaned = broker.path("cleaned");
    let cleanup = json!({"command": ["touch", cleaned.to_str().unwrap()], "timeout": 60});
    (json!({"command": leased.command(), "name": "one", "cleanup": cleanup}), cleaned)
}

/// Nothing but the broker and who holds the lease is there: one on the way to its program has the broker's command line.
fn nothing_is_left(broker: &TestBroker, leased: &Leased) {
    let known = [broker.pid(), leased.holder.id()].map(u32::cast_signed);
    let mut left = tagged_processes(broker.folder());
    left.retain(|process| !known.contains(&process.pid));
    assert_eq!(left, []);
}

fn is_by_force(exit: &Value, reason: &str) {
    assert_eq!((&exit["reason"], &exit["forced"]), (&json!(reason), &json!(true)), "{exit}");
    assert_eq!(exit["steps"].as_array().unwrap().len(), 1, "{exit}");
    assert_eq!(exit["steps"][0]["signal"], "SIGKILL", "{exit}");
}

#[test]
fn one_that_is_destroyed_is_killed_and_that_is_told() {
    let broker = TestBroker::start();
    let mut leased = Leased::new(broker.path("program"));
    let (params, cleaned) = hanging(&broker, &leased);
    let mut creator = broker.json();
    let create = creator.send("create", params);
    leased.hangs();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "another"})));
    let destroyed = client.ok("destroy", json!({"target": "one"}));
    is_by_force(&destroyed["children"][0]["exit"], "destroyed");
    let refused = creator.answer(create).unwrap_err();
    assert_eq!(refused.kind, "start_failed");
    is_by_force(&refused.data["exit"], "destroyed");
    assert!(!cleaned.exists(), "what was never started is not cleaned up");
    let listed = client.ok("list", json!({}));
    assert_eq!(listed["children"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn an_upgrade_waits_for_none_and_who_asks_again_gets_one_from_the_next_program() {
    let broker = TestBroker::start();
    let mut leased = Leased::new(broker.path("program"));
    let (params, cleaned) = hanging(&broker, &leased);
    let living = broker.json().create(willing());
    let mut creator = broker.json();
    creator.send("create", params.clone());
    leased.hangs();
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(creator.message().is_none(), "its connection has ended with the program");
    assert!(!cleaned.exists());
    drop(leased);
    let mut client = broker.json();
    assert_eq!(client.got(&living["id"]), living);
    client.create(params);
}

#[test]
fn one_that_a_killed_broker_has_left_is_ended_and_was_never_started() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let mut broker = Setup::new().flags(flags).start();
        let mut leased = Leased::new(broker.path("program"));
        let (params, cleaned) = hanging(&broker, &leased);
        let request = json!({"request_id": "0190d5a0-0000-7000-8000-000000000001"});
        let params = with(params, &request);
        broker.json().send("create", params.clone());
        leased.hangs();
        broker.crash_and_start_again();
        let mut client = broker.json();
        // It is gone by now, or this is answered when it is.
        drop(client.call("wait", json!({"target": "one"})));
        nothing_is_left(&broker, &leased);
        drop(leased);
        let created = client.ok("create", params);
        assert_eq!((&created["outcome"], &created["child"]["state"]), (&json!("created"), &json!("running")));
        assert!(!cleaned.exists(), "what was never started is not cleaned up");
    }
}

#[test]
fn one_without_an_output_that_is_kept_is_ended_by_the_next_broker_too() {
    let mut broker = TestBroker::start();
    let mut leased = Leased::new(broker.path("program"));
    let params = json!({"command": leased.command(), "name": "one", "stdout": "null"});
    broker.json().send("create", params.clone());
    leased.hangs();
    broker.crash_and_start_again();
    let mut client = broker.json();
    drop(client.call("wait", json!({"target": "one"})));
    nothing_is_left(&broker, &leased);
    drop(leased);
    client.create(params);
}

#[test]
fn a_later_run_that_hangs_ends_with_a_destroy() {
    let broker = TestBroker::start();
    let link = broker.path("link");
    symlink("/bin/sleep", &link).unwrap();
    let mut client = broker.json();
    client.create(json!({"command": [link.to_str().unwrap(), "infinity"], "name": "one"}));
    let mut leased = Leased::new(broker.path("program"));
    relink(&leased.path, &link);
    let mut other = broker.json();
    let restart = other.send("restart", json!({"target": "one"}));
    leased.hangs();
    let destroyed = client.ok("destroy", json!({"target": "one"}));
    is_by_force(&destroyed["children"][0]["exit"], "destroyed");
    other.answer(restart).unwrap();
}

#[test]
fn a_later_run_that_hangs_is_begun_anew_after_an_upgrade() {
    let broker = TestBroker::start();
    let link = broker.path("link");
    symlink("/bin/sleep", &link).unwrap();
    let mut client = broker.json();
    let child = client.create(json!({"command": [link.to_str().unwrap(), "infinity"], "name": "one"}));
    let mut leased = Leased::new(broker.path("program"));
    relink(&leased.path, &link);
    client.send("restart", json!({"target": "one"}));
    leased.hangs();
    relink(Path::new("/bin/sleep"), &link);
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 0, "{said:?}");
    let ready = broker.json().ok("wait", json!({"target": "one", "until": "ready"}));
    assert_eq!((&ready["child"]["id"], &ready["child"]["restarts"]), (&child["id"], &json!(1)), "{ready}");
    assert_eq!(ready["child"]["state"], "running");
}

#[test]
fn a_cleanup_that_hangs_has_its_time_and_no_more() {
    let broker = TestBroker::start();
    let mut leased = Leased::new(broker.path("program"));
    let mut client = broker.json();
    let cleanup = json!({"command": leased.command(), "timeout": 0.05});
    let child = client.create(json!({"command": ["true"], "cleanup": cleanup}));
    leased.hangs();
    let ended = client.ok("wait", json!({"target": child["id"]}));
    let cleaned = &ended["child"]["cleanup"];
    assert_eq!((&cleaned["ok"], &cleaned["attempts"]), (&json!(false), &json!(1)), "{ended}");
}

#[test]
fn a_cleanup_that_a_killed_broker_has_left_hanging_is_begun_anew() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let mut broker = Setup::new().flags(flags).start();
        let (link, cleaned) = (broker.path("link"), broker.path("cleaned"));
        let mut leased = Leased::new(broker.path("program"));
        symlink(&leased.path, &link).unwrap();
        let command = json!([link.to_str().unwrap(), cleaned.to_str().unwrap()]);
        let cleanup = json!({"command": command, "timeout": 60});
        let child = broker.json().create(json!({"command": ["true"], "cleanup": cleanup}));
        leased.hangs();
        relink(Path::new("/usr/bin/touch"), &link);
        broker.crash_and_start_again();
        let ended = broker.json().ok("wait", json!({"target": child["id"]}));
        assert_eq!(ended["child"]["cleanup"]["ok"], json!(true), "{ended}");
        assert!(cleaned.exists());
        nothing_is_left(&broker, &leased);
    }
}

fn relink(to: &Path, link: &Path) {
    fs::remove_file(link).unwrap();
    symlink(to, link).unwrap();
}

#[test]
fn programs_of_many_users_that_hang_hold_up_the_creates_of_no_other() {
    if !is_root() {
        return;
    }
    let users: Vec<u32> = (STRANGER..STRANGER + 7).collect();
    let mut setup = Setup::new().flags(["--socket-mode", "666"]);
    for user in &users {
        setup = setup.flags(["--allow-user", &user.to_string()]);
    }
    let broker = setup.start();
    let leased = Leased::new(broker.path("program"));
    let (last, hanging) = users.split_last().unwrap();
    let mut greedy = Vec::new();
    for user in hanging {
        let mut client = JsonClient::as_user(broker.socket(), *user, &[*user]);
        for _ in 0..20 {
            client.send("create", json!({"command": leased.command(), "stdout": "null"}));
        }
        // What was asked for before has been decided then.
        client.ok("status", json!({}));
        greedy.push(client);
    }
    JsonClient::as_user(broker.socket(), *last, &[*last]).create(willing());
    let mut root = broker.json();
    root.create(willing());
    drop(greedy);
    root.ok("destroy", json!({"target": {"all": true}}));
    nothing_is_left(&broker, &leased);
}
