//! Upgrades that cannot be: each has a reason, and changes nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{replaceable, upgrade};
use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, PATIENCE, STRANGER, TestBroker, is_root, procbroker_in};

/// Asks for an upgrade that is refused, and gives the reason.
pub(super) fn refused(broker: &TestBroker) -> String {
    let said = broker.run(&["upgrade"]);
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(said.err.contains("nothing has changed"), "{said:?}");
    said.err
}

/// Puts a script in the place of the program.
pub(super) fn script(program: &Path, text: &str) {
    let draft = program.with_extension("draft");
    fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&draft, Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, program).unwrap();
}

fn copy(program: &Path, of: &str) {
    let draft = program.with_extension("draft");
    fs::copy(of, &draft).unwrap();
    fs::rename(draft, program).unwrap();
}

fn missing(program: &Path) {
    fs::remove_file(program).unwrap();
}

fn not_executable(program: &Path) {
    script(program, "true");
    fs::set_permissions(program, Permissions::from_mode(0o644)).unwrap();
}

/// Waits until the broker has logged this.
fn await_log(broker: &TestBroker, part: &str) {
    let began = Instant::now();
    while !broker.log().contains(part) {
        assert!(began.elapsed() < PATIENCE, "{}", broker.log());
        std::thread::yield_now();
    }
}

/// Agrees, and is no program any more then.
pub(super) fn gone_at_the_last_moment(program: &Path) {
    script(program, "echo 'can take over in form 1'\nrm \"$0\"; mkdir \"$0\"");
}

/// Makes a program unfit to take over.
type Spoil = fn(&Path);

#[test]
fn without_its_runtime_folder_a_broker_stays_as_it_is() {
    let broker = TestBroker::start();
    let child = broker.json().create(with(willing(), &json!({"name": "a"})));
    let folder = PathBuf::from(format!("{}.d", broker.socket().display()));
    let aside = folder.with_extension("aside");
    fs::rename(&folder, &aside).unwrap();
    let said = refused(&broker);
    assert!(said.contains(folder.to_str().unwrap()), "{said}");
    assert_eq!(broker.json().got(&child["id"]), child);
    fs::rename(&aside, &folder).unwrap();
    let said = broker.run(&["upgrade"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(broker.json().got(&child["id"]), child);
}

#[test]
fn another_program_is_refused_and_everything_stays_as_it_is() {
    let broker = replaceable().start();
    let program: PathBuf = procbroker_in(broker.folder());
    let good = program.with_extension("good");
    fs::rename(&program, &good).unwrap();
    broker.json().create(with(willing(), &json!({"name": "a"})));
    let (before, list) = (broker.status(), broker.json().ok("list", json!({})));
    let cases: [(&str, Spoil); 7] = [
        ("No such file", missing),
        ("Permission denied", not_executable),
        ("it said nothing", |program| copy(program, "/bin/true")),
        ("unrecognized option", |program| copy(program, "/bin/cat")),
        ("of another age", |program| script(program, "echo procbroker: of another age >&2; exit 1")),
        ("what else there is", |program| script(program, "echo what else there is")),
        ("EISDIR|EACCES", gone_at_the_last_moment),
    ];
    fs::write(&program, "").unwrap();
    for (reason, replace) in cases {
        replace(&program);
        if reason == "EISDIR|EACCES" {
            // It has agreed: only that it cannot be executed shows the broker.
            let mut client = broker.json();
            client.ok("upgrade", json!({}));
            await_log(&broker, "not upgraded: cannot execute");
            // The broker goes on with the very connection.
            client.ok("status", json!({}));
            fs::remove_dir(&program).unwrap();
        } else {
            let said = refused(&broker);
            assert!(said.contains(reason), "{reason}: {said}");
            assert!(said.contains(program.to_str().unwrap()), "{said}");
        }
        assert_eq!(broker.status()["instance"], before["instance"], "{reason}");
        assert_eq!(broker.json().ok("list", json!({})), list);
        if !program.exists() {
            fs::write(&program, "").unwrap();
        }
    }
    assert!(broker.log().contains("EACCES") || broker.log().contains("EISDIR"), "{}", broker.log());
    fs::rename(&good, &program).unwrap();
    upgrade(&broker);
    assert_eq!(broker.json().ok("list", json!({})), list);
}

#[test]
fn what_a_refused_program_has_started_is_gone() {
    let broker = replaceable().start();
    let program = procbroker_in(broker.folder());
    fs::remove_file(&program).unwrap();
    let mut hello = broker.fifo("hello");
    // By the tag it is found, and ended, if the broker leaves it.
    script(&program, &format!("TAG={0} sleep 1000 >&- 2>&- & echo $! >{0}; echo no", hello.path().display()));
    refused(&broker);
    let pid: i64 = hello.line().parse().unwrap();
    let left = crate::harness::Process(pid);
    crate::harness::await_death(left);
}

#[test]
fn a_program_that_does_not_take_the_arguments_is_refused() {
    let broker = replaceable().start();
    let program = procbroker_in(broker.folder());
    let good = program.with_extension("good");
    fs::rename(&program, &good).unwrap();
    // As one of another version would: it is asked with the arguments of this one.
    script(&program, &format!("exec {} \"$@\" --of-the-past", good.display()));
    let said = refused(&broker);
    assert!(said.contains("--of-the-past"), "{said}");
}

#[test]
fn a_broker_that_stops_does_not_upgrade() {
    let mut broker = replaceable().start();
    let mut hello = broker.fifo("hello");
    let script = "trap 'echo told >\"$1\"' TERM; echo ready >\"$1\"; while :; do sleep 0.05; done";
    let stop = json!([{"signal": "SIGTERM", "grace": 30}]);
    broker.json().create(json!({"command": ["sh", "-c", script, "sh", hello.path()], "stop": stop}));
    assert_eq!(hello.line(), "ready");
    let mut client = broker.json();
    client.ok("status", json!({}));
    broker.signal(Signal::SIGTERM);
    assert_eq!(hello.line(), "told");
    assert_eq!(client.refused("upgrade", json!({})).kind, "shutting_down");
    broker.signal_that_counts_again(Signal::SIGTERM);
    broker.ended_in_order();
}

#[test]
fn only_root_and_the_brokers_user_may() {
    if !is_root() {
        return;
    }
    let user = STRANGER.to_string();
    let broker = replaceable().flags(["--socket-mode", "666", "--allow-user", &user]).start();
    let before = broker.status();
    let mut client = JsonClient::as_user(broker.socket(), STRANGER, &[STRANGER]);
    assert_eq!(client.refused("upgrade", json!({})).kind, "permission_denied");
    assert_eq!(broker.status()["instance"], before["instance"]);
}
