//! What a client was told holds, even if the broker dies as soon as the answer is out.

use procbroker_core::{Call, ConnectionId, Effect, Finding, Input, Members, Run};
use procbroker_protocol::create::ReadyTimeout;
use procbroker_protocol::request::{DestroyParams, Scope, Until};
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, ExitReason, ExitStatus, Outcome, Request, Response, Signal, Target,
};

use crate::world::*;

const STOP: [Signal; 2] = [Signal::HUP, Signal::INT];

fn params() -> CreateParams {
    let stop = STOP.map(|signal| step(signal, 5)).to_vec();
    CreateParams { stop, ..requested(named("a"), 5) }
}

fn destroy_no_wait(target: Target) -> Request {
    Request::Destroy(DestroyParams { target, stop: None, no_wait: true })
}

/// The broker dies when this has been answered and not one write more is kept than that takes; there is this of every
/// child. Answers with a client of the next one.
fn die_when_told(world: &mut World, call: Call, finding: Finding) -> ConnectionId {
    world.crash_at(world.kept_when_told(call), finding);
    world.connect(BROKER_UID)
}

fn is_unknown(world: &mut World, client: ConnectionId, run: Run) -> bool {
    matches!(world.ask(client, get(id(run))), Err(error) if error.kind == ErrorKind::NotFound)
}

/// A child that is being started, and the create that waits for it.
fn spawning() -> (World, ConnectionId, Run, Call) {
    let (mut world, client) = World::with_client();
    let call = world.create(client, params());
    let run = world.run(call);
    world.recorded(run);
    (world, client, run, call)
}

#[test]
fn a_child_whose_create_was_answered_is_found_by_its_intent() {
    let (mut world, _, run, call) = spawning();
    world.spawned(run);
    let told = world.created(call).child;
    // Its creator does not wait for the record of what came after.
    assert!(!world.is_promise(call));
    let client = die_when_told(&mut world, call, alive(run));
    assert_eq!(world.shown(client, run).id, told.id);
    assert_eq!(world.shown(client, run).pid, told.pid);
}

#[test]
fn a_destroy_that_nobody_waits_for_goes_on_in_the_next_broker() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, params());
    let call = world.call(client, destroy_no_wait(id(run)));
    let client = die_when_told(&mut world, call, alive(run));
    assert_eq!(world.shown(client, run).state, ChildState::Stopping);
    world.advance(secs(5));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::INT, Scope::Group)]);
}

#[test]
fn a_destroy_during_the_start_goes_on_in_the_next_broker() {
    for finding in [alive as fn(Run) -> Finding, |_| left_behind(Members::Group)] {
        let (mut world, client, run, _) = spawning();
        let call = world.call(client, destroy_no_wait(id(run)));
        let client = die_when_told(&mut world, call, finding(run));
        assert_eq!(world.shown(client, run).state, ChildState::Stopping);
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Group)]);
        world.exited(run, KILLED, Members::Nothing);
        world.left(run, Members::Nothing);
        assert_eq!(world.ended(client, run).exit.as_ref().unwrap().reason, ExitReason::Destroyed);
    }
}

#[test]
fn what_is_outside_the_group_gets_the_steps_of_a_destroy_during_the_start_from_the_next_broker() {
    let (mut world, client, run, _) = spawning();
    let call = world.call(client, destroy_no_wait(id(run)));
    let client = die_when_told(&mut world, call, left_behind(Members::Outside));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::All)]);
    world.left(run, Members::Nothing);
    assert_eq!(world.ended(client, run).exit.as_ref().unwrap().reason, ExitReason::Destroyed);
}

#[test]
fn a_destroy_during_the_start_is_not_forgotten_between_the_start_and_the_first_signal() {
    let (mut world, client, run, _) = spawning();
    world.call(client, destroy_no_wait(id(run)));
    world.spawned(run);
    for kept in world.may_be_kept(alive(run)).skip(1) {
        let (mut world, client, run, _) = spawning();
        world.call(client, destroy_no_wait(id(run)));
        world.spawned(run);
        world.crash_at(kept, alive(run));
        let client = world.connect(BROKER_UID);
        assert_eq!(world.shown(client, run).state, ChildState::Stopping, "{kept} writes");
    }
}

