//! The live upgrade: when another program takes over, and what happens when it does not.

use std::time::Duration;

use procbroker_core::{Call, ConnectionId, Effect, Input, Members, Report, Run, UpgradeFailure};
use procbroker_protocol::request::NoParams;
use procbroker_protocol::{ErrorKind, EventKind, ExitReason, ExitStatus, Outcome, Request, Response};

use crate::world::*;

fn upgrade() -> Request {
    Request::Upgrade(NoParams {})
}

fn failure() -> UpgradeFailure {
    UpgradeFailure { message: "cannot run /opt/broker: it speaks record version 9".to_owned() }
}

fn checked(world: &mut World, result: Result<(), UpgradeFailure>) {
    world.give(Input::UpgradeChecked { result });
}

/// A create whose process is being started.
fn in_flight(world: &mut World, client: ConnectionId) -> (Call, Run) {
    let call = world.create(client, unnamed());
    let run = world.run(call);
    world.recorded(run);
    assert_eq!(world.spawns(), [run]);
    (call, run)
}

fn refusal(world: &World) -> String {
    world
        .orders()
        .iter()
        .find_map(|order| match order {
            Effect::Report(Report::UpgradeRefused { message }) => Some(message.clone()),
            _ => None,
        })
        .unwrap()
}

#[test]
fn the_other_program_is_asked_first_and_takes_over_then() {
    let (mut world, client) = World::with_client();
    world.start(client, unnamed());
    let call = world.call(client, upgrade());
    assert_eq!(world.take(), [Effect::CheckUpgrade]);
    assert!(!world.is_answered(call));
    checked(&mut world, Ok(()));
    assert_eq!(world.answer(call), Ok(Response::Upgraded));
    assert_eq!(world.take(), [Effect::Report(Report::HandingOver), Effect::HandOver]);
}

#[test]
fn the_signal_asks_as_the_method_does() {
    let mut world = World::new();
    world.give(Input::UpgradeAsked);
    assert_eq!(world.take(), [Effect::CheckUpgrade]);
    checked(&mut world, Ok(()));
    assert_eq!(world.take().last(), Some(&Effect::HandOver));
}

#[test]
fn a_refusal_tells_why_and_changes_nothing() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let call = world.call(client, upgrade());
    let (create, started) = in_flight(&mut world, client);
    checked(&mut world, Err(failure()));
    let error = world.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.contains(&failure().message), "{}", error.message);
    assert_eq!(refusal(&world), failure().message);
    assert!(!world.take().contains(&Effect::HandOver));
    world.spawned(started);
    assert_eq!(world.created(create).outcome, Outcome::Created);
    assert_eq!(world.shown(client, run).pid, Some(pid_of(run).get()));
    assert_eq!(world.due_in(), None);
    // It can be asked for again.
    world.call(client, upgrade());
    assert!(world.take().contains(&Effect::CheckUpgrade));
}

#[test]
fn while_the_other_program_is_asked_children_are_started() {
    let (mut world, client) = World::with_client();
    world.call(client, upgrade());
    in_flight(&mut world, client);
}

#[test]
fn spawns_in_flight_are_waited_for_and_none_is_started_meanwhile() {
    for is_failing in [false, true] {
        let (mut world, client) = World::with_client();
        let (create, run) = in_flight(&mut world, client);
        let (_, other) = in_flight(&mut world, client);
        let call = world.call(client, upgrade());
        checked(&mut world, Ok(()));
        let waiting = world.create(client, unnamed());
        world.recorded(world.run(waiting));
        let orders = world.take();
        assert!(!orders.contains(&Effect::HandOver) && !world.is_answered(call));
        assert!(!orders.iter().any(|order| matches!(order, Effect::Spawn { .. })));
        world.spawned(other);
        assert!(!world.take().contains(&Effect::HandOver));
        if is_failing {
            world.give(Input::SpawnFailed { run, failure: no_such_file() });
        } else {
            world.spawned(run);
        }
        assert!(world.is_answered(create));
        assert_eq!(world.answer(call), Ok(Response::Upgraded));
        let orders = world.take();
        assert_eq!(orders.last(), Some(&Effect::HandOver));
        assert!(!world.is_answered(waiting));
    }
}

