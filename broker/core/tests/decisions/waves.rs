//! The order of a shutdown: one stop order after the other, the time shared out, and one deadline.

use std::time::Duration;

use procbroker_core::{ConnectionId, ExitCause, Input, Members, Notice, ShutdownCause};
use procbroker_protocol::request::{Scope, Until};
use procbroker_protocol::{ErrorKind, ExitReason, ExitStatus, Signal};

use crate::world::*;

#[test]
fn orders_are_stopped_one_after_the_other_and_each_one_entirely() {
    let (mut world, _, runs) = world_of(&[(5, 5), (-1, 5), (5, 5), (0, 5)]);
    world.term();
    assert_eq!(world.sent(), [term(runs[1])]);
    world.exited(runs[1], ExitStatus::Code(0), Members::Group);
    assert_eq!(world.sent(), []);
    world.left(runs[1], Members::Nothing);
    assert_eq!(world.sent(), [term(runs[3])]);
    world.ends(runs[3]);
    assert_eq!(world.sent(), [term(runs[0]), term(runs[2])]);
    world.ends(runs[2]);
    assert_eq!(world.exit(), None);
    world.ends(runs[0]);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn children_that_end_before_their_turn_hold_nothing_up() {
    let (mut world, _, runs) = world_of(&[(0, 5), (1, 5), (2, 5)]);
    world.term();
    world.ends(runs[1]);
    world.take();
    world.ends(runs[0]);
    assert_eq!(world.sent(), [term(runs[2])]);
    world.ends(runs[2]);
    sweep(&mut world);
}

#[test]
fn with_time_enough_every_child_has_its_own_grace() {
    let (mut world, client, runs) = world_of(&[(0, 10), (1, 10)]);
    world.term();
    world.advance(Duration::from_millis(9_999));
    assert_eq!(world.sent(), [term(runs[0])]);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(runs[0])]);
    world.ends(runs[0]);
    let exit = world.shown(client, runs[0]).exit.clone().unwrap();
    assert_eq!((exit.reason, exit.forced), (ExitReason::Shutdown, true));
    world.advance(Duration::from_millis(9_999));
    assert_eq!(world.sent(), [term(runs[1])]);
    world.ends(runs[1]);
    assert!(!world.shown(client, runs[1]).exit.clone().unwrap().forced);
}

#[test]
fn time_too_short_is_shared_out_in_proportion_and_every_step_is_sent() {
    let mut world = World::with(|config| config.shutdown_timeout = secs(31));
    let client = world.connect(BROKER_UID);
    let steps = vec![step(Signal::HUP, 15), step(Signal::TERM, 15)];
    let first = world.start(client, of_order(0, steps));
    let second = world.start(client, of_order(1, by_term(15)));
    world.term();
    // A second is kept for the last kill; 30 of 45 parts of the rest are the first one's.
    assert_eq!(world.sent(), [Sent::Signal(first, Signal::HUP, Scope::Group)]);
    world.advance(secs(10));
    assert_eq!(world.sent(), [term(first)]);
    world.advance(secs(10));
    assert_eq!(world.sent(), [Sent::Kill(first)]);
    world.ends(first);
    assert_eq!(world.sent(), [term(second)]);
    world.advance(Duration::from_millis(9_999));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(second)]);
    world.ends(second);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn the_steps_of_the_last_order_are_shortened_too() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(vec![step(Signal::HUP, 100), step(Signal::TERM, 100)]));
    world.term();
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Group)]);
    world.advance(Duration::from_millis(14_500));
    assert_eq!(world.sent(), [term(run)]);
    world.advance(Duration::from_millis(14_500));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
}

