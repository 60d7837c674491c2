//! Creates that wait for a place under a limit.

use procbroker_core::{Call, ConnectionId, Input, Run};
use procbroker_protocol::create::{Limit, RestartPolicy};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{CreateParams, ErrorKind, ExitReason, Outcome, Signal, Target};

use crate::world::*;

fn patient(params: CreateParams, max: u32, seconds: u64) -> CreateParams {
    patient_under("k", params, max, seconds)
}

fn patient_under(key: &str, params: CreateParams, max: u32, seconds: u64) -> CreateParams {
    let limit = Limit { key: key.to_owned(), max, wait: Some(secs(seconds)) };
    CreateParams { limit: Some(limit), ..params }
}

fn full(world: &mut World, client: ConnectionId) -> Run {
    let run = world.start(client, patient(unnamed(), 1, 60));
    world.take();
    run
}

/// The process that was started for a create, as it runs now.
fn goes_on(world: &mut World, call: Call) -> Run {
    let run = world.run(call);
    assert_eq!(world.intents(), [run]);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(world.created(call).child.id, run.child);
    run
}

#[test]
fn a_place_goes_to_those_who_wait_in_the_order_of_their_arrival() {
    let (mut world, client) = World::with_client();
    let mut run = full(&mut world, client);
    let calls: Vec<_> = (0..3).map(|_| world.create(client, patient(unnamed(), 1, 60))).collect();
    assert_eq!(world.intents(), []);
    for call in calls {
        world.ends(run);
        run = goes_on(&mut world, call);
    }
}

#[test]
fn users_take_turns_for_places() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let mut run = full(&mut world, alice);
    let [first, second, third] = [0; 3].map(|_| world.create(alice, patient(unnamed(), 1, 60)));
    let other = world.create(bob, patient(unnamed(), 1, 60));
    for call in [first, other, second, third] {
        world.ends(run);
        run = goes_on(&mut world, call);
    }
}

#[test]
fn who_has_waited_long_enough_is_told_that_the_limit_is_reached() {
    let (mut world, client) = World::with_client();
    let run = full(&mut world, client);
    let call = world.create(client, patient(unnamed(), 1, 5));
    world.advance(secs(4));
    assert!(!world.is_answered(call));
    world.advance(secs(1));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    world.take();
    world.ends(run);
    assert_eq!(world.intents(), []);
}

fn answered(world: &World, calls: &[Call]) -> usize {
    calls.iter().filter(|call| world.is_answered(**call)).count()
}

#[test]
fn creates_that_are_all_refused_when_a_place_is_free_hold_up_nobody() {
    let mut world = World::with(|config| config.bounds.max_children_per_user = 2);
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let run = full(&mut world, bob);
    for _ in 0..2 {
        world.start(alice, unnamed());
    }
    let calls: Vec<_> = (0..200).map(|_| world.create(alice, patient(unnamed(), 1, 60))).collect();
    world.ends(run);
    assert_eq!(answered(&world, &calls), 64, "so many are decided about in one turn");
    let call = world.call(bob, status());
    assert!(world.is_answered(call));
    world.advance(std::time::Duration::from_nanos(10));
    assert_eq!(answered(&world, &calls), 200);
    assert!(calls.iter().all(|call| world.refused(*call) == ErrorKind::LimitExceeded));
    assert_eq!(world.due_in().map(|due| due > secs(1)), Some(true), "nothing is left to be given");
}

#[test]
fn who_comes_between_two_turns_comes_after_those_who_wait() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let run = full(&mut world, bob);
    let names: Vec<_> = (0..100).map(|number| format!("n{number}")).collect();
    let vain: Vec<_> = names.iter().map(|name| world.create(alice, patient(named(name), 1, 60))).collect();
    for name in &names {
        world.start(bob, named(name));
    }
    let first = world.create(alice, patient(unnamed(), 1, 60));
    world.take();
    world.ends(run);
    assert_eq!(answered(&world, &vain), 64);
    let late = world.create(alice, patient(unnamed(), 1, 60));
    assert_eq!(world.intents(), [], "there is a place, and somebody waits for it");
    world.advance(std::time::Duration::from_nanos(10));
    assert!(vain.iter().all(|call| world.refused(*call) == ErrorKind::NameTaken(None)));
    goes_on(&mut world, first);
    assert!(!world.is_answered(late));
}

