//! What a broker takes over from one that has died: each thing on record, with each thing that is found of it.

use std::time::Duration;

use procbroker_core::{Departure, Effect, Finding, Members, Progress, Report, Run, Runs};
use procbroker_protocol::request::Scope;
use procbroker_protocol::status::ChildCounts;
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, EventKind, ExitReason, ExitStatus, Holder, Outcome, Owner, Response,
    Signal,
};

use crate::world::*;

/// A child that runs, of a broker that is about to die.
fn running(params: CreateParams) -> (World, Run) {
    let (mut world, client) = World::with_client();
    let run = world.start(client, params);
    (world, run)
}

/// The same, after its client is back.
fn back(world: &mut World) -> procbroker_core::ConnectionId {
    world.connect(BROKER_UID)
}

fn counts(world: &World) -> (u32, u32, u32) {
    world
        .orders()
        .iter()
        .find_map(|order| match order {
            Effect::Report(Report::Recovered { alive, ended, void }) => Some((*alive, *ended, *void)),
            _ => None,
        })
        .unwrap()
}

#[test]
fn with_nothing_on_record_nothing_is_done() {
    let mut world = World::new();
    world.recover(Vec::new());
    assert_eq!(world.take(), []);
    assert_eq!(world.due_in(), None);
}

#[test]
fn one_that_waits_to_be_reaped_is_not_counted_among_those_that_live() {
    let (mut world, run) = running(named("a"));
    world.crash(zombie(run));
    assert_eq!(counts(&world), (0, 1, 0));
    let client = back(&mut world);
    world.exited(run, ExitStatus::Code(3), Members::Nothing);
    assert_eq!(world.shown(client, run).exit.as_ref().unwrap().status, ExitStatus::Code(3));
}

#[test]
fn a_child_that_is_alive_is_managed_again_as_the_same() {
    for is_own in [false, true] {
        let (mut world, run) = running(cleaned(named("a")));
        let client = back(&mut world);
        let before = world.shown(client, run);
        world.jump(secs(100));
        world.crash(if is_own { own(run) } else { alive(run) });
        assert_eq!(counts(&world), (1, 0, 0));
        // It is recorded again, with its process: that may not have been on record.
        assert!(
            world.take().iter().any(|order| matches!(order, Effect::Record { run: of, .. } if *of == run))
        );
        let client = back(&mut world);
        assert_eq!(world.shown(client, run), before);
        let taken = world.create(client, named("a"));
        assert!(matches!(world.refused(taken), ErrorKind::NameTaken(Some(_))));
        let reused = world.create(client, reuse("a"));
        assert_eq!(world.created(reused).child, before);
        let call = world.call(client, destroy(id(run)));
        assert_eq!(world.sent(), [term(run)]);
        world.advance(secs(10));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
        world.exited(run, KILLED, Members::Nothing);
        world.begin_cleanup(next(run));
        world.end_cleanup(next(run), CLEAN);
        assert_eq!(world.children(call)[0].cleanup, outcome(true, Some(CLEAN), 1));
    }
}

#[test]
fn a_process_that_was_not_on_record_is_found_under_its_intent() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, named("a"));
    let run = world.run(call);
    world.recorded(run);
    let created_at = world.wall();
    world.jump(secs(5));
    world.crash(alive(run));
    assert_eq!(
        world.progress(run),
        Some(Progress::Running {
            started_at: created_at,
            runs: Runs::default(),
            departure: Departure::default(),
        })
    );
    let client = back(&mut world);
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.pid), (ChildState::Running, Some(pid_of(run).get())));
    assert_eq!((shown.created_at, shown.started_at), (created_at, Some(created_at)));
    // Its time to get ready is over: it is ready.
    assert_eq!(world.due_in(), None);
}

#[test]
fn a_child_that_died_meanwhile_is_told_with_its_status_and_cleaned_up() {
    for status in [ExitStatus::Code(0), ExitStatus::Code(9), KILLED, ExitStatus::Unknown] {
        let (mut world, run) = running(cleaned(named("a")));
        world.jump(secs(100));
        world.crash(gone(status));
        assert_eq!(counts(&world), (0, 1, 0));
        assert!(world.take().contains(&Effect::Release { run }));
        let client = back(&mut world);
        let exit = world.shown(client, run).exit.clone().unwrap();
        assert_eq!((exit.status, exit.reason, exit.forced), (status, ExitReason::Exited, false));
        assert_eq!(exit.at, world.wall());
        assert_eq!(world.kinds_kept(client), [EventKind::Exited, EventKind::Cleaning]);
        world.begin_cleanup(next(run));
        world.end_cleanup(next(run), CLEAN);
        assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), 1));
        world.start(client, named("a"));
    }
}

