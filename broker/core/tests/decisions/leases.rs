//! What the lives of children hang on: connections that hold them, and time.

use std::time::Duration;

use procbroker_core::{ConnectionId, Effect, Input, Run};
use procbroker_protocol::create::{Lifetime, RestartPolicy};
use procbroker_protocol::request::ManyParams;
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, ExitReason, ExitStatus, Outcome, Request, Signal, Target,
};

use crate::world::*;

fn held(params: CreateParams, linger: u64) -> CreateParams {
    CreateParams { lifetime: Lifetime::Connection, linger: secs(linger), ..params }
}

fn timed(params: CreateParams, seconds: u64) -> CreateParams {
    CreateParams { lifetime: Lifetime::Ttl(secs(seconds)), ..params }
}

fn renew(target: Target) -> Request {
    Request::Renew(ManyParams { target })
}

fn leave(world: &mut World, connection: ConnectionId) {
    world.give(Input::Disconnected { connection });
}

/// Whether a child is being stopped, for this reason, by the orders so far.
fn is_stopped(world: &mut World, watcher: ConnectionId, run: Run, reason: ExitReason) -> bool {
    let sent = world.sent();
    if !sent.iter().any(|sent| matches!(sent, Sent::Signal(to, Signal::TERM, _) if *to == run)) {
        return false;
    }
    world.exited(run, ExitStatus::Code(0), procbroker_core::Members::Nothing);
    assert_eq!(world.shown(watcher, run).exit.clone().unwrap().reason, reason);
    true
}

#[test]
fn a_child_ends_with_the_connection_that_created_it() {
    let (mut world, watcher) = World::with_client();
    let holder = world.connect(BROKER_UID);
    let run = world.start(holder, held(named("a"), 0));
    leave(&mut world, holder);
    assert!(is_stopped(&mut world, watcher, run, ExitReason::OwnerGone));
}

#[test]
fn a_child_lives_until_the_last_of_those_who_hold_it_has_left() {
    let (mut world, watcher) = World::with_client();
    let holders: Vec<_> = (0..100).map(|_| world.connect(BROKER_UID)).collect();
    let run = world.start(holders[0], held(named("a"), 0));
    for holder in &holders[1..] {
        // Twice: it is one holder all the same.
        for _ in 0..2 {
            let call = world.create(*holder, held(reuse("a"), 0));
            assert_eq!(world.created(call).child.id, run.child);
        }
    }
    world.take();
    for holder in &holders[..99] {
        leave(&mut world, *holder);
        world.advance(secs(100));
        assert_eq!(world.sent(), []);
    }
    leave(&mut world, holders[99]);
    assert!(is_stopped(&mut world, watcher, run, ExitReason::OwnerGone));
}

#[test]
fn who_comes_back_within_linger_keeps_the_child() {
    let (mut world, watcher) = World::with_client();
    let holder = world.connect(BROKER_UID);
    let run = world.start(holder, held(named("a"), 5));
    leave(&mut world, holder);
    world.advance(secs(4));
    let holder = world.connect(BROKER_UID);
    let call = world.create(holder, held(reuse("a"), 5));
    assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
    world.advance(secs(100));
    assert_eq!(world.sent(), []);
    leave(&mut world, holder);
    world.advance(secs(4));
    assert_eq!(world.sent(), []);
    world.advance(secs(1));
    assert!(is_stopped(&mut world, watcher, run, ExitReason::OwnerGone));
}

#[test]
fn who_comes_back_while_the_child_is_restarted_keeps_it() {
    for is_pausing in [true, false] {
        let (mut world, holder, run) = running(RestartPolicy::Always, held(named("a"), 5));
        leave(&mut world, holder);
        world.advance(secs(4));
        let holder = world.connect(BROKER_UID);
        if is_pausing {
            fails(&mut world, run);
        } else {
            world.call(holder, restart(name("a")));
        }
        world.take();
        // It waits for the next run, and holds the child meanwhile.
        let call = world.create(holder, restarted(RestartPolicy::Always, held(reuse("a"), 5)));
        if is_pausing {
            world.advance(millis(100));
        } else {
            world.ends(run);
            world.recorded(next(run));
        }
        assert_eq!(world.spawns(), [next(run)], "{is_pausing}");
        world.advance(secs(20));
        world.spawned(next(run));
        assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
        world.take();
        leave(&mut world, holder);
        world.advance(secs(4));
        assert_eq!(world.sent(), []);
        world.advance(secs(1));
        assert_eq!(world.sent().len(), 1);
    }
}

