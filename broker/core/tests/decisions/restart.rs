//! Restarts: by a policy, after a pause that doubles, and by hand.

use std::time::Duration;

use procbroker_core::{Input, Members, Notice};
use procbroker_protocol::create::RestartPolicy::{Always, Never, OnFailure};
use procbroker_protocol::create::{IfExists, Ready, Restart};
use procbroker_protocol::request::{Scope, Until};
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, EventKind, ExitReason, ExitStatus, Outcome, Signal, Target,
};

use crate::world::*;

#[test]
fn a_policy_says_which_ends_are_followed_by_another_run() {
    let killed = ExitStatus::Signal(Signal::KILL);
    for (policy, status, follows) in [
        (Never, FAILED, false),
        (Never, CLEAN, false),
        (OnFailure, CLEAN, false),
        (OnFailure, FAILED, true),
        (OnFailure, killed, true),
        (OnFailure, ExitStatus::Unknown, true),
        (Always, CLEAN, true),
        (Always, killed, true),
    ] {
        let (mut world, client, run) = running(policy, unnamed());
        world.exited(run, status, Members::Nothing);
        let shown = world.shown(client, run);
        let expected = if follows { ChildState::Backoff } else { ChildState::Ended };
        assert_eq!(shown.state, expected, "{policy:?} {status:?}");
        let exit = shown.exit.as_ref().unwrap();
        assert_eq!((exit.status, exit.reason, exit.gave_up), (status, ExitReason::Exited, false));
        assert_eq!((shown.pid, shown.restarts), (None, u32::from(follows)));
    }
}

#[test]
fn a_run_that_hung_or_was_not_ready_in_time_has_failed_however_orderly_it_ends() {
    let (mut world, client) = World::with_client();
    let watched = CreateParams { ready: Ready::Notify, watchdog: Some(secs(1)), ..unnamed() };
    let call = world.create(client, restarted(OnFailure, watched));
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    world.give(Input::Notified { run, notices: vec![Notice::Ready] });
    world.advance(secs(1));
    world.exited(run, CLEAN, Members::Nothing);
    assert_eq!(state(&mut world, client, run), ChildState::Backoff, "after its watchdog");
    world.recorded(next(run));
    world.advance(secs(1));
    let late = next(run);
    world.spawned(late);
    world.advance(secs(30));
    world.exited(late, CLEAN, Members::Nothing);
    assert_eq!(state(&mut world, client, run), ChildState::Backoff, "after it was not ready in time");
    assert_eq!(world.shown(client, run).restarts, 2);
}

#[test]
fn the_pause_doubles_up_to_the_longest_and_begins_anew_after_a_run_that_has_lasted() {
    let (mut world, client) = World::with_client();
    let (window, backoff, backoff_max) = (secs(60), millis(100), millis(350));
    let policy = Restart { policy: OnFailure, max: 100, window, backoff, backoff_max };
    let mut run = world.start(client, CreateParams { restart: policy, ..unnamed() });
    for pause in [100, 200, 350, 350] {
        run = fail_and_return(&mut world, run, millis(pause));
    }
    assert_eq!(world.shown(client, run).restarts, 4);
    world.advance(millis(59_999));
    run = fail_and_return(&mut world, run, millis(350));
    world.advance(millis(60_000));
    run = fail_and_return(&mut world, run, millis(100));
    assert_eq!(state(&mut world, client, run), ChildState::Running);
}

#[test]
fn a_child_that_is_restarted_too_often_within_the_window_gives_up_and_is_cleaned_up_once() {
    let (mut world, client) = World::with_client();
    let policy = Restart { policy: OnFailure, max: 2, window: secs(10), ..Restart::default() };
    let mut run = world.start(client, CreateParams { restart: policy, ..cleaned(unnamed()) });
    run = fail_and_return(&mut world, run, millis(100));
    run = fail_and_return(&mut world, run, millis(200));
    assert_eq!((world.cleanups(run), world.counts().totals.restarts_given_up), (0, 0));
    world.exited(run, FAILED, Members::Nothing);
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.restarts), (ChildState::Cleaning, 2));
    let exit = shown.exit.as_ref().unwrap();
    assert_eq!((exit.gave_up, exit.reason), (true, ExitReason::Exited));
    let attempt = next(run);
    world.recorded(attempt);
    assert_eq!(world.cleanups(run), 1);
}

#[test]
fn children_that_are_given_up_are_counted_and_those_that_are_ended_are_not() {
    let (mut world, client) = World::with_client();
    let policy = Restart { policy: OnFailure, max: 0, ..Restart::default() };
    for given_up in 1..=2 {
        let run = world.start(client, CreateParams { restart: policy, ..unnamed() });
        world.exited(run, FAILED, Members::Nothing);
        assert_eq!(world.shown(client, run).state, ChildState::Ended);
        assert_eq!(world.counts().totals.restarts_given_up, given_up);
    }
    let run = world.start(client, unnamed());
    world.exited(run, FAILED, Members::Nothing);
    assert_eq!(world.shown(client, run).state, ChildState::Ended);
    assert_eq!((world.counts().totals.restarts_given_up, world.counts().totals.restarts), (2, 0));
}

