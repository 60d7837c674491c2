//! `request_id`: the same request from the same user gets its first answer again.

use procbroker_core::{AccountsFailure, Effect, Finding, Input, Members, Notice};
use procbroker_protocol::create::{Account, IfExists, Ready, RestartPolicy};
use procbroker_protocol::{ChildState, CreateParams, ErrorKind, ExitStatus, Outcome, Request};

use crate::world::*;

#[test]
fn a_retry_gets_the_first_answer_and_starts_nothing() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, requested(unnamed(), 1));
    let call = world.create(client, requested(unnamed(), 1));
    assert_eq!(world.created(call).outcome, Outcome::Created);
    assert_eq!(world.created(call).child.id, run.child);
    assert_eq!(world.take(), []);
}

#[test]
fn a_retry_gets_the_first_answer_whatever_the_other_parameters() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, requested(named("a"), 1));
    world.start(client, named("b"));
    for params in [named("a"), named("b"), replace("a"), reuse("b"), unnamed(), under_limit("k", 0)] {
        let call = world.create(client, requested(params, 1));
        assert_eq!(world.created(call).outcome, Outcome::Created);
        assert_eq!(world.created(call).child.id, run.child);
    }
    assert_eq!(world.take(), []);
}

#[test]
fn a_retry_whose_account_cannot_be_looked_up_any_more_gets_the_first_answer() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, requested(unnamed(), 1));
    let unknown = AccountsFailure { account: Account::Name("gone".to_owned()), failure: no_such_file() };
    let request = Request::Create(Box::new(requested(unnamed(), 1)));
    let call = world.call_as(client, request, Err(unknown));
    assert_eq!(world.created(call).child.id, run.child);
}

#[test]
fn a_retry_while_the_first_is_in_flight_waits_for_the_same_child() {
    let (mut world, client) = World::with_client();
    let other = world.connect(BROKER_UID);
    let first = world.create(client, requested(named("a"), 1));
    let run = world.run(first);
    world.give(Input::Disconnected { connection: client });
    let retries =
        [world.create(other, requested(named("a"), 1)), world.create(other, requested(named("a"), 1))];
    world.recorded(run);
    let late = world.create(other, requested(named("a"), 1));
    assert_eq!(world.spawns(), [run]);
    world.spawned(run);
    for retry in [retries[0], retries[1], late] {
        assert_eq!(world.created(retry).outcome, Outcome::Created);
        assert_eq!(world.created(retry).child.id, run.child);
    }
}

#[test]
fn after_a_crash_a_request_that_has_waited_is_answered_with_what_was_started_for_it_last() {
    for clock in [0, -3_600] {
        asked_twice_with_the_clock_set_between(clock);
    }
}

fn asked_twice_with_the_clock_set_between(seconds: i64) {
    let (mut world, client) = World::with_client();
    let holder = world.start(client, named("a"));
    let call = world.create(client, requested(replace("a"), 1));
    // With another name it need not wait. That child fails, and is younger by its id.
    let failed = CreateParams { ready: Ready::Notify, ..requested(unnamed(), 1) };
    let failed = world.create(client, failed);
    let run = world.run(failed);
    world.recorded(run);
    world.spawned(run);
    world.ends(run);
    world.advance(secs(1));
    world.set_clock(seconds);
    world.ends(holder);
    let started = world.run(call);
    world.recorded(started);
    world.spawned(started);
    assert_eq!(world.created(call).outcome, Outcome::Replaced);
    for _ in 0..2 {
        world.crash(alive(started));
        let client = world.connect(BROKER_UID);
        let again = world.create(client, requested(reuse("a"), 1));
        assert_eq!(world.created(again).outcome, Outcome::Replaced, "{seconds}");
        assert_eq!(world.created(again).child.id, started.child);
        world.set_clock(seconds);
    }
}

#[test]
fn a_retry_of_a_replace_that_still_waits_replaces_once() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let calls =
        [world.create(client, requested(replace("a"), 1)), world.create(client, requested(replace("a"), 1))];
    world.take();
    world.ends(run);
    let next = world.run(calls[0]);
    assert_eq!(world.intents(), [next]);
    world.recorded(next);
    world.spawned(next);
    for call in calls {
        assert_eq!(world.created(call).outcome, Outcome::Replaced);
        assert_eq!(world.created(call).child.id, next.child);
    }
    let retry = world.create(client, requested(replace("a"), 1));
    assert_eq!(world.created(retry).outcome, Outcome::Replaced);
    assert_eq!(world.created(retry).child.id, next.child);
    assert_eq!(world.sent(), []);
}

