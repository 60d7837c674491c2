//! Readiness and the watchdog: what a child tells of itself, and what follows when it does not.

use std::time::Duration;

use procbroker_core::{Effect, Finding, Incarnation, Input, LastWords, Members, Notice, Run};
use procbroker_protocol::create::{Check, Ready, ReadyTimeout, StandardError, StandardOutput};
use procbroker_protocol::request::{LogStream, Scope, Until};
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, EventKind, ExitReason, ExitStatus, Outcome, Signal,
};

use crate::world::*;

fn notifying() -> CreateParams {
    CreateParams { ready: Ready::Notify, ..named("a") }
}

fn watched(period: u64) -> CreateParams {
    CreateParams { watchdog: Some(secs(period)), stop: vec![step(Signal::TERM, 3)], ..notifying() }
}

fn tell(world: &mut World, run: Run, notice: Notice) {
    world.give(Input::Notified { run, notices: vec![notice] });
}

/// A child that is spawned and not ready, and the request for it.
fn starting(
    world: &mut World,
    client: procbroker_core::ConnectionId,
    params: CreateParams,
) -> (procbroker_core::Call, Run) {
    let call = world.create(client, params);
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    world.take();
    (call, run)
}

/// A child that is ready and has a watchdog.
fn guarded(period: u64) -> (World, procbroker_core::ConnectionId, Run) {
    let (mut world, client) = World::with_client();
    let (_, run) = starting(&mut world, client, watched(period));
    tell(&mut world, run, Notice::Ready);
    world.take();
    (world, client, run)
}

fn tails(world: &mut World) -> Vec<procbroker_core::Call> {
    let tail = |effect| if let Effect::ReadTail { call, .. } = effect { Some(call) } else { None };
    world.take().into_iter().filter_map(tail).collect()
}

#[test]
fn a_create_is_answered_when_the_child_says_that_it_is_ready() {
    let (mut world, client) = World::with_client();
    let (call, run) = starting(&mut world, client, notifying());
    let shown = world.shown(client, run);
    assert_eq!(shown.state, ChildState::Starting);
    assert!(shown.pid.is_some() && shown.started_at.is_some());
    assert!(!world.is_answered(call));
    tell(&mut world, run, Notice::Status("warm".to_owned()));
    assert!(!world.is_answered(call));
    tell(&mut world, run, Notice::Ready);
    let created = world.created(call);
    assert_eq!(created.child.state, ChildState::Running);
    assert_eq!(created.child.status_text.as_deref(), Some("warm"));
    assert_eq!(world.due_in(), None, "its time to get ready is over");
}

#[test]
fn with_no_wait_a_create_is_answered_as_soon_as_it_is_spawned() {
    let (mut world, client) = World::with_client();
    let params = CreateParams { no_wait: true, ..notifying() };
    let (call, run) = starting(&mut world, client, requested(params.clone(), 9));
    assert_eq!(world.created(call).child.state, ChildState::Starting);
    // It ends before it was ready: the create has been answered, and stays so.
    world.ends(run);
    let again = world.create(client, requested(params, 9));
    assert_eq!(world.created(again).child.id, run.child);
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::StartFailed);
}

#[test]
fn ready_is_an_event_of_its_own_after_started() {
    let (mut world, client) = World::with_client();
    world.subscribe(client, None);
    let call = world.create(client, notifying());
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(world.kinds(client), [EventKind::Created, EventKind::Started]);
    tell(&mut world, run, Notice::Ready);
    tell(&mut world, run, Notice::Ready);
    assert_eq!(world.kinds(client), [EventKind::Ready]);
}

#[test]
fn reuses_and_waits_go_on_when_it_is_ready() {
    let (mut world, client) = World::with_client();
    let (_, run) = starting(&mut world, client, notifying());
    let reuse = world.create(client, CreateParams { ready: Ready::Notify, ..reuse("a") });
    let hasty = world
        .create(client, CreateParams { ready: Ready::Notify, no_wait: true, ..super::world::reuse("a") });
    let wait = world.call(client, wait(id(run), Until::Ready, None));
    assert!(!world.is_answered(reuse) && !world.is_answered(wait));
    assert_eq!(world.created(hasty).child.state, ChildState::Starting);
    tell(&mut world, run, Notice::Ready);
    assert_eq!(world.created(reuse).outcome, Outcome::Existing { same_spec: true });
    assert_eq!(world.child(wait).state, ChildState::Running);
}

