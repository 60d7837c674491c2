//! The stop of one child, in every state and at every event.

use std::time::Duration;

use procbroker_core::{ConnectionId, Effect, KILL_AGAIN_AFTER, Members, Report, Run};
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::{DestroyParams, Scope};
use procbroker_protocol::{ChildState, Exit, ExitReason, ExitStatus, Request, Signal, StepTaken};

use crate::world::*;

const GONE: ExitStatus = ExitStatus::Signal(Signal::TERM);

fn two_steps() -> Vec<StopStep> {
    vec![step(Signal::HUP, 3), step(Signal::TERM, 5)]
}

fn to_group(run: Run, signal: Signal) -> Vec<Sent> {
    vec![Sent::Signal(run, signal, Scope::Group)]
}

fn to_all(run: Run, signal: Signal) -> Vec<Sent> {
    vec![Sent::Signal(run, signal, Scope::All)]
}

/// A child with two steps whose destroy has just begun.
fn destroyed() -> (World, ConnectionId, Run, procbroker_core::Call) {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(two_steps()));
    let call = world.call(client, destroy(id(run)));
    assert_eq!(world.sent(), to_group(run, Signal::HUP));
    (world, client, run, call)
}

/// How a child ended that the answer of a destroy tells of.
fn exit_of(world: &World, call: procbroker_core::Call) -> Exit {
    let children = world.children(call);
    assert_eq!(children.len(), 1);
    assert_eq!((children[0].state, children[0].pid), (ChildState::Ended, None));
    children[0].exit.clone().unwrap()
}

#[test]
fn the_steps_go_to_the_group_one_after_the_other_and_then_everything_is_killed() {
    let (mut world, _, run, call) = destroyed();
    world.advance(Duration::from_millis(2_999));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), to_group(run, Signal::TERM));
    world.advance(Duration::from_millis(4_999));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    assert!(!world.is_answered(call));
    world.exited(run, ExitStatus::Signal(Signal::KILL), Members::Nothing);
    let exit = exit_of(&world, call);
    assert_eq!(exit.status, ExitStatus::Signal(Signal::KILL));
    assert_eq!((exit.reason, exit.forced, exit.at), (ExitReason::Destroyed, true, world.wall()));
    let at = |seconds: u64| {
        procbroker_protocol::Timestamp::from_micros(world.wall().as_micros() - seconds * 1_000_000)
    };
    let steps = [(Signal::HUP, at(8)), (Signal::TERM, at(5)), (Signal::KILL, at(0))];
    assert_eq!(exit.steps, steps.map(|(signal, at)| StepTaken { signal, at }));
}

#[test]
fn a_child_that_obeys_gets_no_further_step() {
    let (mut world, _, run, call) = destroyed();
    world.advance(secs(1));
    let at = world.wall();
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    let exit = exit_of(&world, call);
    assert_eq!((exit.status, exit.forced, exit.steps.len()), (ExitStatus::Code(0), false, 1));
    assert_eq!(exit.at, at);
    world.advance(secs(100));
    assert_eq!(world.sent(), []);
}

#[test]
fn that_the_leader_is_gone_cancels_no_step_while_its_group_lives() {
    let (mut world, client, run, call) = destroyed();
    world.advance(secs(1));
    let leader_ended = world.wall();
    world.exited(run, GONE, Members::Group);
    assert_eq!(world.sent(), []);
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.pid), (ChildState::Stopping, None));
    world.advance(secs(2));
    assert_eq!(world.sent(), to_group(run, Signal::TERM));
    world.left(run, Members::Group);
    assert_eq!(world.sent(), []);
    world.advance(secs(5));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    world.left(run, Members::Nothing);
    let exit = exit_of(&world, call);
    assert_eq!((exit.status, exit.forced, exit.at), (GONE, true, leader_ended));
}