#[test]
fn a_destroy_with_endless_patience_is_cut_to_its_share() {
    for spawned in [true, false] {
        let (mut world, client) = World::with_client();
        let call = world.create(client, of_order(0, by_term(1)));
        let slow = world.run(call);
        world.recorded(slow);
        if spawned {
            world.spawned(slow);
        }
        let other = world.start(client, of_order(1, by_term(10)));
        world.call(client, destroy_by(id(slow), by_term(100_000)));
        world.term();
        if !spawned {
            world.spawned(slow);
        }
        world.take();
        // It gets 29 of 39 parts of 29 seconds: nobody gets more for asking for more than there is.
        world.advance(secs(22));
        assert!(world.sent().contains(&Sent::Kill(slow)), "spawned: {spawned}");
        world.ends(slow);
        assert!(world.sent().contains(&term(other)), "spawned: {spawned}");
    }
}

#[test]
fn a_destroy_during_the_shutdown_does_not_take_the_time_of_later_orders() {
    let (mut world, client, runs) = world_of(&[(0, 5), (1, 5), (2, 5)]);
    world.term();
    world.call(client, destroy_by(id(runs[1]), by_term(100)));
    world.ends(runs[0]);
    world.take();
    // It gets 29 of 34 parts of 29 seconds.
    world.advance(secs(25));
    assert!(world.sent().contains(&Sent::Kill(runs[1])));
    world.ends(runs[1]);
    assert!(world.sent().contains(&term(runs[2])));
}

#[test]
fn at_the_kill_reserve_everything_left_is_killed_in_every_order() {
    // The leader of the first order ends late, so that the time of the others is over.
    let (mut world, _, runs) = world_of(&[(0, 5), (1, 5)]);
    world.term();
    world.advance(Duration::from_millis(28_999));
    assert!(!world.sent().contains(&Sent::Kill(runs[1])));
    world.advance(Duration::from_millis(1));
    assert!(world.sent().contains(&Sent::Kill(runs[1])));
    world.ends(runs[1]);
    world.ends(runs[0]);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn the_kill_reserve_is_a_tenth_of_the_time_within_its_bounds() {
    for (timeout, kill_at) in [(60_000, 59_000), (5_000, 4_500), (2_000, 1_750), (300, 150)] {
        let mut world = World::with(|config| config.shutdown_timeout = Duration::from_millis(timeout));
        let client = world.connect(BROKER_UID);
        let run = world.start(client, stopped_by(by_term(100)));
        world.term();
        world.advance(Duration::from_millis(kill_at - 1));
        assert_eq!(world.sent(), [term(run)], "{timeout}");
        world.advance(Duration::from_millis(1));
        assert!(world.sent().contains(&Sent::Kill(run)), "{timeout}");
    }
}

#[test]
fn at_the_deadline_the_broker_exits_whatever_is_left() {
    let (mut world, client, runs) = world_of(&[(0, 5), (1, 5)]);
    let waiting = world.call(client, wait(id(runs[1]), Until::Ended, None));
    let destroying = world.call(client, destroy(id(runs[1])));
    let asked = world.call(client, shutdown(None));
    world.advance(Duration::from_millis(29_999));
    world.ends(runs[0]);
    assert_eq!(world.exit(), None);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.exit(), Some(ExitCause::Left(1)));
    assert_eq!(world.refused(waiting), ErrorKind::ShuttingDown);
    assert_eq!(world.refused(destroying), ErrorKind::ShuttingDown);
    let report = report_of(&world, asked);
    assert_eq!((report.children.len(), report.forced, report.took), (1, 1, secs(30)));
}

#[test]
fn a_second_signal_kills_everything_at_once() {
    let (mut world, client, runs) = world_of(&[(0, 5), (1, 5), (2, 5)]);
    world.call(client, destroy(id(runs[2])));
    world.term();
    world.take();
    world.term_again();
    assert_eq!(world.sent(), [Sent::Kill(runs[1]), Sent::Kill(runs[0]), Sent::Kill(runs[2])]);
    for run in &runs {
        world.ends(*run);
    }
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_second_signal_skips_the_steps_that_are_left() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(vec![step(Signal::HUP, 5), step(Signal::INT, 5)]));
    world.term();
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Group)]);
    world.term_again();
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    world.ends(run);
    let steps = world.shown(client, run).exit.clone().unwrap().steps;
    let signals: Vec<_> = steps.iter().map(|step| step.signal).collect();
    assert_eq!(signals, [Signal::HUP, Signal::KILL]);
}

