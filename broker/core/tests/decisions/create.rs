//! `create`: who gets a name, and what the bounds refuse.

use std::time::Duration;

use procbroker_core::{Bounds, Members};
use procbroker_protocol::create::{Account, Limit, ReadyTimeout, StopStep};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ChildState, CreateParams, ErrorKind, ExitReason, ExitStatus, Outcome, Signal};

use crate::world::*;

#[test]
fn a_create_is_recorded_then_spawned_then_answered() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, named("a"));
    let run = world.run(call);
    assert_eq!(world.intents(), [run]);
    assert!(!world.is_answered(call));
    world.recorded(run);
    assert_eq!(world.spawns(), [run]);
    assert!(!world.is_answered(call));
    world.spawned(run);
    let created = world.created(call);
    assert_eq!(created.outcome, Outcome::Created);
    assert_eq!(created.child.state, ChildState::Running);
    assert_eq!(created.child.started_at, Some(world.wall()));
    assert!(created.child.pid.is_some());
    assert_eq!(created.child.owner.uid, BROKER_UID);
}

#[test]
fn a_name_is_held_in_every_state_but_ended() {
    let (mut world, client) = World::with_client();
    let second = |world: &mut World| {
        let call = world.create(client, named("a"));
        world.refused(call)
    };
    let call = world.create(client, named("a"));
    let run = world.run(call);
    assert!(matches!(second(&mut world), ErrorKind::NameTaken(Some(_))));
    world.recorded(run);
    assert!(matches!(second(&mut world), ErrorKind::NameTaken(Some(_))));
    world.spawned(run);
    assert!(matches!(second(&mut world), ErrorKind::NameTaken(Some(_))));
    world.exited(run, ExitStatus::Code(0), Members::Group);
    assert!(matches!(second(&mut world), ErrorKind::NameTaken(Some(_))));
    world.advance(secs(10));
    assert!(matches!(second(&mut world), ErrorKind::NameTaken(Some(_))));
    world.left(run, Members::Nothing);
    let next = world.start(client, named("a"));
    assert_ne!(next.child, run.child);
}

#[test]
fn children_without_a_name_do_not_collide() {
    let (mut world, client) = World::with_client();
    let runs = [world.start(client, unnamed()), world.start(client, unnamed())];
    assert_ne!(runs[0].child, runs[1].child);
}

#[test]
fn name_taken_says_which_of_ones_own_children_holds_it() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let call = world.create(client, named("a"));
    let message = world.answer(call).unwrap_err().message;
    assert!(message.contains(&run.child.to_string()) && message.contains("running"), "{message}");
}

#[test]
fn of_many_callers_one_creates_and_the_others_reuse() {
    let (mut world, client) = World::with_client();
    let calls: Vec<_> = (0..5).map(|_| world.create(client, reuse("a"))).collect();
    let run = world.run(calls[0]);
    assert_eq!(world.intents(), [run]);
    world.recorded(run);
    assert!(calls.iter().all(|call| !world.is_answered(*call)));
    world.spawned(run);
    assert_eq!(world.created(calls[0]).outcome, Outcome::Created);
    for call in &calls[1..] {
        let created = world.created(*call);
        assert_eq!(created.outcome, Outcome::Existing { same_spec: true });
        assert_eq!(created.child.id, run.child);
    }
}

#[test]
fn reuse_of_a_child_that_is_stopping_waits_and_creates_anew() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    world.call(client, destroy(id(run)));
    let calls = [world.create(client, reuse("a")), world.create(client, reuse("a"))];
    assert!(!world.is_answered(calls[0]));
    world.take();
    world.ends(run);
    let next = world.run(calls[0]);
    assert_eq!(world.intents(), [next]);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(calls[0]).outcome, Outcome::Created);
    assert_eq!(world.created(calls[1]).outcome, Outcome::Existing { same_spec: true });
    assert_eq!(world.created(calls[1]).child.id, next.child);
}

#[test]
fn reuse_of_a_child_that_is_stopped_before_it_runs_creates_anew() {
    for is_recorded in [false, true] {
        let (mut world, client) = World::with_client();
        let first = world.create(client, named("a"));
        let run = world.run(first);
        if is_recorded {
            world.recorded(run);
        }
        world.call(client, destroy(id(run)));
        let second = world.create(client, reuse("a"));
        if is_recorded {
            world.spawned(run);
            world.ends(run);
        } else {
            world.recorded(run);
        }
        let next = world.run(second);
        world.recorded(next);
        world.spawned(next);
        assert_eq!(world.created(second).outcome, Outcome::Created, "{is_recorded}");
        assert_eq!(world.created(second).child.id, next.child);
    }
}