#[test]
fn a_cleanup_waits_for_the_program_that_takes_over() {
    let Halfway { mut world, client, attempt, .. } = Halfway::at(At::Spawning);
    world.call(client, upgrade());
    checked(&mut world, Ok(()));
    assert!(!world.take().contains(&Effect::HandOver));
    world.spawned(attempt);
    assert!(world.take().contains(&Effect::HandOver));
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Recording);
    world.call(client, upgrade());
    checked(&mut world, Ok(()));
    world.recorded(attempt);
    assert_eq!(world.spawns(), []);
    assert_eq!(world.attempts_on_record(run), 1);
    assert_eq!(world.orders().last(), None);
}

#[test]
fn an_attempt_at_a_cleanup_that_waits_for_the_next_program_counts_once() {
    for stage in [At::Recording, At::Queued] {
        let Halfway { mut world, run, .. } = Halfway::at(stage);
        assert_eq!(world.attempts_on_record(run), 1);
        // Of the others that are being started nothing is on record but that.
        world.upgrade_without_processes();
        let attempt = next(first(run));
        world.recorded(attempt);
        world.spawned(attempt);
        world.exited(attempt, CLEAN, Members::Nothing);
        world.recorded(attempt);
        let client = world.connect(BROKER_UID);
        assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1), "{stage:?}");
    }
}

#[test]
fn an_upgrade_is_given_up_when_a_spawn_takes_too_long_and_the_rest_is_started_then() {
    let (mut world, client) = World::with_client();
    let (_, run) = in_flight(&mut world, client);
    let call = world.call(client, upgrade());
    checked(&mut world, Ok(()));
    let waiting = world.create(client, unnamed());
    world.recorded(world.run(waiting));
    world.take();
    world.advance(Duration::from_millis(9_999));
    assert!(!world.is_answered(call));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.refused(call), ErrorKind::Internal);
    assert!(refusal(&world).contains("10s"), "{}", refusal(&world));
    assert_eq!(world.spawns(), [world.run(waiting)]);
    world.spawned(run);
    world.spawned(world.run(waiting));
    assert!(!world.take().contains(&Effect::HandOver));
}

#[test]
fn a_handover_that_fails_leaves_the_broker_serving() {
    let (mut world, client) = World::with_client();
    let call = world.call(client, upgrade());
    checked(&mut world, Ok(()));
    let waiting = world.create(client, unnamed());
    world.recorded(world.run(waiting));
    let joined = world.call(client, upgrade());
    assert_eq!(world.spawns(), []);
    world.give(Input::HandOverFailed { failure: failure() });
    assert_eq!(refusal(&world), failure().message);
    assert_eq!(world.answer(call), Ok(Response::Upgraded));
    assert_eq!(world.refused(joined), ErrorKind::Internal);
    let run = world.run(waiting);
    assert_eq!(world.spawns(), [run]);
    world.spawned(run);
    assert_eq!(world.created(waiting).outcome, Outcome::Created);
    world.take();
    world.call(client, upgrade());
    assert_eq!(world.take(), [Effect::CheckUpgrade]);
}

#[test]
fn an_upgrade_that_is_under_way_is_joined() {
    let (mut world, client) = World::with_client();
    let (_, run) = in_flight(&mut world, client);
    let mut calls = vec![world.call(client, upgrade()), world.call(client, upgrade())];
    world.give(Input::UpgradeAsked);
    assert_eq!(world.take(), [Effect::CheckUpgrade]);
    checked(&mut world, Ok(()));
    calls.push(world.call(client, upgrade()));
    assert_eq!(world.take(), []);
    world.spawned(run);
    for call in calls {
        assert_eq!(world.answer(call), Ok(Response::Upgraded));
    }
    let orders = world.take();
    assert_eq!(orders.iter().filter(|order| **order == Effect::HandOver).count(), 1);
}

