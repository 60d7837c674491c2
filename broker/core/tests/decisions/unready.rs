//! Whose create still waits for its child to be ready, over several runs and over the broker's death.

use std::time::Duration;

use procbroker_core::{Call, ConnectionId, Finding, Input, Members, Notice, Run};
use procbroker_protocol::create::RestartPolicy::{Always, OnFailure};
use procbroker_protocol::create::{Ready, ReadyTimeout};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildState, CreateParams, ErrorKind, ExitReason, ExitStatus, Outcome, Signal};

use crate::world::*;

const FAILED: ExitStatus = ExitStatus::Code(1);

/// A child that tells when it is ready, and is restarted whatever happens.
fn notifying() -> CreateParams {
    let ready_timeout = ReadyTimeout(secs(5));
    restarted(Always, CreateParams { ready: Ready::Notify, ready_timeout, ..unnamed() })
}

fn tell(world: &mut World, run: Run, notice: Notice) {
    world.give(Input::Notified { run, notices: vec![notice] });
}

/// A child that is spawned and not ready, and the request for it.
fn starting(params: CreateParams) -> (World, ConnectionId, Call, Run) {
    let (mut world, client) = World::with_client();
    let call = world.create(client, params);
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    world.take();
    (world, client, call, run)
}

/// A child that was ready, and whose next run is spawned and not ready.
fn running_again(params: CreateParams) -> (World, ConnectionId, Run) {
    let (mut world, client, _, run) = starting(params);
    tell(&mut world, run, Notice::Ready);
    world.exited(run, FAILED, Members::Nothing);
    world.recorded(next(run));
    world.advance(Duration::from_millis(100));
    world.spawned(next(run));
    world.take();
    (world, client, next(run))
}

fn reads_last_words(world: &mut World, call: Call) -> ErrorKind {
    world.give(Input::TailRead { call, tail: String::new() });
    world.refused(call)
}

#[test]
fn a_create_is_answered_by_the_run_that_somebody_starts_in_the_place_of_its_own() {
    let (mut world, client, call, run) = starting(notifying());
    world.call(client, restart(id(run)));
    world.exited(run, FAILED, Members::Nothing);
    world.recorded(next(run));
    world.spawned(next(run));
    assert!(!world.is_answered(call));
    tell(&mut world, next(run), Notice::Ready);
    assert_eq!(world.created(call).child.restarts, 1);
}

#[test]
fn a_create_fails_with_the_run_that_somebody_has_started_and_no_other_follows() {
    for is_late in [true, false] {
        let (mut world, client, call, run) = starting(requested(notifying(), 5));
        world.call(client, restart(id(run)));
        world.exited(run, FAILED, Members::Nothing);
        world.recorded(next(run));
        world.spawned(next(run));
        if is_late {
            world.advance(secs(5));
            assert_eq!(world.refused(call), ErrorKind::Timeout(None));
        }
        world.exited(next(run), FAILED, Members::Nothing);
        if !is_late {
            assert!(matches!(reads_last_words(&mut world, call), ErrorKind::StartFailed { .. }));
        }
        assert_eq!(world.shown(client, run).state, ChildState::Ended);
        let again = world.create(client, requested(notifying(), 5));
        assert_ne!(world.run(again).child, run.child, "a create that failed is not remembered");
    }
}

#[test]
fn a_create_fails_with_a_spawn_of_such_a_run_that_takes_too_long() {
    let (mut world, client, call, run) = starting(notifying());
    world.call(client, restart(id(run)));
    world.exited(run, FAILED, Members::Nothing);
    world.recorded(next(run));
    world.advance(secs(5));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
    world.spawned(next(run));
    world.ends(next(run));
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::StartFailed);
}

#[test]
fn one_that_says_that_it_is_unwell_before_it_was_ready_has_failed_to_start() {
    let params = CreateParams { watchdog: Some(secs(1)), ..notifying() };
    let (mut world, client, call, run) = starting(params);
    tell(&mut world, run, Notice::Unwell);
    world.exited(run, FAILED, Members::Nothing);
    let kind = reads_last_words(&mut world, call);
    assert!(matches!(kind, ErrorKind::StartFailed { exit, .. } if exit.reason == ExitReason::Watchdog));
    assert_eq!(world.shown(client, run).state, ChildState::Ended);
}

#[test]
fn a_later_run_that_is_late_is_restarted_and_its_create_stays_answered() {
    let (mut world, client, run) = running_again(requested(notifying(), 5));
    let again = world.create(client, requested(notifying(), 5));
    assert_eq!(world.created(again).child.id, run.child, "the first answer stands");
    world.advance(secs(5));
    world.exited(run, FAILED, Members::Nothing);
    world.recorded(next(run));
    world.advance(Duration::from_millis(200));
    world.spawned(next(run));
    tell(&mut world, next(run), Notice::Ready);
    let once_more = world.create(client, requested(notifying(), 5));
    assert_eq!(world.created(once_more).child.id, run.child);
}

#[test]
fn one_whose_create_did_not_wait_is_restarted_when_its_first_run_fails() {
    let params = restarted(OnFailure, CreateParams { no_wait: true, ..notifying() });
    let (mut world, client, call, run) = starting(requested(params.clone(), 5));
    assert_eq!(world.created(call).child.state, ChildState::Starting);
    world.exited(run, FAILED, Members::Nothing);
    assert_eq!(world.shown(client, run).state, ChildState::Backoff);
    let again = world.create(client, requested(params, 5));
    assert_eq!(world.created(again).child.id, run.child, "the first answer stands");
}

