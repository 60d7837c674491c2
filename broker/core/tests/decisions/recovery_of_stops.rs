//! Stops that were under way when the broker died: the next one goes on where it was.

use std::time::Duration;

use procbroker_core::{Effect, Finding, Members, Progress, Run, StoppingProgress};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{
    ChildState, EventKind, Exit, ExitReason, ExitStatus, Signal, StepTaken, Timestamp,
};

use crate::world::*;

/// A child with a cleanup, whose destroy has sent the first of its two steps and is three seconds into its five.
fn interrupted() -> (World, Run) {
    let (mut world, client) = World::with_client();
    let steps = vec![step(Signal::HUP, 5), step(Signal::INT, 7)];
    let run = world.start(client, cleaned(stopped_by(steps)));
    world.call(client, destroy(id(run)));
    world.advance(secs(3));
    (world, run)
}

fn stopping(world: &World, run: Run) -> StoppingProgress {
    match world.progress(run) {
        Some(Progress::Stopping(stopping)) => stopping,
        other => panic!("{run:?} is on record as {other:?}"),
    }
}

/// How the child ended of which nothing is left, and whose cleanup is about to begin.
fn exit_of(world: &mut World, run: Run) -> Exit {
    let client = world.connect(BROKER_UID);
    let shown = world.shown(client, run);
    assert_eq!(shown.state, ChildState::Cleaning);
    shown.exit.clone().unwrap()
}

fn signals(exit: &Exit) -> Vec<Signal> {
    exit.steps.iter().map(|step| step.signal).collect()
}

#[test]
fn a_stop_goes_on_with_the_time_that_is_left() {
    for finding in [alive as fn(Run) -> Finding, own, |_| left_behind(Members::Group)] {
        let (mut world, run) = interrupted();
        let sent_at = Timestamp::from_micros(world.wall().as_micros() - 3_000_000);
        world.jump(secs(1));
        world.crash(finding(run));
        // The signal of its step is not sent again.
        assert_eq!(world.sent(), []);
        world.advance(Duration::from_millis(999));
        assert_eq!(world.sent(), []);
        world.advance(Duration::from_millis(1));
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::INT, Scope::Group)]);
        world.advance(secs(7));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
        if finding(run) == left_behind(Members::Group) {
            world.left(run, Members::Nothing);
        } else {
            world.exited(run, KILLED, Members::Nothing);
        }
        let exit = exit_of(&mut world, run);
        assert_eq!((exit.reason, exit.forced), (ExitReason::Destroyed, true));
        assert_eq!(signals(&exit), [Signal::HUP, Signal::INT, Signal::KILL]);
        assert_eq!(exit.steps[0], StepTaken { signal: Signal::HUP, at: sent_at });
    }
}

#[test]
fn a_step_whose_time_was_over_meanwhile_is_followed_by_the_next_at_once() {
    let (mut world, run) = interrupted();
    world.jump(secs(100));
    world.crash(alive(run));
    world.advance(Duration::ZERO);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::INT, Scope::Group)]);
    // The next one has all of its own time.
    world.advance(Duration::from_millis(6_999));
    assert_eq!(world.sent(), []);
}

#[test]
fn a_wall_clock_that_is_set_changes_the_time_of_no_step() {
    for seconds in [86_400, -86_400] {
        let (mut world, run) = interrupted();
        world.set_clock(seconds);
        world.crash(alive(run));
        world.advance(Duration::from_millis(1_999));
        assert_eq!(world.sent(), []);
        world.advance(Duration::from_millis(1));
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::INT, Scope::Group)]);
        world.set_clock(seconds);
        world.crash(alive(run));
        world.advance(secs(7));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
    }
}

#[test]
fn a_kill_goes_on_as_a_kill() {
    for finding in
        [alive as fn(Run) -> Finding, |_| left_behind(Members::Outside), |_| left_behind(Members::Group)]
    {
        let (mut world, run) = interrupted();
        world.advance(secs(9));
        assert!(stopping(&world, run).forced);
        world.jump(secs(50));
        world.crash(finding(run));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
        world.advance(Duration::from_millis(10));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
        if finding(run) == alive(run) {
            world.exited(run, KILLED, Members::Group);
        }
        world.left(run, Members::Nothing);
        let exit = exit_of(&mut world, run);
        assert!(exit.forced);
        assert_eq!(signals(&exit), [Signal::HUP, Signal::INT, Signal::KILL]);
    }
}