#[test]
fn restarts_that_are_out_of_the_window_count_no_more() {
    let (mut world, client) = World::with_client();
    let policy = Restart { policy: OnFailure, max: 1, window: secs(10), ..Restart::default() };
    let mut run = world.start(client, CreateParams { restart: policy, ..unnamed() });
    run = fail_and_return(&mut world, run, millis(100));
    world.advance(millis(9_900));
    // The next one is due more than ten seconds after the last.
    run = fail_and_return(&mut world, run, millis(200));
    assert_eq!(world.shown(client, run).restarts, 2);
}

#[test]
fn a_pause_of_nothing_is_one_all_the_same() {
    let (mut world, client) = World::with_client();
    let policy = Restart {
        policy: Always,
        backoff: Duration::ZERO,
        backoff_max: Duration::ZERO,
        ..Restart::default()
    };
    let mut run = world.start(client, CreateParams { restart: policy, ..unnamed() });
    for _ in 0..5 {
        run = fail_and_return(&mut world, run, millis(10));
    }
    world.exited(run, FAILED, Members::Nothing);
    assert!(world.shown(client, run).exit.as_ref().unwrap().gave_up);
}

#[test]
fn what_a_run_leaves_behind_is_gone_before_the_next_one_begins() {
    let (mut world, client, run) = running(OnFailure, unnamed());
    world.exited(run, FAILED, Members::Group);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::All)]);
    assert_eq!(state(&mut world, client, run), ChildState::Stopping);
    world.advance(secs(5));
    assert_eq!(world.spawns(), []);
    world.left(run, Members::Nothing);
    assert_eq!(state(&mut world, client, run), ChildState::Backoff);
    world.recorded(next(run));
    world.advance(millis(100));
    assert_eq!(world.spawns(), [next(run)]);
}

#[test]
fn a_name_and_a_limit_are_held_between_two_runs() {
    let (mut world, client) = World::with_client();
    let params = CreateParams { name: named("a").name, ..under_limit("k", 1) };
    let run = world.start(client, restarted(OnFailure, params));
    fails(&mut world, run);
    let call = world.create(client, named("a"));
    assert!(matches!(world.refused(call), ErrorKind::NameTaken(_)));
    let call = world.create(client, under_limit("k", 1));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    // Who wants to have it gets it when it runs again.
    let call = world.create(client, CreateParams { if_exists: IfExists::Reuse, ..named("a") });
    assert!(!world.is_answered(call));
    world.advance(millis(100));
    world.spawned(next(run));
    let created = world.created(call);
    assert_eq!((created.child.id, created.child.state), (run.child, ChildState::Running));
    assert!(matches!(created.outcome, Outcome::Existing { .. }));
}

#[test]
fn a_wait_for_the_end_outlives_a_restart_and_one_for_readiness_gets_the_next_run() {
    let (mut world, client, run) = running(OnFailure, unnamed());
    let ended = world.call(client, wait(id(run), Until::Ended, None));
    fails(&mut world, run);
    let ready = world.call(client, wait(id(run), Until::Ready, None));
    assert!(!world.is_answered(ended) && !world.is_answered(ready));
    world.advance(millis(100));
    world.spawned(next(run));
    assert_eq!(world.child(ready).restarts, 1);
    assert!(!world.is_answered(ended));
    world.exited(next(run), CLEAN, Members::Nothing);
    assert_eq!(world.child(ended).state, ChildState::Ended);
}

#[test]
fn a_destroy_between_two_runs_ends_it_at_once_and_no_run_follows() {
    let (mut world, client, run) = running(Always, cleaned(unnamed()));
    fails(&mut world, run);
    let call = world.call(client, destroy(id(run)));
    let shown = world.shown(client, run);
    assert_eq!(shown.state, ChildState::Cleaning);
    let exit = shown.exit.as_ref().unwrap();
    assert_eq!((exit.status, exit.reason), (FAILED, ExitReason::Destroyed));
    let attempt = next(next(run));
    world.recorded(attempt);
    assert_eq!(world.cleanups(run), 1);
    world.spawned(attempt);
    world.exited(attempt, CLEAN, Members::Nothing);
    world.recorded(attempt);
    assert_eq!(world.children(call)[0].state, ChildState::Ended);
    world.advance(secs(100));
    assert_eq!(world.spawns(), [attempt]);
}