#[test]
fn nobody_holds_a_child_who_waits_for_its_end() {
    let (mut world, _watcher) = World::with_client();
    let holder = world.connect(BROKER_UID);
    let run = world.start(holder, held(named("a"), 0));
    leave(&mut world, holder);
    world.take();
    let holder = world.connect(BROKER_UID);
    let call = world.create(holder, held(reuse("a"), 0));
    world.ends(run);
    let run = world.run(call);
    world.recorded(run);
    assert_eq!(world.spawns(), [run]);
}

#[test]
fn the_same_request_on_a_new_connection_holds_the_child() {
    let (mut world, watcher) = World::with_client();
    let holder = world.connect(BROKER_UID);
    let run = world.start(holder, requested(held(unnamed(), 1), 7));
    leave(&mut world, holder);
    let holder = world.connect(BROKER_UID);
    let call = world.create(holder, requested(held(unnamed(), 1), 7));
    assert_eq!(world.created(call).child.id, run.child);
    world.advance(secs(100));
    assert_eq!(world.sent(), []);
    leave(&mut world, holder);
    world.advance(secs(1));
    assert!(is_stopped(&mut world, watcher, run, ExitReason::OwnerGone));
}

#[test]
fn who_waits_for_a_child_holds_it() {
    let (mut world, watcher) = World::with_client();
    let notify =
        |params| CreateParams { ready: procbroker_protocol::create::Ready::Notify, ..held(params, 1) };
    let creator = world.connect(BROKER_UID);
    let call = world.create(creator, notify(named("a")));
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    world.take();
    leave(&mut world, creator);
    let waiting = world.connect(BROKER_UID);
    let reused = world.create(waiting, notify(reuse("a")));
    world.advance(secs(20));
    assert_eq!(world.sent(), []);
    world.give(Input::Notified { run, notices: vec![procbroker_core::Notice::Ready] });
    assert_eq!(world.created(reused).child.id, run.child);
    world.take();
    leave(&mut world, waiting);
    world.advance(secs(1));
    assert!(is_stopped(&mut world, watcher, run, ExitReason::OwnerGone));
}

#[test]
fn who_waits_for_a_child_and_leaves_holds_it_no_more() {
    let (mut world, watcher) = World::with_client();
    let policy = procbroker_protocol::create::RestartPolicy::Always;
    let creator = world.connect(BROKER_UID);
    let run = world.start(creator, restarted(policy, held(named("a"), 1)));
    leave(&mut world, creator);
    world.exited(run, ExitStatus::Code(3), procbroker_core::Members::Nothing);
    let waiting = world.connect(BROKER_UID);
    let call = world.create(waiting, restarted(policy, held(reuse("a"), 1)));
    assert!(!world.is_answered(call), "it is between two runs");
    leave(&mut world, waiting);
    world.advance(secs(2));
    assert_eq!(world.shown(watcher, run).exit.clone().unwrap().reason, ExitReason::OwnerGone);
}

#[test]
fn a_create_whose_child_is_replaced_holds_the_one_that_it_is_answered_with() {
    let (mut world, _watcher) = World::with_client();
    let notify =
        |params| CreateParams { ready: procbroker_protocol::create::Ready::Notify, ..held(params, 0) };
    let [first, second] = [0; 2].map(|_| world.connect(BROKER_UID));
    let superseded = world.create(first, notify(replace("a")));
    let before = world.run(superseded);
    world.recorded(before);
    world.spawned(before);
    let call = world.create(second, notify(replace("a")));
    world.take();
    world.ends(before);
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    world.take();
    leave(&mut world, second);
    world.advance(secs(20));
    assert_eq!(world.sent(), []);
    world.give(Input::Notified { run, notices: vec![procbroker_core::Notice::Ready] });
    assert_eq!(world.created(superseded).child.id, run.child);
}

#[test]
fn a_create_whose_client_vanished_before_it_was_answered_leaves_nothing() {
    for is_recorded in [false, true] {
        let (mut world, _watcher) = World::with_client();
        let holder = world.connect(BROKER_UID);
        let call = world.create(holder, held(named("a"), 0));
        let run = world.run(call);
        if is_recorded {
            world.recorded(run);
            leave(&mut world, holder);
            world.spawned(run);
            assert_eq!(world.sent().len(), 1);
        } else {
            leave(&mut world, holder);
            world.take();
            world.recorded(run);
            assert_eq!(world.spawns(), []);
        }
    }
}