#[test]
fn what_a_child_that_died_meanwhile_left_behind_gets_its_steps() {
    for members in SOMETHING {
        let (mut world, run) = running(cleaned(stopped_by(vec![step(Signal::HUP, 3), step(Signal::INT, 5)])));
        world.crash(left_behind(members));
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::All)]);
        world.advance(secs(3));
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::INT, Scope::All)]);
        world.advance(secs(5));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
        world.left(run, Members::Nothing);
        assert_eq!(world.attempts_on_record(run), 1);
    }
}

#[test]
fn a_start_that_never_was_is_void_and_the_same_request_starts_anew() {
    let (mut world, client) = World::with_client();
    let params = requested(cleaned(named("a")), 5);
    let call = world.create(client, params.clone());
    let run = world.run(call);
    world.recorded(run);
    world.crash(Finding::NeverStarted);
    assert_eq!(counts(&world), (0, 0, 1));
    assert!(!world.is_on_record(run));
    assert_eq!(world.spawns(), []);
    let client = back(&mut world);
    assert_eq!(world.ask(client, get(id(run))).unwrap_err().kind, ErrorKind::NotFound);
    let call = world.create(client, params);
    let again = world.run(call);
    assert_eq!(world.intents(), [again]);
    world.recorded(again);
    world.spawned(again);
    assert_eq!(world.created(call).outcome, Outcome::Created);
}

#[test]
fn a_start_that_may_have_been_ends_as_unknown_and_is_cleaned_up() {
    for finding in [gone(ExitStatus::Unknown), Finding::Rebooted] {
        let (mut world, client) = World::with_client();
        let call = world.create(client, cleaned(named("a")));
        let run = world.run(call);
        world.recorded(run);
        world.crash(finding);
        let client = back(&mut world);
        assert_eq!(world.shown(client, run).exit.clone().unwrap().status, ExitStatus::Unknown);
        world.recorded(next(run));
        assert_eq!(world.spawns(), [next(run)]);
    }
}

#[test]
fn after_a_reboot_children_are_lost_and_cleaned_up_and_ended_ones_stay() {
    let (mut world, client) = World::with_client();
    let runs = [(); 4].map(|()| world.start(client, cleaned(unnamed())));
    let [ended, cleaning, stopping, live] = runs;
    world.ends(ended);
    world.begin_cleanup(next(ended));
    world.end_cleanup(next(ended), CLEAN);
    let before = world.ended(client, ended);
    world.exited(cleaning, ExitStatus::Code(4), Members::Nothing);
    world.begin_cleanup(next(cleaning));
    world.call(client, destroy(id(stopping)));
    world.advance(secs(12));
    let sent = world.shown(client, stopping).exit.clone();
    assert_eq!(sent, None);
    world.reboot(secs(600));
    assert_eq!(counts(&world), (0, 3, 0));
    assert_eq!(world.sent(), []);
    let client = back(&mut world);
    assert_eq!(world.ended(client, ended), before);
    for (run, status, reason, forced, attempts) in [
        (cleaning, ExitStatus::Code(4), ExitReason::Exited, false, 2),
        (stopping, ExitStatus::Unknown, ExitReason::BrokerLost, true, 1),
        (live, ExitStatus::Unknown, ExitReason::BrokerLost, false, 1),
    ] {
        let exit = world.shown(client, run).exit.clone().unwrap();
        assert_eq!((exit.status, exit.reason, exit.forced), (status, reason, forced));
        world.begin_cleanup(next(run));
        world.end_cleanup(next(run), CLEAN);
        assert_eq!(world.ended(client, run).cleanup, outcome(true, Some(CLEAN), attempts));
    }
    let steps = world.ended(client, stopping).exit.clone().unwrap().steps;
    let signals: Vec<_> = steps.iter().map(|step| step.signal).collect();
    assert_eq!(signals, [Signal::TERM, Signal::KILL]);
}

#[test]
fn a_child_whose_main_process_had_ended_before_a_reboot_keeps_how_and_when() {
    let (mut world, run) = running(named("a"));
    world.exited(run, ExitStatus::Code(4), Members::Group);
    let ended_at = world.wall();
    world.reboot(secs(600));
    let client = back(&mut world);
    let exit = world.ended(client, run).exit.clone().unwrap();
    assert_eq!((exit.status, exit.reason, exit.at), (ExitStatus::Code(4), ExitReason::BrokerLost, ended_at));
}