#[test]
fn replace_stops_the_holder_and_then_creates() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let call = world.create(client, replace("a"));
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.shown(client, run).state, ChildState::Stopping);
    world.ends(run);
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::Replaced);
    let next = world.run(call);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(call).outcome, Outcome::Replaced);
    assert_eq!(world.created(call).child.id, next.child);
}

#[test]
fn replace_of_nothing_creates() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, replace("a"));
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(world.created(call).outcome, Outcome::Created);
}

#[test]
fn replace_of_a_child_that_is_being_recorded_or_spawned_never_runs_both() {
    for is_recorded in [false, true] {
        let (mut world, client) = World::with_client();
        let first = world.create(client, named("a"));
        let run = world.run(first);
        if is_recorded {
            world.recorded(run);
        }
        let second = world.create(client, replace("a"));
        let next = world.run(second);
        assert!(!world.intents().contains(&next));
        if is_recorded {
            world.spawned(run);
            assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
            assert!(!world.is_answered(second));
            world.ends(run);
        } else {
            world.recorded(run);
        }
        assert_eq!(world.intents(), [next]);
        world.recorded(next);
        assert!(!world.is_answered(first));
        world.spawned(next);
        assert_eq!(world.created(second).outcome, Outcome::Replaced);
        // The first one is answered with what has taken the place of its child.
        assert_eq!(world.created(first).outcome, Outcome::Existing { same_spec: true });
        assert_eq!(world.created(first).child.id, next.child);
    }
}

#[test]
fn a_waiting_create_of_a_client_that_left_is_not_carried_out() {
    let (mut world, client) = World::with_client();
    let other = world.connect(BROKER_UID);
    let run = world.start(client, named("a"));
    world.create(other, replace("a"));
    world.give(procbroker_core::Input::Disconnected { connection: other });
    world.take();
    world.ends(run);
    assert_eq!(world.intents(), []);
}

#[test]
fn a_child_stays_when_its_creator_disconnects() {
    let (mut world, client) = World::with_client();
    let other = world.connect(BROKER_UID);
    let call = world.create(other, named("a"));
    let run = world.run(call);
    world.give(procbroker_core::Input::Disconnected { connection: other });
    world.recorded(run);
    world.spawned(run);
    assert!(!world.is_answered(call));
    assert_eq!(world.shown(client, run).state, ChildState::Running);
}

#[test]
fn same_spec_tells_what_decides_how_a_child_runs_and_stops() {
    type Change = fn(&mut CreateParams);
    let same: [Change; 5] = [
        |_| (),
        |params| params.no_wait = true,
        |params| params.request_id = Some(uuid::Uuid::from_u128(9)),
        |params| params.cwd = Some("/".to_owned()),
        |params| params.user = Some(Account::Id(BROKER_UID)),
    ];
    let other: [Change; 9] = [
        |params| params.command.push("more".to_owned()),
        |params| params.labels = [("a".to_owned(), "b".to_owned())].into(),
        |params| params.env = [("a".to_owned(), "b".to_owned())].into(),
        |params| params.env_clear = true,
        |params| params.cwd = Some("/tmp".to_owned()),
        |params| params.stop = vec![StopStep { signal: Signal::HUP, grace: secs(10) }],
        |params| params.stop_order = 1,
        |params| params.limit = Some(Limit { key: "k".to_owned(), max: 1, wait: None }),
        |params| params.ready_timeout = ReadyTimeout(secs(31)),
    ];
    let expected = same.into_iter().map(|change| (change, true));
    let (mut world, client) = World::with_client();
    world.start(client, named("a"));
    for (index, (change, same_spec)) in
        expected.chain(other.into_iter().map(|change| (change, false))).enumerate()
    {
        let mut params = reuse("a");
        change(&mut params);
        let call = world.create(client, params);
        assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec }, "change {index}");
    }
}

#[test]
fn what_a_create_says_of_the_place_under_a_limit_that_it_would_take_is_no_other_specification() {
    let (mut world, client) = World::with_client();
    let limited = |key: &str, max, wait| {
        let limit = Some(Limit { key: key.to_owned(), max, wait });
        CreateParams { limit, ..reuse("a") }
    };
    world.start(client, limited("k", 1, None));
    for (params, same_spec) in
        [(limited("k", 7, Some(secs(5))), true), (limited("l", 1, None), false), (reuse("a"), false)]
    {
        let call = world.create(client, params);
        assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec });
    }
}

