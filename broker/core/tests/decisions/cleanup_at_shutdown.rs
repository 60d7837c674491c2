//! Cleanups within the time of a shutdown, and those that are left to the next broker.

use std::time::Duration;

use procbroker_core::{Effect, ExitCause, Input, Members, Report, Run};
use procbroker_protocol::request::Until;
use procbroker_protocol::{ChildState, ErrorKind, ExitReason, ExitStatus, Response, Signal};

use crate::world::*;

/// A world with a child of each order, which obeys within so long, and has a cleanup with so much time.
fn cleaned_waves(waves: &[(i32, u64, u64)]) -> (World, procbroker_core::ConnectionId, Vec<Run>) {
    let (mut world, client) = World::with_client();
    let start = |(order, grace, cleanup): &(i32, u64, u64)| {
        world.start(client, cleaned_in(*cleanup, of_order(*order, by_term(*grace))))
    };
    let runs = waves.iter().map(start).collect();
    (world, client, runs)
}

/// Takes the orders so far, and tells which children's cleanups are left.
fn left(world: &mut World) -> Vec<procbroker_protocol::ChildId> {
    let left = |effect| match effect {
        Effect::Report(Report::CleanupLeft { child }) => Some(child.id),
        _ => None,
    };
    world.take().into_iter().filter_map(left).collect()
}

#[test]
fn the_next_order_begins_when_the_cleanups_of_the_one_before_are_over() {
    let (mut world, client, runs) = cleaned_waves(&[(0, 5, 5), (1, 5, 5)]);
    world.term();
    world.ends(runs[0]);
    let attempt = next(runs[0]);
    world.begin_cleanup(attempt);
    world.exited(attempt, CLEAN, Members::Nothing);
    assert_eq!(world.sent(), [term(runs[0])]);
    world.recorded(attempt);
    assert_eq!(world.sent(), [term(runs[1])]);
    world.ends(runs[1]);
    assert!(!world.take().contains(&Effect::Sweep));
    world.begin_cleanup(next(runs[1]));
    world.end_cleanup(next(runs[1]), ExitStatus::Code(1));
    for (run, ok, status) in [(runs[0], true, CLEAN), (runs[1], false, ExitStatus::Code(1))] {
        let ended = world.ended(client, run);
        assert_eq!(ended.exit.as_ref().unwrap().reason, ExitReason::Shutdown);
        assert_eq!(ended.cleanup, outcome(ok, Some(status), 1));
    }
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_cleanup_that_was_under_way_is_waited_for() {
    for stage in At::ALL {
        let mut halfway = Halfway::at(stage);
        halfway.world.term();
        assert!(!halfway.world.take().contains(&Effect::Sweep), "{stage:?}");
        halfway.finish(stage);
        let Halfway { mut world, client, run, in_flight, .. } = halfway;
        for other in in_flight {
            world.spawned(other);
            world.ends(other);
        }
        assert_eq!(world.ended(client, run).cleanup.as_ref().unwrap().ok, stage != At::Killing);
        sweep(&mut world);
        assert_eq!(world.exit(), Some(ExitCause::Done));
    }
}

#[test]
fn with_time_enough_a_cleanup_of_the_last_order_has_all_that_is_left() {
    let (mut world, client, runs) = cleaned_waves(&[(0, 5, 20)]);
    world.term();
    world.ends(runs[0]);
    let attempt = next(runs[0]);
    world.begin_cleanup(attempt);
    world.take();
    world.advance(Duration::from_millis(19_999));
    assert_eq!(world.sent(), []);
    // It is its own time that is over, so that it has failed and is not left.
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(attempt)]);
    world.end_cleanup(attempt, KILLED);
    assert_eq!(world.ended(client, runs[0]).cleanup, outcome(false, Some(KILLED), 1));
    sweep(&mut world);
}