#[test]
fn one_that_is_not_ready_in_time_is_stopped_and_its_create_fails() {
    let (mut world, client) = World::with_client();
    let params = CreateParams { ready_timeout: ReadyTimeout(secs(5)), ..notifying() };
    let call = world.create(client, params);
    let run = world.run(call);
    world.recorded(run);
    world.advance(secs(2));
    world.spawned(run);
    world.take();
    assert_eq!(world.due_in(), Some(secs(3)), "what comes before counts too");
    world.advance(secs(3));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
    // A word that comes too late is no use.
    tell(&mut world, run, Notice::Ready);
    assert_eq!(world.shown(client, run).state, ChildState::Stopping);
    world.ends(run);
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::StartFailed);
    assert_eq!(tails(&mut world), [], "it has been told already");
}

#[test]
fn a_child_may_ask_for_more_time_to_get_ready_and_never_for_less() {
    let (mut world, client) = World::with_client();
    let (call, run) = starting(&mut world, client, notifying());
    tell(&mut world, run, Notice::MoreTime(secs(10)));
    assert_eq!(world.due_in(), Some(secs(30)));
    world.advance(secs(25));
    tell(&mut world, run, Notice::MoreTime(secs(60)));
    world.advance(secs(59));
    assert!(!world.is_answered(call));
    world.advance(secs(1));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
}

#[test]
fn a_child_may_ask_for_more_time_to_end() {
    let (mut world, client, run) = guarded(100);
    world.call(client, destroy(id(run)));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
    world.advance(secs(2));
    tell(&mut world, run, Notice::MoreTime(secs(8)));
    world.advance(secs(7));
    assert_eq!(world.sent(), []);
    world.advance(secs(1));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
}

#[test]
fn one_that_ends_before_it_is_ready_is_told_with_its_exit_and_its_last_words() {
    let (mut world, client) = World::with_client();
    let (call, run) = starting(&mut world, client, requested(notifying(), 5));
    world.exited(run, ExitStatus::Code(3), Members::Nothing);
    assert!(!world.is_answered(call), "its output is read first");
    let orders = world.take();
    let kept_in = LastWords::In(LogStream::Stdout);
    let tail = Effect::ReadTail { call, child: run.child, kept_in, user: BROKER_UID };
    assert!(orders.contains(&tail), "{orders:?}");
    // Its name is free already, and the same request may start another one.
    let next = world.create(client, requested(notifying(), 5));
    let other = world.run(next);
    assert_eq!(world.intents(), [other]);
    world.give(Input::TailRead { call, tail: "no such table\n".to_owned() });
    let error = world.answer(call).unwrap_err();
    let ErrorKind::StartFailed { exit, log_tail } = error.kind else { panic!("{error:?}") };
    assert_eq!((exit.status, exit.reason), (ExitStatus::Code(3), ExitReason::StartFailed));
    assert_eq!(log_tail, "no such table\n");
    world.give(Input::TailRead { call, tail: "again".to_owned() });
}

#[test]
fn what_a_failed_start_leaves_behind_gets_its_steps() {
    let (mut world, client) = World::with_client();
    let (_, run) = starting(&mut world, client, notifying());
    world.exited(run, ExitStatus::Code(0), Members::Outside);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::All)]);
    world.advance(secs(10));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
}

#[test]
fn one_that_is_destroyed_before_it_is_ready_tells_so() {
    let (mut world, client) = World::with_client();
    let (call, run) = starting(&mut world, client, notifying());
    let wait = world.call(client, wait(id(run), Until::Ready, None));
    world.call(client, destroy(id(run)));
    assert!(!world.is_answered(call) && !world.is_answered(wait));
    world.ends(run);
    assert_eq!(world.child(wait).state, ChildState::Ended);
    world.give(Input::TailRead { call, tail: String::new() });
    let ErrorKind::StartFailed { exit, .. } = world.refused(call) else { panic!("{:?}", world.answer(call)) };
    assert_eq!(exit.reason, ExitReason::Destroyed);
}

#[test]
fn a_shutdown_answers_a_create_whose_child_was_not_ready_without_reading() {
    let (mut world, client) = World::with_client();
    let (call, run) = starting(&mut world, client, notifying());
    world.term();
    world.ends(run);
    let ErrorKind::StartFailed { exit, .. } = world.refused(call) else { panic!("{:?}", world.answer(call)) };
    assert_eq!(exit.reason, ExitReason::Shutdown);
}

