//! New programs that agree, are executed, and fail before they serve: the old one goes on as if nothing had been.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use procbroker_client::blocking::Broker;
use serde_json::{Value, json};

use super::refusals::{gone_at_the_last_moment, refused, script};
use super::{replaceable, upgrade};
use crate::harness::children::{willing, with};
use crate::harness::{Process, TestBroker, is_root, procbroker_in};

/// Puts a program in the place of the broker's that agrees to take over, and is executed with a last word then.
fn failing(broker: &TestBroker, last_words: &str) {
    let program = procbroker_in(broker.folder());
    let good = program.with_extension("good");
    if !good.exists() {
        fs::rename(&program, &good).unwrap();
    }
    let good = good.display();
    script(
        &program,
        &format!("test \"$1\" = can-take-over && exec {good} \"$@\"\nexec {good} \"$@\" {last_words}"),
    );
}

/// Puts the broker's own program back in its place.
fn mend(broker: &TestBroker) {
    let program = procbroker_in(broker.folder());
    fs::rename(program.with_extension("good"), &program).unwrap();
}

/// What does not depend on when it is asked for.
fn standing(broker: &TestBroker) -> (Value, Value) {
    let mut status = broker.status();
    status["failed_upgrade"].take();
    status["connections"].take();
    (status, broker.json().ok("list", json!({"all": true})))
}

#[test]
fn a_program_that_fails_when_it_is_executed_leaves_everything_to_the_old_one() {
    let broker = replaceable().start();
    let mut go = broker.fifo("go");
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "a"})));
    let script = json!({"command": ["sh", "-c", "read word <\"$1\"; exit 7", "sh", go.path()], "name": "b"});
    let waits = client.create(script);
    let ended = client.create(json!({"command": ["true"], "name": "gone"}));
    client.ok("wait", json!({"target": ended["id"]}));
    let before = standing(&broker);
    failing(&broker, "--of-the-future");
    for _ in 0..3 {
        let said = refused(&broker);
        assert!(said.contains("--of-the-future"), "{said}");
        assert_eq!(standing(&broker), before);
        assert_eq!(
            broker.log().matches("this one goes on").count(),
            broker.log().matches("not upgraded").count()
        );
    }
    assert_eq!(broker.log().matches("this one goes on").count(), 3, "{}", broker.log());
    assert!(broker.status()["failed_upgrade"]["message"].as_str().unwrap().contains("--of-the-future"));
    go.say("go");
    let ended = broker.json().ok("wait", json!({"target": waits["id"]}));
    assert_eq!(ended["child"]["exit"]["code"], 7, "{ended}");
    mend(&broker);
    upgrade(&broker);
    assert_eq!(broker.status()["failed_upgrade"], Value::Null);
    assert_eq!(broker.process().status("Name"), ["procbroker"]);
}

#[test]
fn a_program_that_panics_or_has_no_memory_is_undone_as_well() {
    let broker = replaceable().start();
    let child = broker.json().create(willing());
    let before = standing(&broker);
    let program = procbroker_in(broker.folder());
    let good = program.with_extension("good");
    fs::rename(&program, &good).unwrap();
    let good = good.display();
    // No thread can have such a stack. The old program has its own environment.
    let tight = format!("RUST_MIN_STACK=70368744177664 exec {good} \"$@\"");
    script(&program, &format!("test \"$1\" = can-take-over && exec {good} \"$@\"\n{tight}"));
    refused(&broker);
    assert_eq!(standing(&broker), before);
    assert_eq!(broker.json().got(&child["id"]), child);
}

#[test]
fn a_script_that_lowers_the_limit_of_descriptors_keeps_no_program_from_going_on() {
    let broker = replaceable().start();
    let child = broker.json().create(willing());
    let program = procbroker_in(broker.folder());
    let good = program.with_extension("good");
    fs::rename(&program, &good).unwrap();
    let good = good.display();
    script(&program, &format!("test \"$1\" = can-take-over || ulimit -S -n 30\nexec {good} \"$@\""));
    upgrade(&broker);
    assert_eq!(broker.json().got(&child["id"]), child);
    assert_eq!(broker.json().create(willing())["state"], "running");
}

#[test]
fn the_old_program_goes_on_though_its_file_is_gone_and_is_called_as_before() {
    let broker = replaceable().start();
    let child = broker.json().create(willing());
    let name = broker.process().status("Name");
    let program = procbroker_in(broker.folder());
    // Other content at another place: nothing of the old file is left but what is executed.
    let copy = broker.path("copy");
    fs::copy(&program, &copy).unwrap();
    fs::remove_file(&program).unwrap();
    let copy = copy.display();
    script(
        &program,
        &format!("test \"$1\" = can-take-over && exec {copy} \"$@\"\nexec {copy} \"$@\" --of-the-future"),
    );
    refused(&broker);
    assert_eq!((broker.process().status("Name"), broker.process().arguments()[1].as_str()), (name, "serve"));
    assert_eq!(broker.json().got(&child["id"]), child);
}

