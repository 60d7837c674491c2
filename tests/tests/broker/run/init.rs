//! The broker as process 1, as in a container: in a pid namespace of its own, with its own `/proc`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::next::children_of;
use super::*;
use crate::harness::PATIENCE;

/// The words that give a command a pid namespace of its own, as root or in a user namespace; none where the kernel
/// allows neither.
pub(crate) fn own_pids() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [
        &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"],
    ];
    let works = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let way = WAYS.into_iter().find(|words| works(words));
    if way.is_none() {
        eprintln!("skipped: this kernel lets this user make no pid namespace");
    }
    way
}

/// In which user namespace a process is.
fn user_namespace(process: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{process}/ns/user")).expect("a process")
}

/// A broker that is process 1 of its namespace.
struct Init {
    /// What waits for it outside: unshare(1), which ends with its exit status.
    outside: TestBroker,
    /// Its number outside.
    pid: i32,
}

impl Init {
    fn start(setup: Setup, flags: &[&str], main: Vec<String>) -> Option<Self> {
        let words = own_pids()?;
        let outside = running(setup.through(words), flags, main).start();
        let [pid] = children_of(outside.pid())[..] else { panic!("unshare has one child") };
        assert_eq!(outside.status()["pid"], 1);
        Some(Self { outside, pid })
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).expect("a running broker");
    }

    /// How many children it has, zombies too.
    fn children(&self) -> usize {
        children_of(u32::try_from(self.pid).unwrap()).len()
    }

    fn await_children(&self, count: usize) {
        let began = Instant::now();
        while self.children() != count {
            assert!(began.elapsed() < PATIENCE, "{} children, and not {count}", self.children());
            std::thread::yield_now();
        }
    }
}

#[test]
fn signals_reach_the_main_command_and_end_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let setup = Setup::new();
        let mut pipe = fifo(&setup, "pipe");
        let Some(mut broker) = Init::start(setup, &[], telling(&pipe, &[])) else { return };
        assert_eq!(pipe.line(), "there");
        for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGQUIT] {
            broker.signal(signal);
            assert_eq!(pipe.line(), signal.as_str());
        }
        broker.outside.json().create(willing());
        broker.signal(signal);
        assert_eq!(pipe.line(), "SIGTERM");
        let ended = ends_with(&mut broker.outside, 3);
        assert_eq!(ended.lines_with("shut down: 1 child ended, 0 of them killed").len(), 1, "{}", ended.log);
    }
}

#[test]
fn the_exit_status_is_that_of_the_main_command_there_too() {
    for (text, code) in [("exit 7", 7), ("kill -KILL $$", 128 + 9), ("exec /no/such/program", 127)] {
        let setup = Setup::new();
        let (mut pipe, mut go) = (fifo(&setup, "pipe"), fifo(&setup, "go"));
        let mut main = script(&pipe, &format!("echo there >\"$1\"; read line <\"$2\"; {text}"));
        main.push(super::text(go.path()));
        let Some(mut broker) = Init::start(setup, &[], main) else { return };
        assert_eq!(pipe.line(), "there");
        go.say("end");
        ends_with(&mut broker.outside, code);
    }
}

#[test]
fn every_orphan_of_the_namespace_is_reaped() {
    for flags in [&[][..], &["--containment", "subreaper"]] {
        let setup = Setup::new();
        let mut pipe = fifo(&setup, "pipe");
        let orphans = "for i in $(seq 50); do (sh -c 'echo orphan >\"$1\"' sh \"$1\" &); done";
        let main = script(&pipe, &format!("{orphans}; echo done >\"$1\"; exec sleep infinity"));
        let Some(mut broker) = Init::start(setup, flags, main) else { return };
        pipe.lines(51);
        broker.await_children(1);
        // Of somebody who has come in from outside, as by `docker exec`.
        let target = broker.pid.to_string();
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &target, "--pid"]);
        if user_namespace("self") != user_namespace(&target) {
            enter.args(["--user", "--preserve-credentials"]);
        }
        let entered = enter.args(["sh", "-c", orphans, "sh"]).arg(pipe.path()).status().expect("nsenter");
        assert!(entered.success(), "{enter:?}");
        pipe.lines(50);
        broker.await_children(1);
        broker.signal(Signal::SIGTERM);
        ends_with(&mut broker.outside, 128 + 15);
    }
}

#[test]
fn an_upgrade_of_process_1_keeps_the_main_command() {
    let setup = Setup::new();
    let mut pipe = fifo(&setup, "pipe");
    let Some(mut broker) = Init::start(setup, &[], telling(&pipe, &[])) else { return };
    assert_eq!(pipe.line(), "there");
    let instance = broker.outside.status()["instance"].take();
    let said = broker.outside.run(&["upgrade", "--json"]);
    assert_eq!((said.status, &said.json()["pid"]), (0, &json!(1)), "{said:?}");
    assert_ne!(broker.outside.status()["instance"], instance);
    broker.signal(Signal::SIGUSR1);
    assert_eq!(pipe.line(), "SIGUSR1");
    broker.signal(Signal::SIGTERM);
    assert_eq!(pipe.line(), "SIGTERM");
    ends_with(&mut broker.outside, 3);
}