#[test]
fn the_last_words_are_looked_for_in_every_stream_that_is_kept() {
    for (stdout, stderr, expected) in [
        (StandardOutput::Log, StandardError::Stdout, LastWords::In(LogStream::Stdout)),
        (StandardOutput::Log, StandardError::Null, LastWords::In(LogStream::Stdout)),
        (StandardOutput::Null, StandardError::Log, LastWords::In(LogStream::Stderr)),
        (StandardOutput::Log, StandardError::Log, LastWords::InBoth),
    ] {
        let (mut world, client) = World::with_client();
        let params = CreateParams { stdout, stderr, ..notifying() };
        let (_, run) = starting(&mut world, client, params);
        world.exited(run, FAILED, Members::Nothing);
        let read = world.take().into_iter().find_map(|effect| match effect {
            Effect::ReadTail { kept_in, .. } => Some(kept_in),
            _ => None,
        });
        assert_eq!(read, Some(expected), "{stdout:?} {stderr:?}");
    }
}

#[test]
fn a_shutdown_answers_a_create_whose_childs_last_words_are_being_read() {
    let (mut world, client) = World::with_client();
    let (call, run) = starting(&mut world, client, notifying());
    world.ends(run);
    assert!(!world.is_answered(call));
    world.term();
    assert_eq!(world.refused(call).as_str(), "start_failed");
}

fn probes(world: &mut World) -> usize {
    world.take().iter().filter(|effect| matches!(effect, Effect::Probe { .. })).count()
}

#[test]
fn a_child_is_probed_one_question_at_a_time_with_pauses_that_double_until_it_is_ready() {
    let (mut world, client) = World::with_client();
    let ready = Check::Log("up".to_owned()).into();
    let call = world.create(client, CreateParams { ready, ..named("a") });
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    assert_eq!(probes(&mut world), 1, "the first question is asked at once");
    world.advance(secs(2));
    assert_eq!(probes(&mut world), 0, "the first one is not answered");
    for pause in [100, 200, 400, 800, 1_000, 1_000] {
        world.give(Input::Probed { run, is_ready: false });
        world.advance(Duration::from_millis(pause - 1));
        assert_eq!(probes(&mut world), 0, "{pause}");
        world.advance(Duration::from_millis(1));
        assert_eq!(probes(&mut world), 1, "{pause}");
    }
    let stale = Run { incarnation: Incarnation(2), ..run };
    world.give(Input::Probed { run: stale, is_ready: true });
    assert!(!world.is_answered(call));
    world.give(Input::Probed { run, is_ready: true });
    assert_eq!(world.created(call).child.state, ChildState::Running);
    assert_eq!(world.due_in(), None);
}

#[test]
fn a_child_that_is_never_found_ready_has_failed_in_time() {
    let (mut world, client) = World::with_client();
    let ready = Check::Log("up".to_owned()).into();
    let params = CreateParams { ready, ready_timeout: ReadyTimeout(secs(1)), ..named("a") };
    let (call, run) = starting(&mut world, client, params);
    world.give(Input::Probed { run, is_ready: false });
    world.advance(Duration::from_millis(100));
    world.advance(Duration::from_millis(900));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
    world.give(Input::Probed { run, is_ready: true });
    assert_eq!(world.shown(client, run).state, ChildState::Stopping);
}

#[test]
fn a_word_about_another_run_changes_nothing() {
    let (mut world, client) = World::with_client();
    let (call, run) = starting(&mut world, client, notifying());
    for number in [0, 2] {
        let other = Run { incarnation: Incarnation(number), ..run };
        tell(&mut world, other, Notice::Ready);
        tell(&mut world, other, Notice::Unwell);
    }
    assert!(!world.is_answered(call));
    assert_eq!(world.sent(), []);
}

#[test]
fn after_a_crash_a_child_goes_on_waiting_with_what_was_left_of_its_time() {
    let (mut world, client) = World::with_client();
    let (_, run) = starting(&mut world, client, requested(notifying(), 5));
    world.advance(secs(10));
    world.crash(alive(run));
    let client = world.connect(BROKER_UID);
    assert_eq!(world.shown(client, run).state, ChildState::Starting);
    let again = world.create(client, requested(notifying(), 5));
    assert_eq!(world.due_in(), Some(secs(20)));
    tell(&mut world, run, Notice::Ready);
    assert_eq!(world.created(again).child.id, run.child);
    assert_eq!(world.due_in(), None);
}

#[test]
fn after_a_crash_the_time_to_get_ready_is_over_when_it_was_to_be() {
    let (mut world, client) = World::with_client();
    let (_, run) = starting(&mut world, client, notifying());
    world.jump(secs(40));
    world.crash(alive(run));
    world.advance(Duration::ZERO);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
    let _ = client;
}

