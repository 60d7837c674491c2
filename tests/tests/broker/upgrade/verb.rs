//! The verb `upgrade`: what it prints, and its exit status.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::replaceable;
use crate::command_line::{DENIED, DONE, FAILED, NO_BROKER, USAGE, failed};
use crate::harness::{STRANGER, Said, TestBroker, is_root, procbroker_in};

/// Removes the program that would take over.
fn without_a_program() -> TestBroker {
    let broker = replaceable().start();
    std::fs::remove_file(procbroker_in(broker.folder())).unwrap();
    broker
}

#[test]
fn json_is_the_status_of_the_broker_that_has_taken_over() {
    let broker = replaceable().start();
    let before = broker.status();
    let said = broker.run(&["upgrade", "--json"]);
    assert_eq!((said.status, said.err.as_str(), said.out.lines().count()), (DONE, "", 1), "{said:?}");
    let (mut shown, mut now) = (said.json(), broker.status());
    for status in [&mut shown, &mut now] {
        status["connections"].take();
    }
    assert_eq!(shown, now);
    assert_ne!(shown["instance"], before["instance"]);
}

#[test]
fn a_refusal_is_a_failure_with_its_reason() {
    let broker = without_a_program();
    let before = broker.status();
    failed(&broker.run(&["upgrade"]), FAILED, "nothing has changed");
    let said = broker.run(&["upgrade", "--json"]);
    assert_eq!((said.status, said.out.as_str(), said.err.lines().count()), (FAILED, "", 1), "{said:?}");
    let error: Value = serde_json::from_str(&said.err).expect("the error object");
    assert!(error["code"].is_i64() && error["data"]["kind"].is_string(), "{error}");
    assert!(error["message"].as_str().unwrap().contains("No such file"), "{error}");
    assert_eq!(broker.status()["instance"], before["instance"]);
}

#[test]
fn without_a_broker_there_is_nothing_to_wait_for() {
    let broker = TestBroker::start();
    let nowhere = broker.path("nowhere");
    let arguments = ["upgrade", "--socket", nowhere.to_str().unwrap()];
    failed(&broker.run(&arguments), NO_BROKER, nowhere.to_str().unwrap());
}

#[test]
fn others_may_not_and_are_told_so() {
    if !is_root() {
        return;
    }
    let user = STRANGER.to_string();
    let flags = ["--socket-mode", "666", "--allow-user", &user];
    let broker = replaceable().flags(flags).start();
    let before = broker.status();
    let mut upgrade = Command::new("setpriv");
    upgrade.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    upgrade.arg(procbroker_in(broker.folder())).args(["upgrade", "--socket"]).arg(broker.socket());
    failed(&Said::by(&mut upgrade), DENIED, "root");
    assert_eq!(broker.status()["instance"], before["instance"]);
}

#[test]
fn it_takes_no_other_arguments() {
    let broker = replaceable().start();
    let before = broker.status();
    for (arguments, named) in [(["upgrade", "now"], "now"), (["upgrade", "--to=/bin/true"], "--to")] {
        failed(&broker.run(&arguments), USAGE, named);
    }
    assert_eq!(broker.status()["instance"], before["instance"]);
}

#[test]
fn a_reader_that_is_gone_is_no_failure() {
    let broker = replaceable().start();
    let before = broker.status();
    let mut upgrade = broker.verb(&["upgrade"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(upgrade.stdout.take());
    assert_eq!(upgrade.wait().unwrap().code(), Some(DONE));
    broker.says("READY=1");
    assert_ne!(broker.status()["instance"], before["instance"]);
}