#[test]
fn a_tenth_of_all_children_is_left_to_root_and_the_brokers_user() {
    let bounds = Bounds { max_children: 20, max_children_per_user: 9, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    for client in [alice, bob] {
        for _ in 0..9 {
            world.start(client, unnamed());
        }
    }
    let mut world_of_more = World::with(|config| {
        config.bounds = Bounds { max_children_per_user: 20, ..bounds };
    });
    let alice_of_more = world_of_more.connect(ALICE);
    for _ in 0..18 {
        world_of_more.start(alice_of_more, unnamed());
    }
    let call = world_of_more.create(alice_of_more, unnamed());
    let error = world_of_more.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::LimitExceeded);
    assert!(error.message.contains("a tenth is left to root and the broker's user"), "{}", error.message);
    for mut world in [world, world_of_more] {
        for uid in [0, BROKER_UID] {
            let administrator = world.connect(uid);
            world.start(administrator, unnamed());
        }
        let administrator = world.connect(0);
        let call = world.create(administrator, unnamed());
        assert_eq!(world.refused(call), ErrorKind::LimitExceeded, "all places are taken");
    }
}

#[test]
fn a_limit_counts_children_until_they_have_ended() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, under_limit("render", 2));
    let starting = world.create(client, under_limit("render", 2));
    let third = world.create(client, under_limit("render", 2));
    assert_eq!(world.refused(third), ErrorKind::LimitExceeded);
    let other = world.create(client, under_limit("other", 1));
    assert!(!world.is_answered(other));
    world.call(client, destroy(id(run)));
    let fourth = world.create(client, under_limit("render", 2));
    assert_eq!(world.refused(fourth), ErrorKind::LimitExceeded);
    world.ends(run);
    world.start(client, under_limit("render", 2));
    let starting = world.run(starting);
    world.recorded(starting);
    world.give(procbroker_core::Input::SpawnFailed { run: starting, failure: no_such_file() });
    world.start(client, under_limit("render", 2));
}

#[test]
fn a_child_that_is_reused_or_replaced_is_not_counted_twice() {
    let (mut world, client) = World::with_client();
    let limited = |params| CreateParams { limit: under_limit("k", 1).limit, ..params };
    let run = world.start(client, limited(named("a")));
    let call = world.create(client, limited(reuse("a")));
    assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
    let call = world.create(client, limited(replace("a")));
    world.ends(run);
    let next = world.run(call);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(call).outcome, Outcome::Replaced);
}

#[test]
fn a_limit_of_none_refuses_every_create() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, under_limit("k", 0));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    assert_eq!(world.take(), []);
}

#[test]
fn children_are_bounded_in_all_and_for_each_user() {
    // One of the four is left to administrators.
    let bounds = Bounds { max_children: 4, max_children_per_user: 2, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let run = world.start(alice, unnamed());
    world.start(alice, unnamed());
    let call = world.create(alice, unnamed());
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    world.start(bob, unnamed());
    let call = world.create(bob, unnamed());
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    world.ends(run);
    let run = world.start(bob, unnamed());
    let call = world.create(alice, unnamed());
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    world.ends(run);
    world.start(alice, unnamed());
}

#[test]
fn a_tenth_of_the_children_and_of_the_connections_is_left_to_administrators() {
    let mut world = World::with(|config| {
        config.bounds = Bounds { max_children: 10, max_connections: 11, ..Bounds::default() };
    });
    let connections: Vec<_> = (0..10).map(|_| world.connect(ALICE)).collect();
    let refused = world.try_connect(peer(BOB)).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Overloaded);
    assert!(refused.message.contains("a tenth"), "{}", refused.message);
    let administrator = world.connect(BROKER_UID);
    assert_eq!(world.try_connect(peer(BROKER_UID)).unwrap_err().kind, ErrorKind::Overloaded);
    for _ in 0..9 {
        world.start(connections[0], unnamed());
    }
    let call = world.create(connections[1], unnamed());
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    world.start(administrator, unnamed());
    let call = world.create(administrator, unnamed());
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
}

#[test]
fn a_create_that_is_refused_leaves_no_trace() {
    let (mut world, client) = World::with_client();
    let before = world.ask(client, status()).unwrap();
    let call = world.create(client, under_limit("k", 0));
    assert!(world.answer(call).is_err());
    assert_eq!(world.ask(client, status()).unwrap(), before);
    assert_eq!(world.due_in(), None::<Duration>);
}