#[test]
fn who_left_has_no_turn() {
    let (mut world, client) = World::with_client();
    let run = full(&mut world, client);
    let other = world.connect(BROKER_UID);
    world.create(other, patient(unnamed(), 1, 60));
    let call = world.create(client, patient(unnamed(), 1, 60));
    world.give(Input::Disconnected { connection: other });
    world.take();
    world.ends(run);
    goes_on(&mut world, call);
}

#[test]
fn a_limit_is_not_overshot_by_those_who_wait() {
    let (mut world, client) = World::with_client();
    let runs = [(); 2].map(|()| world.start(client, patient(unnamed(), 2, 60)));
    world.take();
    let calls = [(); 5].map(|()| world.create(client, patient(unnamed(), 2, 60)));
    let narrow = world.create(client, patient(unnamed(), 1, 60));
    world.ends(runs[0]);
    assert_eq!(world.intents(), [world.run(calls[0])]);
    world.ends(runs[1]);
    assert_eq!(world.intents(), [world.run(calls[1])]);
    assert!(!world.is_answered(narrow));
}

#[test]
fn a_place_that_a_failed_start_gives_back_is_given_on() {
    let (mut world, client) = World::with_client();
    let first = world.create(client, patient(unnamed(), 1, 60));
    let run = world.run(first);
    world.recorded(run);
    let second = world.create(client, patient(unnamed(), 1, 60));
    world.take();
    world.give(Input::SpawnFailed { run, failure: no_such_file() });
    goes_on(&mut world, second);
}

#[test]
fn a_shutdown_refuses_those_who_wait_for_a_place() {
    let (mut world, client) = World::with_client();
    full(&mut world, client);
    let call = world.create(client, patient(unnamed(), 1, 60));
    world.term();
    assert_eq!(world.refused(call), ErrorKind::ShuttingDown);
}

#[test]
fn a_reuse_that_waits_for_a_place_gets_the_child_that_somebody_starts_meanwhile() {
    let (mut world, client) = World::with_client();
    let run = full(&mut world, client);
    let waiting = world.create(client, patient(reuse("a"), 1, 60));
    let other = world.start(client, named("a"));
    assert_eq!(world.created(waiting).outcome, Outcome::Existing { same_spec: false });
    assert_eq!(world.created(waiting).child.id, other.child);
    world.ends(run);
    assert_eq!(world.intents(), []);
}

#[test]
fn of_those_who_wait_for_a_place_and_one_name_the_last_replace_starts_and_all_get_it() {
    let (mut world, client) = World::with_client();
    let run = full(&mut world, client);
    let calls = [reuse("a"), replace("a"), reuse("a"), replace("a")]
        .map(|params| world.create(client, patient(params, 1, 60)));
    world.ends(run);
    let next = goes_on(&mut world, calls[3]);
    for call in calls {
        assert_eq!(world.created(call).child.id, next.child);
    }
}

#[test]
fn a_replace_that_waits_for_a_place_ends_nobody_when_another_one_is_refused() {
    let (mut world, client) = World::with_client();
    let alice = world.connect(ALICE);
    let runs = ["k", "l"].map(|key| world.start(client, patient_under(key, unnamed(), 1, 60)));
    let first = world.create(client, patient(replace("a"), 1, 60));
    let second = world.create(alice, patient_under("l", replace("a"), 1, 60));
    let holder = world.start(client, named("a"));
    world.take();
    world.ends(runs[1]);
    assert_eq!(world.sent(), []);
    assert_eq!(world.refused(second), ErrorKind::NameTaken(None));
    world.ends(runs[0]);
    assert_eq!(world.sent(), [Sent::Signal(holder, Signal::TERM, Scope::Group)]);
    world.ends(holder);
    goes_on(&mut world, first);
}

