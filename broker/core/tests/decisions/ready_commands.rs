//! Commands that find out whether a child is ready: one at a time, for a bounded time, and none that has no point any more.

use std::time::Duration;

use procbroker_core::{
    Call, ConnectionId, Effect, Finding, Incarnation, Input, Members, Purpose, Report, Run, paired_id,
};
use procbroker_protocol::create::{Check, Cleanup, Ready, ReadyTimeout, RestartPolicy};
use procbroker_protocol::error::{ProbeFailure, SpawnFailure};
use procbroker_protocol::{ChildState, CreateParams, ErrorKind, ExitReason, ExitStatus, Signal};

use crate::world::*;

const NOT_READY: ExitStatus = ExitStatus::Code(1);
const READY: ExitStatus = ExitStatus::Code(0);

fn asked(params: CreateParams) -> CreateParams {
    let ready: Ready = Check::Command(vec!["up".to_owned()]).into();
    CreateParams { ready, ..params }
}

/// The process of the probe of this number, of a child.
fn probe(run: Run, number: u32) -> Run {
    Run { child: paired_id(run.child), incarnation: Incarnation(1 + number) }
}

/// A child that is asked by its first probe, which runs; the orders on the way are taken.
fn asking(world: &mut World, client: ConnectionId, params: CreateParams) -> (Call, Run) {
    let call = world.create(client, asked(params));
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(probes(world), [probe(run, 1)]);
    world.spawned(probe(run, 1));
    (call, run)
}

fn probes(world: &mut World) -> Vec<Run> {
    let is_probe = |effect| match effect {
        Effect::Spawn { run, purpose: Purpose::Probe, .. } => Some(run),
        _ => None,
    };
    world.take().into_iter().filter_map(is_probe).collect()
}

fn exits(world: &mut World, run: Run, status: ExitStatus) {
    world.exited(run, status, Members::Nothing);
}

#[test]
fn a_child_is_asked_by_one_command_at_a_time_with_pauses_that_double_until_one_succeeds() {
    let (mut world, client) = World::with_client();
    let (call, run) = asking(&mut world, client, named("a"));
    for (number, pause) in (1..).zip([100, 200, 400, 800, 1_000, 1_000]) {
        exits(&mut world, probe(run, number), NOT_READY);
        world.advance(Duration::from_millis(pause - 1));
        assert_eq!(probes(&mut world), [], "{pause}");
        world.advance(Duration::from_millis(1));
        assert_eq!(probes(&mut world), [probe(run, number + 1)], "{pause}");
        world.spawned(probe(run, number + 1));
    }
    assert!(!world.is_answered(call));
    exits(&mut world, probe(run, 7), READY);
    assert_eq!(world.created(call).child.state, ChildState::Running);
    assert_eq!(world.due_in(), None);
    assert!(world.take().contains(&Effect::Release { run: probe(run, 7) }));
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_has_started_and_asked_again() {
    let (mut world, client) = World::with_client();
    let (call, run) = asking(&mut world, client, named("a"));
    world.advance(Duration::from_millis(4_999));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(probe(run, 1))]);
    // It says that it has succeeded at this very moment: that came too late.
    world.exited(probe(run, 1), READY, Members::Outside);
    assert!(world.sent().contains(&Sent::Kill(probe(run, 1))));
    world.advance(secs(2));
    assert!(world.sent().contains(&Sent::Kill(probe(run, 1))), "it is killed until it is gone");
    assert!(!world.is_answered(call));
    world.give(Input::MembersLeft { run: probe(run, 1), members: Members::Nothing });
    world.take();
    world.advance(Duration::from_millis(100));
    assert_eq!(probes(&mut world), [probe(run, 2)]);
}

#[test]
fn what_a_command_has_left_behind_is_gone_before_its_answer_counts() {
    let (mut world, client) = World::with_client();
    let (call, run) = asking(&mut world, client, named("a"));
    world.exited(probe(run, 1), READY, Members::Outside);
    assert_eq!(world.sent(), [Sent::Kill(probe(run, 1))]);
    assert!(!world.is_answered(call));
    world.give(Input::MembersLeft { run: probe(run, 1), members: Members::Nothing });
    assert_eq!(world.created(call).child.state, ChildState::Running);
}

#[test]
fn a_command_that_cannot_be_started_is_a_no() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, asked(named("a")));
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    world.advance(secs(0));
    let failure = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() };
    world.give(Input::SpawnFailed { run: probe(run, 1), failure });
    assert!(world.take().contains(&Effect::Release { run: probe(run, 1) }));
    world.advance(Duration::from_millis(100));
    assert_eq!(probes(&mut world), [probe(run, 2)]);
    assert!(!world.is_answered(call));
}