#[test]
fn a_second_signal_kills_a_child_that_is_being_spawned_as_soon_as_it_is_there() {
    let (mut world, client) = World::with_client();
    let create = world.create(client, unnamed());
    let run = world.run(create);
    world.recorded(run);
    world.term();
    world.term_again();
    world.take();
    world.spawned(run);
    assert_eq!(world.sent().last(), Some(&Sent::Kill(run)));
}

#[test]
fn a_hangup_begins_a_shutdown_and_hurries_none() {
    let (mut world, _, runs) = world_of(&[(0, 5)]);
    world.hangup();
    assert_eq!(world.sent(), [term(runs[0])]);
    world.hangup();
    assert_eq!(world.take(), []);
}

#[test]
fn a_signal_leaves_a_shutdown_with_a_long_time_no_more_than_the_usual_one() {
    for hurries in [true, false] {
        let (mut world, client, runs) = world_of(&[(0, 300)]);
        world.call(client, shutdown(Some(secs(600))));
        assert_eq!(world.due_in(), Some(secs(300)));
        world.advance(secs(100));
        world.take();
        world.give(Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries } });
        assert_eq!(world.due_in(), Some(secs(29)), "all but a second of the thirty");
        world.advance(secs(10));
        world.give(Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries: false } });
        assert_eq!(world.sent(), []);
        world.advance(secs(19));
        assert!(world.sent().contains(&Sent::Kill(runs[0])));
        world.advance(secs(1));
        assert_eq!(world.exit(), Some(ExitCause::Left(1)));
    }
}

#[test]
fn a_shorter_time_tightens_a_shutdown_and_a_longer_one_does_not_stretch_it() {
    let causes: [fn(&mut World, ConnectionId, u64); 2] = [
        |world, client, seconds| {
            world.call(client, shutdown(Some(secs(seconds))));
        },
        |world, _, seconds| {
            let cause = ShutdownCause::Limited { timeout: secs(seconds) };
            world.give(Input::ShutdownAsked { cause });
        },
    ];
    for cause in causes {
        let (mut world, client, runs) = world_of(&[(0, 8), (1, 4)]);
        world.term();
        world.take();
        cause(&mut world, client, 300);
        assert_eq!(world.due_in(), Some(secs(8)));
        cause(&mut world, client, 10);
        cause(&mut world, client, 300);
        // Of nine seconds the first order has 8 of 12 parts.
        world.advance(Duration::from_millis(5_999));
        assert_eq!(world.sent(), []);
        world.advance(Duration::from_millis(1));
        assert_eq!(world.sent(), [Sent::Kill(runs[0])]);
        world.ends(runs[0]);
        assert_eq!(world.sent(), [term(runs[1])]);
        world.advance(secs(4));
        assert_eq!(world.exit(), Some(ExitCause::Left(1)));
    }
}

#[test]
fn a_second_signal_counts_from_a_second_after_the_first() {
    let (mut world, _, runs) = world_of(&[(0, 60)]);
    world.advance(secs(5));
    world.term();
    assert_eq!(world.sent(), [term(runs[0])]);
    // A terminal or a launcher sends two at once.
    for pause in [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(989)] {
        world.advance(pause);
        world.term();
        assert_eq!(world.take(), []);
    }
    world.advance(Duration::from_millis(1));
    world.term();
    assert_eq!(world.sent(), [Sent::Kill(runs[0])]);
}

#[test]
fn a_signal_after_a_request_for_a_shutdown_is_the_first() {
    let (mut world, client, runs) = world_of(&[(0, 60)]);
    world.call(client, shutdown(None));
    world.take();
    world.advance(secs(5));
    world.term();
    assert_eq!(world.take(), []);
    world.term_again();
    assert_eq!(world.sent(), [Sent::Kill(runs[0])]);
}

