//! The cleanup of a child: when it runs, what it is told, and what becomes of the child meanwhile.

use procbroker_core::{Effect, Input, Members, Progress, Receipt, Record, Report, Run, Safety};
use procbroker_protocol::create::ReadyTimeout;
use procbroker_protocol::request::{DestroyParams, Until};
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, ExitReason, ExitStatus, Outcome, Request, Response, Signal,
};

use crate::world::*;

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