#[test]
fn a_create_whose_child_is_replaced_in_a_later_run_gets_what_takes_its_place() {
    let (mut world, client, call, run) = starting(CreateParams { name: named("a").name, ..notifying() });
    world.call(client, restart(id(run)));
    world.exited(run, FAILED, Members::Nothing);
    world.recorded(next(run));
    world.spawned(next(run));
    let winner = world.create(client, replace("a"));
    world.exited(next(run), FAILED, Members::Nothing);
    let successor = world.run(winner);
    world.recorded(successor);
    world.spawned(successor);
    let created = world.created(call);
    assert_eq!(created.child.id, successor.child);
    assert!(matches!(created.outcome, Outcome::Existing { .. }));
}

#[test]
fn who_asks_again_for_one_that_was_replaced_unready_gets_what_has_taken_its_place() {
    for dies in [false, true] {
        let params = requested(CreateParams { name: named("a").name, ..notifying() }, 5);
        let (mut world, mut client, _, run) = starting(params.clone());
        let winner = world.create(client, replace("a"));
        world.exited(run, FAILED, Members::Nothing);
        let successor = world.run(winner);
        world.recorded(successor);
        world.spawned(successor);
        if dies {
            world.crash_with(|child, _| {
                if child == successor.child { alive(successor) } else { gone(ExitStatus::Unknown) }
            });
            client = world.connect(BROKER_UID);
        }
        let again = world.create(client, params);
        assert_eq!(world.created(again).child.id, successor.child, "after a death: {dies}");
    }
}

#[test]
fn one_that_was_destroyed_before_it_was_ready_has_failed_for_the_next_broker_too() {
    for is_over in [false, true] {
        let (mut world, client, call, run) = starting(requested(notifying(), 5));
        world.call(client, destroy(id(run)));
        if is_over {
            world.exited(run, FAILED, Members::Nothing);
            assert!(matches!(reads_last_words(&mut world, call), ErrorKind::StartFailed { .. }));
        }
        world.crash(alive(run));
        let client = world.connect(BROKER_UID);
        let again = world.create(client, requested(notifying(), 5));
        if is_over {
            assert_ne!(world.run(again).child, run.child);
        } else {
            // It is being stopped still, and the create is told when that is over.
            world.exited(run, FAILED, Members::Nothing);
            assert!(matches!(reads_last_words(&mut world, again), ErrorKind::StartFailed { .. }));
        }
    }
}

#[test]
fn a_create_that_was_late_before_there_was_a_process_has_failed_for_the_next_broker_too() {
    let params = requested(CreateParams { no_wait: true, ..notifying() }, 5);
    let (mut world, client) = World::with_client();
    let call = world.create(client, params.clone());
    let run = world.run(call);
    world.recorded(run);
    world.advance(secs(5));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
    world.spawned(run);
    world.crash(alive(run));
    let client = world.connect(BROKER_UID);
    let again = world.create(client, params);
    assert_ne!(world.run(again).child, run.child);
}

#[test]
fn that_a_child_has_said_that_it_is_ready_is_on_record_before_anybody_is_told() {
    let (mut world, client, call, run) = starting(CreateParams { name: named("a").name, ..notifying() });
    tell(&mut world, run, Notice::Ready);
    assert!(world.is_promise(call));
    let reuse = world.create(client, reuse("a"));
    assert!(world.is_promise(reuse));
    // That it runs follows from its intent.
    let plain = world.create(client, unnamed());
    let run = world.run(plain);
    world.recorded(run);
    world.spawned(run);
    assert!(!world.is_promise(plain));
}

#[test]
fn what_is_left_of_one_that_ended_unready_while_no_broker_was_there_gets_its_steps() {
    let (mut world, _, _, run) = starting(notifying());
    world.crash(left_behind(Members::Outside));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::All)]);
}

#[test]
fn what_is_left_outside_the_group_of_a_later_run_that_was_late_gets_its_steps() {
    let (mut world, _, run) = running_again(notifying());
    world.exited(run, FAILED, Members::Nothing);
    world.recorded(next(run));
    world.advance(Duration::from_millis(200));
    world.advance(secs(5));
    world.crash(left_behind(Members::Outside));
    assert_eq!(world.sent(), [Sent::Signal(first(run), Signal::TERM, Scope::All)]);
}

#[test]
fn a_later_run_whose_spawn_was_late_at_a_crash_is_restarted_by_its_policy() {
    for finding in [gone(ExitStatus::Unknown), Finding::NeverStarted] {
        let (mut world, _, run) = running_again(notifying());
        world.exited(run, FAILED, Members::Nothing);
        world.recorded(next(run));
        world.advance(Duration::from_millis(200));
        world.advance(secs(5));
        world.crash(finding);
        let client = world.connect(BROKER_UID);
        let shown = world.shown(client, run);
        assert_eq!((shown.state, shown.restarts), (ChildState::Backoff, 3), "{finding:?}");
        assert_eq!(shown.exit.as_ref().unwrap().reason, ExitReason::StartFailed);
    }
}