#[test]
fn limits_counts_and_owners_are_kept() {
    let mut world = World::with(|config| config.bounds.max_children_per_user = 2);
    let alice = world.connect(ALICE);
    let runs = [world.start(alice, under_limit("k", 1)), world.start(alice, labelled("pool", "a"))];
    world.crash_with(|id, _| alive(Run { child: id, ..runs[0] }));
    let (alice, bob, root) = (world.connect(ALICE), world.connect(BOB), world.connect(BROKER_UID));
    for (client, params) in [(alice, unnamed()), (bob, under_limit("k", 1))] {
        let call = world.create(client, params);
        assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    }
    let owner = world.shown(alice, runs[0]).owner;
    assert_eq!(owner, Owner { uid: ALICE, gid: ALICE });
    assert_eq!(world.ask(bob, get(id(runs[0]))).unwrap_err().kind, ErrorKind::NotFound);
    let found = world.call(alice, destroy(labels("pool", "a")));
    assert!(!world.is_answered(found));
    let Ok(Response::Status(shown)) = world.ask(root, status()) else { panic!("no status") };
    assert_eq!(shown.children, ChildCounts { running: 1, stopping: 1, ..ChildCounts::default() });
    world.ends(runs[0]);
    let call = world.create(bob, under_limit("k", 1));
    assert!(!world.is_answered(call));
}

#[test]
fn the_order_of_stops_is_kept() {
    let (mut world, _, runs) = world_of(&[(5, 5), (-1, 5)]);
    world.crash_with(|id, _| alive(Run { child: id, ..runs[0] }));
    world.term();
    assert_eq!(world.sent(), [term(runs[1])]);
    world.ends(runs[1]);
    assert_eq!(world.sent(), [term(runs[0])]);
}

#[test]
fn the_same_request_is_answered_with_the_same_child_by_the_next_broker() {
    let (mut world, client) = World::with_client();
    let holder = world.start(client, named("a"));
    let replaced = world.create(client, requested(replace("a"), 5));
    world.ends(holder);
    let run = world.run(replaced);
    world.recorded(run);
    world.spawned(run);
    let first = world.created(replaced);
    assert_eq!(first.outcome, Outcome::Replaced);
    for is_alive in [true, false, false] {
        let finding = if is_alive { alive(run) } else { gone(ExitStatus::Code(0)) };
        world.crash_with(|id, _| if id == run.child { finding } else { Finding::NeverStarted });
        let client = back(&mut world);
        let call = world.create(client, requested(replace("a"), 5));
        let again = world.created(call);
        assert_eq!((again.outcome, again.child.id), (first.outcome, first.child.id));
        let other = world.connect(ALICE);
        let call = world.create(other, requested(unnamed(), 5));
        assert!(!world.is_answered(call));
    }
}

#[test]
fn a_create_that_failed_is_not_remembered_by_the_next_broker() {
    use procbroker_protocol::create::ReadyTimeout;
    for is_over in [false, true] {
        let (mut world, client) = World::with_client();
        let params = CreateParams { ready_timeout: ReadyTimeout(secs(5)), ..requested(unnamed(), 5) };
        let call = world.create(client, params.clone());
        let run = world.run(call);
        world.recorded(run);
        world.advance(secs(5));
        assert_eq!(world.refused(call), ErrorKind::Timeout(None));
        world.spawned(run);
        if is_over {
            world.ends(run);
        }
        world.crash(alive(run));
        let client = back(&mut world);
        let call = world.create(client, params);
        assert!(!world.is_answered(call), "over: {is_over}");
        assert_eq!(world.intents().last(), Some(&world.run(call)));
    }
}

#[test]
fn a_create_that_failed_does_not_take_the_answer_from_its_repetition() {
    use procbroker_protocol::create::ReadyTimeout;
    let (mut world, client) = World::with_client();
    let params = CreateParams { ready_timeout: ReadyTimeout(secs(5)), ..requested(unnamed(), 5) };
    let failed = world.create(client, params.clone());
    let failed_run = world.run(failed);
    world.recorded(failed_run);
    world.advance(secs(5));
    let good = world.start(client, params.clone());
    world.ends(good);
    // It was so slow that it ends after the one that was started in its place.
    world.spawned(failed_run);
    world.ends(failed_run);
    world.crash(alive(failed_run));
    let client = back(&mut world);
    let call = world.create(client, params);
    assert_eq!(world.created(call).child.id, good.child);
}

