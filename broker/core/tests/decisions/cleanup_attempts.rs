//! The attempt at a cleanup: its turn, its time, what it leaves behind, and what is no outcome of it.

use std::time::Duration;

use procbroker_core::{Effect, Input, KILL_AGAIN_AFTER, Members, Report};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::Until;
use procbroker_protocol::{ChildState, ExitStatus};

use crate::world::*;

#[test]
fn a_cleanup_that_fails_is_reported_and_not_repeated() {
    for status in [ExitStatus::Code(1), CRASHED, ExitStatus::Unknown] {
        let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Running);
        world.exited(attempt, status, Members::Nothing);
        let orders = world.take();
        let message = orders.iter().find_map(|order| match order {
            Effect::Report(Report::CleanupFailed { child, message }) if child.id == run.child => {
                Some(message)
            }
            _ => None,
        });
        assert!(message.unwrap().contains(&status.to_string()), "{message:?}");
        assert!(orders.contains(&Effect::Release { run: attempt }));
        world.recorded(attempt);
        assert_eq!(world.ended(client, run).cleanup, outcome(false, Some(status), 1));
        world.advance(secs(3000));
        assert_eq!(world.spawns(), []);
    }
}

#[test]
fn a_cleanup_that_cannot_be_started_is_reported_with_its_command_and_not_repeated() {
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Spawning);
    world.give(Input::SpawnFailed { run: attempt, failure: no_such_file() });
    let orders = world.take();
    let message = orders.iter().find_map(|order| match order {
        Effect::Report(Report::CleanupFailed { message, .. }) => Some(message),
        _ => None,
    });
    for part in ["release", "exec", "ENOENT"] {
        assert!(message.unwrap().contains(part), "{message:?}");
    }
    assert!(orders.contains(&Effect::Release { run: attempt }));
    assert_eq!(world.shown(client, run).state, ChildState::Cleaning);
    world.recorded(attempt);
    assert_eq!(world.ended(client, run).cleanup, outcome(false, None, 1));
    assert_eq!(world.due_in(), Some(secs(3600)));
}

#[test]
fn a_cleanup_whose_time_is_over_is_killed_until_it_is_gone() {
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Running);
    world.advance(Duration::from_millis(29_999));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(attempt)]);
    for _ in 0..3 {
        world.advance(KILL_AGAIN_AFTER);
        let sent = world.sent();
        assert!(!sent.is_empty() && sent.iter().all(|sent| *sent == Sent::Kill(attempt)), "{sent:?}");
    }
    world.exited(attempt, KILLED, Members::Nothing);
    world.recorded(attempt);
    assert_eq!(world.ended(client, run).cleanup, outcome(false, Some(KILLED), 1));
    world.advance(secs(60));
    assert_eq!(world.sent(), []);
}

#[test]
fn what_a_cleanup_leaves_behind_is_killed_and_changes_nothing_about_how_it_went() {
    for members in SOMETHING {
        let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Running);
        world.exited(attempt, CLEAN, members);
        assert_eq!(world.sent(), [Sent::Kill(attempt)]);
        world.left(attempt, members);
        assert_eq!(world.sent(), []);
        world.advance(Duration::from_millis(10));
        assert_eq!(world.sent(), [Sent::Kill(attempt)]);
        world.left(attempt, Members::Nothing);
        assert!(world.take().contains(&Effect::Release { run: attempt }));
        world.recorded(attempt);
        assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
    }
}

#[test]
fn what_a_cleanup_leaves_behind_when_it_is_killed_goes_too() {
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Killing);
    // A report from before its end tells nothing.
    world.left(attempt, Members::Nothing);
    world.exited(attempt, KILLED, Members::Outside);
    assert_eq!(world.sent(), []);
    world.advance(KILL_AGAIN_AFTER);
    assert!(world.sent().contains(&Sent::Kill(attempt)));
    world.left(attempt, Members::Nothing);
    world.recorded(attempt);
    assert_eq!(world.ended(client, run).cleanup, outcome(false, Some(KILLED), 1));
}

#[test]
fn what_a_cleanup_leaves_behind_and_cannot_be_killed_does_not_keep_the_broker_busy() {
    let Halfway { mut world, attempt, .. } = Halfway::at(At::Running);
    world.exited(attempt, CLEAN, Members::Group);
    let mut kills = 0;
    for _ in 0..10_000 {
        let sent = world.sent().len();
        kills += sent;
        match sent {
            0 => world.advance(Duration::from_millis(1)),
            _ => world.left(attempt, Members::Group),
        }
    }
    assert!((5..=25).contains(&kills), "{kills} kills in ten seconds");
}