#[test]
fn a_cleanup_without_end_does_not_take_the_time_of_later_orders() {
    for graces in [[1, 1], [100, 10]] {
        let (mut world, client, runs) = cleaned_waves(&[(0, graces[0], 3600), (1, graces[1], 5)]);
        world.term();
        world.ends(runs[0]);
        let attempt = next(runs[0]);
        world.begin_cleanup(attempt);
        world.take();
        world.advance(Duration::from_secs(28));
        // The later child's stop has begun by then, and in time for its grace.
        let sent = world.sent();
        assert_eq!(sent.first(), Some(&Sent::Kill(attempt)), "{graces:?}: {sent:?}");
        world.end_cleanup(attempt, KILLED);
        let shown = world.shown(client, runs[0]);
        assert_eq!((shown.state, &shown.cleanup), (ChildState::Cleaning, &None));
        assert_eq!(world.attempts_on_record(runs[0]), 1);
    }
}

#[test]
fn a_later_order_keeps_its_time_when_a_cleanup_of_an_earlier_one_hangs() {
    let (mut world, _, runs) = cleaned_waves(&[(0, 1, 3600), (1, 4, 1)]);
    world.term();
    world.ends(runs[0]);
    let attempt = next(runs[0]);
    world.begin_cleanup(attempt);
    // The later order needs five seconds of the 29.
    world.advance(secs(24));
    assert_eq!(world.sent(), [term(runs[0]), Sent::Kill(attempt)]);
    world.end_cleanup(attempt, KILLED);
    assert!(left(&mut world).contains(&runs[0].child));
    world.advance(Duration::from_millis(3_999));
    assert_eq!(world.sent(), []);
    world.ends(runs[1]);
    world.begin_cleanup(next(runs[1]));
    world.end_cleanup(next(runs[1]), CLEAN);
    assert_eq!(world.outcome_on_record(runs[1]), outcome(true, Some(CLEAN), 1));
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_cleanup_that_does_not_come_to_begin_does_not_take_the_time_of_later_orders() {
    let (mut world, _, runs) = cleaned_waves(&[(0, 1, 3600), (1, 4, 1)]);
    world.term();
    world.ends(runs[0]);
    world.advance(Duration::from_millis(23_999));
    assert_eq!(world.sent(), [term(runs[0])]);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [term(runs[1])]);
    assert_eq!(world.attempts_on_record(runs[0]), 1);
    world.recorded(next(runs[0]));
    assert_eq!(world.spawns(), []);
}

#[test]
fn the_time_of_a_child_is_shared_between_its_stop_and_its_cleanup() {
    let (mut world, _, runs) = cleaned_waves(&[(0, 100, 100)]);
    world.term();
    // Three quarters of the 29 seconds are for the steps.
    world.advance(Duration::from_millis(21_749));
    assert_eq!(world.sent(), [term(runs[0])]);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(runs[0])]);
    world.ends(runs[0]);
    world.begin_cleanup(next(runs[0]));
    world.advance(Duration::from_millis(7_249));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(next(runs[0]))]);
}