fn under(key: &str, max: u32, params: CreateParams) -> CreateParams {
    CreateParams { limit: Some(Limit { key: key.to_owned(), max, wait: None }), ..params }
}

#[test]
fn a_replace_without_a_place_is_refused_and_ends_nobody() {
    let (mut world, client) = World::with_client();
    world.start(client, named("a"));
    full(&mut world, client);
    for max in [0, 1] {
        let call = world.create(client, under("k", max, replace("a")));
        assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    }
    let call = world.create(client, patient(replace("a"), 1, 5));
    world.advance(secs(5));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    assert_eq!(world.sent(), []);
}

#[test]
fn a_replace_beyond_another_bound_is_refused_and_ends_nobody() {
    let mut world = World::with(|config| config.bounds.max_children_per_user = 1);
    let (client, alice) = (world.connect(BROKER_UID), world.connect(ALICE));
    let holder = world.start(alice, named("a"));
    let own = world.start(client, named("b"));
    world.take();
    let call = world.create(client, replace("a"));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    assert_eq!(world.sent(), []);
    // The own child of whoever replaces it leaves its place to the next one.
    for (user, name, run) in [(alice, "a", holder), (client, "b", own)] {
        let call = world.create(user, replace(name));
        world.take();
        world.ends(run);
        goes_on(&mut world, call);
    }
}

#[test]
fn a_replace_takes_over_the_place_of_what_it_replaces() {
    let (mut world, client) = World::with_client();
    let holder = world.start(client, under("k", 1, named("a")));
    let waiting = world.create(client, patient(unnamed(), 1, 60));
    let call = world.create(client, under("k", 1, replace("a")));
    assert_eq!(world.sent(), [Sent::Signal(holder, Signal::TERM, Scope::Group)]);
    let late = world.create(client, under("k", 1, unnamed()));
    assert_eq!(world.refused(late), ErrorKind::LimitExceeded);
    world.take();
    world.ends(holder);
    goes_on(&mut world, call);
    assert!(!world.is_answered(waiting), "it came after the child whose place was taken over");
}

#[test]
fn a_place_is_kept_for_a_replace_while_what_it_replaces_stops() {
    let (mut world, client) = World::with_client();
    let holder = world.start(client, named("a"));
    let calls = [(); 2].map(|()| world.create(client, under("k", 1, replace("a"))));
    let late = world.create(client, under("k", 1, unnamed()));
    assert_eq!(world.refused(late), ErrorKind::LimitExceeded);
    let patient = world.create(client, patient(unnamed(), 1, 60));
    world.take();
    world.ends(holder);
    let run = goes_on(&mut world, calls[1]);
    assert_eq!(world.created(calls[0]).child.id, run.child);
    world.ends(run);
    goes_on(&mut world, patient);
}

#[test]
fn who_comes_later_and_allows_more_does_not_take_a_place_that_is_kept() {
    let (mut world, client) = World::with_client();
    for is_under in [false, true] {
        let params = named(if is_under { "a" } else { "b" });
        let name = params.name.clone().unwrap().to_string();
        let params = if is_under { under("k", 1, params) } else { params };
        let holder = world.start(client, params);
        let call = world.create(client, under("k", 1, replace(&name)));
        let late = world.start(client, under("k", 2, unnamed()));
        let over = world.create(client, under("k", 2, unnamed()));
        assert_eq!(world.refused(over), ErrorKind::LimitExceeded);
        world.take();
        world.ends(holder);
        let run = goes_on(&mut world, call);
        world.ends(late);
        world.ends(run);
        world.take();
    }
}

#[test]
fn a_place_that_is_kept_for_a_client_that_leaves_goes_to_who_waits() {
    let (mut world, client) = World::with_client();
    let other = world.connect(BROKER_UID);
    let holder = world.start(client, named("a"));
    world.create(other, under("k", 1, replace("a")));
    let call = world.create(client, patient(unnamed(), 1, 60));
    world.take();
    world.give(Input::Disconnected { connection: other });
    goes_on(&mut world, call);
    world.ends(holder);
    assert_eq!(world.intents(), []);
}

