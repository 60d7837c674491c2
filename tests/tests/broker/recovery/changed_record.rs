//! What is on record and what there is do not agree: the record is changed while there is no broker.

use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{BOTH, destroy, list, wait};
use crate::harness::children::{telling_cleanup, willing, with};
use crate::harness::{Process, Record, Setup, TestBroker, await_death, kill_tagged};

/// Ends everything of a broker that has been killed, as a reboot does.
fn end_all(broker: &TestBroker) {
    kill_tagged(broker.folder());
}

fn end_main(child: &Value) {
    let pid = child["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    await_death(Process(pid));
}

/// Somebody else's process, in a group and a session of its own.
struct Innocent(Child);

impl Innocent {
    fn new() -> Self {
        // A child, but of another broker.
        let mark = ("PROCBROKER_CHILD_ID", "0190d5a0-0000-7000-8000-00000000000f");
        Self(Command::new("setsid").args(["sleep", "infinity"]).env(mark.0, mark.1).spawn().expect("setsid"))
    }

    fn process(&self) -> Process {
        Process::executing(self.0.id().into())
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_ticks(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(19).expect("field 22").to_owned()
}

#[test]
fn a_process_that_has_got_the_number_of_a_child_is_left_alone() {
    for flags in BOTH {
        // It is told by the inode of its pidfd; on older kernels by its start time, and by the mark in its environment
        // if even that is the same.
        for by_start_time in [false, true] {
            let innocent = Innocent::new();
            let pid = u32::try_from(innocent.process().0).unwrap();
            let mut broker = Setup::new().flags(flags).start();
            let mut pipe = broker.fifo("pipe");
            let child = broker.json().create(with(willing(), &telling_cleanup(&pipe)));
            broker.recorded();
            broker.crash();
            end_main(&child);
            let marks = if by_start_time {
                format!(", inode = NULL, start_ticks = {}", start_ticks(pid))
            } else {
                String::new()
            };
            Record::of(&broker).change_progress(&child, &format!("pid = {pid}{marks}"));
            broker.start_again();
            let ended = wait(&mut broker.json(), &child);
            assert_eq!(
                (&ended["exit"]["unknown"], &ended["exit"]["reason"]),
                (&json!(true), &json!("exited"))
            );
            assert_eq!(ended["exit"]["steps"], json!([]));
            assert_eq!(pipe.rest(), ["cleaned exited - -"]);
            broker.stop();
            assert!(innocent.process().is_alive());
        }
    }
}

#[test]
fn after_a_reboot_all_children_are_lost_and_cleaned_up() {
    for flags in BOTH {
        let innocent = Innocent::new();
        let mut broker = Setup::new().flags(flags).start();
        let mut pipe = broker.fifo("pipe");
        let mut client = broker.json();
        let child = client.create(with(willing(), &telling_cleanup(&pipe)));
        let before = client.create(json!({"command": ["true"]}));
        let before = wait(&mut client, &before);
        broker.recorded();
        broker.crash();
        end_all(&broker);
        let record = Record::of(&broker);
        // Now its number is somebody else's, with the same marks even.
        record.change_progress(&child, &format!("pid = {}, inode = 1", innocent.0.id()));
        let other_boot = "x'00112233445566778899aabbccddeeff'";
        record.sql(&format!("UPDATE host SET value = {other_boot} WHERE key = 'boot'"));
        record.sql(&format!("UPDATE progress SET boot = {other_boot} WHERE boot IS NOT NULL"));
        record.sign();
        broker.start_again();
        let ended = wait(&mut broker.json(), &child);
        assert_eq!(
            (&ended["exit"]["reason"], &ended["exit"]["unknown"]),
            (&json!("broker_lost"), &json!(true))
        );
        assert_eq!(ended["cleanup"], json!({"ok": true, "exit": {"code": 0}, "attempts": 1}));
        assert_eq!(pipe.rest(), ["cleaned broker_lost - -"]);
        assert_eq!(list(&broker, true), [ended, before]);
        broker.stop();
        assert!(innocent.process().is_alive());
    }
}

#[test]
fn a_process_that_had_not_come_to_be_recorded_is_found_by_its_mark() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let child = broker.json().create(with(willing(), &json!({"name": "one", "stdout": "null"})));
        broker.recorded();
        broker.crash();
        let removed = Record::of(&broker).sql("DELETE FROM progress RETURNING seq");
        assert_eq!(removed.len(), 1);
        broker.start_again();
        let mut client = broker.json();
        let found = client.ok("get", json!({"target": "one"}))["child"].take();
        assert_eq!(
            (&found["id"], &found["pid"], &found["state"]),
            (&child["id"], &child["pid"], &json!("running"))
        );
        let ended = destroy(&mut client, &child);
        assert_eq!((&ended["exit"]["signal"], &ended["exit"]["forced"]), (&json!("SIGTERM"), &json!(false)));
        assert!(!Process(child["pid"].as_i64().unwrap()).is_alive());
    }
}

#[test]
fn a_child_that_was_never_started_is_not_there() {
    let mut broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let child = broker.json().create(with(willing(), &with(telling_cleanup(&pipe), &json!({"name": "one"}))));
    broker.recorded();
    broker.crash();
    end_main(&child);
    // As it is between the intent and the deed.
    Record::of(&broker).sql("DELETE FROM progress");
    std::fs::remove_file(broker.pipe_of(&child)).unwrap();
    broker.start_again();
    assert_eq!(list(&broker, true), [Value::Null; 0]);
    broker.json().create(with(willing(), &json!({"name": "one"})));
    assert_eq!(pipe.rest(), [""; 0]);
    assert_eq!(Record::of(&broker).sql("SELECT seq FROM child").len(), 1);
}

#[test]
fn a_child_that_may_have_been_started_is_cleaned_up() {
    let mut broker = TestBroker::start();
    let mut pipe = broker.fifo("pipe");
    let child = broker.json().create(with(willing(), &telling_cleanup(&pipe)));
    broker.recorded();
    broker.crash();
    end_main(&child);
    Record::of(&broker).sql("DELETE FROM progress");
    broker.start_again();
    let ended = wait(&mut broker.json(), &child);
    assert_eq!((&ended["exit"]["unknown"], &ended["exit"]["reason"]), (&json!(true), &json!("exited")));
    assert_eq!(pipe.rest(), ["cleaned exited - -"]);
}