#[test]
fn what_is_outside_the_group_gets_the_steps_itself_once_the_group_is_gone() {
    for is_seen_later in [false, true] {
        let (mut world, _, run, call) = destroyed();
        if is_seen_later {
            world.exited(run, GONE, Members::Group);
            assert_eq!(world.sent(), []);
            world.left(run, Members::Outside);
        } else {
            world.exited(run, GONE, Members::Outside);
        }
        assert_eq!(world.sent(), to_all(run, Signal::HUP));
        world.left(run, Members::Outside);
        assert_eq!(world.sent(), [], "it was asked already");
        world.advance(secs(2));
        assert_eq!(world.sent(), [], "it has the rest of the time of its step");
        world.advance(secs(1));
        assert_eq!(world.sent(), to_all(run, Signal::TERM));
        assert!(!world.is_answered(call));
        world.left(run, Members::Nothing);
        let exit = exit_of(&world, call);
        assert_eq!((exit.forced, exit.steps.len()), (false, 2));
    }
}

#[test]
fn what_is_outside_the_group_and_does_not_answer_its_steps_is_killed_after_them() {
    let (mut world, _, run, call) = destroyed();
    world.exited(run, GONE, Members::Outside);
    world.advance(secs(8));
    assert_eq!(world.sent().last(), Some(&Sent::Kill(run)));
    world.left(run, Members::Nothing);
    assert!(exit_of(&world, call).forced);
}

#[test]
fn a_group_that_dies_out_ends_the_stop_without_force() {
    let (mut world, _, run, call) = destroyed();
    world.exited(run, GONE, Members::Group);
    world.left(run, Members::Nothing);
    let exit = exit_of(&world, call);
    assert_eq!((exit.forced, exit.steps.len()), (false, 1));
}

#[test]
fn what_is_left_counts_only_once_the_leader_is_gone() {
    let (mut world, _, run, call) = destroyed();
    for members in [Members::Nothing, Members::Outside, Members::Group] {
        world.left(run, members);
    }
    assert_eq!(world.sent(), []);
    assert!(!world.is_answered(call));
}

#[test]
fn what_survives_sigkill_is_killed_again_and_again() {
    let (mut world, _, run, call) = destroyed();
    world.advance(secs(8));
    assert_eq!(world.sent().last(), Some(&Sent::Kill(run)));
    for _ in 0..3 {
        world.advance(KILL_AGAIN_AFTER);
        let sent = world.sent();
        assert!(!sent.is_empty() && sent.iter().all(|sent| *sent == Sent::Kill(run)), "{sent:?}");
    }
    world.exited(run, ExitStatus::Signal(Signal::KILL), Members::Outside);
    world.advance(KILL_AGAIN_AFTER);
    assert!(world.sent().contains(&Sent::Kill(run)));
    world.left(run, Members::Nothing);
    let exit = exit_of(&world, call);
    let kills = exit.steps.iter().filter(|step| step.signal == Signal::KILL).count();
    assert_eq!((exit.forced, kills), (true, 1));
}

#[test]
fn what_cannot_be_killed_does_not_keep_the_broker_busy() {
    for members in SOMETHING {
        let (mut world, _, run, _) = destroyed();
        world.advance(secs(8));
        world.exited(run, ExitStatus::Signal(Signal::KILL), members);
        let mut kills = 0;
        for _ in 0..10_000 {
            let sent = world.sent().len();
            kills += sent;
            match sent {
                0 => world.advance(Duration::from_millis(1)),
                // Each is answered at once, as by a kernel that cannot end the process yet.
                _ => world.left(run, members),
            }
        }
        assert!((5..=25).contains(&kills), "{kills} kills in ten seconds");
    }
}

#[test]
fn a_process_that_was_forked_at_the_very_moment_is_killed_soon() {
    let (mut world, _, run, call) = destroyed();
    world.advance(secs(8));
    world.exited(run, ExitStatus::Signal(Signal::KILL), Members::Nothing);
    assert!(world.is_answered(call));
    let (mut world, _, run, _) = destroyed();
    world.advance(secs(8));
    world.sent();
    world.exited(run, ExitStatus::Signal(Signal::KILL), Members::Group);
    world.left(run, Members::Group);
    world.advance(Duration::from_millis(50));
    assert!(world.sent().contains(&Sent::Kill(run)));
}