#[test]
fn orders_are_kept_within_one_user_and_nobody_waits_for_another() {
    let (mut world, _, runs) = world_of(&[(0, 5), (1, 5)]);
    let other = world.connect(ALICE);
    let others = [world.start(other, of_order(7, by_term(5))), world.start(other, of_order(8, by_term(5)))];
    world.term();
    assert_eq!(world.sent(), [term(runs[0]), term(others[0])]);
    world.ends(others[0]);
    assert_eq!(world.sent(), [term(others[1])]);
    world.ends(others[1]);
    assert_eq!(world.sent(), []);
    world.ends(runs[0]);
    assert_eq!(world.sent(), [term(runs[1])]);
    world.ends(runs[1]);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_user_with_many_orders_that_ignore_their_stop_takes_no_time_from_another() {
    let (mut world, _, runs) = world_of(&[(0, 20)]);
    let greedy = world.connect(ALICE);
    for order in -50..50 {
        world.start(greedy, of_order(order, by_term(100_000)));
    }
    world.term();
    world.advance(Duration::from_millis(19_999));
    let sent = world.sent();
    assert!(sent.contains(&term(runs[0])) && !sent.contains(&Sent::Kill(runs[0])), "{sent:?}");
    world.advance(Duration::from_millis(1));
    assert!(world.sent().contains(&Sent::Kill(runs[0])));
}

#[test]
fn a_child_that_no_kill_ends_leaves_later_orders_the_time_that_they_ask_for() {
    let (mut world, _, runs) = world_of(&[(0, 1), (1, 8), (2, 8)]);
    world.term();
    world.take();
    // What it leaves is 16 of 29 seconds, and it has all that is before them.
    world.advance(secs(13));
    assert!(world.sent().contains(&Sent::Kill(runs[0])));
    world.advance(secs(1));
    assert!(
        world.sent().contains(&term(runs[1])),
        "a tenth of the rest is for the kill, and a second at most"
    );
    world.ends(runs[1]);
    assert!(world.sent().contains(&term(runs[2])));
    world.advance(Duration::from_millis(7_999));
    assert!(!world.sent().contains(&Sent::Kill(runs[2])));
    world.ends(runs[2]);
    assert_eq!(world.exit(), None, "nobody forgets the one that is left");
    world.ends(runs[0]);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn children_that_no_kill_ends_share_what_is_left_with_those_after_them() {
    let (mut world, _, runs) = world_of(&[(0, 15), (1, 15), (2, 15)]);
    world.term();
    world.take();
    // A third of 29 seconds is the first one's, and a second more is for the kill.
    let third = secs(29) / 3;
    world.advance(third + secs(1));
    assert!(world.sent().contains(&term(runs[1])));
    // Half of what is left then.
    world.advance(secs(28).saturating_sub(third) / 2 + secs(1));
    assert!(world.sent().contains(&term(runs[2])));
    world.ends(runs[1]);
    world.ends(runs[0]);
    world.ends(runs[2]);
    sweep(&mut world);
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_child_that_asks_for_more_time_has_none_that_later_orders_ask_for() {
    let (mut world, client) = World::with_client();
    let first = world.start(client, of_order(0, by_term(2)));
    let second = world.start(client, of_order(1, by_term(10)));
    world.term();
    assert_eq!(world.sent(), [term(first)]);
    world.give(Input::Notified { run: first, notices: vec![Notice::MoreTime(secs(100))] });
    world.advance(Duration::from_millis(18_999));
    assert_eq!(world.sent(), [], "it has what nobody else asks for");
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(first)]);
    world.ends(first);
    assert_eq!(world.sent(), [term(second)]);
    world.advance(Duration::from_millis(9_999));
    assert_eq!(world.sent(), []);
}

#[test]
fn a_child_that_is_not_on_record_does_not_hold_up_later_orders_either() {
    let (mut world, client) = World::with_client();
    world.create(client, of_order(0, by_term(1)));
    let second = world.start(client, of_order(1, by_term(9)));
    world.term();
    world.advance(secs(20));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(900));
    assert_eq!(world.sent(), [term(second)]);
}