#[test]
fn a_stop_that_was_over_meanwhile_is_told_with_what_was_sent() {
    for is_killing in [false, true] {
        let (mut world, run) = interrupted();
        if is_killing {
            world.advance(secs(9));
        }
        world.jump(secs(50));
        world.crash(gone(ExitStatus::Code(7)));
        assert_eq!(world.sent(), [], "there is nothing to kill");
        let exit = exit_of(&mut world, run);
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(7), ExitReason::Destroyed));
        assert_eq!((exit.forced, exit.at), (is_killing, world.wall()));
        assert_eq!(signals(&exit).first(), Some(&Signal::HUP));
        let client = world.connect(BROKER_UID);
        assert_eq!(world.kinds_kept(client), [EventKind::Exited, EventKind::Cleaning]);
        world.recorded(next(run));
        assert_eq!(world.spawns(), [next(run)]);
    }
}

#[test]
fn of_a_main_process_that_had_ended_before_is_kept_how_and_when() {
    for finding in [gone(ExitStatus::Unknown), left_behind(Members::Group), left_behind(Members::Outside)] {
        let (mut world, run) = interrupted();
        let ended_at = world.wall();
        world.exited(run, ExitStatus::Code(7), Members::Group);
        world.jump(secs(1));
        world.crash(finding);
        if finding == left_behind(Members::Outside) {
            // Its step went to the group, of which nothing is left.
            assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::All)]);
        } else {
            assert_eq!(world.sent(), []);
        }
        world.left(run, Members::Nothing);
        let exit = exit_of(&mut world, run);
        assert_eq!((exit.status, exit.at), (ExitStatus::Code(7), ended_at));
        let client = world.connect(BROKER_UID);
        assert_eq!(world.kinds_kept(client), [EventKind::Cleaning]);
    }
}

#[test]
fn what_is_outside_the_group_is_not_asked_a_second_time_by_the_next_broker() {
    let (mut world, run) = interrupted();
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Group)]);
    world.exited(run, ExitStatus::Code(7), Members::Outside);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::All)]);
    world.jump(secs(1));
    world.crash(left_behind(Members::Outside));
    assert_eq!(world.sent(), []);
    world.advance(secs(1));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::INT, Scope::All)]);
    world.advance(secs(7));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
}

#[test]
fn descendants_of_a_child_that_ended_by_itself_get_the_rest_of_their_steps() {
    for members in SOMETHING {
        let (mut world, client) = World::with_client();
        let run = world.start(client, stopped_by(vec![step(Signal::HUP, 5), step(Signal::INT, 7)]));
        world.exited(run, ExitStatus::Code(0), Members::Group);
        world.advance(secs(3));
        world.crash(left_behind(members));
        assert_eq!(world.sent(), []);
        world.advance(secs(2));
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::INT, Scope::All)]);
        world.left(run, Members::Nothing);
        let client = world.connect(BROKER_UID);
        let exit = world.ended(client, run).exit.clone().unwrap();
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(0), ExitReason::Exited));
    }
}

#[test]
fn a_destroy_joins_a_stop_that_was_taken_over() {
    let (mut world, run) = interrupted();
    world.crash(alive(run));
    let client = world.connect(BROKER_UID);
    let call = world.call(client, destroy_by(id(run), vec![]));
    assert_eq!(world.sent(), []);
    world.ends(run);
    world.begin_cleanup(next(run));
    world.end_cleanup(next(run), CLEAN);
    assert_eq!(world.children(call)[0].exit.as_ref().unwrap().reason, ExitReason::Destroyed);
}

#[test]
fn a_shutdown_that_was_cut_short_goes_on_for_the_children_that_it_had_come_to() {
    let (mut world, _, runs) = world_of(&[(0, 5), (1, 5)]);
    world.term();
    world.advance(secs(3));
    world.crash_with(|id, _| alive(Run { child: id, ..runs[0] }));
    world.advance(secs(2));
    assert_eq!(world.sent(), [Sent::Kill(runs[0])]);
    world.exited(runs[0], KILLED, Members::Nothing);
    let client = world.connect(BROKER_UID);
    assert_eq!(world.ended(client, runs[0]).exit.as_ref().unwrap().reason, ExitReason::Shutdown);
    assert_eq!(world.shown(client, runs[1]).state, ChildState::Running);
    // It serves again.
    world.start(client, unnamed());
}

#[test]
fn a_process_that_is_found_is_recorded_again() {
    let (mut world, run) = interrupted();
    let before = stopping(&world, run);
    world.crash(alive(run));
    assert_eq!(stopping(&world, run), before);
    assert!(world.orders().iter().any(|order| matches!(order, Effect::Record { run: of, .. } if *of == run)));
}