#[test]
fn one_that_died_with_no_broker_there_before_it_was_ready_has_failed_to_start() {
    let (mut world, client) = World::with_client();
    let (_, run) = starting(&mut world, client, requested(notifying(), 5));
    world.crash(Finding::Gone { status: ExitStatus::Code(1), members: Members::Nothing });
    let client_after = world.connect(BROKER_UID);
    assert_eq!(world.shown(client_after, run).exit.clone().unwrap().reason, ExitReason::StartFailed);
    let next = world.create(client_after, requested(notifying(), 5));
    assert_ne!(world.run(next), run);
    assert!(!world.is_answered(next));
    let _ = client;
}

#[test]
fn one_that_was_ready_stays_so_after_a_crash() {
    let (mut world, _, run) = guarded(10);
    world.advance(secs(4));
    world.crash(alive(run));
    let client = world.connect(BROKER_UID);
    assert_eq!(world.shown(client, run).state, ChildState::Running);
    assert_eq!(world.due_in(), Some(secs(10)), "the watchdog begins with a whole period");
}

#[test]
fn a_watchdog_that_is_not_fed_ends_the_child_with_a_trace_of_where_it_hung() {
    let (mut world, client, run) = guarded(10);
    world.advance(secs(6));
    tell(&mut world, run, Notice::Well);
    world.advance(secs(9));
    assert_eq!(world.sent(), []);
    world.advance(secs(1));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::ABRT, Scope::Group)]);
    world.advance(secs(3));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
    world.advance(secs(3));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    world.ends(run);
    let exit = world.shown(client, run).exit.clone().unwrap();
    assert_eq!((exit.reason, exit.forced), (ExitReason::Watchdog, true));
}

#[test]
fn a_watchdog_that_was_fed_while_the_broker_did_not_run_does_not_bite() {
    let (mut world, _, run) = guarded(10);
    // It has told so every four seconds, and nobody has read it.
    world.jump(secs(25));
    for _ in 0..3 {
        world.give_belated(Input::Notified { run, notices: vec![Notice::Well] });
    }
    world.advance(Duration::ZERO);
    assert_eq!(world.sent(), []);
    assert!(world.due_in().is_some_and(|due| due > Duration::ZERO && due <= secs(10)));
    // Who has not told anything has as much time for it as the broker did not run, and once.
    world.jump(secs(25));
    world.advance(Duration::ZERO);
    assert_eq!((world.sent(), world.due_in()), (vec![], Some(secs(10))));
    world.jump(secs(25));
    world.advance(Duration::ZERO);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::ABRT, Scope::Group)]);
}

#[test]
fn a_watchdog_gets_back_the_time_in_which_the_broker_did_not_run() {
    for (late, more) in [(Duration::from_millis(6), procbroker_core::WATCHDOG_LEFT_MIN), (secs(3), secs(3))] {
        let (mut world, _, run) = guarded(10);
        world.jump(secs(10) + late);
        world.advance(Duration::ZERO);
        assert_eq!((world.sent(), world.due_in()), (vec![], Some(more)), "late by {late:?}");
        tell(&mut world, run, Notice::Well);
        assert_eq!(world.due_in(), Some(secs(10)));
        world.jump(secs(10) + late);
        world.advance(more);
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::ABRT, Scope::Group)]);
    }
}

#[test]
fn a_watchdog_that_is_seen_to_in_time_is_not_put_off() {
    let (mut world, _, run) = guarded(10);
    world.jump(secs(10) + Duration::from_millis(5));
    world.advance(Duration::ZERO);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::ABRT, Scope::Group)]);
}

#[test]
fn a_word_that_the_broker_was_late_to_read_counts_now_whatever_else_was_due_before() {
    let (mut world, client, run) = guarded(10);
    let other = CreateParams {
        name: named("b").name,
        ready_timeout: ReadyTimeout(secs(5)),
        stop: vec![step(Signal::TERM, 300)],
        ..notifying()
    };
    let (_, other) = starting(&mut world, client, other);
    world.jump(secs(16));
    world.give_belated(Input::Notified { run, notices: vec![Notice::Well] });
    world.advance(Duration::ZERO);
    assert_eq!(world.sent(), [Sent::Signal(other, Signal::TERM, Scope::Group)]);
    assert_eq!(world.due_in(), Some(secs(10)));
}

