//! Children that live as long as another process: whose it may be, and when they end.

use procbroker_core::{
    Anchor, AnchorSeen, AnchorUnknown, Birthmark, ConnectionId, Effect, Finding, Input, Members, Pid, Run,
    Shortage,
};
use procbroker_protocol::create::{Lifetime, Restart, RestartPolicy};
use procbroker_protocol::{ChildState, CreateParams, ErrorKind, ExitReason, ExitStatus, Outcome, Signal};
use uuid::Uuid;

use crate::world::*;

/// The process of this number, and of this birth.
fn anchor(pid: u32, birth: u64) -> Anchor {
    let birthmark = Birthmark::Inode(birth);
    Anchor { pid: Pid::new(pid).unwrap(), birthmark, boot: Uuid::from_u128(9) }
}

fn of(pid: u32, params: CreateParams) -> CreateParams {
    CreateParams { lifetime: Lifetime::Pid(pid), ..params }
}

/// From now on this process of this user is found.
fn is_seen(world: &mut World, anchor: Anchor, uid: u32) {
    world.anchor = Some(Box::new(Ok(AnchorSeen { anchor, real_uid: uid, saved_uid: uid })));
}

/// A child that runs as long as this process.
fn bound(world: &mut World, client: ConnectionId, anchor: Anchor, params: CreateParams) -> Run {
    is_seen(world, anchor, BROKER_UID);
    let run = world.start(client, of(anchor.pid.get(), params));
    assert!(world.watched.contains(&anchor));
    run
}

fn stopped(world: &mut World) -> Vec<Run> {
    let sent = world.sent().into_iter();
    sent.filter_map(|sent| match sent {
        Sent::Signal(run, Signal::TERM, _) => Some(run),
        _ => None,
    })
    .collect()
}

fn reason(world: &mut World, watcher: ConnectionId, run: Run) -> ExitReason {
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    world.shown(watcher, run).exit.clone().unwrap().reason
}

#[test]
fn a_child_ends_with_the_process_that_it_is_bound_to() {
    let (mut world, client) = World::with_client();
    let run = bound(&mut world, client, anchor(7, 1), named("a"));
    world.give(Input::Disconnected { connection: client });
    world.advance(secs(100_000));
    assert_eq!(stopped(&mut world), []);
    world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    assert_eq!(stopped(&mut world), [run]);
    let client = world.connect(BROKER_UID);
    assert_eq!(reason(&mut world, client, run), ExitReason::OwnerGone);
    assert!(world.watched.is_empty());
}

#[test]
fn a_process_that_got_the_number_later_is_another() {
    let (mut world, client) = World::with_client();
    let run = bound(&mut world, client, anchor(7, 1), named("a"));
    let other = bound(&mut world, client, anchor(7, 2), named("b"));
    world.give(Input::AnchorEnded { anchor: anchor(7, 2) });
    assert_eq!(stopped(&mut world), [other]);
    assert_eq!(world.shown(client, run).state, ChildState::Running);
}

#[test]
fn all_children_of_one_process_end_with_it_and_it_is_watched_once() {
    let (mut world, client) = World::with_client();
    let anchor = anchor(7, 1);
    let runs: Vec<_> = (0..50).map(|_| bound(&mut world, client, anchor, unnamed())).collect();
    world.exited(runs[0], ExitStatus::Code(0), Members::Nothing);
    assert!(world.watched.contains(&anchor), "others live by it");
    world.give(Input::AnchorEnded { anchor });
    assert_eq!(stopped(&mut world), runs[1..]);
}

#[test]
fn a_process_is_watched_no_longer_than_a_child_lives_by_it() {
    let (mut world, client) = World::with_client();
    let run = bound(&mut world, client, anchor(7, 1), unnamed());
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    assert!(world.watched.is_empty());
    // What was on its way changes nothing.
    world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    assert_eq!(stopped(&mut world), []);
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::Exited);
    is_seen(&mut world, anchor(7, 1), BROKER_UID);
    let call = world.create(client, of(7, unnamed()));
    let run = world.run(call);
    world.give(Input::Recorded {
        run,
        result: Err(procbroker_core::RecordFailure { message: "full".to_owned() }),
    });
    assert!(world.watched.is_empty(), "it never was");
}

#[test]
fn nobody_but_root_binds_a_child_to_what_is_not_his() {
    for (uid, real_uid, saved_uid, is_taken) in [
        (ALICE, ALICE, ALICE, true),
        // A program that has the rights of another user, started by her.
        (ALICE, ALICE, 0, true),
        (ALICE, BOB, ALICE, true),
        (ALICE, BOB, BOB, false),
        (ALICE, 0, 0, false),
        (BROKER_UID, ALICE, ALICE, false),
        (BROKER_UID, BROKER_UID, BROKER_UID, true),
        (0, BOB, BOB, true),
        (0, 0, 0, true),
    ] {
        let mut world = World::new();
        let client = world.connect(uid);
        let seen = AnchorSeen { anchor: anchor(7, 1), real_uid, saved_uid };
        world.anchor = Some(Box::new(Ok(seen)));
        let call = world.create(client, of(7, unnamed()));
        assert_eq!(world.is_answered(call), !is_taken, "user {uid}, process of {real_uid} and {saved_uid}");
        if !is_taken {
            assert_eq!(world.refused(call), ErrorKind::PermissionDenied);
            assert_eq!(world.take(), []);
        }
    }
}