#[test]
fn a_replace_that_has_got_its_turn_keeps_its_place_while_what_it_replaces_stops() {
    let (mut world, client) = World::with_client();
    let run = full(&mut world, client);
    let call = world.create(client, patient(replace("a"), 1, 60));
    let late = world.create(client, patient(unnamed(), 1, 60));
    let holder = world.start(client, named("a"));
    world.take();
    world.ends(run);
    assert_eq!(world.sent(), [Sent::Signal(holder, Signal::TERM, Scope::Group)]);
    world.take();
    world.ends(holder);
    let run = goes_on(&mut world, call);
    assert!(!world.is_answered(late));
    world.ends(run);
    goes_on(&mut world, late);
}

#[test]
fn who_waits_for_a_place_is_not_told_of_what_nobody_has_replaced() {
    let mut world = World::with(|config| config.bounds.max_children_per_user = 1);
    let (client, alice, bob) = (world.connect(BROKER_UID), world.connect(ALICE), world.connect(BOB));
    let run = full(&mut world, bob);
    world.start(alice, named("a"));
    world.start(client, unnamed());
    world.take();
    let calls = [(); 2].map(|()| world.create(client, patient(replace("a"), 1, 60)));
    world.ends(run);
    for call in calls {
        assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    }
    assert_eq!(world.sent(), []);
}

#[test]
fn the_same_request_that_waits_twice_starts_one_child() {
    let (mut world, client) = World::with_client();
    let run = full(&mut world, client);
    let calls = [(); 2].map(|()| world.create(client, requested(patient(unnamed(), 1, 60), 9)));
    world.ends(run);
    let next = goes_on(&mut world, calls[0]);
    assert_eq!(world.created(calls[1]).child.id, next.child);
}

#[test]
fn who_has_waited_for_a_name_keeps_his_place_in_the_order_of_arrival() {
    let (mut world, client) = World::with_client();
    let run = full(&mut world, client);
    let holder = world.start(client, named("a"));
    let first = world.create(client, patient(replace("a"), 1, 60));
    let second = world.create(client, patient(unnamed(), 1, 60));
    world.ends(holder);
    world.take();
    world.ends(run);
    let run = goes_on(&mut world, first);
    world.ends(run);
    goes_on(&mut world, second);
}

#[test]
fn a_place_that_a_create_of_some_name_fails_to_use_goes_to_who_came_before_its_rivals() {
    let mut world = World::with(|config| config.bounds.max_children_per_user = 1);
    let (alice, bob, other) = (world.connect(ALICE), world.connect(BOB), world.connect(BROKER_UID));
    let run = full(&mut world, other);
    world.start(alice, unnamed());
    let first = world.create(bob, patient(unnamed(), 1, 60));
    let calls =
        [(alice, replace("a")), (bob, reuse("a"))].map(|(user, it)| world.create(user, patient(it, 1, 60)));
    world.take();
    world.ends(run);
    assert_eq!(world.refused(calls[0]), ErrorKind::LimitExceeded);
    goes_on(&mut world, first);
    assert!(!world.is_answered(calls[1]));
}

#[test]
fn what_a_destroy_of_several_frees_ends_none_of_them_for_somebody_else() {
    let (mut world, client) = World::with_client();
    let paused = world.start(client, restarted(RestartPolicy::Always, under("k", 1, unnamed())));
    let holder = world.start(client, named("a"));
    let replace = world.create(client, patient(replace("a"), 1, 60));
    fails(&mut world, paused);
    world.take();
    let all = world.call(client, destroy(Target::All));
    world.ends(holder);
    let reasons: Vec<_> =
        world.children(all).iter().map(|child| child.exit.as_ref().unwrap().reason).collect();
    assert_eq!(reasons, [ExitReason::Destroyed; 2]);
    goes_on(&mut world, replace);
}
