//! The main command: started first, stopped first, its end is the broker's, and nobody else sees it.

use std::time::Duration;

use procbroker_core::{Effect, ExitCause, Input, MainExit, Members, Report};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::Scope;
use procbroker_protocol::status::ChildCounts;
use procbroker_protocol::{ErrorKind, ExitStatus, Response, Signal, Target};

use crate::world::*;

#[test]
fn it_is_on_record_before_it_is_started() {
    let mut world = World::of_main(apache());
    let main = main_run(1);
    assert!(world.wants_main(main));
    assert!(world.is_on_record(main));
    world.recorded(main);
    assert_eq!(world.spawns(), [main]);
    world.spawned(main);
    assert!(world.progress(main).is_some());
    assert_eq!(world.exit(), None);
}

#[test]
fn it_is_stopped_first_and_entirely_and_children_in_their_order_after_it() {
    let (mut world, client, main) = main_running();
    let later = world.start(client, of_order(7, by_term(3)));
    let earlier = world.start(client, of_order(i32::MIN, by_term(3)));
    world.term();
    assert_eq!(world.sent(), [winch(main)]);
    // Its main process is gone, and something of it is not: it is not over.
    world.exited(main, ExitStatus::Code(0), Members::Group);
    assert_eq!(world.sent(), []);
    world.left(main, Members::Nothing);
    assert_eq!(world.sent(), [term(earlier)]);
    world.ends(earlier);
    assert_eq!(world.sent(), [term(later)]);
    world.ends(later);
    exits_with(&mut world, MainExit::Status(ExitStatus::Code(0)));
}

#[test]
fn it_gets_its_steps_in_turn_and_then_it_is_killed() {
    let (mut world, client, main) = main_running();
    let child = world.start(client, stopped_by(by_term(3)));
    world.term();
    assert_eq!(world.sent(), [winch(main)]);
    world.advance(secs(8));
    assert_eq!(world.sent(), [term(main)]);
    world.advance(secs(4));
    assert_eq!(world.sent(), [Sent::Kill(main)]);
    world.exited(main, KILLED, Members::Nothing);
    assert_eq!(world.sent(), [term(child)]);
    world.ends(child);
    exits_with(&mut world, MainExit::Status(KILLED));
}