#[test]
fn no_command_outlives_the_child_that_it_was_to_ask() {
    for is_alone in [false, true] {
        let (mut world, client) = World::with_client();
        let (_, run) = asking(&mut world, client, named("a"));
        let destroy = world.call(client, destroy(name("a")));
        assert!(world.sent().contains(&Sent::Kill(probe(run, 1))));
        let gone = if is_alone { [probe(run, 1), run] } else { [run, probe(run, 1)] };
        exits(&mut world, gone[0], NOT_READY);
        assert!(!world.is_answered(destroy), "{:?} is there", gone[1]);
        world.advance(secs(1));
        world.take();
        exits(&mut world, gone[1], NOT_READY);
        let exit = world.children(destroy)[0].exit.clone().unwrap();
        assert_eq!((exit.reason, exit.forced), (ExitReason::Destroyed, false));
        let forgotten_in = world.due_in().unwrap();
        assert!(forgotten_in > secs(3_500), "nothing else is due: {forgotten_in:?}");
    }
}

#[test]
fn nothing_comes_after_a_child_that_ended_by_itself_before_its_command_is_gone() {
    let (mut world, client) = World::with_client();
    let cleanup = Some(Cleanup { command: vec!["tidy".to_owned()], timeout: secs(5) });
    let params = CreateParams { cleanup, no_wait: true, ..unnamed() };
    let again = restarted(RestartPolicy::Always, params.clone());
    for (params, then) in [(params, ChildState::Cleaning), (again, ChildState::Backoff)] {
        let (call, run) = asking(&mut world, client, params);
        exits(&mut world, run, NOT_READY);
        assert_eq!(world.sent(), [Sent::Kill(probe(run, 1))]);
        assert_eq!(world.shown(client, run).state, ChildState::Stopping);
        // A timer of a stop would signal what is not there.
        world.advance(secs(100));
        assert_eq!(world.sent().iter().filter(|sent| **sent != Sent::Kill(probe(run, 1))).count(), 0);
        world.give(Input::Exited { run: probe(run, 1), status: READY, members: Members::Nothing });
        let shown = world.shown(client, run);
        assert_eq!(shown.state, then);
        let exit = shown.exit.clone().unwrap();
        assert_eq!((exit.reason, exit.status, exit.forced), (ExitReason::StartFailed, NOT_READY, false));
        assert!(world.is_answered(call));
    }
}

#[test]
fn the_command_of_one_run_says_nothing_of_the_next() {
    let (mut world, client) = World::with_client();
    let (_, run) = asking(&mut world, client, CreateParams { no_wait: true, ..named("a") });
    world.call(client, restart(name("a")));
    exits(&mut world, run, NOT_READY);
    assert_eq!(world.shown(client, run).state, ChildState::Stopping);
    exits(&mut world, probe(run, 1), READY);
    let again = Run { incarnation: Incarnation(2), ..run };
    world.recorded(again);
    world.advance(secs(0));
    world.spawned(again);
    assert_eq!(world.shown(client, run).state, ChildState::Starting);
    // And a word about a process that is gone says nothing either.
    exits(&mut world, probe(run, 1), READY);
    assert_eq!(world.shown(client, run).state, ChildState::Starting);
    world.take();
    world.advance(secs(0));
    world.spawned(probe(run, 2));
    exits(&mut world, probe(run, 2), READY);
    assert_eq!(world.shown(client, run).state, ChildState::Running);
}

#[test]
fn a_command_that_is_being_started_when_its_child_ends_is_killed_too() {
    for is_started in [false, true] {
        let (mut world, client) = World::with_client();
        let call = world.create(client, asked(named("a")));
        let run = world.run(call);
        world.recorded(run);
        world.spawned(run);
        world.advance(secs(0));
        world.take();
        exits(&mut world, run, NOT_READY);
        assert_eq!(world.sent(), [Sent::Kill(probe(run, 1))]);
        if is_started {
            world.spawned(probe(run, 1));
            assert_eq!(world.sent(), [Sent::Kill(probe(run, 1))]);
            exits(&mut world, probe(run, 1), READY);
        } else {
            let failure =
                SpawnFailure { errno: 4, errno_name: "EINTR".to_owned(), step: "killed".to_owned() };
            world.give(Input::SpawnFailed { run: probe(run, 1), failure });
        }
        assert_eq!(world.shown(client, run).state, ChildState::Ended);
        assert_eq!(world.due_in(), Some(secs(3_600)), "it is forgotten then");
    }
}

