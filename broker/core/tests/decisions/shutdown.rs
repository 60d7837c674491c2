//! The shutdown: how it begins and ends, and what becomes of everything that is open.

use std::time::Duration;

use procbroker_core::{Effect, ExitCause, Input, Members, Report, ServiceState};
use procbroker_protocol::request::{DestroyParams, Until};
use procbroker_protocol::{
    ChildState, ErrorKind, ExitReason, ExitStatus, Outcome, Request, Response, Signal,
};

use crate::world::*;

#[test]
fn a_broker_without_children_sweeps_and_exits() {
    let mut world = World::new();
    world.term();
    let stopping = ServiceState::Stopping { timeout: secs(30), children: 0 };
    let orders = world.take();
    assert!(orders.contains(&Effect::Notify(stopping)));
    assert!(orders.contains(&Effect::Report(Report::ShuttingDown { children: 0, timeout: secs(30) })));
    assert_eq!(orders.last(), Some(&Effect::Sweep));
    assert_eq!(world.exit(), None);
    world.give(Input::Swept { left: 0 });
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn what_the_sweep_could_not_end_is_told_at_the_exit() {
    let mut world = World::new();
    world.term();
    world.give(Input::Swept { left: 2 });
    assert_eq!(world.exit(), Some(ExitCause::Left(2)));
}

#[test]
fn a_sweep_that_does_not_come_back_ends_with_the_deadline() {
    let mut world = World::new();
    world.term();
    world.advance(Duration::from_millis(29_999));
    assert_eq!(world.exit(), None);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
}

#[test]
fn after_the_exit_nothing_is_decided_any_more() {
    let (mut world, client, runs) = world_of(&[(0, 5)]);
    world.term();
    world.advance(secs(30));
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
    assert_eq!(world.due_in(), None);
    world.take();
    world.ends(runs[0]);
    world.term_again();
    world.call(client, status());
    assert_eq!(world.take(), []);
}

#[test]
fn a_fact_that_comes_with_the_deadline_orders_nothing_after_the_exit() {
    let (mut world, client, runs) = world_of(&[(0, 5)]);
    world.term();
    world.advance(Duration::from_millis(29_999));
    world.jump(Duration::from_millis(1));
    let call = world.call(client, status());
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
    assert!(!world.is_answered(call));
    world.ends(runs[0]);
}

#[test]
fn a_clock_that_has_run_far_past_the_deadline_orders_nothing_after_the_exit() {
    let mut world = World::with(|config| config.bounds.ended_kept_for = secs(33));
    let client = world.connect(BROKER_UID);
    let over = world.start(client, unnamed());
    world.ends(over);
    world.start(client, stopped_by(by_term(5)));
    world.call(client, status());
    world.term();
    world.jump(secs(35));
    world.give(Input::Due);
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
    assert_eq!(world.due_in(), None);
}

#[test]
fn creates_are_refused_and_the_rest_is_answered() {
    let (mut world, client, runs) = world_of(&[(0, 5)]);
    world.term();
    for params in [unnamed(), named("a"), reuse("a"), replace("a")] {
        let call = world.create(client, params);
        assert_eq!(world.refused(call), ErrorKind::ShuttingDown);
    }
    assert_eq!(world.shown(client, runs[0]).state, ChildState::Stopping);
    let Ok(Response::Status(shown)) = world.ask(client, status()) else { panic!("no status") };
    assert!(shown.shutting_down);
    let waiting = world.call(client, wait(id(runs[0]), Until::Ended, None));
    let destroying = world.call(client, destroy(id(runs[0])));
    let signal = world.call(client, signal(id(runs[0]), Signal::HUP));
    world.signalled(runs[0], signal, procbroker_core::SignalOutcome::Delivered);
    assert_eq!(world.children(signal).len(), 1);
    world.ends(runs[0]);
    assert_eq!(world.child(waiting).exit.clone().unwrap().reason, ExitReason::Shutdown);
    assert_eq!(world.children(destroying).len(), 1);
}

#[test]
fn a_reuse_of_a_live_child_is_refused_too() {
    let (mut world, client) = World::with_client();
    world.start(client, named("a"));
    world.term();
    let call = world.create(client, reuse("a"));
    assert_eq!(world.refused(call), ErrorKind::ShuttingDown);
}

#[test]
fn creates_that_wait_for_a_name_are_refused_when_the_shutdown_begins() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let queued = [world.create(client, replace("a")), world.create(client, reuse("a"))];
    world.term();
    for call in queued {
        assert_eq!(world.refused(call), ErrorKind::ShuttingDown);
    }
    world.ends(run);
    assert_eq!(world.intents(), []);
}