#[test]
fn a_destroy_while_the_next_run_is_being_started_stops_that() {
    for is_spawned in [true, false] {
        let (mut world, client, run) = running(Always, unnamed());
        let again = next(run);
        fails(&mut world, run);
        world.advance(millis(100));
        let call = world.call(client, destroy(id(run)));
        assert!(!world.is_answered(call));
        world.take();
        if is_spawned {
            world.spawned(again);
            assert_eq!(world.sent(), [Sent::Signal(again, Signal::TERM, Scope::Group)]);
            world.ends(again);
        } else {
            world.give(Input::SpawnFailed { run: again, failure: no_such_file() });
        }
        assert_eq!(world.children(call)[0].exit.as_ref().unwrap().reason, ExitReason::Destroyed);
        world.advance(secs(100));
        assert_eq!(world.spawns(), []);
    }
}

#[test]
fn a_destroy_while_the_rest_of_a_run_is_being_stopped_lets_no_other_run_follow() {
    let (mut world, client, run) = running(Always, unnamed());
    world.exited(run, FAILED, Members::Group);
    world.call(client, destroy(id(run)));
    // Not even if the broker dies meanwhile.
    world.crash(left_behind(Members::Group));
    world.left(run, Members::Nothing);
    let client = world.connect(BROKER_UID);
    assert_eq!(state(&mut world, client, run), ChildState::Ended);
}

#[test]
fn reports_of_an_earlier_run_change_nothing() {
    let (mut world, client, run) = running(Always, unnamed());
    let again = fail_and_return(&mut world, run, millis(100));
    world.exited(run, FAILED, Members::Nothing);
    world.left(run, Members::Nothing);
    world.spawned(run);
    let shown = world.shown(client, again);
    assert_eq!((shown.state, shown.restarts), (ChildState::Running, 1));
}

#[test]
fn a_program_that_cannot_be_started_again_is_a_run_that_has_failed() {
    let (mut world, client) = World::with_client();
    let policy = Restart { policy: OnFailure, max: 2, ..Restart::default() };
    let run = world.start(client, CreateParams { restart: policy, ..unnamed() });
    fails(&mut world, run);
    world.advance(millis(100));
    world.give(Input::SpawnFailed { run: next(run), failure: no_such_file() });
    assert_eq!(state(&mut world, client, run), ChildState::Backoff);
    world.recorded(next(next(run)));
    world.advance(millis(200));
    world.give(Input::SpawnFailed { run: next(next(run)), failure: no_such_file() });
    let shown = world.shown(client, run);
    let exit = shown.exit.as_ref().unwrap();
    assert_eq!((shown.state, exit.reason, exit.gave_up), (ChildState::Ended, ExitReason::StartFailed, true));
}

#[test]
fn a_restart_by_hand_stops_the_run_by_its_steps_and_starts_the_next_one_at_once() {
    let (mut world, client, run) = running(Never, stopped_by(vec![step(Signal::HUP, 5)]));
    let call = world.call(client, restart(id(run)));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Group)]);
    world.exited(run, CLEAN, Members::Nothing);
    world.recorded(next(run));
    assert_eq!(world.spawns(), [next(run)]);
    assert!(!world.is_answered(call));
    world.spawned(next(run));
    let children = world.children(call);
    assert_eq!((children[0].state, children[0].restarts), (ChildState::Running, 1));
    assert_eq!(children[0].id, run.child);
}

#[test]
fn a_restart_by_hand_tells_the_events_of_both_runs() {
    let (mut world, client, run) = running(Never, unnamed());
    world.subscribe(client, None);
    world.told(client);
    world.call(client, restart(id(run)));
    world.ends(run);
    world.recorded(next(run));
    world.spawned(next(run));
    let kinds =
        [EventKind::Stopping, EventKind::Exited, EventKind::Restarting, EventKind::Started, EventKind::Ready];
    assert_eq!(world.told(client).iter().map(|event| event.kind).collect::<Vec<_>>(), kinds);
}

#[test]
fn a_restart_by_hand_ends_a_pause_and_forgets_what_was_counted() {
    let (mut world, client) = World::with_client();
    let policy = Restart { policy: OnFailure, max: 1, ..Restart::default() };
    let run = world.start(client, CreateParams { restart: policy, ..unnamed() });
    fails(&mut world, run);
    let call = world.call(client, restart(id(run)));
    let again = next(run);
    assert_eq!(world.spawns(), [again]);
    world.spawned(again);
    assert_eq!(world.children(call)[0].restarts, 1);
    fail_and_return(&mut world, again, millis(100));
}

