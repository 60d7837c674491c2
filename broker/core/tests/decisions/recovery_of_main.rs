//! What the next broker makes of a main command that it finds: another one goes first, its own goes on.

use procbroker_core::{
    Departure, Effect, ExitCause, Finding, HandedOver, Input, MainExit, Members, Progress, Record, Recovered,
    Run, Runs,
};
use procbroker_protocol::request::Scope;
use procbroker_protocol::{ExitStatus, Signal};

use crate::world::*;

#[test]
fn that_of_a_broker_that_was_killed_is_stopped_before_the_next_is_started() {
    let (mut world, client, old) = main_running();
    let child = world.start(client, named("a"));
    let new = main_run(2);
    world.next_main(2, unnamed());
    world.crash_with(|id, _| alive(Run { child: id, ..old }));
    assert!(!world.orders().iter().any(|order| matches!(order, Effect::Record { run, .. } if *run == new)));
    // By its own steps, not by those of the next one; the child goes on.
    assert_eq!(world.sent(), [winch(old)]);
    let client = world.connect(BROKER_UID);
    world.start(client, unnamed());
    world.advance(secs(8));
    assert_eq!(world.sent(), [term(old)]);
    // A signal is meant for the new one, which is not there.
    world.give(Input::PassOn { signal: Signal::USR1 });
    assert_eq!(world.sent(), []);
    world.exited(old, ExitStatus::Code(9), Members::Outside);
    assert!(!world.wants_main(new));
    world.left(old, Members::Nothing);
    assert!(world.wants_main(new));
    assert!(!world.is_on_record(old));
    world.start_main(new);
    assert_eq!(world.shown(client, child).pid, Some(pid_of(child).get()));
    world.term();
    assert_eq!(world.sent(), [term(new)]);
}

#[test]
fn what_is_left_of_it_after_a_crash_goes_first_too() {
    for members in SOMETHING {
        let (mut world, _, old) = main_running();
        world.next_main(2, unnamed());
        world.crash(left_behind(members));
        assert_eq!(world.sent(), [Sent::Signal(old, Signal::WINCH, Scope::All)]);
        world.left(old, Members::Nothing);
        assert!(world.wants_main(main_run(2)));
    }
}

#[test]
fn one_that_is_gone_after_a_crash_is_not_waited_for() {
    for finding in [gone(ExitStatus::Code(3)), gone(ExitStatus::Unknown), Finding::Rebooted] {
        let (mut world, _, old) = main_running();
        world.next_main(2, unnamed());
        world.crash(finding);
        assert!(!is_shutting_down(world.orders()), "{finding:?}");
        assert!(world.wants_main(main_run(2)), "{finding:?}");
        assert!(!world.is_on_record(old), "{finding:?}");
    }
}

#[test]
fn one_that_was_about_to_be_started_at_a_crash_is_found_or_forgotten() {
    for finding in [alive(main_run(1)), Finding::NeverStarted] {
        let mut world = World::of_main(apache());
        world.recorded(main_run(1));
        world.next_main(2, unnamed());
        world.crash(finding);
        if finding != Finding::NeverStarted {
            assert_eq!(world.sent(), [winch(main_run(1))]);
            world.ends(main_run(1));
        }
        assert!(world.wants_main(main_run(2)));
        assert!(!world.is_on_record(main_run(1)));
    }
}

#[test]
fn a_stop_of_it_that_a_crash_interrupts_goes_on_and_the_next_waits_for_it() {
    let (mut world, _, old) = main_running();
    world.term();
    world.advance(secs(3));
    world.next_main(2, unnamed());
    world.crash(alive(old));
    // Its first signal has been sent, and five of its seconds are left.
    assert_eq!(world.sent(), []);
    world.advance(secs(5));
    assert_eq!(world.sent(), [term(old)]);
    world.advance(secs(4));
    assert_eq!(world.sent(), [Sent::Kill(old)]);
    world.exited(old, KILLED, Members::Nothing);
    assert!(world.wants_main(main_run(2)));
    assert_eq!(world.exit(), None);
}

