//! Bounds on what a child uses: where they can be had, whom they bind, and how an end for want of memory is told.

use procbroker_core::{Effect, Input, Members, Purpose, ResourceBound, Run};
use procbroker_protocol::create::RestartPolicy::{Never, OnFailure};
use procbroker_protocol::create::{CpuMax, Resources};
use procbroker_protocol::{CreateParams, ErrorKind, ExitReason, ExitStatus, Signal};

use crate::world::*;

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

fn bounded(params: CreateParams) -> CreateParams {
    CreateParams {
        resources: Some(Resources { memory_max: Some(1 << 20), ..Resources::default() }),
        ..params
    }
}

/// The bounds that the process which was ordered last is given.
fn bounds_of_last_spawn(world: &mut World) -> Option<Resources> {
    let spawns = world.take().into_iter().filter_map(|effect| match effect {
        Effect::Spawn { order, purpose, .. } => Some(order.resources_for(&purpose).cloned()),
        _ => None,
    });
    spawns.last().expect("a spawn")
}

fn oom(world: &mut World, client: procbroker_core::ConnectionId, run: Run) -> bool {
    world.shown(client, run).exit.as_ref().expect("an exit").oom
}

/// The main process of a run is killed for want of memory, and leaves nothing.
fn is_killed_for_memory(world: &mut World, run: Run) {
    world.give(Input::OutOfMemory { run });
    world.exited(run, KILLED, Members::Nothing);
}

#[test]
fn a_bound_that_cannot_be_had_is_refused_with_why_and_the_others_are_taken() {
    let all = Resources {
        memory_max: Some(1),
        cpu_weight: Some(1),
        cpu_max: Some(CpuMax::MAX),
        pids_max: Some(1),
        memory_high: Some(1),
        io_weight: Some(1),
    };
    for bound in ResourceBound::ALL {
        let mut world = World::with(|config| {
            config.lacking.insert(bound, "it is not there (do this)".to_owned());
        });
        let client = world.connect(BROKER_UID);
        let call = world.create(client, CreateParams { resources: Some(all.clone()), ..unnamed() });
        let error = world.answer(call).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{bound:?}");
        for part in [bound.name(), bound.controller(), "it is not there (do this)"] {
            assert!(error.message.contains(part), "{bound:?}: {}", error.message);
        }
        assert_eq!((world.intents(), world.spawns()), (vec![], vec![]), "{bound:?}");
        let mut others = all.clone();
        match bound {
            ResourceBound::MemoryMax => others.memory_max = None,
            ResourceBound::MemoryHigh => others.memory_high = None,
            ResourceBound::CpuWeight => others.cpu_weight = None,
            ResourceBound::CpuMax => others.cpu_max = None,
            ResourceBound::PidsMax => others.pids_max = None,
            ResourceBound::IoWeight => others.io_weight = None,
        }
        world.start(client, CreateParams { resources: Some(others), ..unnamed() });
    }
}

#[test]
fn anybody_may_bound_a_child_and_no_bounds_need_nothing() {
    let mut world = World::with(|config| {
        config.lacking = ResourceBound::ALL.map(|bound| (bound, String::new())).into();
    });
    let client = world.connect(ALICE);
    world.start(client, CreateParams { resources: Some(Resources::default()), ..unnamed() });
    let mut world = World::with(|_| ());
    let client = world.connect(ALICE);
    world.start(client, bounded(unnamed()));
}

#[test]
fn a_child_is_bound_in_each_of_its_runs_and_its_cleanup_is_not() {
    let (mut world, client) = World::with_client();
    let params = bounded(cleaned(restarted(OnFailure, unnamed())));
    let expected = params.resources.clone();
    let call = world.create(client, params);
    let run = world.run(call);
    world.recorded(run);
    assert_eq!(bounds_of_last_spawn(&mut world), expected);
    world.spawned(run);
    world.exited(run, KILLED, Members::Nothing);
    world.recorded(next(run));
    world.advance(secs(1));
    assert_eq!(bounds_of_last_spawn(&mut world), expected);
    world.spawned(next(run));
    // A later broker has it from the record.
    world.crash(alive(next(run)));
    let again = first(run);
    let client = world.connect(BROKER_UID);
    world.exited(again, KILLED, Members::Nothing);
    world.recorded(next(again));
    world.advance(secs(1));
    assert_eq!(bounds_of_last_spawn(&mut world), expected);
    world.spawned(next(again));
    let target = id(run);
    world.call(client, destroy(target));
    world.exited(next(again), KILLED, Members::Nothing);
    world.recorded(next(next(again)));
    let spawned = world.take().into_iter().find_map(|effect| match effect {
        Effect::Spawn { order, purpose: purpose @ Purpose::Cleanup { .. }, .. } => {
            Some(order.resources_for(&purpose).cloned())
        }
        _ => None,
    });
    assert_eq!(spawned, Some(None));
}