#[test]
fn a_program_that_fails_with_everything_in_its_hands_gives_it_back() {
    if !is_root() {
        return;
    }
    // The broker goes without control groups, and the new program is not to.
    let script = "umount -a -t cgroup2; shift; exec \"$@\"";
    let setup = crate::harness::Setup::new();
    let program = procbroker_in(setup.folder());
    let words = ["sh".as_ref(), "-c".as_ref(), "shift; exec \"$0\" \"$@\"".as_ref(), program.as_os_str()];
    let broker = setup.in_own_mounts(script).through(words).start();
    if broker.status()["facilities"]["containment"] != "subreaper" {
        return;
    }
    broker.json().create(with(willing(), &json!({"name": "a", "ready": "spawn"})));
    let before = standing(&broker);
    failing(&broker, "--containment cgroup");
    let said = refused(&broker);
    assert!(said.contains("--containment cgroup"), "{said}");
    assert_eq!(standing(&broker), before);
    // Its socket, its locks and its folders are there: it is the one broker, and stops as one.
    assert_eq!(broker.setup().refuses().code(), Some(1));
    mend(&broker);
    upgrade(&broker);
}

/// Connects again and again, and each attempt has to succeed; the next is made when the broker has closed the one before,
/// so that a user's own places are not used up.
fn connect_all_the_time(socket: &Path, over: &AtomicBool) -> u32 {
    let mut connections = 0;
    while !over.load(Ordering::Relaxed) {
        let mut stream = UnixStream::connect(socket).expect("no connection is refused");
        // One that an upgrade closes is closed as well.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        connections += 1;
    }
    connections
}

/// Says that it is over, also where a test fails meanwhile.
struct OverAtTheEnd<'a>(&'a AtomicBool);

impl Drop for OverAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn clients_events_and_output_notice_nothing_of_a_program_that_fails() {
    let broker = replaceable().start();
    let mut client = broker.json();
    let first = client.ok("events", json!({"since": 0}))["next"].as_u64().unwrap();
    let count = "i=0; trap 'echo end; exit' TERM; while :; do i=$((i + 1)); echo $i; done";
    let params = json!({"command": ["sh", "-c", count], "name": "counter"});
    let counter = client.create(params);
    failing(&broker, "--of-the-future");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let connecting = scope.spawn(|| connect_all_the_time(broker.socket(), &over));
        let at_the_end = OverAtTheEnd(&over);
        for _ in 0..5 {
            refused(&broker);
        }
        drop(at_the_end);
        assert!(connecting.join().unwrap() > 5);
    });
    let mut client = broker.json();
    client.ok("events", json!({"since": first}));
    client.ok("destroy", json!({"target": "counter"}));
    let kinds: Vec<Value> = (0..6).map(|_| client.notification()["kind"].take()).collect();
    assert_eq!(kinds, ["created", "started", "ready", "stopping", "exited", "ended"]);
    let text = client.ok("logs", json!({"target": counter["id"]}));
    let text = text["text"].as_str().unwrap();
    let mut lines = text.lines().skip(1).take_while(|line| *line != "end");
    let mut last: u64 = lines.next().unwrap().parse().unwrap();
    for line in lines {
        last += 1;
        assert_eq!(line.parse(), Ok(last));
    }
}

#[test]
fn whoever_asks_is_told_of_a_program_that_cannot_be_executed() {
    let broker = replaceable().start();
    let before = standing(&broker);
    let program = procbroker_in(broker.folder());
    let good = program.with_extension("good");
    fs::rename(&program, &good).unwrap();
    gone_at_the_last_moment(&program);
    let said = refused(&broker);
    assert!(said.contains("cannot execute"), "{said}");
    assert_eq!(standing(&broker), before);
    fs::remove_dir(&program).unwrap();
    mend(&broker);
    upgrade(&broker);
}

#[test]
fn what_tells_the_broker_to_stop_is_not_lost_in_a_program_that_fails() {
    let mut broker = replaceable().start();
    broker.json().create(willing());
    failing(&broker, "--of-the-future");
    broker.json().ok("upgrade", json!({}));
    broker.signal(Signal::SIGTERM);
    broker.ended_in_order();
}