#[test]
fn one_that_had_ended_at_a_crash_leaves_no_trace() {
    let mut world = World::of_main_with(apache(), |config| config.bounds.ended_kept = 1);
    let old = main_run(1);
    world.start_main(old);
    let client = world.connect(BROKER_UID);
    let child = world.start(client, unnamed());
    world.ends(child);
    world.advance(secs(1));
    // That it is to be forgotten is not written any more.
    let before = world.may_be_kept(alive(old));
    world.exited(old, ExitStatus::Code(0), Members::Nothing);
    let ended = before.end() + 1;
    world.next_main(2, unnamed());
    world.crash_at(ended, Finding::NeverStarted);
    assert!(!world.is_on_record(old));
    assert!(world.wants_main(main_run(2)));
    // It does not take the place of a child that has ended.
    let client = world.connect(BROKER_UID);
    world.ended(client, child);
}

/// A main command as a later broker finds it on record, and its process alive.
fn found(of_broker: u32) -> Recovered {
    let mut world = World::new();
    world.next_main(of_broker, apache());
    world.recover(Vec::new());
    let intent = world.take().into_iter().find_map(|order| match order {
        Effect::Record { record: Record::Intent(intent), .. } => {
            Some(procbroker_core::Intent::clone(&intent))
        }
        _ => None,
    });
    let progress = Some(Progress::Running {
        started_at: world.wall(),
        runs: Runs::default(),
        departure: Departure::default(),
    });
    Recovered {
        intent: intent.unwrap(),
        progress,
        finding: alive(main_run(of_broker)),
        probe: Members::Nothing,
        out_of_memory: false,
        handed_over: HandedOver::default(),
    }
}

#[test]
fn several_of_them_are_all_gone_before_the_next_is_started() {
    let (first, second) = (main_run(1), main_run(2));
    let mut world = World::new();
    world.next_main(3, unnamed());
    world.recover(vec![found(1), found(2)]);
    assert_eq!(world.sent(), [winch(first), winch(second)]);
    world.ends(first);
    assert!(!world.wants_main(main_run(3)));
    world.ends(second);
    assert!(world.wants_main(main_run(3)));
}

#[test]
fn a_stop_while_the_old_one_is_waited_for_starts_no_new_one() {
    let (mut world, _, old) = main_running();
    world.next_main(2, unnamed());
    world.crash(alive(old));
    world.term();
    world.take();
    world.ends(old);
    let orders = world.take();
    assert!(!orders.iter().any(|order| matches!(order, Effect::Record { run, .. } if *run == main_run(2))));
    assert!(orders.contains(&Effect::Sweep));
    world.give(Input::Swept { left: 0 });
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_broker_without_one_stops_that_of_an_earlier_broker_and_goes_on() {
    let (mut world, client, old) = main_running();
    let child = world.start(client, unnamed());
    world.no_next_main();
    world.crash_with(|id, _| alive(Run { child: id, ..old }));
    assert_eq!(world.sent(), [winch(old)]);
    world.ends(old);
    assert!(!is_shutting_down(&world.take()));
    let client = world.connect(BROKER_UID);
    assert_eq!(world.shown(client, child).pid, Some(pid_of(child).get()));
}

#[test]
fn after_an_upgrade_it_goes_on_as_the_main_command() {
    let (mut world, client, main) = main_running();
    let child = world.start(client, stopped_by(by_term(3)));
    // The new program would call its own by another id.
    world.next_main(2, unnamed());
    world.crash_with(|id, _| own(Run { child: id, ..main }));
    assert_eq!(world.sent(), []);
    assert_eq!(world.exit(), None);
    world.give(Input::PassOn { signal: Signal::USR1 });
    assert_eq!(world.sent(), [Sent::Signal(main, Signal::USR1, Scope::Main)]);
    world.exited(main, ExitStatus::Code(5), Members::Nothing);
    assert_eq!(world.sent(), [term(child)]);
    world.ends(child);
    exits_with(&mut world, MainExit::Status(ExitStatus::Code(5)));
}

#[test]
fn an_upgrade_while_the_old_one_is_waited_for_goes_on_waiting() {
    let (mut world, _, old) = main_running();
    world.next_main(2, unnamed());
    world.crash(alive(old));
    world.take();
    world.next_main(3, unnamed());
    world.crash(alive(old));
    assert_eq!(world.sent(), []);
    world.ends(old);
    assert!(world.wants_main(main_run(3)));
}