#[test]
fn a_child_that_was_destroyed_before_it_started_is_gone_or_ended() {
    for finding in [gone(ExitStatus::Unknown), Finding::Rebooted] {
        let (mut world, client, run, _) = spawning();
        let call = world.call(client, destroy_no_wait(id(run)));
        let client = die_when_told(&mut world, call, finding);
        let reason =
            if finding == Finding::Rebooted { ExitReason::BrokerLost } else { ExitReason::Destroyed };
        assert_eq!(world.ended(client, run).exit.as_ref().unwrap().reason, reason);
        world.start(client, named("a"));
    }
    let (mut world, client, run, _) = spawning();
    let call = world.call(client, destroy_no_wait(id(run)));
    let client = die_when_told(&mut world, call, Finding::NeverStarted);
    assert!(is_unknown(&mut world, client, run));
    world.start(client, named("a"));
}

#[test]
fn a_destroy_that_was_waited_for_stays_what_ended_the_child() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, params());
    let destroyed = world.call(client, destroy(id(run)));
    let waited = world.call(client, wait(id(run), Until::Ended, None));
    world.exited(run, KILLED, Members::Nothing);
    let told = world.answer(destroyed);
    assert_eq!(world.kept_when_told(waited), world.kept_when_told(destroyed));
    let client = die_when_told(&mut world, destroyed, Finding::NeverStarted);
    let found = world.ended(client, run);
    assert_eq!(told, Ok(Response::Children(vec![found.clone()])));
    assert_eq!(found.exit.as_ref().unwrap().reason, ExitReason::Destroyed);
    assert_eq!(world.ask(client, wait(id(run), Until::Ended, None)), Ok(Response::Child(found)));
}

#[test]
fn a_create_that_was_answered_with_a_failed_spawn_leaves_nothing() {
    let (mut world, _, run, call) = spawning();
    world.give(Input::SpawnFailed { run, failure: no_such_file() });
    assert!(world.answer(call).is_err());
    let client = die_when_told(&mut world, call, gone(ExitStatus::Unknown));
    assert!(is_unknown(&mut world, client, run));
    let again = world.create(client, params());
    assert!(!world.is_answered(again));
}

#[test]
fn a_create_that_was_answered_with_a_timeout_is_stopped_and_not_remembered() {
    let (mut world, client) = World::with_client();
    let slow = CreateParams { ready_timeout: ReadyTimeout(secs(3)), ..params() };
    let call = world.create(client, slow.clone());
    let run = world.run(call);
    world.recorded(run);
    world.advance(secs(3));
    assert_eq!(world.answer(call).unwrap_err().kind, ErrorKind::Timeout(None));
    let client = die_when_told(&mut world, call, alive(run));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Group)]);
    let again = world.create(client, CreateParams { name: None, ..slow });
    let second = world.run(again);
    world.recorded(second);
    world.spawned(second);
    assert_eq!(
        (world.created(again).child.id, world.created(again).outcome),
        (second.child, Outcome::Created)
    );
    // One more death, with the first one still there: the second one stays the answer.
    world.crash_with(|id, _| if id == run.child { alive(run) } else { alive(second) });
    let client = world.connect(BROKER_UID);
    let third = world.create(client, params());
    assert_eq!(world.created(third).child.id, second.child);
}