#[test]
fn a_second_signal_kills_children_and_lets_cleanups_run() {
    let (mut world, client, runs) = cleaned_waves(&[(0, 10, 10), (1, 10, 10), (2, 10, 10)]);
    world.ends(runs[2]);
    world.begin_cleanup(next(runs[2]));
    world.term();
    world.take();
    world.term_again();
    assert_eq!(world.sent(), [Sent::Kill(runs[1]), Sent::Kill(runs[0])]);
    for run in &runs[..2] {
        world.exited(*run, KILLED, Members::Nothing);
        world.begin_cleanup(next(*run));
    }
    for run in &runs {
        world.end_cleanup(next(*run), CLEAN);
        assert_eq!(world.ended(client, *run).cleanup, outcome(true, Some(CLEAN), 1));
    }
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn the_cleanups_of_a_hurried_shutdown_have_five_seconds() {
    let (mut world, client, runs) = cleaned_waves(&[(0, 10, 100)]);
    world.term();
    world.advance(secs(2));
    world.term_again();
    world.exited(runs[0], KILLED, Members::Nothing);
    let attempt = next(runs[0]);
    world.begin_cleanup(attempt);
    world.take();
    world.advance(Duration::from_millis(4_999));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(attempt)]);
    assert_eq!(world.shown(client, runs[0]).state, ChildState::Cleaning);
    world.exited(attempt, KILLED, Members::Nothing);
    assert!(world.is_on_record(runs[0]));
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn at_its_end_a_shutdown_leaves_a_cleanup_to_the_next_broker_whatever_its_stage() {
    for stage in [At::Recording, At::Spawning, At::Running, At::Killing] {
        let (world, client) = World::with_client();
        let mut halfway = Halfway::before(world, client, cleaned(unnamed()));
        halfway.go(stage);
        let Halfway { mut world, run, attempt, .. } = halfway;
        world.term();
        let waiting = world.call(client, wait(id(run), Until::Ended, None));
        world.advance(secs(29));
        match stage {
            At::Spawning => {
                world.take();
                world.spawned(attempt);
                assert_eq!(world.sent(), [Sent::Kill(attempt)]);
            }
            At::Recording | At::Queued | At::Running | At::Killing | At::Closing => {}
        }
        if stage != At::Recording {
            world.exited(attempt, KILLED, Members::Nothing);
        }
        assert_eq!(left(&mut world), [run.child], "{stage:?}");
        assert_eq!(world.attempts_on_record(run), 1, "{stage:?}");
        world.give(Input::Swept { left: 0 });
        assert_eq!(world.exit(), Some(ExitCause::Done), "{stage:?}");
        assert_eq!(world.refused(waiting), ErrorKind::ShuttingDown, "{stage:?}");
    }
}

#[test]
fn at_the_deadline_a_cleanup_whose_outcome_is_being_recorded_holds_up_nothing() {
    let Halfway { mut world, run, .. } = Halfway::at(At::Closing);
    world.term();
    world.advance(Duration::from_millis(29_500));
    world.give(Input::Swept { left: 0 });
    assert_eq!(world.exit(), None);
    world.advance(Duration::from_millis(500));
    assert_eq!(world.exit(), Some(ExitCause::Done));
    assert_eq!(left(&mut world), []);
    assert_eq!(world.outcome_on_record(run), outcome(true, Some(CLEAN), 1));
}

#[test]
fn a_cleanup_that_waits_for_its_turn_at_the_end_of_a_shutdown_is_left() {
    let Halfway { mut world, run, attempt, in_flight, .. } = Halfway::at(At::Queued);
    world.term();
    world.advance(secs(29));
    assert_eq!(left(&mut world), [run.child]);
    for other in in_flight {
        world.spawned(other);
        world.ends(other);
    }
    assert!(!world.take().iter().any(|order| matches!(order, Effect::Spawn { run, .. } if *run == attempt)));
    assert_eq!(world.attempts_on_record(run), 1);
    world.give(Input::Swept { left: 0 });
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_cleanup_that_did_not_come_to_begin_is_left() {
    let (mut world, client, runs) = cleaned_waves(&[(0, 100, 5)]);
    let asked = world.call(client, shutdown(None));
    world.advance(secs(29));
    world.take();
    world.exited(runs[0], KILLED, Members::Nothing);
    assert_eq!(world.spawns(), []);
    assert_eq!(world.attempts_on_record(runs[0]), 0);
    world.give(Input::Swept { left: 0 });
    assert_eq!(world.exit(), Some(ExitCause::Done));
    let report = report_of(&world, asked);
    assert_eq!((report.children.len(), report.forced), (1, 1));
    assert_eq!(report.children[0].state, ChildState::Cleaning);
}

#[test]
fn what_is_left_is_begun_by_the_next_broker() {
    let (mut world, _, runs) = cleaned_waves(&[(0, 5, 100), (1, 5, 100)]);
    world.ends(runs[0]);
    world.begin_cleanup(next(runs[0]));
    world.term();
    world.advance(secs(29));
    for run in [next(runs[0]), runs[1]] {
        world.exited(run, KILLED, Members::Nothing);
    }
    assert_eq!(left(&mut world).len(), 2);
    world.crash(gone(ExitStatus::Unknown));
    let client = world.connect(BROKER_UID);
    for (run, attempts) in [(runs[0], 2), (runs[1], 1)] {
        assert_eq!(world.attempts_on_record(run), attempts);
        world.begin_cleanup(next(run));
        world.end_cleanup(next(run), CLEAN);
        assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), attempts));
    }
}