#[test]
fn a_child_that_is_never_ready_is_stopped_in_time_and_its_command_with_it() {
    let (mut world, client) = World::with_client();
    let params = CreateParams { ready_timeout: ReadyTimeout(secs(1)), ..named("a") };
    let (call, run) = asking(&mut world, client, params);
    world.advance(secs(1));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
    let sent = world.sent();
    assert!(sent.contains(&Sent::Kill(probe(run, 1))), "{sent:?}");
    assert!(sent.iter().any(|sent| matches!(sent, Sent::Signal(to, Signal::TERM, _) if *to == run)));
}

#[test]
fn commands_take_their_turn_among_the_starts_of_their_user_and_lose_it_with_their_child() {
    for has_ended in [false, true] {
        let (mut world, client) = World::with_client();
        let calls: Vec<_> = (0..16).map(|_| world.create(client, unnamed())).collect();
        let starts: Vec<_> = calls.into_iter().map(|call| world.run(call)).collect();
        let call = world.create(client, CreateParams { no_wait: true, ..asked(named("a")) });
        let run = world.run(call);
        let (last, others) = starts.split_last().unwrap();
        for start in others {
            world.recorded(*start);
        }
        world.recorded(run);
        world.recorded(*last);
        world.spawned(run);
        assert_eq!(probes(&mut world), [], "sixteen are being started");
        if has_ended {
            exits(&mut world, run, NOT_READY);
            assert_eq!(world.shown(client, run).state, ChildState::Ended);
        }
        world.spawned(starts[0]);
        let expected = if has_ended { vec![] } else { vec![probe(run, 1)] };
        assert_eq!(probes(&mut world), expected);
    }
}

#[test]
fn an_upgrade_waits_until_no_command_is_there_and_begins_none() {
    let (mut world, client) = World::with_client();
    let (call, run) = asking(&mut world, client, named("a"));
    world.give(Input::UpgradeAsked);
    world.take();
    world.give(Input::UpgradeChecked { result: Ok(()) });
    assert_eq!(world.take(), [Effect::Kill { run: probe(run, 1) }]);
    exits(&mut world, probe(run, 1), NOT_READY);
    assert!(world.take().contains(&Effect::HandOver));
    world.advance(secs(1));
    assert_eq!(probes(&mut world), []);
    assert!(!world.is_answered(call));
    let failure = procbroker_core::UpgradeFailure { message: "no".to_owned() };
    world.give(Input::HandOverFailed { failure });
    assert_eq!(probes(&mut world), [probe(run, 2)]);
}

#[test]
fn after_a_crash_what_is_left_of_a_command_is_killed_before_another_one_asks() {
    let (mut world, client) = World::with_client();
    let (_, run) = asking(&mut world, client, requested(named("a"), 5));
    let left = Run { incarnation: Incarnation::FIRST, ..probe(run, 1) };
    world.probe_left = Members::Outside;
    world.crash(alive(run));
    assert_eq!(world.sent(), [Sent::Kill(left)]);
    let client = world.connect(BROKER_UID);
    let again = world.create(client, asked(requested(named("a"), 5)));
    world.advance(secs(3));
    assert_eq!(probes(&mut world), []);
    world.give(Input::MembersLeft { run: left, members: Members::Nothing });
    world.advance(Duration::from_millis(100));
    let next = probe(run, 1);
    assert_eq!(probes(&mut world), [next]);
    world.spawned(next);
    exits(&mut world, next, READY);
    assert_eq!(world.created(again).child.id, run.child);
}

#[test]
fn a_child_that_ended_in_a_crash_is_not_over_before_its_command_is() {
    let (mut world, client) = World::with_client();
    let (_, run) = asking(&mut world, client, named("a"));
    world.probe_left = Members::Group;
    world.crash(Finding::Gone { status: NOT_READY, members: Members::Nothing });
    let client = world.connect(BROKER_UID);
    assert_eq!(world.shown(client, run).state, ChildState::Stopping);
    let left = Run { incarnation: Incarnation::FIRST, ..probe(run, 1) };
    world.give(Input::MembersLeft { run: left, members: Members::Nothing });
    assert_eq!(world.shown(client, run).state, ChildState::Ended);
}

