//! Cleanups that were under way when the broker died: whatever is left of one goes first, and then it is begun anew.

use std::time::Duration;

use procbroker_core::{Effect, ExitCause, Finding, Members, Progress, Run};
use procbroker_protocol::{ChildState, ExitStatus};

use crate::world::*;

#[test]
fn an_interrupted_cleanup_is_killed_before_the_next_attempt_begins() {
    for finding in
        [alive as fn(Run) -> Finding, |_| left_behind(Members::Group), |_| left_behind(Members::Outside)]
    {
        let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Running);
        world.crash(finding(attempt));
        let old = first(run);
        assert_eq!(world.sent(), [Sent::Kill(old)]);
        world.advance(Duration::from_millis(10));
        assert_eq!(world.sent(), [Sent::Kill(old)]);
        if finding(attempt) == alive(attempt) {
            world.exited(old, KILLED, Members::Group);
            assert_eq!(world.attempts_on_record(run), 1);
        }
        world.left(old, Members::Nothing);
        assert!(world.take().contains(&Effect::Release { run: old }));
        assert_eq!(world.attempts_on_record(run), 2);
        world.recorded(next(old));
        assert_eq!(world.spawns(), [next(old)]);
        world.spawned(next(old));
        world.end_cleanup(next(old), CLEAN);
        assert_eq!(world.outcome_on_record(run), outcome(true, Some(CLEAN), 2));
    }
}

#[test]
fn an_interrupted_cleanup_that_ends_by_itself_is_begun_anew_all_the_same() {
    let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Running);
    world.crash(alive(attempt));
    world.exited(first(run), CLEAN, Members::Nothing);
    assert_eq!(world.attempts_on_record(run), 2);
}

#[test]
fn a_cleanup_of_which_nothing_is_there_is_begun_at_once() {
    for finding in [gone(ExitStatus::Unknown), Finding::NeverStarted, Finding::Rebooted] {
        for stage in At::ALL.into_iter().filter(|stage| *stage != At::Closing) {
            let Halfway { mut world, run, .. } = Halfway::at(stage);
            let exit = match world.progress(run) {
                Some(Progress::Cleaning { exit, .. }) => exit,
                other => panic!("{other:?}"),
            };
            world.crash_with(|id, _| if id == run.child { finding } else { Finding::NeverStarted });
            let attempt = next(first(run));
            world.recorded(attempt);
            assert_eq!(world.spawns(), [attempt], "{stage:?}");
            let client = world.connect(BROKER_UID);
            assert_eq!(world.shown(client, run).exit, Some(exit));
        }
    }
}

#[test]
fn a_cleanup_of_the_brokers_own_goes_on_under_the_program_that_takes_over() {
    let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Running);
    world.jump(secs(20));
    world.crash(own(attempt));
    assert_eq!(world.sent(), []);
    let client = world.connect(BROKER_UID);
    assert_eq!(world.shown(client, run).state, ChildState::Cleaning);
    assert_eq!(world.due_in(), Some(secs(30)));
    world.exited(first(run), CLEAN, Members::Nothing);
    world.recorded(first(run));
    assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
}

#[test]
fn an_upgrade_gives_a_cleanup_no_more_time() {
    let Halfway { mut world, run, .. } = Halfway::at(At::Running);
    world.jump(secs(20));
    world.upgrade_taking(secs(2));
    assert_eq!(world.due_in(), Some(secs(8)));
    world.jump(secs(5));
    world.upgrade_taking(secs(1));
    assert_eq!(world.due_in(), Some(secs(2)));
    world.advance(secs(2));
    assert_eq!(world.sent(), [Sent::Kill(first(run))]);
    world.upgrade_taking(secs(1));
    world.advance(Duration::ZERO);
    assert_eq!(world.sent(), [Sent::Kill(first(run))], "it is killed on");
}

#[test]
fn an_outcome_that_is_on_record_is_final() {
    for finding in [Finding::Rebooted, gone(ExitStatus::Unknown), Finding::NeverStarted] {
        let Halfway { mut world, run, .. } = Halfway::at(At::Closing);
        world.crash(finding);
        assert_eq!(world.spawns(), []);
        let client = world.connect(BROKER_UID);
        assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
        world.start(client, named("a"));
    }
}

#[test]
fn an_interrupted_cleanup_that_cannot_be_killed_is_left_at_the_end_of_a_shutdown() {
    let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Running);
    world.crash(alive(attempt));
    world.term();
    world.advance(secs(29));
    world.exited(first(run), KILLED, Members::Nothing);
    assert_eq!(world.attempts_on_record(run), 1);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}
