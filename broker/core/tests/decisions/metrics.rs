//! What is counted: creates, refusals, stops, kills and cleanups, each once.

use procbroker_core::{Cleanups, Creates, Effect, Input, Members, Totals};
use procbroker_protocol::request::NoParams;
use procbroker_protocol::status::ChildCounts;
use procbroker_protocol::{CreateParams, ErrorKind, ExitStatus, Request, Signal};

use crate::world::*;

fn create_of(params: CreateParams) -> Request {
    Request::Create(Box::new(params))
}

/// How many stops took at most each bound that is at least a second, and how many there are.
fn stops(world: &World) -> (Vec<u64>, u64) {
    let stops = world.counts().stops;
    let counts = stops.buckets().filter(|(bound, _)| *bound >= secs(1)).map(|(_, count)| count);
    (counts.collect(), stops.count())
}

#[test]
fn a_create_counts_once_by_what_it_was_answered_with() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let _existing = world.ask(client, create_of(reuse("a")));
    let _taken = world.ask(client, create_of(named("a")));
    let replacing = world.create(client, replace("a"));
    world.ends(run);
    let next = world.run(replacing);
    world.recorded(next);
    world.spawned(next);
    let failing = world.create(client, unnamed());
    let failed = world.run(failing);
    world.recorded(failed);
    world.give(Input::SpawnFailed { run: failed, failure: no_such_file() });
    let creates = Creates { created: 1, existing: 1, replaced: 1 };
    let create_failures = [("name_taken".into(), 1), ("spawn_failed".into(), 1)].into();
    assert_eq!(world.counts().totals, Totals { creates, create_failures, ..Totals::default() });
}

#[test]
fn a_create_that_may_not_be_called_is_a_failure_of_its_kind() {
    let (mut world, client) = World::with_client();
    let _invalid = world.ask(client, create_of(CreateParams::new(Vec::new())));
    assert_eq!(world.counts().totals.create_failures, [("invalid_params".into(), 1)].into());
}

#[test]
fn a_client_that_has_gone_leaves_no_create_behind() {
    let (mut world, client) = World::with_client();
    let other = world.connect(BROKER_UID);
    let call = world.create(client, unnamed());
    let run = world.run(call);
    world.give(Input::Disconnected { connection: client });
    world.recorded(run);
    world.spawned(run);
    assert_eq!(world.counts().totals.creates, Creates::default());
    world.start(other, unnamed());
    assert_eq!(world.counts().totals.creates.created, 1);
}

#[test]
fn the_time_of_a_stop_goes_from_its_first_signal_until_nothing_is_left() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, cleaned(stopped_by(vec![step(Signal::TERM, 60)])));
    world.call(client, destroy(id(run)));
    world.advance(secs(2));
    world.exited(run, ExitStatus::Code(0), Members::Group);
    assert_eq!(stops(&world).1, 0);
    world.advance(secs(2));
    world.left(run, Members::Nothing);
    // The cleanup is no part of it.
    world.begin_cleanup(next(run));
    world.advance(secs(20));
    world.end_cleanup(next(run), CLEAN);
    assert_eq!(stops(&world), (vec![0, 0, 1, 1, 1, 1, 1], 1));
    assert_eq!(world.counts().stops.sum(), secs(4));
    assert_eq!(world.counts().totals.cleanups, Cleanups { ok: 1, failed: 0 });
}

#[test]
fn a_child_that_ends_by_itself_is_no_stop() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    assert_eq!((stops(&world).1, world.counts().totals.forced_stops), (0, 0));
}

#[test]
fn a_stop_that_is_killed_again_and_again_is_forced_once() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(vec![step(Signal::TERM, 1)]));
    world.call(client, destroy(id(run)));
    world.advance(secs(30));
    assert_eq!(world.counts().totals.forced_stops, 1);
    world.exited(run, KILLED, Members::Nothing);
    assert_eq!((stops(&world).1, world.counts().totals.forced_stops), (1, 1));
}

#[test]
fn a_cleanup_that_fails_is_counted_as_one() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, cleaned(unnamed()));
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    world.begin_cleanup(next(run));
    world.end_cleanup(next(run), ExitStatus::Code(1));
    assert_eq!(world.counts().totals.cleanups, Cleanups { ok: 0, failed: 1 });
}

#[test]
fn only_the_administrator_gets_the_metrics() {
    let (mut world, client) = World::with_client();
    let call = world.call(client, Request::Metrics(NoParams {}));
    assert_eq!(world.take(), [Effect::Measure { call }]);
    let alice = world.connect(ALICE);
    let refused = world.ask(alice, Request::Metrics(NoParams {})).unwrap_err();
    assert_eq!((refused.kind, world.take()), (ErrorKind::PermissionDenied, Vec::new()));
}

#[test]
fn what_is_now_is_told_beside_what_was() {
    let (mut world, client) = World::with_client();
    let refused = world.try_connect(peer(4_242));
    assert!(refused.is_err());
    let run = world.start(client, unnamed());
    world.start(client, unnamed());
    world.ends(run);
    let counts = world.counts();
    assert_eq!(counts.children, ChildCounts { running: 1, ended: 1, ..ChildCounts::default() });
    assert_eq!((counts.connections, counts.totals.connections_refused), (1, 1));
}