#[test]
fn a_child_of_the_broker_is_held_by_nobody() {
    let (mut world, watcher) = World::with_client();
    let holder = world.connect(BROKER_UID);
    let run = world.start(holder, named("a"));
    world.create(holder, held(reuse("a"), 0));
    leave(&mut world, holder);
    world.advance(secs(100));
    assert_eq!(world.shown(watcher, run).state, ChildState::Running);
}

#[test]
fn after_a_crash_holders_have_ten_seconds_at_the_least_to_come_back() {
    for (linger, kept) in [(0, 10), (25, 25)] {
        let mut world = World::new();
        let holder = world.connect(BROKER_UID);
        let run = world.start(holder, held(named("a"), linger));
        world.crash(alive(run));
        let watcher = world.connect(BROKER_UID);
        world.advance(secs(kept - 1));
        assert_eq!(world.shown(watcher, run).state, ChildState::Running);
        world.advance(secs(1));
        assert!(is_stopped(&mut world, watcher, first(run), ExitReason::OwnerGone));
    }
}

#[test]
fn a_holder_that_comes_back_after_a_crash_holds_the_child_again() {
    let mut world = World::new();
    let holder = world.connect(BROKER_UID);
    let run = world.start(holder, held(named("a"), 0));
    world.crash(alive(run));
    let watcher = world.connect(BROKER_UID);
    let holder = world.connect(BROKER_UID);
    let call = world.create(holder, held(reuse("a"), 0));
    assert_eq!(world.created(call).child.id, run.child);
    world.advance(secs(100));
    assert_eq!(world.shown(watcher, run).state, ChildState::Running);
    leave(&mut world, holder);
    assert!(is_stopped(&mut world, watcher, first(run), ExitReason::OwnerGone));
}

#[test]
fn a_child_expires_when_its_time_is_over() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, timed(named("a"), 5));
    world.advance(secs(4));
    assert_eq!(world.sent(), []);
    world.advance(secs(1));
    assert!(is_stopped(&mut world, client, run, ExitReason::Expired));
}

#[test]
fn a_renewed_child_has_its_whole_time_again() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, timed(named("a"), 5));
    for _ in 0..10 {
        world.advance(secs(4));
        let call = world.call(client, renew(name("a")));
        assert_eq!(world.children(call).len(), 1);
        assert!(world.is_promise(call), "a renewal is on record before it is answered");
    }
    world.advance(secs(4));
    assert_eq!(world.sent(), []);
    world.advance(secs(1));
    assert!(is_stopped(&mut world, client, run, ExitReason::Expired));
}

#[test]
fn a_renewal_that_the_broker_was_late_to_read_is_in_time() {
    let (mut world, client) = World::with_client();
    world.start(client, timed(named("a"), 10));
    world.jump(secs(12));
    let call = world.call_belated(client, renew(name("a")));
    world.advance(Duration::ZERO);
    assert!(world.is_answered(call));
    assert_eq!(world.sent(), []);
    assert!(world.due_in().is_some_and(|due| due > Duration::ZERO));
}

#[test]
fn a_time_to_live_that_ran_out_while_the_broker_did_not_run_is_put_off_once() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, timed(named("a"), 10));
    world.jump(secs(13));
    // A word that puts nothing off is read first.
    world.call(client, list(false));
    assert_eq!((world.sent(), world.due_in()), (vec![], Some(secs(3))));
    let call = world.call(client, renew(name("a")));
    assert_eq!(world.children(call).len(), 1);
    world.jump(secs(40));
    world.advance(Duration::ZERO);
    assert_eq!((world.sent(), world.due_in()), (vec![], Some(secs(10))));
    world.advance(secs(10));
    assert!(is_stopped(&mut world, client, run, ExitReason::Expired));
}

#[test]
fn a_renewal_that_comes_with_the_end_finds_an_ending_child() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, timed(named("a"), 5));
    world.jump(secs(5));
    let call = world.call(client, renew(id(run)));
    assert_eq!(world.refused(call), ErrorKind::NotFound);
    assert!(is_stopped(&mut world, client, run, ExitReason::Expired));
    let call = world.call(client, renew(id(run)));
    assert_eq!(world.refused(call), ErrorKind::NotFound);
}

#[test]
fn what_has_no_time_to_live_cannot_be_renewed() {
    let (mut world, client) = World::with_client();
    let plain = world.start(client, named("a"));
    let call = world.call(client, renew(id(plain)));
    assert_eq!(world.refused(call), ErrorKind::Unsupported);
    let timed = world.start(client, timed(named("b"), 5));
    let call = world.call(client, renew(Target::All));
    let renewed: Vec<_> = world.children(call).iter().map(|child| child.id).collect();
    assert_eq!(renewed, [timed.child]);
}