#[test]
fn a_record_that_cannot_be_written_stops_no_cleanup() {
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Recording);
    world.unrecorded(attempt);
    assert_eq!(cleanups(&mut world).len(), 1);
    world.spawned(attempt);
    world.exited(attempt, CLEAN, Members::Nothing);
    assert_eq!(world.shown(client, run).state, ChildState::Cleaning);
    world.unrecorded(attempt);
    assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
    world.start(client, named("a"));
}

#[test]
fn reports_about_another_process_of_the_child_change_nothing() {
    for stage in At::ALL {
        let Halfway { mut world, client, run, attempt, .. } = Halfway::at(stage);
        for stale in [run, next(attempt)] {
            world.ends(stale);
            world.left(stale, Members::Nothing);
            world.give(Input::Recorded { run: stale, result: Ok(()) });
            world.spawned(stale);
            world.give(Input::SpawnFailed { run: stale, failure: no_such_file() });
        }
        assert_eq!(world.take(), [], "{stage:?}");
        assert_eq!(world.shown(client, run).state, ChildState::Cleaning);
    }
}

#[test]
fn a_cleanup_takes_its_turn_among_the_starts() {
    let mut halfway = Halfway::at(At::Queued);
    let Halfway { world, client, attempt, in_flight, .. } = &mut halfway;
    let later = world.create(*client, unnamed());
    let later = world.run(later);
    world.recorded(later);
    assert_eq!(world.spawns(), []);
    world.spawned(in_flight[3]);
    assert_eq!(world.spawns(), [*attempt]);
    // Its own place becomes free with its process, and with a failed start of it.
    world.spawned(*attempt);
    assert_eq!(world.spawns(), [later]);
}

#[test]
fn a_cleanup_goes_on_when_its_client_disconnects() {
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Recording);
    world.call(client, wait(id(run), Until::Ended, None));
    let other = world.connect(BROKER_UID);
    world.give(Input::Disconnected { connection: client });
    world.begin_cleanup(attempt);
    world.end_cleanup(attempt, CLEAN);
    assert_eq!(world.ended(other, run).cleanup, outcome(true, Some(CLEAN), 1));
}

/// A failure for want of this.
fn shortage(errno: i32, name: &str) -> SpawnFailure {
    SpawnFailure { errno, errno_name: name.to_owned(), step: "exec".to_owned() }
}

#[test]
fn a_shortage_is_no_outcome_of_a_cleanup_which_is_tried_again_until_it_runs() {
    let mut halfway = Halfway::at(At::Spawning);
    let (attempt, world) = (halfway.attempt, &mut halfway.world);
    let shortages = [(11, "EAGAIN"), (23, "ENFILE"), (24, "EMFILE"), (12, "ENOMEM"), (28, "ENOSPC")];
    for ((errno, name), pause) in shortages.into_iter().zip([100, 200, 400, 800]) {
        world.give(Input::SpawnFailed { run: attempt, failure: shortage(errno, name) });
        world.advance(Duration::from_millis(pause - 1));
        assert_eq!(world.spawns(), [], "{name}");
        world.advance(Duration::from_millis(1));
        assert_eq!(world.spawns(), [attempt], "{name}");
    }
    world.spawned(attempt);
    world.end_cleanup(attempt, CLEAN);
    let (client, run) = (halfway.client, halfway.run);
    assert_eq!(halfway.world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
}

#[test]
fn a_cleanup_that_waits_for_a_shortage_to_pass_is_left_to_the_next_broker_when_the_time_is_up() {
    let mut halfway = Halfway::at(At::Spawning);
    let (attempt, run, world) = (halfway.attempt, halfway.run, &mut halfway.world);
    world.term();
    world.give(Input::SpawnFailed { run: attempt, failure: shortage(12, "ENOMEM") });
    world.take();
    for _ in 0..30 {
        world.advance(secs(1));
        if world.spawns() == [attempt] {
            world.give(Input::SpawnFailed { run: attempt, failure: shortage(12, "ENOMEM") });
        }
    }
    assert!(world.is_on_record(run));
    assert!(world.exit().is_some());
}