#[test]
fn a_restart_of_many_answers_when_the_last_of_them_runs() {
    let (mut world, client) = World::with_client();
    let runs = [0, 1].map(|_| world.start(client, labelled("pool", "a")));
    let other = world.start(client, labelled("pool", "b"));
    let call = world.call(client, restart(labels("pool", "a")));
    for run in runs {
        world.ends(run);
        world.recorded(next(run));
    }
    world.spawned(next(runs[1]));
    assert!(!world.is_answered(call));
    world.spawned(next(runs[0]));
    assert_eq!(world.children(call).len(), 2);
    assert_eq!(world.shown(client, other).restarts, 0);
}

#[test]
fn what_has_ended_or_is_about_to_cannot_be_restarted() {
    let (mut world, client, run) = running(Never, unnamed());
    world.call(client, destroy(id(run)));
    let call = world.call(client, restart(id(run)));
    assert_eq!(world.refused(call), ErrorKind::NotFound);
    world.ends(run);
    let call = world.call(client, restart(id(run)));
    assert_eq!(world.refused(call), ErrorKind::NotFound);
    let call = world.call(client, restart(labels("pool", "none")));
    assert!(world.children(call).is_empty());
}

#[test]
fn a_restart_by_hand_whose_program_is_gone_tells_why_and_what_follows() {
    for (policy, follows, state_then) in [
        (Never, "the child ends", ChildState::Ended),
        (Always, "its policy starts it again later", ChildState::Backoff),
    ] {
        let (mut world, client, run) = running(policy, named("a"));
        let call = world.call(client, restart(id(run)));
        let among = world.call(client, restart(Target::All));
        world.ends(run);
        world.recorded(next(run));
        world.give(Input::SpawnFailed { run: next(run), failure: no_such_file() });
        let error = world.error(call);
        assert_eq!(error.kind, ErrorKind::SpawnFailed(no_such_file()));
        assert!(
            error.message.starts_with("cannot start \"sleep\" again: exec failed with ENOENT"),
            "{error}"
        );
        assert!(error.message.ends_with(follows), "{error}");
        assert_eq!(state(&mut world, client, run), state_then);
        // Of many, it is one that shows what has become of it.
        match policy {
            Never => assert_eq!(world.children(among)[0].state, ChildState::Ended),
            OnFailure | Always => assert!(!world.is_answered(among)),
        }
    }
}

#[test]
fn a_restart_by_hand_of_one_that_is_destroyed_on_its_way_to_its_program_is_no_failure_to_start() {
    let (mut world, client, run) = running(Never, unnamed());
    let call = world.call(client, restart(id(run)));
    world.ends(run);
    world.recorded(next(run));
    world.call(client, destroy(id(run)));
    world.give(Input::SpawnFailed { run: next(run), failure: no_such_file() });
    assert_eq!(world.children(call)[0].exit.as_ref().unwrap().reason, ExitReason::Destroyed);
}

#[test]
fn a_destroy_during_a_restart_by_hand_ends_the_child() {
    let (mut world, client, run) = running(Always, unnamed());
    let restarting = world.call(client, restart(id(run)));
    let destroying = world.call(client, destroy(id(run)));
    world.ends(run);
    assert_eq!(world.spawns(), []);
    assert_eq!(world.children(destroying)[0].exit.as_ref().unwrap().reason, ExitReason::Destroyed);
    assert_eq!(world.children(restarting)[0].state, ChildState::Ended);
}

#[test]
fn two_restarts_by_hand_at_once_are_one() {
    let (mut world, client, run) = running(Never, unnamed());
    let calls = [0, 1].map(|_| world.call(client, restart(id(run))));
    world.ends(run);
    world.recorded(next(run));
    world.spawned(next(run));
    for call in calls {
        assert_eq!(world.children(call)[0].restarts, 1);
    }
}

#[test]
fn nothing_is_started_again_during_a_shutdown() {
    let (mut world, client) = World::with_client();
    let patient = of_order(0, vec![step(Signal::TERM, 10)]);
    let first = world.start(client, restarted(Always, patient));
    let second = world.start(client, restarted(Always, of_order(1, vec![])));
    let pausing = world.start(client, restarted(Always, of_order(1, vec![])));
    fails(&mut world, pausing);
    world.term();
    world.take();
    // One that ends by itself before its turn has come.
    world.exited(second, FAILED, Members::Nothing);
    world.ends(first);
    world.advance(secs(1));
    assert_eq!(world.spawns(), []);
    assert!(world.exit().is_some() || world.orders().is_empty());
}

#[test]
fn a_restart_that_cannot_be_recorded_is_tried_again_and_starts_nothing_before() {
    let (mut world, client, run) = running(Always, unnamed());
    world.exited(run, FAILED, Members::Nothing);
    let again = next(run);
    world.unrecorded(again);
    world.advance(millis(999));
    assert_eq!(world.spawns(), []);
    world.advance(millis(1));
    world.recorded(again);
    assert_eq!(world.spawns(), [again]);
    world.spawned(again);
    assert_eq!(state(&mut world, client, run), ChildState::Running);
}