#[test]
fn a_retry_of_a_reuse_gets_the_first_answer_even_when_that_child_has_ended() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let call = world.create(client, requested(reuse("a"), 1));
    assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
    let retry = CreateParams { if_exists: IfExists::Fail, ..requested(reuse("a"), 1) };
    let call = world.create(client, retry);
    assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
    world.ends(run);
    let call = world.create(client, requested(reuse("a"), 1));
    assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: true });
    assert_eq!(world.created(call).child.id, run.child);
    let fresh = world.create(client, requested(reuse("a"), 2));
    assert!(!world.is_answered(fresh));
}

#[test]
fn answers_with_a_child_that_was_there_are_remembered_as_far_as_their_users_bytes_reach_the_last_ones_first()
{
    // A thirty-second part of this has room for five hundred and a few more.
    let mut world = World::with(|config| config.bounds.max_kept_bytes_per_user = 32 * 500 * 200);
    let client = world.connect(ALICE);
    let run = world.start(client, named("a"));
    for request in 1..=1_000 {
        let call = world.create(client, requested(reuse("a"), request));
        assert_eq!(world.created(call).child.id, run.child);
    }
    let kept = world.answers_on_record();
    assert!((400..600).contains(&kept), "{kept}");
    assert_eq!(world.counts().kept.requests, 192 * u64::try_from(kept).unwrap());
    world.ends(run);
    let first = 1_001 - u128::try_from(kept).unwrap();
    for request in [first, 1_000] {
        let call = world.create(client, requested(reuse("a"), request));
        assert_eq!(world.created(call).child.id, run.child);
    }
    let call = world.create(client, requested(reuse("a"), first - 1));
    assert!(!world.is_answered(call));
}

#[test]
fn a_retry_of_a_reuse_gets_the_first_answer_after_a_crash_as_long_as_the_child_is_visible() {
    let mut world = World::with(|config| config.bounds.ended_kept = 1);
    let client = world.connect(ALICE);
    let run = world.start(client, named("a"));
    let other = CreateParams { stop_order: 1, ..reuse("a") };
    let call = world.create(client, requested(other, 1));
    assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: false });
    assert!(world.is_promise(call), "it is told once it is on record");
    let retry = |world: &mut World, client| world.create(client, requested(unnamed(), 1));
    for _ in 0..2 {
        world.crash(alive(run));
        let client = world.connect(ALICE);
        world.take();
        let call = retry(&mut world, client);
        assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: false });
        assert_eq!(world.created(call).child.id, run.child);
        assert_eq!(world.take(), [], "nothing is started, and nothing recorded anew");
    }
    world.ends(run);
    world.crash(Finding::NeverStarted);
    let client = world.connect(ALICE);
    let call = retry(&mut world, client);
    assert_eq!(world.created(call).child.id, run.child);
    assert_eq!(world.answers_on_record(), 1);
    let next = world.start(client, unnamed());
    world.ends(next);
    assert_eq!(world.answers_on_record(), 0, "they go with their child");
    let call = retry(&mut world, client);
    assert!(!world.is_answered(call));
}

#[test]
fn answers_on_record_with_a_child_that_is_not_are_removed() {
    let mut world = World::with(|config| config.bounds.ended_kept = 0);
    let client = world.connect(ALICE);
    let run = world.start(client, named("a"));
    world.create(client, requested(reuse("a"), 1));
    world.ends(run);
    let forgotten =
        |effect: &Effect| matches!(effect, Effect::ForgetAnswers { on_record } if on_record.len() == 1);
    assert!(world.take().iter().any(forgotten));
    // The broker dies between the two.
    world.crash_before_the_last_write();
    assert!(world.take().iter().any(forgotten));
    assert_eq!(world.answers_on_record(), 0);
}

#[test]
fn a_retry_after_the_child_has_ended_gets_it_until_it_is_forgotten() {
    let mut world = World::with(|config| config.bounds.ended_kept_for = secs(60));
    let client = world.connect(BROKER_UID);
    let run = world.start(client, requested(named("a"), 1));
    world.ends(run);
    world.advance(secs(59));
    let call = world.create(client, requested(named("a"), 1));
    assert_eq!(world.created(call).child.id, run.child);
    world.advance(secs(1));
    let next = world.start(client, requested(named("a"), 1));
    assert_ne!(next.child, run.child);
}

#[test]
fn request_ids_of_different_users_have_nothing_to_do_with_each_other() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let one = world.start(alice, requested(unnamed(), 1));
    let other = world.start(bob, requested(unnamed(), 1));
    assert_ne!(one.child, other.child);
}

