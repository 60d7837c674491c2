//! Several creates want one name: nobody fails, and nothing is started in vain.

use std::collections::BTreeSet;

use procbroker_core::{Call, Effect, Input};
use procbroker_protocol::create::Ready;
use procbroker_protocol::request::Scope;
use procbroker_protocol::{CreateParams, ErrorKind, ExitReason, Outcome, Signal};

use crate::world::*;

#[test]
fn of_two_waiting_replaces_the_last_starts_a_child_and_the_first_gets_it() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let other = CreateParams { stop_order: 3, ..replace("a") };
    let calls = [world.create(client, replace("a")), world.create(client, other)];
    world.take();
    world.ends(run);
    let last = world.run(calls[1]);
    assert_eq!(world.intents(), [last]);
    world.recorded(last);
    world.spawned(last);
    assert_eq!(world.created(calls[1]).outcome, Outcome::Replaced);
    assert_eq!(world.created(calls[0]).outcome, Outcome::Existing { same_spec: false });
    assert_eq!(world.created(calls[0]).child.id, last.child);
}

#[test]
fn a_waiting_reuse_starts_nothing_that_a_waiting_replace_behind_it_would_end() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    world.call(client, destroy(id(run)));
    let calls = [world.create(client, reuse("a")), world.create(client, replace("a"))];
    world.take();
    world.ends(run);
    let next = world.run(calls[1]);
    assert_eq!(world.intents(), [next]);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(calls[1]).outcome, Outcome::Replaced);
    assert_eq!(world.created(calls[0]).outcome, Outcome::Existing { same_spec: true });
}

#[test]
fn a_create_whose_child_is_replaced_while_it_is_spawned_gets_the_one_in_its_place() {
    let (mut world, client) = World::with_client();
    let first = world.create(client, named("a"));
    let run = world.run(first);
    world.recorded(run);
    let second = world.create(client, replace("a"));
    world.spawned(run);
    assert!(!world.is_answered(first), "it is not ready, and will not be");
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
    world.ends(run);
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::Replaced);
    let next = world.run(second);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(first).outcome, Outcome::Existing { same_spec: true });
    assert_eq!(world.created(first).child.id, next.child);
}

#[test]
fn a_replace_that_cannot_start_leaves_the_name_to_the_one_before_it() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let limited = CreateParams { limit: under_limit("k", 0).limit, ..replace("a") };
    let calls = [world.create(client, replace("a")), world.create(client, limited)];
    world.take();
    world.ends(run);
    assert_eq!(world.refused(calls[1]), ErrorKind::LimitExceeded);
    let next = world.run(calls[0]);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(calls[0]).outcome, Outcome::Replaced);
}

#[test]
fn what_waited_starts_its_own_child_when_the_one_before_it_cannot_be_executed() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let calls = [world.create(client, replace("a")), world.create(client, replace("a"))];
    world.ends(run);
    let last = world.run(calls[1]);
    world.recorded(last);
    world.give(Input::SpawnFailed { run: last, failure: no_such_file() });
    assert_eq!(world.refused(calls[1]).as_str(), "spawn_failed");
    let first = world.run(calls[0]);
    world.recorded(first);
    world.spawned(first);
    assert_eq!(world.created(calls[0]).outcome, Outcome::Replaced);
}

#[test]
fn a_create_that_was_replaced_by_one_that_cannot_be_executed_says_so() {
    let (mut world, client) = World::with_client();
    let first = world.create(client, requested(named("a"), 5));
    world.recorded(world.run(first));
    let second = world.create(client, replace("a"));
    world.spawned(world.run(first));
    world.ends(world.run(first));
    let next = world.run(second);
    world.recorded(next);
    world.give(Input::SpawnFailed { run: next, failure: no_such_file() });
    match world.refused(first) {
        ErrorKind::StartFailed { exit, .. } => assert_eq!(exit.reason, ExitReason::Replaced),
        other => panic!("it was refused with {other:?}"),
    }
    // A create that has failed is not remembered.
    let again = world.create(client, requested(named("a"), 5));
    let run = world.run(again);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(world.created(again).outcome, Outcome::Created);
}