#[test]
fn an_end_for_want_of_memory_is_told_and_an_older_runs_is_not() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, restarted(OnFailure, bounded(unnamed())));
    is_killed_for_memory(&mut world, run);
    assert!(oom(&mut world, client, run));
    world.recorded(next(run));
    world.advance(secs(1));
    world.spawned(next(run));
    world.exited(next(run), KILLED, Members::Nothing);
    assert!(!oom(&mut world, client, run));
}

#[test]
fn a_kill_that_is_told_late_is_none_of_a_later_run() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, restarted(OnFailure, bounded(unnamed())));
    world.exited(run, KILLED, Members::Nothing);
    world.recorded(next(run));
    world.advance(secs(1));
    world.spawned(next(run));
    world.give(Input::OutOfMemory { run });
    world.exited(next(run), KILLED, Members::Nothing);
    assert!(!oom(&mut world, client, run));
}

#[test]
fn one_that_went_on_after_a_kill_or_that_the_broker_has_killed_did_not_end_for_it() {
    let (mut world, client) = World::with_client();
    let ends = [
        (CLEAN, false),
        (ExitStatus::Signal(Signal::TERM), false),
        (ExitStatus::Code(137), true),
        (KILLED, true),
    ];
    for (status, expected) in ends {
        let run = world.start(client, restarted(Never, unnamed()));
        world.give(Input::OutOfMemory { run });
        world.exited(run, status, Members::Nothing);
        assert_eq!(oom(&mut world, client, run), expected, "{status:?}");
    }
    let run = world.start(client, stopped_by(by_term(1)));
    world.give(Input::OutOfMemory { run });
    world.call(client, destroy(id(run)));
    world.advance(secs(1));
    world.exited(run, KILLED, Members::Nothing);
    let child = world.shown(client, run);
    let exit = child.exit.as_ref().unwrap();
    assert_eq!((exit.forced, exit.reason, exit.oom), (true, ExitReason::Destroyed, false));
}

#[test]
fn one_that_leaves_something_behind_is_told_so_too() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(by_term(1)));
    world.give(Input::OutOfMemory { run });
    world.exited(run, KILLED, Members::Group);
    world.advance(secs(1));
    world.left(run, Members::Nothing);
    let child = world.shown(client, run);
    let exit = child.exit.as_ref().unwrap();
    assert_eq!((exit.forced, exit.reason, exit.oom), (true, ExitReason::Exited, true));
}

#[test]
fn one_that_was_killed_for_memory_while_there_was_no_broker_is_told_so() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, bounded(unnamed()));
    world.crash_out_of_memory(gone(KILLED));
    let client_again = world.connect(BROKER_UID);
    assert_ne!(client, client_again);
    assert!(oom(&mut world, client_again, first(run)));
    // What has lived on may end for another cause later.
    let run = world.start(client_again, bounded(unnamed()));
    world.crash_out_of_memory(alive(run));
    let client = world.connect(BROKER_UID);
    world.exited(first(run), CLEAN, Members::Nothing);
    assert!(!oom(&mut world, client, first(run)));
}

#[test]
fn a_kill_of_the_run_before_a_crash_is_none_of_the_run_after_it() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, restarted(OnFailure, bounded(unnamed())));
    is_killed_for_memory(&mut world, run);
    world.recorded(next(run));
    world.crash_out_of_memory(gone(KILLED));
    let (client, run) = (world.connect(BROKER_UID), first(run));
    assert!(oom(&mut world, client, run), "of the last run it stays true");
    world.advance(secs(1));
    world.spawned(run);
    world.exited(run, KILLED, Members::Nothing);
    assert!(!oom(&mut world, client, run));
}
