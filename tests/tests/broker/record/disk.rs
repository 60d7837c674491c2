//! Disks that fill up, or that the kernel makes read-only, under a running broker.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::children::{telling_cleanup, willing, with};
use crate::harness::{Fifo, JsonClient, Process, Refused, Setup, TestBroker, is_root};

const TMPFS: &str = "mount -t tmpfs -o size=1m,mode=700 tmpfs \"$1\" && shift && exec \"$@\"";

/// A file in the broker's state folder, as the broker sees it: the disk is mounted for it alone.
fn beside_the_record(broker: &TestBroker, name: &str) -> PathBuf {
    let state = broker.state_dir();
    let state = state.strip_prefix("/").expect("an absolute path");
    PathBuf::from(format!("/proc/{}/root", broker.pid())).join(state).join(name)
}

/// Takes all the room that there is.
fn fill(broker: &TestBroker) -> PathBuf {
    let path = beside_the_record(broker, "filler");
    let mut file = File::create(&path).expect("a file on the broker's disk");
    for size in [64 << 10, 4 << 10, 1] {
        loop {
            match file.write(&vec![b'x'; size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    path
}

/// One that needs room on record.
fn large(pipe: &Fifo) -> Value {
    let long = json!({"labels": {"long": "x".repeat(8000)}});
    with(with(willing(), &telling_cleanup(pipe)), &long)
}

/// Creates as many as there is room for on record, and says how many there are and what the last was answered.
fn create_until_refused(client: &mut JsonClient, pipe: &Fifo) -> (usize, Refused) {
    let (mut created, mut refused) = (0, Vec::new());
    // A refusal can be followed by a tidying that makes room once more.
    while refused.len() < 3 {
        match client.call("create", large(pipe)) {
            Ok(_) => {
                created += 1;
                refused.clear();
            }
            Err(refusal) => refused.push(refusal),
        }
        assert!(created < 500, "no shortage");
    }
    (created, refused.remove(2))
}

/// Whatever the disk is like, what is there can be managed.
fn manages(client: &mut JsonClient, child: &Value, count: usize) {
    let listed = client.ok("list", json!({}));
    assert_eq!(listed["children"].as_array().unwrap().len(), count);
    assert_eq!(client.got(&json!("first")), *child);
    let ended = client.ok("destroy", json!({"target": "first"}))["children"][0].take();
    assert_eq!((&ended["state"], &ended["exit"]["signal"]), (&json!("ended"), &json!("SIGTERM")));
    assert_eq!(ended["cleanup"]["ok"], true, "a cleanup runs whatever the disk is like: {ended}");
    assert!(!Process(child["pid"].as_i64().unwrap()).is_alive());
}

fn first(client: &mut JsonClient, pipe: &Fifo) -> Value {
    client.create(with(with(willing(), &telling_cleanup(pipe)), &json!({"name": "first"})))
}

#[test]
fn a_full_disk_refuses_creates_and_nothing_else() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().in_own_mounts(TMPFS).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = first(&mut client, &pipe);
    let filler = fill(&broker);
    let (created, refused) = create_until_refused(&mut client, &pipe);
    for word in ["state.db", "full", "make room"] {
        assert!(refused.message.contains(word), "no {word} in {refused:?}");
    }
    assert_eq!(client.refused("create", with(large(&pipe), &json!({"name": "other"}))).kind, refused.kind);
    manages(&mut client, &child, created + 1);
    assert_eq!(pipe.line(), "cleaned destroyed - SIGTERM");
    fs::remove_file(filler).unwrap();
    // A create that was refused holds no name.
    let again = client.create(with(willing(), &json!({"name": "other"})));
    assert_eq!(again["state"], "running");
    let mut broker = broker;
    let ended = broker.stop();
    assert_eq!(pipe.rest().len(), created);
    let (troubles, ends) = (ended.lines_with("ERROR").len(), ended.lines_with("written again").len());
    assert!(
        (1..10).contains(&troubles) && troubles == ends,
        "{troubles} troubles, {ends} ends: {}",
        ended.log
    );
}

#[test]
fn a_full_disk_does_not_hold_up_the_stop() {
    if !is_root() {
        return;
    }
    let mut broker = Setup::new().in_own_mounts(TMPFS).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = first(&mut client, &pipe);
    fill(&broker);
    let (created, _) = create_until_refused(&mut client, &pipe);
    let began = std::time::Instant::now();
    let ended = broker.stop();
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}: {}", began.elapsed(), ended.log);
    assert_eq!(pipe.rest().len(), created + 1);
    assert!(!Process(child["pid"].as_i64().unwrap()).is_alive());
}

/// An ext4 file system in a file, which the kernel can be told to take for broken.
const EXT4: &str = "truncate -s 8M \"$1.disk\" && mkfs.ext4 -q \"$1.disk\" && mount -o loop \"$1.disk\" \"$1\" && \
                    shift && exec \"$@\"";

fn has_ext4() -> bool {
    let script = "mkdir \"$1/m\" && truncate -s 8M \"$1/d\" && mkfs.ext4 -q \"$1/d\" && mount -o loop \"$1/d\" \"$1/m\"";
    let folder = tempfile::tempdir().unwrap();
    let probe = ["--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let output = Command::new("unshare").args(probe).arg(folder.path()).output().expect("unshare");
    let has = output.status.success();
    if !has {
        eprintln!("skipped: no ext4 in a file: {}", String::from_utf8_lossy(&output.stderr));
    }
    has
}

/// Has the kernel take the broker's disk for broken: it can be read only from now on.
fn break_disk(broker: &TestBroker) {
    let target = broker.pid().to_string();
    let status = Command::new("nsenter")
        .args(["--target", &target, "--mount", "mount", "-o", "remount,abort"])
        .arg(broker.state_dir())
        .status();
    assert!(status.expect("nsenter").success());
}

#[test]
fn a_disk_that_becomes_read_only_refuses_creates_and_nothing_else() {
    if !is_root() || !has_ext4() {
        return;
    }
    let mut broker = Setup::new().in_own_mounts(EXT4).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = first(&mut client, &pipe);
    break_disk(&broker);
    let refused = client.refused("create", large(&pipe));
    for word in ["state.db", "see that its disk is in order"] {
        assert!(refused.message.contains(word), "no {word} in {refused:?}");
    }
    manages(&mut client, &child, 1);
    assert_eq!(pipe.rest(), ["cleaned destroyed - SIGTERM"]);
    broker.stop();
}

/// Asks for an upgrade that is refused, because the new program could not go on with the record.
fn upgrade_changes_nothing_for(broker: &TestBroker, child: &Value) {
    let before = broker.json().ok("list", json!({"all": true}));
    let said = broker.run(&["upgrade"]);
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("nothing has changed") && said.err.contains("state.db"), "{said:?}");
    assert_eq!(broker.json().ok("list", json!({"all": true})), before);
    assert!(Process(child["pid"].as_i64().unwrap()).is_alive());
}

#[test]
fn an_upgrade_with_a_full_disk_is_refused_and_changes_nothing() {
    if !is_root() {
        return;
    }
    let broker = Setup::new().in_own_mounts(TMPFS).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = first(&mut client, &pipe);
    let instance = broker.status()["instance"].take();
    let filler = fill(&broker);
    let (created, _) = create_until_refused(&mut client, &pipe);
    upgrade_changes_nothing_for(&broker, &child);
    assert_eq!(broker.status()["instance"], instance);
    manages(&mut client, &child, created + 1);
    assert_eq!(pipe.line(), "cleaned destroyed - SIGTERM");
    fs::remove_file(filler).unwrap();
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 0, "{said:?}");
    broker.says("READY=1");
    assert_ne!(broker.status()["instance"], instance);
    assert_eq!(broker.json().ok("list", json!({}))["children"].as_array().unwrap().len(), created);
}

#[test]
fn an_upgrade_with_a_read_only_disk_is_refused_and_changes_nothing() {
    if !is_root() || !has_ext4() {
        return;
    }
    let mut broker = Setup::new().in_own_mounts(EXT4).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = first(&mut client, &pipe);
    let instance = broker.status()["instance"].take();
    break_disk(&broker);
    upgrade_changes_nothing_for(&broker, &child);
    assert_eq!(broker.status()["instance"], instance);
    manages(&mut client, &child, 1);
    assert_eq!(pipe.rest(), ["cleaned destroyed - SIGTERM"]);
    broker.stop();
}

/// One of which nothing is kept but what is in the log of intents, which is on another disk.
fn light() -> Value {
    with(willing(), &json!({"stdout": "null"}))
}

/// A mount namespace with a disk that outlives the brokers in it, and no process of its own.
struct OwnMounts(File);

impl OwnMounts {
    /// With a small disk at a path.
    fn with_disk(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let script = "mount -t tmpfs -o size=1m,mode=700 tmpfs \"$1\" && echo mounted && read -r end";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(path);
        let mut maker = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
        let mut said = [0; 8];
        maker.stdout.take().expect("a pipe").read_exact(&mut said).expect("a mounted disk");
        let mounts = File::open(format!("/proc/{}/ns/mnt", maker.id())).expect("a mount namespace");
        drop(maker.stdin.take());
        maker.wait().expect("the end of unshare");
        Self(mounts)
    }

    /// A command that has another one in front of it executed there.
    fn enter(&self) -> [String; 3] {
        let namespace = format!("--mount=/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        ["nsenter".to_owned(), namespace, "--".to_owned()]
    }
}

fn ids_of(client: &mut JsonClient) -> Vec<Value> {
    let listed = client.ok("list", json!({"fields": []}))["children"].take();
    listed.as_array().unwrap().iter().map(|child| child["id"].clone()).collect()
}

#[test]
fn a_full_disk_keeps_no_broker_from_going_on_after_a_crash() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let mounts = OwnMounts::with_disk(&setup.state_dir());
    let mut broker = setup.through(mounts.enter()).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let child = first(&mut client, &pipe);
    fill(&broker);
    let mut children = vec![child["id"].clone()];
    for _ in 0..100 {
        children.push(client.create(light())["id"].take());
    }
    let troubles = "no room to bring the log of intents into the state file";
    for _ in 0..2 {
        broker.crash();
        let began = broker.log().len();
        broker.start_again();
        let said = broker.log()[began..].to_owned();
        for words in [troubles, "state.db", "intents", "make room"] {
            assert!(said.contains(words), "no {words} in {said}");
        }
        client = broker.json();
        assert_eq!(ids_of(&mut client), children);
        // It goes on as before.
        assert!(client.refused("create", large(&pipe)).message.contains("make room"));
        children.push(client.create(light())["id"].take());
        let ended = client.ok("destroy", json!({"target": children.remove(1)}))["children"][0].take();
        assert_eq!(ended["exit"]["signal"], "SIGTERM");
    }
    manages(&mut client, &child, children.len());
    assert_eq!(pipe.line(), "cleaned destroyed - SIGTERM");
    children.remove(0);
    fs::remove_file(beside_the_record(&broker, "filler")).unwrap();
    // What waits is written with it.
    children.push(client.create(large(&pipe))["id"].take());
    broker.crash();
    let began = broker.log().len();
    broker.start_again();
    assert!(!broker.log()[began..].contains(troubles));
    assert_eq!(ids_of(&mut broker.json()), children);
    broker.stop();
    assert_eq!(pipe.rest(), ["cleaned shutdown - SIGTERM"]);
}

#[test]
fn what_a_shutdown_on_a_full_disk_has_done_is_known_to_the_next_broker() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let mounts = OwnMounts::with_disk(&setup.state_dir());
    let mut broker = setup.through(mounts.enter()).start();
    let mut pipe = broker.fifo("pipe");
    let mut client = broker.json();
    first(&mut client, &pipe);
    fill(&broker);
    for _ in 0..100 {
        client.create(light());
    }
    broker.crash_and_start_again();
    let disk = beside_the_record(&broker, "");
    let disk = File::open(disk).expect("the broker's disk");
    let ended = broker.stop();
    assert_eq!(pipe.line(), "cleaned shutdown - SIGTERM");
    assert_eq!(ended.lines_with("the log of intents has them").len(), 1, "{}", ended.log);
    fs::remove_file(format!("/proc/self/fd/{}/filler", disk.as_raw_fd())).unwrap();
    broker.start_again();
    let listed =
        broker.json().ok("list", json!({"all": true, "fields": ["state", "exit"]}))["children"].take();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 101);
    for child in listed {
        assert_eq!((&child["state"], &child["exit"]["reason"]), (&json!("ended"), &json!("shutdown")));
    }
    broker.stop();
    assert_eq!(pipe.rest(), [""; 0], "no cleanup runs twice");
}
