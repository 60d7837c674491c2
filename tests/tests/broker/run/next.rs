//! What becomes of the main command when its broker is killed, or replaced.

use super::*;
use crate::harness::Process;
use crate::harness::children::{attentive, pid_in};

#[test]
fn that_of_a_killed_broker_is_stopped_before_the_next_one_is_started() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let setup = Setup::new();
        let (mut pipe, mut go) = (fifo(&setup, "pipe"), fifo(&setup, "go"));
        let main = words(&attentive(&pipe, "main", Some(&go)));
        let flags = [flags, &["--main-stop", "TERM:1h"]].concat();
        let mut broker = running(setup, &flags, main).start();
        assert_eq!(pipe.line(), "main there");
        let child = broker.json().create(willing());
        broker.recorded();
        broker.crash_and_start_again();
        assert_eq!(pipe.line(), "main asked");
        // The children are there all the time, and are no part of that.
        let listed = broker.json().ok("list", json!({}))["children"].take();
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["pid"]), (1, &child["pid"]));
        assert_eq!(broker.status()["shutting_down"], false);
        go.say("end");
        assert_eq!(pipe.lines(2), ["main ended", "main there"]);
        broker.signal(Signal::SIGTERM);
        assert_eq!(pipe.line(), "main asked");
        go.say("end");
        let ended = ends_with(&mut broker, 3);
        assert_eq!(ended.lines_with("started child=main").len(), 2, "{}", ended.log);
        assert_eq!(pipe.rest(), ["main ended"]);
    }
}

#[test]
fn one_that_died_with_its_broker_is_started_anew() {
    let setup = Setup::new();
    let mut hello = fifo(&setup, "hello");
    let main = script(&hello, "echo main $$ >\"$1\"; exec sleep infinity");
    let mut broker = running(setup, &[], main).start();
    let old = pid_in(&hello.line());
    broker.recorded();
    broker.crash();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(old.0).unwrap()), Signal::SIGKILL)
        .unwrap();
    await_death(old);
    broker.start_again();
    let new = pid_in(&hello.line());
    assert!(new.is_alive() && new != old);
    broker.signal(Signal::SIGTERM);
    ends_with(&mut broker, 128 + 15);
}

#[test]
fn an_upgrade_keeps_it_and_its_signals_and_its_end() {
    let setup = Setup::new();
    let mut pipe = fifo(&setup, "pipe");
    let mut broker = running(setup, &["--main-stop", "WINCH:1h"], telling(&pipe, &[])).start();
    assert_eq!(pipe.line(), "there");
    let before = broker.status();
    let mains = children_of(broker.pid());
    assert_eq!(mains.len(), 1);
    for _ in 0..2 {
        let said = broker.run(&["upgrade", "--json"]);
        assert_eq!(said.status, 0, "{said:?}");
        broker.says("READY=1");
        assert_eq!(children_of(broker.pid()), mains);
        broker.signal(Signal::SIGUSR1);
        assert_eq!(pipe.line(), "SIGUSR1");
    }
    let after = broker.status();
    assert_ne!(after["instance"], before["instance"]);
    assert_eq!(broker.json().ok("list", json!({"all": true}))["children"], json!([]));
    assert!(Process(i64::from(mains[0])).is_alive());
    // Its end is still the broker's.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(mains[0]), Signal::SIGTERM).unwrap();
    let ended = ends_with(&mut broker, 3);
    assert_eq!(ended.lines_with("started child=main").len(), 1, "{}", ended.log);
    assert_eq!(pipe.rest(), ["SIGTERM"]);
}

/// The children of a process, zombies too, as the kernel lists them.
pub(super) fn children_of(pid: u32) -> Vec<i32> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten() {
        // A thread may have ended meanwhile.
        let listed = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(listed.split_whitespace().map(|child| child.parse::<i32>().expect("a pid")));
    }
    children.sort_unstable();
    children
}