#[test]
fn its_force_is_told_and_counted_as_no_childs() {
    let (mut world, client, main) = main_running();
    let child = world.start(client, stopped_by(by_term(3)));
    let call = world.call(client, shutdown(None));
    world.advance(secs(12));
    world.exited(main, KILLED, Members::Nothing);
    let forced: Vec<_> = world
        .take()
        .into_iter()
        .filter_map(|order| match order {
            Effect::Report(Report::Forced { child }) => child.name.clone().map(|name| name.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(forced, ["main"]);
    world.ends(child);
    sweep(&mut world);
    let report = report_of(&world, call);
    assert_eq!((report.forced, report.children.len()), (0, 1));
    assert!(world.orders().contains(&Effect::Report(Report::ShutDown {
        children: 1,
        forced: 0,
        left: 0,
        took: secs(12)
    })));
}

#[test]
fn its_end_alone_ends_everything_and_how_it_ended_is_the_exit_cause() {
    for status in
        [ExitStatus::Code(0), ExitStatus::Code(7), ExitStatus::Signal(Signal::KILL), ExitStatus::Unknown]
    {
        let (mut world, client, main) = main_running();
        let child = world.start(client, stopped_by(by_term(3)));
        world.exited(main, status, Members::Nothing);
        assert!(is_shutting_down(world.orders()));
        assert_eq!(world.sent(), [term(child)]);
        let refused = world.create(client, unnamed());
        assert_eq!(world.refused(refused), ErrorKind::ShuttingDown);
        world.ends(child);
        exits_with(&mut world, MainExit::Status(status));
    }
}

#[test]
fn a_childs_end_is_not_the_brokers() {
    let (mut world, client, _) = main_running();
    let child = world.start(client, unnamed());
    world.ends(child);
    assert!(!is_shutting_down(&world.take()));
}

#[test]
fn what_it_leaves_behind_gets_its_steps_and_is_killed_before_children_are_stopped() {
    for members in SOMETHING {
        let (mut world, client, main) = main_running();
        let child = world.start(client, stopped_by(by_term(3)));
        world.exited(main, ExitStatus::Code(3), members);
        assert_eq!(world.sent(), [Sent::Signal(main, Signal::WINCH, Scope::All)]);
        world.advance(secs(8));
        assert_eq!(world.sent(), [Sent::Signal(main, Signal::TERM, Scope::All)]);
        world.advance(secs(4));
        assert_eq!(world.sent(), [Sent::Kill(main)]);
        world.left(main, Members::Nothing);
        assert_eq!(world.sent(), [term(child)]);
        world.ends(child);
        exits_with(&mut world, MainExit::Status(ExitStatus::Code(3)));
    }
}

#[test]
fn one_that_cannot_be_executed_ends_everything_with_the_reason() {
    for (errno, step, expected) in
        [(2, "exec", Some(2)), (13, "exec", Some(13)), (2, "cwd", None), (24, "stdin", None)]
    {
        let mut world = World::of_main(apache());
        let main = main_run(1);
        let client = world.connect(BROKER_UID);
        let child = world.start(client, stopped_by(by_term(3)));
        world.recorded(main);
        let failure = SpawnFailure { errno, errno_name: "E".to_owned(), step: step.to_owned() };
        world.give(Input::SpawnFailed { run: main, failure });
        let told = world.orders().iter().any(|order| match order {
            Effect::Report(Report::StartFailed { child, .. }) => child.id == main.child,
            _ => false,
        });
        assert!(told, "{step}");
        assert!(!world.is_on_record(main), "{step}");
        assert_eq!(world.sent(), [term(child)]);
        world.ends(child);
        exits_with(&mut world, MainExit::NotStarted { errno: expected });
    }
}

#[test]
fn one_that_cannot_be_recorded_is_not_started_and_the_reason_is_told() {
    let mut world = World::of_main(apache());
    let main = main_run(1);
    world.unrecorded(main);
    let message = world.orders().iter().find_map(|order| match order {
        Effect::Report(Report::StartFailed { message, .. }) => Some(message.clone()),
        _ => None,
    });
    assert!(message.unwrap().contains(&disk_full().message));
    assert!(!world.orders().iter().any(|order| matches!(order, Effect::Spawn { .. })));
    exits_with(&mut world, MainExit::NotStarted { errno: None });
}

#[test]
fn a_stop_before_it_is_started_starts_nothing() {
    // At its record, and at its turn.
    let mut world = World::of_main(apache());
    world.term();
    world.recorded(main_run(1));
    assert!(!world.orders().iter().any(|order| matches!(order, Effect::Spawn { .. })));
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_stop_while_it_is_started_reaches_it_as_soon_as_it_is_there() {
    let mut world = World::of_main(apache());
    let main = main_run(1);
    world.recorded(main);
    world.term();
    assert_eq!(world.sent(), []);
    world.spawned(main);
    assert_eq!(world.sent(), [winch(main)]);
    world.exited(main, ExitStatus::Code(0), Members::Nothing);
    exits_with(&mut world, MainExit::Status(ExitStatus::Code(0)));
}

#[test]
fn no_request_finds_it_or_reaches_it() {
    let (mut world, client, main) = main_running();
    for all in [false, true] {
        let call = world.call(client, list(all));
        assert_eq!(world.children(call), []);
    }
    for target in [id(main), name("main")] {
        for request in [
            get(target.clone()),
            destroy(target.clone()),
            signal(target.clone(), Signal::KILL),
            wait(target.clone(), procbroker_protocol::request::Until::Ended, None),
        ] {
            assert_eq!(world.ask(client, request).unwrap_err().kind, ErrorKind::NotFound);
        }
    }
    let call = world.call(client, destroy(Target::All));
    assert_eq!(world.children(call), []);
    let call = world.call(client, signal(Target::All, Signal::KILL));
    assert_eq!(world.children(call), []);
    assert_eq!(world.sent(), []);
    // A child may be called so.
    world.start(client, named("main"));
}

#[test]
fn it_counts_nowhere() {
    let mut world = World::of_main_with(apache(), |config| {
        config.bounds.max_children = 1;
        config.bounds.max_children_per_user = 1;
    });
    let main = main_run(1);
    let client = world.connect(BROKER_UID);
    let counts = |world: &mut World| match world.ask(client, status()) {
        Ok(Response::Status(status)) => status.children,
        other => panic!("{other:?}"),
    };
    assert_eq!(counts(&mut world), ChildCounts::default());
    world.start_main(main);
    assert_eq!(counts(&mut world), ChildCounts::default());
    world.start(client, unnamed());
    assert_eq!(counts(&mut world), ChildCounts { running: 1, ..ChildCounts::default() });
    let refused = world.create(client, unnamed());
    assert_eq!(world.refused(refused), ErrorKind::LimitExceeded);
    world.term();
    let told = world.take().into_iter().find_map(|order| match order {
        Effect::Report(Report::ShuttingDown { children, .. }) => Some(children),
        _ => None,
    });
    assert_eq!(told, Some(1));
    assert_eq!(counts(&mut world), ChildCounts { running: 1, ..ChildCounts::default() });
}

#[test]
fn no_event_tells_of_it() {
    let mut world = World::of_main(apache());
    let main = main_run(1);
    let client = world.connect(BROKER_UID);
    world.start_main(main);
    world.exited(main, ExitStatus::Code(0), Members::Group);
    world.left(main, Members::Nothing);
    assert_eq!(world.kinds_kept(client), [procbroker_protocol::EventKind::ShuttingDown]);
}

#[test]
fn a_broker_that_runs_it_is_never_idle() {
    let idle = |config: &mut procbroker_core::Config| config.exit_when_idle = Some(secs(5));
    let mut world = World::of_main_with(apache(), idle);
    world.start_main(main_run(1));
    assert_eq!(world.due_in(), None);
    world.advance(secs(60));
    assert!(!is_shutting_down(world.orders()));
}

#[test]
fn signals_are_passed_on_to_its_process_while_that_lives_and_to_nobody_else() {
    let pass_on = |world: &mut World, signal| world.give(Input::PassOn { signal });
    let mut world = World::of_main(apache());
    let main = main_run(1);
    let passed = [Signal::USR1, Signal::USR2, Signal::WINCH, Signal::QUIT];
    // Before it is there.
    pass_on(&mut world, Signal::USR1);
    world.recorded(main);
    pass_on(&mut world, Signal::USR1);
    assert_eq!(world.sent(), []);
    world.spawned(main);
    let client = world.connect(BROKER_UID);
    world.start(client, unnamed());
    for signal in passed {
        pass_on(&mut world, signal);
        assert_eq!(world.sent(), [Sent::Signal(main, signal, Scope::Main)]);
    }
    // It is asked to end, and is there still.
    world.term();
    world.take();
    pass_on(&mut world, Signal::USR1);
    assert_eq!(world.sent(), [Sent::Signal(main, Signal::USR1, Scope::Main)]);
    // Only what it has left behind is there.
    world.exited(main, ExitStatus::Code(0), Members::Group);
    world.take();
    pass_on(&mut world, Signal::USR1);
    assert_eq!(world.sent(), []);
    world.left(main, Members::Nothing);
    world.take();
    pass_on(&mut world, Signal::USR1);
    assert_eq!(world.sent(), []);
}

#[test]
fn a_broker_without_a_main_command_passes_nothing_on() {
    let (mut world, client) = World::with_client();
    world.start(client, unnamed());
    world.give(Input::PassOn { signal: Signal::USR1 });
    assert_eq!(world.sent(), []);
}

#[test]
fn the_second_signal_kills_it_and_the_children_at_once() {
    let (mut world, client, main) = main_running();
    let child = world.start(client, stopped_by(by_term(3)));
    world.term();
    assert_eq!(world.sent(), [winch(main)]);
    world.term_again();
    assert_eq!(world.sent(), [Sent::Kill(child), Sent::Kill(main)]);
    world.ends(child);
    world.exited(main, KILLED, Members::Nothing);
    exits_with(&mut world, MainExit::Status(KILLED));
}

#[test]
fn it_shares_the_deadline_with_the_children_after_it() {
    // 10 seconds, of which one is kept for the kill: 9 for 12 of the main command and 6 of the child.
    let mut world = World::of_main_with(apache(), |config| config.shutdown_timeout = secs(10));
    let main = main_run(1);
    world.start_main(main);
    let client = world.connect(BROKER_UID);
    let child = world.start(client, stopped_by(by_term(6)));
    world.term();
    assert_eq!(world.sent(), [winch(main)]);
    // Nobody asks for more than there is: 9 and 6, so that 9 * 9 / 15 are the main command's.
    let share = Duration::from_millis(5_400);
    world.advance(share);
    let sent = world.sent();
    assert_eq!(sent, [term(main), Sent::Kill(main)]);
    world.exited(main, KILLED, Members::Nothing);
    assert_eq!(world.sent(), [term(child)]);
    world.advance(Duration::from_millis(3_600));
    assert_eq!(world.sent().first(), Some(&Sent::Kill(child)));
    world.ends(child);
    exits_with(&mut world, MainExit::Status(KILLED));
}

#[test]
fn it_leaves_a_third_of_the_time_to_another_user_and_no_more_whatever_that_one_has() {
    // Nine seconds are shared out, of 12 that the main command would like. A child of its own user gets in proportion.
    for (orders, grace, share) in [(1, 2, 7_000), (1, 3, 6_000), (1, 60, 6_000), (40, 60, 6_000)] {
        let mut world = World::of_main_with(apache(), |config| config.shutdown_timeout = secs(10));
        let main = main_run(1);
        world.start_main(main);
        let other = world.connect(ALICE);
        for order in 0..orders {
            world.start(other, of_order(order, by_term(grace)));
        }
        world.term();
        assert_eq!(world.sent(), [winch(main)]);
        world.advance(Duration::from_millis(share - 1));
        assert_eq!(world.sent(), [term(main)], "{orders} {grace}");
        world.advance(Duration::from_millis(1));
        assert_eq!(world.sent(), [Sent::Kill(main)], "{orders} {grace}");
    }
}

#[test]
fn one_that_cannot_be_killed_does_not_outlast_the_deadline() {
    let (mut world, _, _) = main_running();
    world.term();
    world.advance(secs(30));
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
}