#[test]
fn a_cleanup_that_succeeds_in_the_face_of_its_end_is_done() {
    let (mut world, _, runs) = cleaned_waves(&[(0, 5, 100)]);
    world.ends(runs[0]);
    let attempt = next(runs[0]);
    world.begin_cleanup(attempt);
    world.term();
    world.advance(secs(29));
    world.take();
    world.exited(attempt, CLEAN, Members::Nothing);
    world.recorded(attempt);
    assert_eq!(left(&mut world), []);
    assert_eq!(world.outcome_on_record(runs[0]), outcome(true, Some(CLEAN), 1));
}

#[test]
fn a_cleanup_that_cannot_be_started_at_the_end_of_a_shutdown_is_left() {
    let (mut world, _, runs) = cleaned_waves(&[(0, 5, 100)]);
    world.ends(runs[0]);
    world.recorded(next(runs[0]));
    world.term();
    world.advance(secs(29));
    world.give(Input::SpawnFailed { run: next(runs[0]), failure: no_such_file() });
    assert_eq!(left(&mut world), [runs[0].child]);
    assert_eq!(world.attempts_on_record(runs[0]), 1);
}

#[test]
fn at_the_deadline_a_cleanup_that_cannot_be_killed_counts_as_left_behind() {
    let (mut world, client, runs) = cleaned_waves(&[(0, 5, 100)]);
    world.ends(runs[0]);
    world.begin_cleanup(next(runs[0]));
    let asked = world.call(client, shutdown(Some(secs(10))));
    world.advance(Duration::from_millis(9_999));
    assert_eq!(world.exit(), None);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
    assert_eq!(world.attempts_on_record(runs[0]), 1);
    assert!(matches!(world.answer(asked), Ok(Response::ShutDown(_))));
}

#[test]
fn a_destroy_joins_the_shutdown_and_neither_stops_the_cleanup() {
    let (mut world, client, runs) = cleaned_waves(&[(0, 5, 5)]);
    world.term();
    let call = world.call(client, destroy_by(id(runs[0]), vec![step(Signal::INT, 1)]));
    world.ends(runs[0]);
    world.begin_cleanup(next(runs[0]));
    assert!(!world.is_answered(call));
    world.end_cleanup(next(runs[0]), CLEAN);
    assert_eq!(world.children(call)[0].cleanup, outcome(true, Some(CLEAN), 1));
}

#[test]
fn a_cleanup_without_any_time_does_not_hold_up_the_next_order() {
    let (mut world, client) = World::with_client();
    let first = world.start(client, cleaned_in(0, unnamed()));
    let second = world.start(client, of_order(1, by_term(100)));
    world.ends(first);
    world.take();
    world.term();
    // Its turn is over at once, and nothing else will happen for a while.
    assert_eq!(world.sent(), [term(second)]);
    assert_eq!(world.attempts_on_record(first), 1);
}

#[test]
fn a_cleanup_of_an_order_whose_turn_did_not_come_is_killed_as_soon_as_it_is_there() {
    let (mut world, _, runs) = cleaned_waves(&[(0, 100, 5), (1, 5, 3600)]);
    world.ends(runs[1]);
    let attempt = next(runs[1]);
    world.recorded(attempt);
    world.term();
    world.advance(secs(29));
    world.take();
    world.spawned(attempt);
    assert_eq!(world.sent(), [Sent::Kill(attempt)]);
    world.exited(attempt, KILLED, Members::Nothing);
    assert_eq!(left(&mut world), [runs[1].child]);
}
