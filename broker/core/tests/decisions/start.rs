//! Starts that fail, or take too long.

use procbroker_core::{Effect, Input, Report, Run};
use procbroker_protocol::create::ReadyTimeout;
use procbroker_protocol::request::{Scope, Until};
use procbroker_protocol::{
    CreateParams, ErrorKind, ExitReason, ExitStatus, Outcome, Request, Response, Signal, request::ListParams,
};

use crate::world::*;

fn fail_to_spawn(world: &mut World, run: Run) {
    world.give(Input::SpawnFailed { run, failure: no_such_file() });
}

#[test]
fn a_failed_spawn_is_answered_with_its_step_and_errno_and_what_to_do() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, named("a"));
    let run = world.run(call);
    world.recorded(run);
    world.take();
    fail_to_spawn(&mut world, run);
    let error = world.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::SpawnFailed(no_such_file()));
    for part in ["sleep", "exec", "ENOENT", "PATH"] {
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
    let orders = world.take();
    assert!(orders.iter().any(|order| matches!(order, Effect::Report(Report::StartFailed { .. }))));
    assert!(orders.contains(&Effect::Release { run }));
    assert!(orders.contains(&Effect::Forget { child: run.child }));
}

#[test]
fn a_child_that_never_was_is_gone_with_its_name() {
    for is_recorded in [false, true] {
        let (mut world, client) = World::with_client();
        let call = world.create(client, named("a"));
        let run = world.run(call);
        if is_recorded {
            world.recorded(run);
            fail_to_spawn(&mut world, run);
        } else {
            world.give(Input::Recorded { run, result: Err(disk_full()) });
        }
        let all = Request::List(ListParams { all: true, ..ListParams::default() });
        assert_eq!(world.ask(client, all), Ok(Response::Children(Vec::new())));
        for target in [id(run), name("a")] {
            assert_eq!(world.ask(client, get(target)).unwrap_err().kind, ErrorKind::NotFound);
        }
        assert_eq!(world.due_in(), None);
        world.start(client, named("a"));
    }
}

#[test]
fn a_failed_start_does_not_hide_the_ended_child_of_that_name() {
    let (mut world, client) = World::with_client();
    let ended = world.start(client, named("a"));
    world.ends(ended);
    let call = world.create(client, named("a"));
    let run = world.run(call);
    world.recorded(run);
    fail_to_spawn(&mut world, run);
    let call = world.call(client, get(name("a")));
    assert_eq!(world.child(call).id, ended.child);
}

#[test]
fn a_record_that_cannot_be_written_fails_the_create_and_spawns_nothing() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, named("a"));
    let run = world.run(call);
    world.give(Input::Recorded { run, result: Err(disk_full()) });
    let error = world.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.contains("no space left"), "{}", error.message);
    assert_eq!(world.spawns(), []);
}

#[test]
fn after_a_failed_start_the_next_in_the_queue_tries_for_itself() {
    let (mut world, client) = World::with_client();
    let calls = [
        world.create(client, reuse("a")),
        world.create(client, reuse("a")),
        world.create(client, reuse("a")),
    ];
    for call in &calls[..2] {
        let run = world.run(*call);
        assert_eq!(world.intents(), [run]);
        world.recorded(run);
        assert_eq!(world.spawns(), [run]);
        fail_to_spawn(&mut world, run);
        assert_eq!(world.refused(*call), ErrorKind::SpawnFailed(no_such_file()));
    }
    let last = world.run(calls[2]);
    world.recorded(last);
    world.spawned(last);
    assert_eq!(world.created(calls[2]).outcome, Outcome::Created);
}

#[test]
fn everybody_who_waits_for_a_child_hears_that_it_never_was() {
    let (mut world, client) = World::with_client();
    let create = world.create(client, named("a"));
    let run = world.run(create);
    let ready = world.call(client, wait(id(run), Until::Ready, None));
    let ended = world.call(client, wait(name("a"), Until::Ended, None));
    let signal = world.call(client, signal(id(run), Signal::HUP));
    let destroy = world.call(client, destroy(id(run)));
    world.recorded(run);
    assert_eq!(world.spawns(), []);
    for call in [ready, ended] {
        let exit = world.child(call).exit.clone().unwrap();
        assert_eq!((exit.reason, exit.status), (ExitReason::Destroyed, ExitStatus::Unknown));
        assert_eq!((exit.forced, exit.steps.len()), (false, 0));
    }
    assert_eq!(world.children(destroy)[0].id, run.child);
    assert_eq!(world.refused(signal), ErrorKind::NotFound);
    assert_eq!(world.refused(create).as_str(), "start_failed");
}

#[test]
fn a_destroy_of_a_child_whose_spawn_fails_is_no_error() {
    let (mut world, client) = World::with_client();
    let create = world.create(client, named("a"));
    let run = world.run(create);
    world.recorded(run);
    let destroy = world.call(client, destroy(id(run)));
    fail_to_spawn(&mut world, run);
    assert_eq!(world.refused(create), ErrorKind::SpawnFailed(no_such_file()));
    assert_eq!(world.children(destroy)[0].exit.clone().unwrap().reason, ExitReason::StartFailed);
}

#[test]
fn a_child_that_is_not_started_in_time_fails_its_create_and_is_stopped() {
    for is_recorded in [false, true] {
        let (mut world, client) = World::with_client();
        let params = CreateParams { ready_timeout: ReadyTimeout(secs(5)), ..named("a") };
        let call = world.create(client, params);
        let run = world.run(call);
        if is_recorded {
            world.recorded(run);
        }
        assert_eq!(world.due_in(), Some(secs(5)));
        world.advance(secs(5));
        assert_eq!(world.refused(call), ErrorKind::Timeout(None));
        world.take();
        if is_recorded {
            world.spawned(run);
            assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
            world.ends(run);
            assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::StartFailed);
        } else {
            world.recorded(run);
            assert_eq!(world.spawns(), []);
        }
        world.start(client, named("a"));
    }
}

#[test]
fn a_reuse_that_waits_for_a_child_not_started_in_time_creates_anew() {
    let (mut world, client) = World::with_client();
    let first = world.create(client, named("a"));
    let second = world.create(client, reuse("a"));
    let run = world.run(first);
    world.recorded(run);
    world.advance(secs(30));
    assert!(!world.is_answered(second));
    world.spawned(run);
    assert!(!world.is_answered(second));
    world.ends(run);
    let next = world.run(second);
    world.recorded(next);
    world.spawned(next);
    assert_eq!(world.created(second).outcome, Outcome::Created);
}

#[test]
fn the_time_to_get_ready_is_over_once_a_child_runs() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    assert_eq!(world.due_in(), None);
    world.advance(secs(3600));
    assert_eq!(world.sent(), []);
    assert!(world.shown(client, run).exit.is_none());
}

#[test]
fn reports_about_another_run_change_nothing() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let stale = Run { incarnation: procbroker_core::Incarnation(2), ..run };
    world.ends(stale);
    world.left(stale, procbroker_core::Members::Nothing);
    world.recorded(stale);
    world.spawned(stale);
    fail_to_spawn(&mut world, stale);
    world.recorded(run);
    world.spawned(run);
    fail_to_spawn(&mut world, run);
    assert_eq!(world.take(), []);
    assert!(world.shown(client, run).exit.is_none());
}