#[test]
fn a_stop_that_begins_when_the_broker_runs_again_has_its_whole_grace() {
    let (mut world, client) = World::with_client();
    let watcher = CreateParams { ready_timeout: ReadyTimeout(secs(5)), ..notifying() };
    starting(&mut world, client, watcher);
    let stopped = world.start(client, CreateParams { stop: vec![step(Signal::TERM, 10)], ..named("b") });
    world.jump(secs(13));
    world.call_belated(client, destroy(id(stopped)));
    world.sent();
    world.advance(Duration::from_millis(9_999));
    assert!(!world.sent().contains(&Sent::Kill(stopped)));
    world.advance(Duration::from_millis(1));
    assert!(world.sent().contains(&Sent::Kill(stopped)));
}

#[test]
fn a_word_that_the_broker_was_late_to_read_is_in_time() {
    let (mut world, client) = World::with_client();
    let (call, run) =
        starting(&mut world, client, CreateParams { ready_timeout: ReadyTimeout(secs(5)), ..notifying() });
    world.jump(secs(6));
    world.give_belated(Input::Notified { run, notices: vec![Notice::Ready] });
    world.advance(Duration::ZERO);
    assert_eq!(world.created(call).child.state, ChildState::Running);
}

#[test]
fn a_watchdog_does_not_run_before_the_child_is_ready_nor_while_it_is_stopped() {
    let (mut world, client) = World::with_client();
    let (_, run) = starting(&mut world, client, watched(1));
    world.advance(secs(5));
    assert_eq!(world.sent(), []);
    tell(&mut world, run, Notice::Ready);
    world.call(client, destroy(id(run)));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::Group)]);
    world.advance(secs(2));
    assert_eq!(world.sent(), []);
    world.ends(run);
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::Destroyed);
}

#[test]
fn a_child_that_says_that_it_is_unwell_is_ended_at_once() {
    let (mut world, client, run) = guarded(10);
    tell(&mut world, run, Notice::Unwell);
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::ABRT, Scope::Group)]);
    world.ends(run);
    assert_eq!(world.shown(client, run).exit.clone().unwrap().reason, ExitReason::Watchdog);
}

#[test]
fn a_child_that_is_about_to_end_by_itself_is_not_watched() {
    let (mut world, _, run) = guarded(10);
    tell(&mut world, run, Notice::Stopping);
    assert_eq!(world.due_in(), None);
}

#[test]
fn a_child_that_is_about_to_end_by_itself_is_not_watched_by_a_later_broker_either() {
    for is_upgrade in [false, true] {
        let (mut world, _, run) = guarded(10);
        tell(&mut world, run, Notice::Stopping);
        for _ in 0..2 {
            if is_upgrade {
                world.upgrade_taking(secs(1));
            } else {
                world.crash(alive(run));
            }
            assert_eq!(world.due_in(), None, "{is_upgrade}");
        }
    }
}

#[test]
fn an_upgrade_gives_a_child_that_hangs_no_more_time() {
    let (mut world, _, run) = guarded(10);
    world.advance(secs(4));
    // While nobody listens, what it says waits.
    world.upgrade_taking(secs(3));
    assert_eq!(world.due_in(), Some(secs(6)));
    world.advance(secs(5));
    world.upgrade_taking(secs(3));
    assert_eq!(world.due_in(), Some(secs(1)));
    world.advance(Duration::from_millis(999));
    assert_eq!(world.sent(), []);
    world.upgrade_taking(secs(3));
    assert_eq!(world.due_in(), Some(procbroker_core::WATCHDOG_LEFT_MIN));
    world.advance(procbroker_core::WATCHDOG_LEFT_MIN);
    assert_eq!(world.sent(), [Sent::Signal(first(run), Signal::ABRT, Scope::Group)]);
}

#[test]
fn what_a_child_says_of_itself_outlives_an_upgrade_and_not_its_run() {
    let (mut world, client, run) = guarded(10);
    let text = |world: &mut World, client, run| world.shown(client, run).status_text.clone();
    tell(&mut world, run, Notice::Status("7 requests".to_owned()));
    assert_eq!(text(&mut world, client, run).as_deref(), Some("7 requests"));
    world.upgrade_taking(secs(1));
    let client = world.connect(BROKER_UID);
    assert_eq!(text(&mut world, client, run).as_deref(), Some("7 requests"));
    world.call(client, restart(id(run)));
    let run = first(run);
    world.exited(run, ExitStatus::Signal(Signal::TERM), Members::Nothing);
    let next = Run { incarnation: run.incarnation.next(), ..run };
    assert_eq!(text(&mut world, client, run).as_deref(), Some("7 requests"));
    world.recorded(next);
    world.spawned(next);
    assert_eq!(text(&mut world, client, run), None, "the next run has said nothing so far");
}