#[test]
fn a_child_that_ends_by_itself_leaves_the_rest_of_its_steps_to_its_descendants() {
    for members in SOMETHING {
        let (mut world, client) = World::with_client();
        let run = world.start(client, stopped_by(two_steps()));
        world.exited(run, ExitStatus::Code(3), members);
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::All)]);
        assert_eq!(world.shown(client, run).state, ChildState::Stopping);
        world.left(run, members);
        assert_eq!(world.sent(), []);
        world.advance(secs(3));
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::TERM, Scope::All)]);
        world.advance(secs(5));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
        world.left(run, Members::Nothing);
        let exit = world.shown(client, run).exit.clone().unwrap();
        assert_eq!((exit.status, exit.reason), (ExitStatus::Code(3), ExitReason::Exited));
        assert_eq!((exit.forced, exit.steps.len()), (true, 3));
    }
}

#[test]
fn a_child_that_ends_by_itself_and_leaves_nothing_has_ended() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(two_steps()));
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    let orders = world.take();
    assert!(orders.contains(&Effect::Release { run }));
    assert!(orders.iter().any(|order| matches!(order, Effect::Report(Report::Ended { .. }))));
    let exit = world.shown(client, run).exit.clone().unwrap();
    assert_eq!((exit.status, exit.reason), (ExitStatus::Code(0), ExitReason::Exited));
    assert_eq!((exit.forced, exit.steps.len(), exit.at), (false, 0, world.wall()));
}

#[test]
fn a_destroy_of_a_child_being_destroyed_joins_the_first() {
    let (mut world, client, run, first) = destroyed();
    let second = world.call(client, destroy_by(id(run), vec![]));
    assert_eq!(world.sent(), []);
    world.ends(run);
    assert_eq!(world.answer(first), world.answer(second));
    assert_eq!(exit_of(&world, second).reason, ExitReason::Destroyed);
}

#[test]
fn a_destroy_of_a_child_that_ended_by_itself_with_descendants_joins_that_end() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(two_steps()));
    world.exited(run, ExitStatus::Code(3), Members::Group);
    world.take();
    let call = world.call(client, destroy(id(run)));
    assert_eq!(world.sent(), []);
    world.left(run, Members::Nothing);
    assert_eq!(exit_of(&world, call).reason, ExitReason::Exited);
}

#[test]
fn a_destroy_of_an_ended_child_is_no_error_and_changes_nothing() {
    let (mut world, client, run, first) = destroyed();
    world.ends(run);
    let second = world.call(client, destroy(id(run)));
    assert_eq!(world.answer(first), world.answer(second));
    assert_eq!(world.sent(), []);
}

#[test]
fn a_destroy_can_bring_its_own_steps() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(two_steps()));
    world.call(client, destroy_by(id(run), vec![step(Signal::INT, 1)]));
    assert_eq!(world.sent(), to_group(run, Signal::INT));
    world.advance(secs(1));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
}

#[test]
fn a_stop_without_steps_kills_at_once() {
    let (mut world, client) = World::with_client();
    let own = world.start(client, stopped_by(vec![]));
    world.call(client, destroy(id(own)));
    assert_eq!(world.sent(), [Sent::Kill(own)]);
    let other = world.start(client, stopped_by(two_steps()));
    let call = world.call(client, destroy_by(id(other), vec![]));
    assert_eq!(world.sent(), [Sent::Kill(other)]);
    world.exited(other, ExitStatus::Signal(Signal::KILL), Members::Nothing);
    assert_eq!(exit_of(&world, call).steps.len(), 1);
}

