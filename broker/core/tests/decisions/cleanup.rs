//! The cleanup of a child: when it runs, what it is told, and what becomes of the child meanwhile.

use std::time::Duration;

use procbroker_core::{
    Effect, Input, KILL_AGAIN_AFTER, Members, Progress, Purpose, Receipt, Record, Report, Run, Safety,
};
use procbroker_protocol::create::ReadyTimeout;
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::{DestroyParams, Until};
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, Exit, ExitReason, ExitStatus, Outcome, Request, Response, Signal,
};

use crate::world::*;

const CRASHED: ExitStatus = ExitStatus::Signal(Signal::INT);

/// Takes the orders so far, and tells which cleanups are to be started, for which ends.
fn cleanups(world: &mut World) -> Vec<(Run, Exit)> {
    let cleanup = |effect| match effect {
        Effect::Spawn { run, purpose: Purpose::Cleanup { exit }, .. } => Some((run, exit)),
        _ => None,
    };
    world.take().into_iter().filter_map(cleanup).collect()
}

#[test]
fn a_cleanup_follows_every_end_of_a_child_and_is_told_how_it_ended() {
    type End = fn(&mut World, procbroker_core::ConnectionId, Run);
    let cases: [(End, ExitReason, bool); 6] = [
        (|_, _, _| (), ExitReason::Exited, false),
        (
            |world, client, run| {
                world.call(client, destroy(id(run)));
            },
            ExitReason::Destroyed,
            false,
        ),
        (
            |world, client, run| {
                world.call(client, destroy_by(id(run), vec![]));
            },
            ExitReason::Destroyed,
            true,
        ),
        (
            |world, client, _| {
                world.create(client, replace("a"));
            },
            ExitReason::Replaced,
            false,
        ),
        (|world, _, _| world.term(), ExitReason::Shutdown, false),
        (
            |world, _, _| {
                world.term();
                world.term_again();
            },
            ExitReason::Shutdown,
            true,
        ),
    ];
    for (end, reason, forced) in cases {
        for status in [ExitStatus::Code(0), ExitStatus::Code(3), CRASHED, KILLED, ExitStatus::Unknown] {
            let (world, client) = World::with_client();
            let Halfway { mut world, run, attempt, .. } = Halfway::before(world, client, cleaned(named("a")));
            end(&mut world, client, run);
            world.exited(run, status, Members::Nothing);
            world.recorded(attempt);
            let exit = world.shown(client, run).exit.clone().unwrap();
            assert_eq!((exit.status, exit.reason, exit.forced), (status, reason, forced));
            assert_eq!(cleanups(&mut world), [(attempt, exit)]);
            world.spawned(attempt);
            world.end_cleanup(attempt, CLEAN);
            assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
        }
    }
}

#[test]
fn a_child_that_was_not_ready_in_time_is_cleaned_up_once_it_was_started() {
    let (mut world, client) = World::with_client();
    let params = CreateParams { ready_timeout: ReadyTimeout(secs(5)), ..cleaned(named("a")) };
    let call = world.create(client, params);
    let run = world.run(call);
    world.recorded(run);
    world.advance(secs(5));
    world.spawned(run);
    world.ends(run);
    world.recorded(next(run));
    let started = cleanups(&mut world);
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].1.reason, ExitReason::StartFailed);
}

#[test]
fn a_child_that_never_was_is_not_cleaned_up() {
    type Fail = fn(&mut World, procbroker_core::ConnectionId, Run);
    let cases: [Fail; 5] = [
        |world, _, run| world.give(Input::Recorded { run, result: Err(disk_full()) }),
        |world, _, run| {
            world.recorded(run);
            world.give(Input::SpawnFailed { run, failure: no_such_file() });
        },
        |world, client, run| {
            world.call(client, destroy(id(run)));
            world.recorded(run);
        },
        |world, client, run| {
            world.recorded(run);
            world.call(client, destroy(id(run)));
            world.give(Input::SpawnFailed { run, failure: no_such_file() });
        },
        |world, _, run| {
            world.term();
            world.recorded(run);
        },
    ];
    for fail in cases {
        let (mut world, client) = World::with_client();
        let call = world.create(client, cleaned(named("a")));
        let run = world.run(call);
        fail(&mut world, client, run);
        assert!(world.is_answered(call));
        assert_eq!(cleanups(&mut world), []);
        assert!(!world.is_on_record(run));
        assert_eq!(world.ask(client, list(true)), Ok(Response::Children(vec![])));
    }
}

#[test]
fn a_cleanup_waits_for_all_descendants() {
    let (world, client) = World::with_client();
    let Halfway { mut world, run, attempt, .. } = Halfway::before(world, client, cleaned(named("a")));
    world.exited(run, ExitStatus::Code(0), Members::Group);
    world.advance(secs(10));
    world.left(run, Members::Outside);
    assert_eq!(world.shown(client, run).state, ChildState::Stopping);
    assert!(!world.take().contains(&Effect::Release { run }));
    world.left(run, Members::Nothing);
    assert_eq!(world.shown(client, run).state, ChildState::Cleaning);
    world.recorded(attempt);
    assert_eq!(cleanups(&mut world).len(), 1);
}