#[test]
fn a_retry_of_a_create_that_was_replaced_gets_the_same_answer() {
    let (mut world, client) = World::with_client();
    let first = world.create(client, requested(named("a"), 5));
    world.recorded(world.run(first));
    let second = world.create(client, replace("a"));
    let during = world.create(client, requested(named("a"), 5));
    world.spawned(world.run(first));
    world.ends(world.run(first));
    let next = world.run(second);
    world.recorded(next);
    world.spawned(next);
    let after = world.create(client, requested(named("a"), 5));
    for call in [first, during, after] {
        assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
        assert_eq!(world.created(call).child.id, next.child);
    }
}

#[test]
fn a_retry_of_a_waiting_replace_does_not_replace_what_has_taken_its_place() {
    for comes_late in [false, true] {
        let (mut world, client) = World::with_client();
        let run = world.start(client, named("a"));
        let first = world.create(client, requested(replace("a"), 5));
        let second = world.create(client, replace("a"));
        let early = (!comes_late).then(|| world.create(client, requested(replace("a"), 5)));
        world.ends(run);
        let again = early.unwrap_or_else(|| world.create(client, requested(replace("a"), 5)));
        let next = world.run(second);
        world.recorded(next);
        world.spawned(next);
        for call in [first, again] {
            assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
            assert_eq!(world.created(call).child.id, next.child);
        }
    }
}

#[test]
fn nobody_replaces_what_somebody_else_is_about_to_start() {
    let mut world = World::new();
    let (owner, alice) = (world.connect(BROKER_UID), world.connect(ALICE));
    let run = world.start(alice, named("a"));
    let calls = [world.create(owner, replace("a")), world.create(alice, replace("a"))];
    world.take();
    world.ends(run);
    let next = world.run(calls[0]);
    assert_eq!(world.intents(), [next]);
    assert_eq!(world.refused(calls[1]), ErrorKind::NameTaken(None));
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(calls[0]).outcome, Outcome::Replaced);
}

#[test]
fn after_a_crash_the_same_request_is_not_answered_with_what_was_replaced() {
    let (mut world, client) = World::with_client();
    let before = world.create(client, requested(named("a"), 5));
    let run = world.run(before);
    world.recorded(run);
    world.create(client, replace("a"));
    world.crash(alive(run));
    let client = world.connect(BROKER_UID);
    let again = world.create(client, requested(named("a"), 5));
    assert!(!world.is_answered(again));
    world.ends(first(run));
    assert_eq!(world.refused(again).as_str(), "start_failed");
}

#[test]
fn a_request_whose_child_was_replaced_runs_again_only_after_somebody_was_told_that_it_failed() {
    for is_crashed in [false, true] {
        let (mut world, client) = World::with_client();
        let other = world.connect(BROKER_UID);
        let run = world.next_run();
        world.create(client, requested(named("a"), 5));
        world.recorded(run);
        world.create(other, replace("a"));
        world.spawned(run);
        let run = if is_crashed {
            world.crash(alive(run));
            first(run)
        } else {
            world.give(Input::Disconnected { connection: client });
            world.give(Input::Disconnected { connection: other });
            run
        };
        world.ends(run);
        let client = world.connect(BROKER_UID);
        world.take();
        let again = world.create(client, requested(named("a"), 5));
        match world.refused(again) {
            ErrorKind::StartFailed { exit, .. } => assert_eq!(exit.reason, ExitReason::Replaced),
            other => panic!("it was refused with {other:?}"),
        }
        assert_eq!(world.intents(), []);
        let anew = world.create(client, requested(named("a"), 5));
        assert_eq!(world.intents(), [world.run(anew)]);
    }
}

/// Creates whose child counts as well started as soon as its program runs.
fn early() -> [CreateParams; 2] {
    let unready = CreateParams { ready: Ready::Notify, no_wait: true, ..named("a") };
    [named("a"), unready].map(|params| requested(params, 5))
}