#[test]
fn a_shutdown_goes_before_an_upgrade_however_far_that_is() {
    for is_checked in [false, true] {
        let (mut world, client) = World::with_client();
        let (_, run) = in_flight(&mut world, client);
        let call = world.call(client, upgrade());
        if is_checked {
            checked(&mut world, Ok(()));
        }
        world.term();
        assert_eq!(world.refused(call), ErrorKind::ShuttingDown);
        checked(&mut world, Ok(()));
        world.spawned(run);
        world.advance(secs(9));
        world.ends(run);
        let late = world.call(client, upgrade());
        assert_eq!(world.refused(late), ErrorKind::ShuttingDown);
        world.give(Input::UpgradeAsked);
        let orders = world.take();
        assert!(!orders.contains(&Effect::HandOver) && orders.contains(&Effect::Sweep), "{orders:?}");
        assert!(!orders.iter().any(|order| matches!(order, Effect::Report(Report::UpgradeRefused { .. }))));
    }
}

#[test]
fn a_shutdown_that_comes_with_the_handover_is_carried_out_if_that_fails() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    world.call(client, upgrade());
    checked(&mut world, Ok(()));
    world.term();
    world.give(Input::HandOverFailed { failure: failure() });
    assert_eq!(world.sent(), [term(run)]);
    world.ends(run);
    sweep(&mut world);
}

#[test]
fn reports_of_an_upgrade_that_is_not_under_way_change_nothing() {
    let (mut world, client) = World::with_client();
    checked(&mut world, Ok(()));
    checked(&mut world, Err(failure()));
    world.give(Input::HandOverFailed { failure: failure() });
    assert_eq!(world.take(), []);
    in_flight(&mut world, client);
}

#[test]
fn an_upgrade_goes_on_when_the_client_that_asked_for_it_is_gone() {
    let (mut world, client) = World::with_client();
    world.call(client, upgrade());
    world.give(Input::Disconnected { connection: client });
    world.take();
    checked(&mut world, Ok(()));
    assert_eq!(world.take().last(), Some(&Effect::HandOver));
}

#[test]
fn children_live_on_as_the_same_under_the_program_that_takes_over() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, cleaned(named("a")));
    let before = world.shown(client, run);
    world.call(client, upgrade());
    checked(&mut world, Ok(()));
    world.crash(own(run));
    let client = world.connect(BROKER_UID);
    assert_eq!(world.shown(client, run), before);
    world.ends(run);
    world.begin_cleanup(next(run));
    world.end_cleanup(next(run), CLEAN);
    assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
}

#[test]
fn a_create_that_waits_for_its_turn_ends_in_an_upgrade_and_its_request_starts_another_one() {
    let (mut world, client) = World::with_client();
    world.call(client, upgrade());
    checked(&mut world, Ok(()));
    let call = world.create(client, requested(named("a"), 7));
    let run = world.run(call);
    world.recorded(run);
    assert_eq!(world.spawns(), []);
    world.upgrade_before_any_start();
    let client = world.connect(BROKER_UID);
    world.take();
    world.subscribe(client, Some(1));
    let told = world.told(client);
    let kinds: Vec<EventKind> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Ended]);
    let ended = told.last().and_then(|event| event.child.clone()).unwrap();
    let exit = ended.exit.clone().unwrap();
    assert_eq!(
        (ended.id, exit.reason, exit.status),
        (run.child, ExitReason::StartFailed, ExitStatus::Unknown)
    );
    let again = world.create(client, requested(named("a"), 7));
    let run = world.run(again);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(world.created(again).child.id, run.child);
}