#[test]
fn a_retry_is_answered_at_once_if_the_first_was_whatever_it_waits_for_itself() {
    let (mut world, client) = World::with_client();
    let slow = CreateParams { ready: Ready::Notify, ..named("a") };
    let unready = CreateParams { no_wait: true, ..slow.clone() };
    let run = world.start(client, requested(unready, 1));
    let retry = world.create(client, requested(slow, 1));
    assert_eq!(world.created(retry).outcome, Outcome::Created);
    assert_eq!(world.created(retry).child.state, ChildState::Starting);
    let reuse = CreateParams { no_wait: true, ready: Ready::Notify, ..reuse("a") };
    let first = world.create(client, requested(reuse.clone(), 2));
    let retry = world.create(client, requested(CreateParams { no_wait: false, ..reuse }, 2));
    for call in [first, retry] {
        assert!(matches!(world.created(call).outcome, Outcome::Existing { .. }));
        assert_eq!(world.created(call).child.id, run.child);
    }
}

#[test]
fn a_retry_waits_for_what_the_first_waits_for_and_is_answered_with_it() {
    let (mut world, client) = World::with_client();
    let slow = CreateParams { ready: Ready::Notify, ..named("a") };
    let first = world.create(client, requested(slow.clone(), 1));
    let run = world.run(first);
    world.recorded(run);
    world.spawned(run);
    let retry = world.create(client, requested(CreateParams { no_wait: true, ..slow }, 1));
    assert!(!world.is_answered(retry), "there is no first answer so far");
    world.give(Input::Notified { run, notices: vec![Notice::Ready] });
    for call in [first, retry] {
        assert_eq!(world.created(call).child.state, ChildState::Running);
    }
}

#[test]
fn a_retry_between_two_runs_is_answered_at_once() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, requested(restarted(RestartPolicy::Always, unnamed()), 1));
    world.exited(run, ExitStatus::Code(1), Members::Nothing);
    let retry = world.create(client, requested(unnamed(), 1));
    assert_eq!(world.created(retry).outcome, Outcome::Created);
    assert_eq!(world.created(retry).child.state, ChildState::Backoff);
}

#[test]
fn a_create_that_failed_is_not_remembered() {
    let (mut world, client) = World::with_client();
    let fails: [fn(&mut World, procbroker_core::Run); 2] = [
        |world, run| world.give(Input::Recorded { run, result: Err(disk_full()) }),
        |world, run| {
            world.recorded(run);
            world.give(Input::SpawnFailed { run, failure: no_such_file() });
        },
    ];
    for fail in fails {
        let call = world.create(client, requested(unnamed(), 1));
        let run = world.run(call);
        fail(&mut world, run);
        assert!(world.answer(call).is_err());
    }
    let call = world.create(client, requested(under_limit("k", 0), 1));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    let run = world.start(client, requested(unnamed(), 1));
    let call = world.create(client, requested(unnamed(), 1));
    assert_eq!(world.created(call).child.id, run.child);
}

#[test]
fn a_create_that_failed_for_its_time_is_not_remembered() {
    let mut world = World::with(|config| config.bounds.ended_kept = 0);
    let client = world.connect(BROKER_UID);
    let first = world.create(client, requested(unnamed(), 1));
    let run = world.run(first);
    world.recorded(run);
    world.advance(secs(30));
    assert_eq!(world.refused(first), ErrorKind::Timeout(None));
    let retry = world.create(client, requested(unnamed(), 1));
    let next = world.run(retry);
    world.spawned(run);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(retry).child.id, next.child);
    world.ends(run);
    let again = world.create(client, requested(unnamed(), 1));
    assert_eq!(world.created(again).child.id, next.child);
}

#[test]
fn a_retry_in_flight_shares_the_failure_of_the_first() {
    let (mut world, client) = World::with_client();
    let calls =
        [world.create(client, requested(reuse("a"), 1)), world.create(client, requested(reuse("a"), 1))];
    let run = world.run(calls[0]);
    world.recorded(run);
    world.give(Input::SpawnFailed { run, failure: no_such_file() });
    for call in calls {
        assert_eq!(world.refused(call), ErrorKind::SpawnFailed(no_such_file()));
    }
    assert_eq!(world.intents(), [run]);
}

#[test]
fn a_retry_during_the_shutdown_gets_the_first_answer() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, requested(unnamed(), 1));
    world.term();
    let call = world.create(client, requested(unnamed(), 1));
    assert_eq!(world.created(call).child.id, run.child);
    let call = world.create(client, requested(unnamed(), 2));
    assert_eq!(world.refused(call), ErrorKind::ShuttingDown);
}