#[test]
fn after_any_crash_it_is_known_that_a_child_was_replaced_before_it_had_its_program() {
    for params in early() {
        for (crashes_before, crashes_after) in [(0, 1), (0, 2), (1, 0), (1, 1)] {
            let (mut world, client) = World::with_client();
            let before = world.create(client, params.clone());
            let run = world.run(before);
            world.recorded(run);
            world.create(client, replace("a"));
            for _ in 0..crashes_before {
                world.crash(alive(run));
            }
            if crashes_before == 0 {
                world.spawned(run);
            }
            for _ in 0..crashes_after {
                world.crash(alive(run));
            }
            let client = world.connect(BROKER_UID);
            let again = world.create(client, params.clone());
            assert!(!world.is_answered(again), "{crashes_before} and {crashes_after}: {params:?}");
            world.ends(first(run));
            assert_eq!(world.refused(again).as_str(), "start_failed");
        }
    }
}

#[test]
fn a_child_that_is_replaced_while_it_is_started_again_before_it_was_ready_is_known_as_that_after_a_crash() {
    for is_spawned in [false, true] {
        let (mut world, client) = World::with_client();
        let params = requested(CreateParams { ready: Ready::Notify, ..named("a") }, 5);
        let before = world.create(client, params.clone());
        let run = world.run(before);
        world.recorded(run);
        world.spawned(run);
        world.call(client, restart(id(run)));
        world.ends(run);
        world.recorded(next(run));
        world.create(client, replace("a"));
        assert!(!world.is_answered(before));
        if is_spawned {
            world.spawned(next(run));
        }
        world.crash(alive(run));
        let client = world.connect(BROKER_UID);
        let again = world.create(client, params.clone());
        let other = world.create(client, replace("a"));
        world.ends(first(run));
        let taken = world.run(other);
        world.recorded(taken);
        world.spawned(taken);
        assert_eq!(world.created(again).child.id, taken.child, "{is_spawned}");
    }
}

/// What becomes of the orders of one turn, one after the other: records and spawns succeed, and a child ends at its
/// first signal.
fn settle(world: &mut World) {
    loop {
        let orders = world.take();
        if orders.is_empty() {
            return;
        }
        let mut asked = BTreeSet::new();
        for order in orders {
            match order {
                Effect::Record { run, receipt: procbroker_core::Receipt::Wanted, .. } => world.recorded(run),
                Effect::Spawn { run, .. } => world.spawned(run),
                Effect::Signal { run, .. } if asked.insert(run) => world.ends(run),
                _ => {}
            }
        }
    }
}

#[test]
fn of_eight_workers_that_replace_one_name_four_times_none_fails() {
    // Whatever comes in between two of them: nothing, or all that follows from so many of them.
    for rhythm in 1..=9 {
        let mut world = World::new();
        let workers: Vec<_> = (0..8).map(|_| world.connect(BROKER_UID)).collect();
        let mut waiting: Vec<(usize, u32, Call)> = Vec::new();
        let mut todo: Vec<(usize, u32)> = (0..8).map(|worker| (worker, 1)).collect();
        let (mut asked, mut answered) = (0, 0);
        while answered < 32 {
            for (worker, round) in std::mem::take(&mut todo) {
                let call = world.create(workers[worker], replace("a"));
                waiting.push((worker, round, call));
                asked += 1;
                if asked % rhythm == 0 {
                    settle(&mut world);
                }
            }
            settle(&mut world);
            let (done, left): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, _, call)| world.is_answered(*call));
            waiting = left;
            assert!(!done.is_empty(), "nobody goes on, at a rhythm of {rhythm}");
            for (worker, round, call) in done {
                answered += 1;
                let created = world.created(call);
                assert_ne!(created.outcome, Outcome::Existing { same_spec: false });
                if round < 4 {
                    todo.push((worker, round + 1));
                }
            }
        }
        assert_eq!(asked, 32);
    }
}

#[test]
fn a_child_that_is_destroyed_before_its_program_says_that_it_was_destroyed() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, named("a"));
    let run = world.run(call);
    world.recorded(run);
    world.call(client, destroy(id(run)));
    let failure = procbroker_protocol::error::SpawnFailure { step: "killed".to_owned(), ..no_such_file() };
    world.give(Input::SpawnFailed { run, failure });
    match world.refused(call) {
        ErrorKind::StartFailed { exit, .. } => assert_eq!(exit.reason, ExitReason::Destroyed),
        other => panic!("it was refused with {other:?}"),
    }
}