#[test]
fn what_is_over_is_released_and_the_attempt_is_on_record_before_it_begins() {
    let (world, client) = World::with_client();
    let Halfway { mut world, run, attempt, .. } = Halfway::before(world, client, cleaned(named("a")));
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    let orders = world.take();
    let release = orders.iter().position(|order| *order == Effect::Release { run }).unwrap();
    let record = orders.iter().position(|order| match order {
        Effect::Record {
            run,
            record: Record::Progress(Progress::Cleaning { attempts: 1, .. }),
            receipt,
            ..
        } => *run == attempt && *receipt == Receipt::Wanted,
        _ => false,
    });
    assert!(release < record.unwrap());
    // However long that takes.
    world.advance(secs(3600));
    assert_eq!(cleanups(&mut world), []);
    world.recorded(attempt);
    assert_eq!(cleanups(&mut world).len(), 1);
}

#[test]
fn what_a_cleanup_releases_is_on_record_for_the_death_of_the_machine() {
    let safety = |params| {
        let (mut world, client) = World::with_client();
        world.create(client, params);
        world.take().into_iter().find_map(|order| match order {
            Effect::Record { record: Record::Intent(_), safety, .. } => Some(safety),
            _ => None,
        })
    };
    assert_eq!(safety(unnamed()), Some(Safety::Process));
    assert_eq!(safety(cleaned(unnamed())), Some(Safety::Power));
    let Halfway { mut world, attempt, .. } = Halfway::at(At::Running);
    world.exited(attempt, CLEAN, Members::Nothing);
    let is_outcome = |order: &Effect| match order {
        Effect::Record { run, record: Record::Progress(Progress::Ended { .. }), safety, receipt, .. } => {
            (*run, *safety, *receipt) == (attempt, Safety::Power, Receipt::Wanted)
        }
        _ => false,
    };
    assert!(world.take().iter().any(is_outcome));
}

#[test]
fn until_its_cleanup_is_on_record_a_child_has_not_ended_for_anybody() {
    for stage in At::ALL {
        let mut halfway = Halfway::at(stage);
        let Halfway { world, client, run, .. } = &mut halfway;
        let (client, run) = (*client, *run);
        let shown = world.shown(client, run);
        assert_eq!(
            (shown.state, shown.pid, &shown.cleanup),
            (ChildState::Cleaning, None, &None),
            "{stage:?}"
        );
        assert_eq!(shown.exit.as_ref().unwrap().status, ExitStatus::Code(3));
        let call = world.call(client, list(false));
        assert!(world.children(call).contains(&shown), "{stage:?}");
        let waits = [
            world.call(client, wait(id(run), Until::Ended, None)),
            world.call(client, wait(id(run), Until::Ready, None)),
            world.call(client, destroy(id(run))),
            world.call(client, destroy(procbroker_protocol::Target::Id(run.child))),
        ];
        assert!(waits.iter().all(|call| !world.is_answered(*call)), "{stage:?}");
        assert!(!world.take().iter().any(|order| matches!(order, Effect::Report(Report::Ended { .. }))));
        halfway.finish(stage);
        let Halfway { world, .. } = &mut halfway;
        let ended = world.ended(client, run);
        assert_eq!(ended.exit, shown.exit, "{stage:?}");
        assert_eq!([world.child(waits[0]), world.child(waits[1])], [ended.clone(), ended.clone()]);
        for call in &waits[2..] {
            assert_eq!(world.children(*call), std::slice::from_ref(&ended), "{stage:?}");
        }
        assert_eq!(world.outcome_on_record(run), ended.cleanup);
        assert_eq!(ended.cleanup.as_ref().unwrap().ok, stage != At::Killing);
    }
}

#[test]
fn a_name_and_a_place_under_a_limit_are_held_until_the_cleanup_is_on_record() {
    for stage in At::ALL {
        let mut halfway = Halfway::at(stage);
        let Halfway { world, client, .. } = &mut halfway;
        let client = *client;
        let refused = world.create(client, named("a"));
        assert!(matches!(world.refused(refused), ErrorKind::NameTaken(Some(_))));
        assert!(world.answer(refused).unwrap_err().message.contains("cleaning"));
        let crowded = world.create(client, under_limit("k", 1));
        assert_eq!(world.refused(crowded), ErrorKind::LimitExceeded);
        let waiting = world.create(client, replace("a"));
        let reusing = world.create(client, reuse("a"));
        assert_eq!(world.intents(), []);
        halfway.finish(stage);
        let Halfway { world, .. } = &mut halfway;
        let run = world.run(waiting);
        assert_eq!(world.intents(), [run], "{stage:?}");
        world.recorded(run);
        if stage == At::Queued {
            // A place among those that are being started became free with the cleanup's own.
            assert_eq!(world.spawns(), [run]);
        }
        world.spawned(run);
        assert_eq!(world.created(waiting).outcome, Outcome::Replaced);
        assert_eq!(world.created(reusing).outcome, Outcome::Existing { same_spec: true });
        let free = world.create(client, under_limit("k", 1));
        assert!(!world.is_answered(free), "{stage:?}");
    }
}

#[test]
fn there_is_nothing_to_signal_and_nothing_to_stop_in_a_child_that_is_cleaned_up() {
    for stage in At::ALL {
        let Halfway { mut world, client, run, .. } = Halfway::at(stage);
        let error = world.ask(client, signal(id(run), Signal::TERM)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{stage:?}");
        assert!(error.message.contains("ended"), "{}", error.message);
        let all = world.call(client, signal(labels("no", "such"), Signal::TERM));
        assert_eq!(world.children(all), []);
        let params = DestroyParams { target: id(run), stop: Some(vec![]), no_wait: true };
        let destroyed = world.call(client, Request::Destroy(params));
        assert_eq!(world.children(destroyed)[0].state, ChildState::Cleaning);
        assert_eq!(world.take(), [], "{stage:?}");
    }
}

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