#[test]
fn a_request_whose_second_child_has_failed_is_new_to_the_next_broker_whatever_became_of_the_first() {
    use procbroker_protocol::create::{Ready, ReadyTimeout};
    let (mut world, client) = World::with_client();
    let params = CreateParams {
        ready: Ready::Notify,
        ready_timeout: ReadyTimeout(secs(5)),
        ..requested(named("a"), 5)
    };
    let replaced = world.create(client, params.clone());
    let first = world.run(replaced);
    world.recorded(first);
    world.spawned(first);
    world.create(client, replace("a"));
    world.crash(gone(ExitStatus::Code(0)));
    let client = back(&mut world);
    let told = world.create(client, params.clone());
    assert_eq!(world.refused(told).as_str(), "start_failed");
    let failed = world.create(client, params.clone());
    let second = world.run(failed);
    world.recorded(second);
    world.spawned(second);
    world.advance(secs(5));
    assert_eq!(world.refused(failed), ErrorKind::Timeout(None));
    world.crash_with(|id, _| if id == second.child { alive(second) } else { gone(ExitStatus::Code(0)) });
    let client = back(&mut world);
    let again = world.create(client, params);
    let holder = Holder { id: second.child, state: ChildState::Stopping };
    assert_eq!(world.refused(again), ErrorKind::NameTaken(Some(holder)));
}

#[test]
fn ended_children_stay_visible_for_the_rest_of_their_time_and_go_in_the_order_of_their_ends() {
    let mut world = World::with(|config| config.bounds.ended_kept = 3);
    let client = world.connect(BROKER_UID);
    let runs = [(); 4].map(|()| world.start(client, unnamed()));
    for run in [runs[2], runs[0], runs[1]] {
        world.ends(run);
        world.advance(secs(600));
    }
    let shown = world.ended(client, runs[0]);
    world.jump(secs(100));
    world.crash_with(|id, _| alive(Run { child: id, ..runs[0] }));
    let client = back(&mut world);
    assert_eq!(world.ended(client, runs[0]), shown);
    assert_eq!(counts(&world), (1, 0, 0));
    let forgotten = |world: &mut World| -> Vec<_> {
        let forget = |order| match order {
            Effect::Forget { child } => Some(child),
            _ => None,
        };
        world.take().into_iter().filter_map(forget).collect()
    };
    assert_eq!(forgotten(&mut world), []);
    // An hour after its end, 1,900 seconds of which are over.
    world.advance(Duration::from_millis(1_699_999));
    assert_eq!(forgotten(&mut world), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(forgotten(&mut world), [runs[2].child]);
    world.ends(runs[3]);
    let last = world.start(client, unnamed());
    world.ends(last);
    assert_eq!(forgotten(&mut world), [runs[0].child]);
}

#[test]
fn the_name_of_an_ended_child_means_the_last_one_that_held_it() {
    let (mut world, client) = World::with_client();
    let runs = [(); 2].map(|()| {
        let run = world.start(client, named("a"));
        world.ends(run);
        world.advance(secs(1));
        run
    });
    world.crash(Finding::Rebooted);
    let client = back(&mut world);
    let call = world.call(client, get(name("a")));
    assert_eq!(world.child(call).id, runs[1].child);
    let live = world.start(client, named("a"));
    let call = world.call(client, get(name("a")));
    assert_eq!(world.child(call).id, live.child);
}

#[test]
fn an_end_that_lies_ahead_of_the_wall_clock_does_not_keep_a_child_for_longer() {
    let (mut world, run) = running(unnamed());
    world.ends(run);
    world.set_clock(-86_400);
    world.crash(Finding::Rebooted);
    world.advance(secs(3600));
    assert!(!world.is_on_record(run));
}

#[test]
fn a_shutdown_stops_and_cleans_up_what_was_taken_over() {
    let (mut world, _, runs) = world_of(&[(0, 5), (1, 5)]);
    world.crash_with(|id, _| alive(Run { child: id, ..runs[0] }));
    world.term();
    world.take();
    world.ends(runs[0]);
    assert_eq!(world.sent(), [term(runs[1])]);
    world.ends(runs[1]);
    sweep(&mut world);
    let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Running);
    world.crash(alive(attempt));
    world.term_again();
    world.exited(first(run), KILLED, Members::Nothing);
    world.begin_cleanup(next(first(run)));
    world.end_cleanup(next(first(run)), CLEAN);
    sweep(&mut world);
}
