//! Orders that are carried out when the run that they were for is over: the next one of the same child has its mark.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procbroker_core::{Incarnation, Pid, Run, SignalOutcome};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildId, Signal};
use uuid::Uuid;

use super::super::job::SignalOrder;
use super::super::process_table::SharedTable;
use super::super::visitors::{KillScope, KillVisitor, LiveRuns, SignalSenders};
use super::super::walk::{LiveProcess, Visitor};
use super::scene::PATIENCE;
use crate::os::process::identity;
use crate::os::process::pidfd;
use crate::os::process::proc::ProcessStat;

/// A process that repeats what it is told, and ends with the test.
struct Echo(Child);

impl Echo {
    fn start() -> Self {
        let mut command = Command::new("/bin/cat");
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// As a walk finds it, which takes it for this child's.
    fn found_as_of(&self, owner: ChildId) -> LiveProcess {
        let pid = Pid::new(self.0.id()).unwrap();
        let (pidfd, stat) = (pidfd::open(pid).unwrap(), ProcessStat::read(pid).unwrap());
        let identity = (pid, identity::birthmark(pid, pidfd.as_fd()).unwrap());
        LiveProcess { stat, identity, pidfd, owner: Some(owner) }
    }

    /// Whether it still does its work: whatever was sent to it before has done nothing to it.
    fn answers(&mut self) -> bool {
        let mut answer = [0];
        let (input, output) = (self.0.stdin.as_mut().unwrap(), self.0.stdout.as_mut().unwrap());
        // Of one that was killed the pipe may be closed already.
        let told = input.write_all(b"?").is_ok();
        let mut events = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap();
        told && poll(&mut events, patience) == Ok(1) && output.read(&mut answer).unwrap() == 1
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn has_ended(found: &LiveProcess) -> bool {
    pidfd::wait_for_end(found.pidfd.as_fd(), Instant::now() + PATIENCE)
}

/// A table with a run of a child, and the run.
fn table() -> (SharedTable, Run) {
    let table = SharedTable::default();
    let run = Run { child: ChildId::from_uuid(Uuid::from_u128(1)), incarnation: Incarnation::FIRST };
    table.lock().prepare(run, None);
    (table, run)
}

/// The run is over, and the next one of the same child has begun.
fn follow(table: &SharedTable, run: Run) {
    assert!(table.lock().release(run).is_some());
    table.lock().prepare(Run { incarnation: run.incarnation.next(), ..run }, None);
}

fn killer(table: &SharedTable, run: Run) -> KillVisitor {
    KillVisitor::of(KillScope::Of(LiveRuns::new(table.clone(), [run])))
}

#[test]
fn a_kill_of_a_run_that_was_released_ends_nothing_that_came_after_it() {
    let (table, run) = table();
    let mut killer = killer(&table, run);
    let mut next = Echo::start();
    follow(&table, run);
    let found = next.found_as_of(run.child);
    killer.enter(&found);
    killer.leave(&found);
    assert!(next.answers());
    assert!(!killer.fresh && killer.killed.is_empty());
}

#[test]
fn a_kill_ends_what_is_of_its_run_and_nothing_of_another_child() {
    let (table, run) = table();
    let mut killer = killer(&table, run);
    let (own, mut other) = (Echo::start(), Echo::start());
    let other_child = ChildId::from_uuid(Uuid::from_u128(2));
    let (of_run, of_other) = (own.found_as_of(run.child), other.found_as_of(other_child));
    for found in [&of_run, &of_other] {
        killer.enter(found);
        killer.leave(found);
    }
    assert!(has_ended(&of_run) && other.answers());
    assert!(killer.fresh);
}

#[test]
fn what_a_kill_has_stopped_is_ended_though_its_run_was_released_meanwhile() {
    let (table, run) = table();
    let mut killer = killer(&table, run);
    let process = Echo::start();
    let found = process.found_as_of(run.child);
    killer.enter(&found);
    follow(&table, run);
    // It would stand still for ever otherwise.
    killer.leave(&found);
    assert!(has_ended(&found));
}

#[test]
fn a_signal_to_a_run_that_was_released_reaches_nothing_that_came_after_it() {
    let (table, run) = table();
    let order = SignalOrder { run, signal: Signal::KILL, scope: Scope::All, asked: None };
    let senders = || {
        let mut senders = SignalSenders::new(table.clone());
        senders.add(run.child, None, &order);
        senders
    };
    let (mut early, mut late) = (senders(), senders());
    let (before, mut next) = (Echo::start(), Echo::start());
    let found = before.found_as_of(run.child);
    early.enter(&found);
    assert!(has_ended(&found));
    follow(&table, run);
    late.enter(&next.found_as_of(run.child));
    assert!(next.answers());
    assert_eq!([early.count(), late.count()], [1, 0]);
    assert_eq!(early.all[0].outcome(), SignalOutcome::Delivered);
    assert_eq!(late.all[0].outcome(), SignalOutcome::Gone);
}
