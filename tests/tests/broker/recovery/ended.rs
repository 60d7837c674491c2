//! Children that end while there is no broker, or that had ended before.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{BOTH, destroy, list, wait};
use crate::harness::children::{
    pid_in, script, telling_cleanup, willing, with, with_daemon, with_stubborn_member,
};
use crate::harness::{Fifo, Process, Setup, TestBroker, adopt_orphans, await_death, await_zombie, reap};

/// One that ends with this code when a line is written to the pipe `NAME.go`.
fn ends_when_told(pipe: &Fifo, code: u32) -> Value {
    script(pipe, &format!("read word <\"$1.go\"; exit {code}"))
}

fn kill_main(child: &Value, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child["pid"].as_i64().unwrap()).unwrap()), signal).unwrap();
}

fn exited(child: &Value, how: &Value) {
    assert_eq!(child["state"], "ended", "{child}");
    let (key, value) = how.as_object().unwrap().iter().next().unwrap();
    assert_eq!((&child["exit"][key], &child["exit"]["reason"]), (value, &json!("exited")), "{child}");
    assert_eq!((&child["exit"]["forced"], &child["pid"]), (&json!(false), &Value::Null), "{child}");
}

#[test]
fn a_child_that_ended_without_a_broker_is_reported_as_it_ended() {
    adopt_orphans();
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
        let mut client = broker.json();
        let coded = client.create(with(ends_when_told(&pipe, 7), &telling_cleanup(&pipe)));
        let killed = client.create(with(willing(), &telling_cleanup(&pipe)));
        broker.recorded();
        broker.crash();
        go.say("end");
        kill_main(&killed, Signal::SIGUSR1);
        await_zombie(&coded);
        await_zombie(&killed);
        broker.start_again();
        let mut client = broker.json();
        exited(&wait(&mut client, &coded), &json!({"code": 7}));
        exited(&wait(&mut client, &killed), &json!({"signal": "SIGUSR1"}));
        let mut cleaned = pipe.rest();
        cleaned.sort();
        assert_eq!(cleaned, ["cleaned exited - SIGUSR1", "cleaned exited 7 -"]);
        reap(&coded);
        reap(&killed);
    }
}

#[test]
fn a_child_whose_end_nobody_can_tell_is_reported_as_unknown() {
    adopt_orphans();
    let mut broker = TestBroker::start();
    let (mut pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
    let child = broker.json().create(with(ends_when_told(&pipe, 7), &telling_cleanup(&pipe)));
    broker.crash();
    go.say("end");
    reap(&child);
    broker.start_again();
    exited(&wait(&mut broker.json(), &child), &json!({"unknown": true}));
    assert_eq!(pipe.rest(), ["cleaned exited - -"]);
}

#[test]
fn a_recovered_child_that_ends_by_itself_is_reported_as_it_ended() {
    for adopts in [true, false] {
        // Otherwise it is up to the system's init.
        if adopts {
            adopt_orphans();
        }
        for flags in BOTH {
            let mut broker = Setup::new().flags(flags).start();
            let (pipe, mut go) = (broker.fifo("pipe"), broker.fifo("pipe.go"));
            let child = broker.json().create(ends_when_told(&pipe, 9));
            broker.crash_and_start_again();
            let mut client = broker.json();
            let waiting = client.send("wait", json!({"target": child["id"]}));
            client.ok("status", json!({}));
            go.say("end");
            exited(&client.answer(waiting).unwrap()["child"], &json!({"code": 9}));
        }
    }
}

/// The daemon outlives its child, whose end no broker sees.
fn what_was_left_is_ended(flags: &[&str], kind: fn(&Fifo) -> Value) {
    adopt_orphans();
    let mut broker = Setup::new().flags(flags).start();
    let (mut hello, mut pipe) = (broker.fifo("hello"), broker.fifo("pipe"));
    let stop = json!({"stop": [{"signal": "TERM", "grace": 0.05}]});
    let child = broker.json().create(with(with(kind(&hello), &telling_cleanup(&pipe)), &stop));
    let left = pid_in(&hello.line());
    broker.recorded();
    broker.crash();
    kill_main(&child, Signal::SIGUSR1);
    await_zombie(&child);
    assert!(left.is_alive());
    broker.start_again();
    let ended = wait(&mut broker.json(), &child);
    assert!(!left.is_alive());
    assert_eq!((&ended["exit"]["signal"], &ended["exit"]["reason"]), (&json!("SIGUSR1"), &json!("exited")));
    assert_eq!((&ended["exit"]["forced"], &ended["cleanup"]["ok"]), (&json!(true), &json!(true)), "{ended}");
    assert_eq!(pipe.rest(), ["cleaned exited - SIGUSR1"]);
}

#[test]
fn a_daemon_that_outlived_its_child_without_a_broker_is_ended() {
    for flags in BOTH {
        what_was_left_is_ended(flags, with_daemon);
    }
}

#[test]
fn a_member_that_outlived_its_child_without_a_broker_is_ended() {
    for flags in BOTH {
        what_was_left_is_ended(flags, with_stubborn_member);
    }
}

#[test]
fn a_daemon_whose_child_was_reaped_without_a_broker_is_ended() {
    adopt_orphans();
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let mut hello = broker.fifo("hello");
        let stop = json!({"stop": [{"signal": "TERM", "grace": 0.05}]});
        let child = broker.json().create(with(with_daemon(&hello), &stop));
        let daemon = pid_in(&hello.line());
        broker.recorded();
        broker.crash();
        kill_main(&child, Signal::SIGKILL);
        reap(&child);
        broker.start_again();
        let ended = wait(&mut broker.json(), &child);
        assert!(!daemon.is_alive());
        assert_eq!(ended["exit"]["reason"], "exited", "{ended}");
    }
}