#[test]
fn a_create_that_times_out_after_its_child_was_destroyed_is_not_remembered() {
    let (mut world, client) = World::with_client();
    let slow = CreateParams { ready_timeout: ReadyTimeout(secs(3)), ..params() };
    let call = world.create(client, slow.clone());
    let run = world.run(call);
    world.recorded(run);
    world.call(client, destroy_no_wait(id(run)));
    world.advance(secs(3));
    assert_eq!(world.answer(call).unwrap_err().kind, ErrorKind::Timeout(None));
    let client = die_when_told(&mut world, call, alive(run));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Group)]);
    let again = world.create(client, CreateParams { name: None, ..slow });
    assert!(!world.is_answered(again));
    assert_eq!(world.intents(), [world.run(again)]);
}

#[test]
fn a_failed_create_that_is_lost_with_the_machine_has_failed_still() {
    let (mut world, client) = World::with_client();
    let slow = CreateParams { ready_timeout: ReadyTimeout(secs(3)), ..params() };
    let call = world.create(client, slow);
    let run = world.run(call);
    world.recorded(run);
    world.advance(secs(3));
    world.spawned(run);
    for _ in 0..2 {
        world.crash(Finding::Rebooted);
        let client = world.connect(BROKER_UID);
        assert_eq!(world.ended(client, run).exit.as_ref().unwrap().reason, ExitReason::StartFailed);
    }
    let client = world.connect(BROKER_UID);
    let again = world.create(client, params());
    assert!(!world.is_answered(again));
}

#[test]
fn what_only_tells_what_is_does_not_wait_for_the_record() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, params());
    world.call(client, destroy_no_wait(id(run)));
    for request in [get(id(run)), list(true), status()] {
        let call = world.call(client, request);
        assert!(world.is_answered(call) && !world.is_promise(call));
    }
    let signalled = world.call(client, signal(id(run), Signal::USR1));
    world.signalled(run, signalled, procbroker_core::SignalOutcome::Delivered);
    assert!(!world.is_promise(signalled));
    let taken = world.create(client, named("a"));
    assert!(world.answer(taken).is_err() && !world.is_promise(taken));
}

/// A cleanup whose process has ended by itself, and whose leftovers are being killed.
fn almost_over(status: ExitStatus) -> (World, Run) {
    let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Running);
    world.exited(attempt, status, Members::Group);
    assert!(world.take().contains(&Effect::Kill { run: attempt }));
    (world, run)
}

#[test]
fn a_cleanup_whose_process_has_ended_is_seen_through_and_not_repeated() {
    for status in [CLEAN, ExitStatus::Code(3)] {
        let expected = outcome(status == CLEAN, Some(status), 1);
        for finding in [left_behind(Members::Group), left_behind(Members::Outside)] {
            let (mut world, run) = almost_over(status);
            world.crash(finding);
            assert_eq!(world.sent(), [Sent::Kill(first(run))]);
            // And not in the next one either.
            world.crash(finding);
            world.left(first(run), Members::Nothing);
            assert!(world.take().contains(&Effect::Release { run: first(run) }));
            world.recorded(first(run));
            assert_eq!(world.outcome_on_record(run), expected);
        }
        for finding in [gone(ExitStatus::Unknown), Finding::NeverStarted, Finding::Rebooted] {
            let (mut world, run) = almost_over(status);
            world.crash(finding);
            world.recorded(first(run));
            let client = world.connect(BROKER_UID);
            assert_eq!(world.ended(client, run).cleanup, expected, "{finding:?}");
            assert_eq!(world.spawns(), []);
        }
    }
}

#[test]
fn a_cleanup_that_the_shutdown_cuts_short_is_repeated_whatever_it_leaves_behind() {
    let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Running);
    world.term();
    world.advance(secs(29));
    assert!(world.sent().contains(&Sent::Kill(attempt)));
    world.exited(attempt, KILLED, Members::Outside);
    world.crash(left_behind(Members::Outside));
    assert_eq!(world.sent(), [Sent::Kill(first(run))]);
    world.left(first(run), Members::Nothing);
    world.begin_cleanup(next(first(run)));
    world.end_cleanup(next(first(run)), CLEAN);
    assert_eq!(world.outcome_on_record(run), outcome(true, Some(CLEAN), 2));
}