#[test]
fn a_child_that_is_being_recorded_is_never_started() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, named("a"));
    let run = world.run(call);
    let asked = world.call(client, shutdown(None));
    world.recorded(run);
    assert_eq!(world.refused(call), ErrorKind::ShuttingDown);
    let orders = world.take();
    assert!(!orders.iter().any(|order| matches!(order, Effect::Spawn { .. })));
    assert!(orders.contains(&Effect::Sweep));
    world.give(Input::Swept { left: 0 });
    assert_eq!(report_of(&world, asked).children, []);
}

#[test]
fn a_spawn_in_flight_is_waited_for_and_stopped() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, named("a"));
    let run = world.run(call);
    world.recorded(run);
    world.term();
    assert!(!world.take().contains(&Effect::Sweep));
    world.spawned(run);
    assert_eq!(world.created(call).outcome, Outcome::Created);
    assert_eq!(world.sent(), [term(run)]);
    world.ends(run);
    sweep(&mut world);
}

#[test]
fn the_answer_to_a_shutdown_is_its_report() {
    let (mut world, client, runs) = world_of(&[(0, 5), (1, 5)]);
    let calls = [world.call(client, shutdown(None)), world.call(client, shutdown(None))];
    world.advance(secs(5));
    world.exited(runs[0], ExitStatus::Signal(Signal::KILL), Members::Nothing);
    world.advance(secs(1));
    world.exited(runs[1], ExitStatus::Code(0), Members::Nothing);
    let late = world.call(client, shutdown(None));
    let forced = |order: &Effect| matches!(order, Effect::Report(Report::Forced { .. }));
    assert_eq!(world.take().iter().filter(|order| forced(order)).count(), 1);
    world.give(Input::Swept { left: 0 });
    let summary = Report::ShutDown { children: 2, forced: 1, left: 0, took: secs(6) };
    assert_eq!(world.take(), [Effect::Report(summary)]);
    for call in [calls[0], calls[1], late] {
        let report = report_of(&world, call);
        assert_eq!((report.forced, report.took), (1, secs(6)));
        let ids: Vec<_> = report.children.iter().map(|child| child.id).collect();
        assert_eq!(ids, [runs[0].child, runs[1].child]);
    }
}

#[test]
fn a_shutdown_goes_on_when_the_client_that_asked_for_it_is_gone() {
    let (mut world, client, runs) = world_of(&[(0, 5)]);
    world.call(client, shutdown(None));
    world.give(Input::Disconnected { connection: client });
    world.ends(runs[0]);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_destroy_without_waiting_does_not_leave_the_shutdown_behind() {
    let (mut world, client, runs) = world_of(&[(0, 5)]);
    let params = DestroyParams { target: id(runs[0]), stop: None, no_wait: true };
    world.call(client, Request::Destroy(params));
    world.term();
    assert!(!world.take().contains(&Effect::Sweep));
    world.ends(runs[0]);
    sweep(&mut world);
}

#[test]
fn what_descends_from_the_broker_is_ended_before_the_deadline_even_if_a_child_is_not() {
    let (mut world, client, runs) = world_of(&[(0, 5), (0, 5)]);
    world.term();
    // A second is kept for the last kill, and half of it for what the sweep kills.
    world.advance(Duration::from_millis(29_499));
    assert!(!world.take().contains(&Effect::Sweep));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.take(), [Effect::Sweep]);
    world.ends(runs[0]);
    world.give(Input::Swept { left: 1 });
    assert_eq!(world.exit(), None);
    assert_eq!(world.shown(client, runs[1]).state, ChildState::Stopping);
    world.advance(Duration::from_millis(500));
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
}

#[test]
fn a_sweep_that_is_under_way_or_over_is_not_begun_again_when_the_last_child_has_ended() {
    for is_over in [false, true] {
        let (mut world, _, runs) = world_of(&[(0, 5)]);
        world.term();
        world.advance(Duration::from_millis(29_500));
        assert!(world.take().contains(&Effect::Sweep));
        if is_over {
            world.give(Input::Swept { left: 0 });
        }
        world.ends(runs[0]);
        assert!(!world.take().contains(&Effect::Sweep));
        if !is_over {
            assert_eq!(world.exit(), None);
            world.give(Input::Swept { left: 0 });
        }
        assert_eq!(world.exit(), Some(ExitCause::Done));
    }
}