#[test]
fn a_destroy_of_a_recovered_child_ends_all_that_descends_from_it() {
    for flags in BOTH {
        for kind in [with_daemon, with_stubborn_member] {
            let mut broker = Setup::new().flags(flags).start();
            let mut hello = broker.fifo("hello");
            let stop = json!({"stop": [{"signal": "TERM", "grace": 0.05}]});
            let child = broker.json().create(with(kind(&hello), &stop));
            let descendant = pid_in(&hello.line());
            broker.crash_and_start_again();
            assert!(descendant.is_alive());
            let ended = destroy(&mut broker.json(), &child);
            assert!(!descendant.is_alive());
            assert_eq!(
                (&ended["exit"]["signal"], &ended["exit"]["forced"]),
                (&json!("SIGTERM"), &json!(true))
            );
        }
    }
}

#[test]
fn a_stop_of_the_broker_ends_all_that_was_recovered() {
    for flags in BOTH {
        let mut broker = Setup::new().flags(flags).start();
        let mut hello = broker.fifo("hello");
        let stop = json!({"stop": [{"signal": "TERM", "grace": 0.1}]});
        for _ in 0..5 {
            broker.json().create(with(with_daemon(&hello), &stop));
            broker.json().create(with(with_stubborn_member(&hello), &stop));
            broker.json().create(willing());
        }
        let there: Vec<Process> = hello.lines(10).iter().map(|line| pid_in(line)).collect();
        broker.crash_and_start_again();
        assert_eq!(list(&broker, false).len(), 15);
        let ended = broker.stop();
        assert!(!there.iter().any(|process| process.is_alive()));
        assert_eq!(ended.lines_with("shut down: 15 children ended").len(), 1, "{}", ended.log);
    }
}

#[test]
fn ended_children_stay_visible_through_a_crash() {
    let mut broker = TestBroker::start();
    let pipe = broker.fifo("pipe");
    let mut client = broker.json();
    for number in 0..5 {
        let child = json!({"command": ["sh", "-c", format!("exit {number}")], "name": "one"});
        let child = client.create(with(child, &telling_cleanup(&pipe)));
        wait(&mut client, &child);
    }
    let before = list(&broker, true);
    assert_eq!(before.len(), 5);
    broker.crash_and_start_again();
    assert_eq!(list(&broker, true), before);
    assert_eq!(wait(&mut broker.json(), &before[3]), before[3]);
    broker.crash();
    broker.add_flags(&["--ended-max", "2"]);
    broker.start_again();
    assert_eq!(list(&broker, true), before[3..]);
    broker.crash_and_start_again();
    assert_eq!(list(&broker, true), before[3..]);
}

#[test]
fn a_child_that_dies_in_the_moment_of_the_crash_is_accounted_for() {
    let mut broker = TestBroker::start();
    let mut go = broker.fifo("pipe.go");
    let pipe = broker.fifo("pipe");
    let mut client = broker.json();
    let children: Vec<Value> = (0..20).map(|_| client.create(ends_when_told(&pipe, 3))).collect();
    for _ in &children {
        go.say("end");
    }
    broker.crash();
    for child in &children {
        await_death(Process(child["pid"].as_i64().unwrap()));
    }
    broker.start_again();
    let mut client = broker.json();
    for child in &children {
        let ended = wait(&mut client, child);
        assert_eq!((&ended["state"], &ended["exit"]["reason"]), (&json!("ended"), &json!("exited")));
        let is_told = ended["exit"]["code"] == 3 || ended["exit"]["unknown"] == true;
        assert!(is_told, "{ended}");
    }
}