#[test]
fn what_cannot_be_held_is_refused_and_says_why() {
    for (unknown, kind, word) in [
        (AnchorUnknown::Gone, "not_found", "has ended"),
        (AnchorUnknown::Closed, "permission_denied", "whose it is"),
        (AnchorUnknown::Elsewhere, "unsupported", "pid namespace"),
        (AnchorUnknown::Short(Shortage::Descriptors), "spawn_failed", "EMFILE"),
    ] {
        let (mut world, client) = World::with_client();
        world.anchor = Some(Box::new(Err(unknown)));
        let call = world.create(client, of(4_711, unnamed()));
        let error = world.answer(call).unwrap_err();
        assert_eq!(error.kind.as_str(), kind);
        assert!(error.message.contains("4711") && error.message.contains(word), "{}", error.message);
        assert_eq!(world.take(), []);
    }
}

#[test]
fn the_first_creates_process_is_what_a_reused_child_lives_by() {
    let (mut world, client) = World::with_client();
    let run = bound(&mut world, client, anchor(7, 1), named("a"));
    for (pid, birth, same_spec) in [(7, 1, true), (7, 2, false), (8, 3, false)] {
        is_seen(&mut world, anchor(pid, birth), BROKER_UID);
        let call = world.create(client, of(pid, reuse("a")));
        assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec }, "{pid} {birth}");
    }
    world.give(Input::AnchorEnded { anchor: anchor(8, 3) });
    assert_eq!(stopped(&mut world), []);
    world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    assert_eq!(stopped(&mut world), [run]);
}

#[test]
fn a_child_whose_process_ends_is_not_restarted() {
    let (mut world, client) = World::with_client();
    let restart = Restart { policy: RestartPolicy::Always, ..Restart::default() };
    let run = bound(&mut world, client, anchor(7, 1), CreateParams { restart, ..named("a") });
    world.exited(run, ExitStatus::Code(1), Members::Nothing);
    assert_eq!(world.shown(client, run).state, ChildState::Backoff);
    assert!(world.watched.contains(&anchor(7, 1)));
    world.take();
    world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    world.advance(secs(100));
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.exit.clone().unwrap().reason), (ChildState::Ended, ExitReason::OwnerGone));
    assert_eq!(world.spawns(), []);
}

#[test]
fn a_child_whose_process_ends_before_it_is_started_never_is() {
    let (mut world, client) = World::with_client();
    is_seen(&mut world, anchor(7, 1), BROKER_UID);
    let call = world.create(client, of(7, named("a")));
    let run = world.run(call);
    world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    world.recorded(run);
    assert_eq!(world.spawns(), []);
    assert_eq!(world.refused(call).as_str(), "start_failed");
}

#[test]
fn what_takes_the_place_of_a_child_ends_with_the_same_process_too() {
    let (mut world, client) = World::with_client();
    let other = bound(&mut world, client, anchor(7, 1), named("b"));
    let call = world.create(client, of(7, named("a")));
    let first = world.run(call);
    // It is to take the place of one that is not on record so far, and so can go at once.
    let replacing = CreateParams { if_exists: procbroker_protocol::create::IfExists::Replace, ..named("a") };
    let second = world.create(client, of(7, replacing));
    world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    assert_eq!(stopped(&mut world), [other]);
    world.recorded(first);
    let run = world.run(second);
    if world.watched.contains(&anchor(7, 1)) {
        world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    }
    world.recorded(run);
    assert_eq!(world.spawns(), []);
}

#[test]
fn the_process_is_the_same_one_after_a_crash_and_its_end_meanwhile_is_no_secret() {
    let (mut world, client) = World::with_client();
    let run = bound(&mut world, client, anchor(7, 1), named("a"));
    world.crash(alive(run));
    assert_eq!(world.watched.iter().copied().collect::<Vec<_>>(), [anchor(7, 1)]);
    let client = world.connect(BROKER_UID);
    world.give(Input::AnchorEnded { anchor: anchor(7, 2) });
    world.advance(secs(100));
    assert_eq!(stopped(&mut world), []);
    world.give(Input::AnchorEnded { anchor: anchor(7, 1) });
    assert_eq!(stopped(&mut world), [first(run)]);
    assert_eq!(reason(&mut world, client, first(run)), ExitReason::OwnerGone);
}

#[test]
fn after_a_crash_only_what_lives_has_its_process_watched() {
    let (mut world, client) = World::with_client();
    let ended = bound(&mut world, client, anchor(7, 1), named("a"));
    world.exited(ended, ExitStatus::Code(0), Members::Nothing);
    let gone = bound(&mut world, client, anchor(8, 2), named("b"));
    let (status, members) = (ExitStatus::Code(0), Members::Nothing);
    world.crash_with(|_, _| Finding::Gone { status, members });
    assert!(world.watched.is_empty(), "{gone:?}");
    let orders = world.take();
    let watches = orders.iter().filter(|order| matches!(order, Effect::Watch { .. })).count();
    let unwatches = orders.iter().filter(|order| matches!(order, Effect::Unwatch { .. })).count();
    assert_eq!(watches, unwatches);
}