#[test]
fn nobody_renews_what_belongs_to_somebody_else() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let run = world.start(alice, timed(named("a"), 5));
    let call = world.call(bob, renew(name("a")));
    assert_eq!(world.refused(call), ErrorKind::NotFound);
    let call = world.call(bob, renew(Target::All));
    assert_eq!(world.children(call).len(), 0);
    world.advance(secs(5));
    assert!(is_stopped(&mut world, alice, run, ExitReason::Expired));
}

#[test]
fn a_time_to_live_goes_on_in_a_crash_with_its_renewals() {
    for is_renewed in [false, true] {
        let (mut world, client) = World::with_client();
        let run = world.start(client, timed(named("a"), 5));
        world.advance(secs(3));
        if is_renewed {
            world.call(client, renew(name("a")));
        }
        world.jump(secs(1));
        world.crash(alive(run));
        let client = world.connect(BROKER_UID);
        let left = if is_renewed { 4 } else { 1 };
        world.advance(std::time::Duration::from_nanos(left * 1_000_000_000 - 1));
        assert_eq!(world.sent(), [], "{is_renewed}");
        world.advance(secs(1));
        assert!(is_stopped(&mut world, client, first(run), ExitReason::Expired));
    }
}

#[test]
fn a_time_to_live_that_ran_out_in_a_crash_is_over_at_once() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, timed(named("a"), 5));
    world.jump(secs(60));
    world.crash(alive(run));
    world.advance(secs(0));
    let client = world.connect(BROKER_UID);
    assert!(is_stopped(&mut world, client, first(run), ExitReason::Expired));
}

#[test]
fn a_child_that_has_ended_by_itself_leaves_no_timer() {
    let (mut world, client) = World::with_client();
    let holder = world.connect(BROKER_UID);
    for params in [timed(unnamed(), 5), held(unnamed(), 5)] {
        let run = world.start(holder, params);
        world.exited(run, ExitStatus::Code(0), procbroker_core::Members::Nothing);
        world.take();
    }
    leave(&mut world, holder);
    world.advance(secs(100));
    assert_eq!(world.shown(client, world_run(1)).exit.clone().unwrap().reason, ExitReason::Exited);
    let stops = world.take().into_iter().filter(|order| matches!(order, Effect::Signal { .. })).count();
    assert_eq!(stops, 0);
}

/// The process of the child that the first create has started.
fn world_run(number: u128) -> Run {
    Run {
        child: procbroker_protocol::ChildId::from_uuid(uuid::Uuid::from_u128(number)),
        incarnation: procbroker_core::Incarnation::FIRST,
    }
}

#[test]
fn linger_is_for_children_of_connections_and_a_time_is_not_nothing() {
    let (mut world, client) = World::with_client();
    for params in [
        CreateParams { linger: secs(1), ..unnamed() },
        timed(unnamed(), 0),
        CreateParams { linger: secs(1), ..timed(unnamed(), 1) },
    ] {
        let call = world.create(client, params);
        assert_eq!(world.refused(call), ErrorKind::InvalidParams);
    }
}

#[test]
fn a_child_that_lingered_goes_on_lingering_in_a_crash_and_in_an_upgrade() {
    for is_upgrade in [false, true] {
        let (mut world, client) = World::with_client();
        let run = world.start(client, held(named("a"), 2));
        leave(&mut world, client);
        world.advance(secs(1));
        if is_upgrade {
            world.upgrade_taking(Duration::ZERO);
        } else {
            world.crash(alive(run));
        }
        assert_eq!(world.due_in(), Some(secs(1)), "{is_upgrade}");
        // Who comes back in time holds it, and has time to come back after the next one.
        let holder = world.connect(BROKER_UID);
        let call = world.create(holder, held(reuse("a"), 2));
        assert_eq!(world.created(call).child.id, run.child);
        assert_eq!(world.due_in(), None);
        world.crash(alive(run));
        assert_eq!(world.due_in(), Some(secs(10)));
    }
}

#[test]
fn holders_that_are_lost_have_their_time_to_come_back_once() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, held(named("a"), 0));
    world.upgrade_taking(Duration::ZERO);
    world.advance(secs(4));
    world.upgrade_taking(secs(1));
    assert_eq!(world.due_in(), Some(secs(5)));
    world.crash(alive(run));
    let watcher = world.connect(BROKER_UID);
    world.advance(secs(5));
    assert!(is_stopped(&mut world, watcher, first(run), ExitReason::OwnerGone));
}