#[test]
fn an_account_that_is_not_found_any_more_is_a_reason_not_to_begin() {
    if !is_root() {
        return;
    }
    let setup = crate::harness::Setup::new();
    let passwd = setup.folder().join("passwd");
    fs::write(&passwd, "root:x:0:0::/:/bin/sh\nguest:x:4711:4711::/:/bin/sh\n").unwrap();
    fs::set_permissions(&passwd, fs::Permissions::from_mode(0o644)).unwrap();
    let mount = format!("mount --bind {} /etc/passwd; shift; exec \"$@\"", passwd.display());
    let program = procbroker_in(setup.folder());
    let words = ["sh".as_ref(), "-c".as_ref(), "shift; exec \"$0\" \"$@\"".as_ref(), program.as_os_str()];
    let setup = setup.in_own_mounts(&mount).through(words);
    let broker = setup.flags(["--allow-user", "guest", "--socket-mode", "666"]).start();
    let child = broker.json().create(willing());
    let before = standing(&broker);
    let good = fs::read(&passwd).unwrap();
    fs::write(&passwd, "root:x:0:0::/:/bin/sh\n").unwrap();
    let said = refused(&broker);
    assert!(said.contains("--allow-user names guest"), "{said}");
    assert_eq!(standing(&broker), before);
    fs::write(&passwd, good).unwrap();
    upgrade(&broker);
    assert_eq!(broker.json().got(&child["id"]), child);
}

#[test]
fn a_state_folder_that_is_not_the_brokers_alone_any_more_is_a_reason_not_to_begin() {
    let broker = replaceable().start();
    let child = broker.json().create(willing());
    let before = standing(&broker);
    let lock = broker.state_dir().join("lock");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o622)).unwrap();
    let said = refused(&broker);
    assert!(said.contains(lock.to_str().unwrap()) && said.contains("others"), "{said}");
    assert_eq!(standing(&broker), before);
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
    upgrade(&broker);
    assert_eq!(broker.json().got(&child["id"]), child);
}

#[test]
fn two_programs_that_fail_end_with_both_reasons_and_no_loop() {
    let mut broker = replaceable().start();
    broker.json().create(willing());
    broker.recorded();
    let program = procbroker_in(broker.folder());
    let good = program.with_extension("good");
    fs::rename(&program, &good).unwrap();
    let (record, aside) = (broker.state_dir().join("state.db"), broker.path("aside.db"));
    // Whichever program there is finds no record, and something in its place.
    let spoil = format!("mv {0} {1} && mkdir {0}", record.display(), aside.display());
    let good = good.display();
    script(
        &program,
        &format!("test \"$1\" = can-take-over && exec {good} \"$@\"\n{spoil}\nexec {good} \"$@\""),
    );
    broker.json().ok("upgrade", json!({}));
    let ended = broker.ended();
    assert_eq!(ended.code(), Some(1), "{}", ended.log);
    assert_eq!(ended.log.matches("this one goes on").count(), 1, "{}", ended.log);
    assert!(ended.log.lines().last().unwrap().contains(record.to_str().unwrap()), "{}", ended.log);
    // The child is left alone, and the next broker finds it.
    mend(&broker);
    fs::remove_dir(&record).unwrap();
    fs::rename(aside, record).unwrap();
    broker.start_again();
    assert_eq!(broker.json().ok("list", json!({}))["children"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_socket_whose_file_is_gone_is_made_anew() {
    let broker = replaceable().flags(["--socket-mode", "660"]).start();
    let child = broker.json().create(willing());
    let before = broker.status();
    let client = Broker::at(broker.socket()).unwrap();
    // Who is in the queue of the old one is taken in by the new program.
    let mut waiting = broker.json();
    fs::remove_file(broker.socket().with_extension("sock.lock")).unwrap();
    fs::remove_file(broker.socket()).unwrap();
    waiting.ok("status", json!({}));
    broker.signal(Signal::SIGUSR2);
    broker.says("READY=1");
    let after = broker.status();
    assert_ne!(after["instance"], before["instance"]);
    assert_eq!(fs::metadata(broker.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(broker.json().got(&child["id"]), child);
    assert_eq!(client.status().unwrap().instance.to_string(), after["instance"].as_str().unwrap());
    // It is the broker's own, and its lock keeps others out.
    assert_eq!(broker.setup().refuses().code(), Some(1));
    upgrade(&broker);
    let instances: BTreeSet<String> =
        [&before, &after, &broker.status()].map(|status| status["instance"].to_string()).into();
    assert_eq!(instances.len(), 3);
    assert!(Process::of(&child).is_alive());
}