#[test]
fn steps_without_grace_are_all_sent_at_once() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(vec![step(Signal::HUP, 0), step(Signal::TERM, 0)]));
    world.call(client, destroy(id(run)));
    world.advance(Duration::ZERO);
    let mut expected = to_group(run, Signal::HUP);
    expected.extend(to_group(run, Signal::TERM));
    expected.push(Sent::Kill(run));
    assert_eq!(world.sent(), expected);
}

#[test]
fn a_stop_of_a_child_that_is_being_spawned_begins_when_it_runs() {
    let (mut world, client) = World::with_client();
    let create = world.create(client, stopped_by(two_steps()));
    let run = world.run(create);
    world.recorded(run);
    let call = world.call(client, destroy_by(id(run), vec![step(Signal::INT, 1)]));
    assert_eq!(world.sent(), []);
    world.spawned(run);
    assert_eq!(world.created(create).child.state, ChildState::Stopping);
    assert_eq!(world.sent(), to_group(run, Signal::INT));
    world.ends(run);
    assert_eq!(exit_of(&world, call).reason, ExitReason::Destroyed);
}

#[test]
fn a_destroy_without_waiting_is_answered_when_the_stop_has_begun() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, stopped_by(two_steps()));
    let params = DestroyParams { target: id(run), stop: None, no_wait: true };
    let call = world.call(client, Request::Destroy(params));
    assert_eq!(world.children(call)[0].state, ChildState::Stopping);
    assert_eq!(world.sent(), to_group(run, Signal::HUP));
}

#[test]
fn a_destroy_of_many_is_answered_oldest_first_when_the_last_has_ended() {
    let (mut world, client) = World::with_client();
    let runs = [(); 3].map(|()| world.start(client, labelled("pool", "a")));
    let other = world.start(client, labelled("pool", "b"));
    let call = world.call(client, destroy(labels("pool", "a")));
    for run in [runs[2], runs[0]] {
        world.ends(run);
        assert!(!world.is_answered(call));
    }
    world.ends(runs[1]);
    let ids: Vec<_> = world.children(call).iter().map(|child| child.id).collect();
    assert_eq!(ids, runs.map(|run| run.child));
    assert_eq!(world.shown(client, other).state, ChildState::Running);
}

#[test]
fn a_destroy_that_nothing_matches_is_answered_with_nothing() {
    let (mut world, client) = World::with_client();
    for target in [labels("pool", "a"), procbroker_protocol::Target::All] {
        let call = world.call(client, destroy(target));
        assert_eq!(world.children(call), []);
    }
}

#[test]
fn a_destroy_goes_on_when_its_client_disconnects() {
    let (mut world, client, run, _) = destroyed();
    let other = world.connect(BROKER_UID);
    world.give(procbroker_core::Input::Disconnected { connection: client });
    world.advance(secs(3));
    assert_eq!(world.sent(), to_group(run, Signal::TERM));
    world.ends(run);
    assert_eq!(world.shown(other, run).state, ChildState::Ended);
}

#[test]
fn each_signal_of_a_stop_is_followed_by_one_that_continues_a_suspended_child() {
    let (mut world, client) = World::with_client();
    let by = [Signal::STOP, Signal::CONT, Signal::KILL, Signal::TERM];
    let run = world.start(client, stopped_by(by.map(|signal| step(signal, 1)).to_vec()));
    let call = world.call(client, destroy(id(run)));
    let mut sent = world.all_sent();
    for _ in 1..by.len() {
        world.advance(secs(1));
        sent.extend(world.all_sent());
    }
    let expected = by.into_iter().chain([Signal::CONT]);
    assert_eq!(sent, expected.map(|signal| Sent::Signal(run, signal, Scope::Group)).collect::<Vec<_>>());
    world.ends(run);
    let steps: Vec<Signal> = exit_of(&world, call).steps.iter().map(|step| step.signal).collect();
    assert_eq!(steps, by, "what continues a child is no step of its stop");
}