#[test]
fn a_create_that_fails_for_its_time_names_why_the_last_command_said_no_and_the_log_does_once() {
    let not_found = SpawnFailure { errno: 2, errno_name: "ENOENT".to_owned(), step: "exec".to_owned() };
    let (mut world, client) = World::with_client();
    let params = CreateParams { ready_timeout: ReadyTimeout(Duration::from_millis(350)), ..named("a") };
    let call = world.create(client, asked(params));
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    for number in 1..=2 {
        world.give(Input::SpawnFailed { run: probe(run, number), failure: not_found.clone() });
        world.advance(Duration::from_millis(200));
    }
    let told = |effect| match effect {
        Effect::Report(Report::ProbeFailed { child, message }) => Some((child.id, message)),
        _ => None,
    };
    let told: Vec<_> = world.take().into_iter().filter_map(told).collect();
    let why = "the ready command \"up\" could not be started: exec failed with ENOENT (it is not in the child's PATH, or the interpreter that its first line names is not there)";
    assert_eq!(told, [(run.child, why.to_owned())]);
    let error = world.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout(Some(Box::new(ProbeFailure::NotStarted(not_found)))));
    assert_eq!(
        error.message,
        format!(
            "the child a ({}) was not ready within 350ms (ready_timeout), and is stopped; {why}",
            run.child
        )
    );
}

#[test]
fn a_create_that_fails_for_its_time_names_how_the_last_command_ended() {
    let ended: fn(&mut World, Run) = |world, run| exits(world, probe(run, 1), NOT_READY);
    let hangs: fn(&mut World, Run) = |world, run| {
        world.advance(secs(5));
        exits(world, probe(run, 1), ExitStatus::Signal(Signal::KILL));
    };
    let cases = [
        (1, ended, ProbeFailure::Ended(NOT_READY), "ended with exit code 1 the last time"),
        (6, hangs, ProbeFailure::TimedOut, "took longer than 5s the last time"),
    ];
    for (timeout, happens, failure, why) in cases {
        let (mut world, client) = World::with_client();
        let params = CreateParams { ready_timeout: ReadyTimeout(secs(timeout)), ..named("a") };
        let (call, run) = asking(&mut world, client, params);
        happens(&mut world, run);
        world.advance(secs(timeout));
        let error = world.answer(call).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout(Some(Box::new(failure))));
        assert!(error.message.ends_with(&format!("the ready command \"up\" {why}")), "{}", error.message);
    }
}

#[test]
fn a_run_that_no_command_has_asked_does_not_fail_for_what_one_has_said_of_the_run_before() {
    let (mut world, client) = World::with_client();
    let params = CreateParams { ready_timeout: ReadyTimeout(secs(1)), ..named("a") };
    let (call, run) = asking(&mut world, client, params);
    exits(&mut world, probe(run, 1), NOT_READY);
    world.call(client, restart(name("a")));
    exits(&mut world, run, NOT_READY);
    world.recorded(Run { incarnation: Incarnation(2), ..run });
    world.advance(secs(1));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
}

#[test]
fn a_command_that_never_gets_to_its_program_is_killed_in_time_too() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, asked(named("a")));
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(probes(&mut world), [probe(run, 1)]);
    world.advance(secs(5));
    assert_eq!(world.sent(), [Sent::Kill(probe(run, 1))]);
    let failure = SpawnFailure { errno: 4, errno_name: "EINTR".to_owned(), step: "killed".to_owned() };
    world.give(Input::SpawnFailed { run: probe(run, 1), failure });
    world.advance(Duration::from_millis(100));
    assert_eq!(probes(&mut world), [probe(run, 2)]);
    assert!(!world.is_answered(call));
}

#[test]
fn a_run_that_a_command_has_asked_was_there_though_a_crash_has_left_nothing_else_of_it() {
    let (mut world, client) = World::with_client();
    let params = CreateParams { no_wait: true, ..restarted(RestartPolicy::Always, unnamed()) };
    let (_, run) = asking(&mut world, client, params);
    exits(&mut world, probe(run, 1), READY);
    exits(&mut world, run, NOT_READY);
    // That the next run is to come is on record, and that its process is there is not.
    let again = Run { incarnation: Incarnation(2), ..run };
    world.recorded(again);
    world.probe_left = Members::Outside;
    world.crash(gone(ExitStatus::Unknown));
    let client = world.connect(BROKER_UID);
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.restarts), (ChildState::Stopping, 1));
    world.advance(secs(100));
    assert_eq!(world.spawns(), [], "the command is there");
    let left = Run { incarnation: Incarnation::FIRST, ..probe(run, 1) };
    world.give(Input::MembersLeft { run: left, members: Members::Nothing });
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.restarts), (ChildState::Backoff, 2));
}
