//! The broker dies, or the machine, at every point of a child's life, once and once more: what was written by then
//! is enough for the next one to keep the promises.

use std::collections::BTreeSet;

use procbroker_core::{ConnectionId, Effect, Finding, Members, Progress, Receipt, Run};
use procbroker_protocol::{
    Child, ChildState, CreateParams, Error, ErrorKind, ExitStatus, Outcome, Response, Signal,
};

use crate::world::*;

/// A child that does not obey, and leaves a process behind which has to be killed.
fn params() -> CreateParams {
    let stop = vec![step(Signal::HUP, 2), step(Signal::INT, 2)];
    CreateParams { stop, ..requested(cleaned(named("a")), 5) }
}

/// What may be there of a child's processes.
fn dead() -> Vec<Finding> {
    vec![gone(ExitStatus::Unknown), gone(ExitStatus::Code(7)), Finding::Rebooted]
}

fn there(run: Run) -> Vec<Finding> {
    [dead(), vec![alive(run), own(run), left_behind(Members::Group), left_behind(Members::Outside)]].concat()
}

/// One thing that happens to a child, and what may be there of it right after.
type Turn = (fn(&mut World, ConnectionId, Run), fn(Run) -> Vec<Finding>);

const LIFE: [Turn; 12] = [
    (
        |world, client, _| {
            world.create(client, params());
        },
        |_| vec![Finding::NeverStarted, Finding::Rebooted],
    ),
    (|world, _, run| world.recorded(run), |run| [there(run), vec![Finding::NeverStarted]].concat()),
    (|world, _, run| world.spawned(run), there),
    (
        |world, client, run| {
            world.call(client, destroy(id(run)));
        },
        there,
    ),
    (|world, _, _| world.advance(secs(2)), there),
    (|world, _, _| world.advance(secs(2)), there),
    (
        |world, _, run| world.exited(run, KILLED, Members::Group),
        |_| [dead(), vec![left_behind(Members::Group), left_behind(Members::Outside)]].concat(),
    ),
    (|world, _, run| world.left(run, Members::Nothing), |_| dead()),
    (|world, _, run| world.recorded(next(run)), |run| [there(run), vec![Finding::NeverStarted]].concat()),
    (|world, _, run| world.spawned(next(run)), there),
    (|world, _, run| world.exited(next(run), CLEAN, Members::Nothing), |_| dead()),
    (|world, _, run| world.recorded(next(run)), |_| dead()),
];

/// The world after so many turns of the child's life.
fn lived(turns: usize) -> (World, Run) {
    let (mut world, client) = World::with_client();
    // The ids of children count the calls.
    let run = world.next_run();
    for (turn, _) in &LIFE[..turns] {
        turn(&mut world, client, run);
    }
    (world, run)
}

fn get_child(world: &mut World, client: ConnectionId, run: Run) -> Option<Child> {
    match world.ask(client, get(id(run))) {
        Ok(Response::Got(got)) => Some(Child::clone(&got.child)),
        Err(Error { kind: ErrorKind::NotFound, .. }) => None,
        other => panic!("answered with {other:?}"),
    }
}

/// What a willing kernel and disk make of the broker's orders, and what a client does that wants the child gone.
fn see_through(world: &mut World, client: ConnectionId, run: Run, mut alive: BTreeSet<Run>) -> Option<Child> {
    for _ in 0..100 {
        let child = get_child(world, client, run)?;
        let orders = world.take();
        let mut is_news = false;
        for order in orders {
            is_news |= carry_out(world, &order, &mut alive);
        }
        if child.state == ChildState::Ended {
            return Some(child);
        }
        if is_news {
            continue;
        }
        match (child.state, alive.first().copied()) {
            (ChildState::Running, Some(_)) => {
                world.call(client, destroy(id(run)));
            }
            (ChildState::Cleaning, Some(process)) => {
                alive.remove(&process);
                world.exited(process, CLEAN, Members::Nothing);
            }
            (_, _) => match world.due_in() {
                Some(due) => world.advance(due),
                None => panic!("nothing comes of {child:?}"),
            },
        }
    }
    panic!("{run:?} does not end")
}

/// Carries out one order. Answers whether the broker was told something.
fn carry_out(world: &mut World, order: &Effect, alive: &mut BTreeSet<Run>) -> bool {
    match order {
        Effect::Record { run, receipt: Receipt::Wanted, .. } => world.recorded(*run),
        Effect::Spawn { run, .. } => {
            world.spawned(*run);
            alive.insert(*run);
        }
        Effect::Kill { run } if alive.remove(run) => world.exited(*run, KILLED, Members::Nothing),
        Effect::Kill { run } => world.left(*run, Members::Nothing),
        _ => return false,
    }
    true
}

/// Whether a cleanup was begun before a crash, whose outcome is not on record after it.
fn is_cut_short(world: &World, run: Run) -> bool {
    world.cleanups(run) > 0
        && match world.progress(run) {
            None
            | Some(
                Progress::Unwanted { .. }
                | Progress::Starting { .. }
                | Progress::Running { .. }
                | Progress::Restarting { .. }
                | Progress::Stopping(_)
                | Progress::Cleaning { .. },
            ) => true,
            Some(Progress::Ended { .. }) => false,
        }
}

/// Recovers from a crash after so many turns, with so many writes, and sees the child through to its end.
fn recover(turns: usize, kept: usize, finding: Finding, crashes: usize) {
    let context = format!("{crashes} crashes after {turns} turns with {kept} writes: {finding:?}");
    let (mut world, run) = lived(turns);
    world.crash_at(kept, finding);
    for _ in 1..crashes {
        world.crash(finding);
    }
    let is_void = !world.is_on_record(run);
    assert!(!is_void || finding == Finding::NeverStarted || kept == 0, "{context}");
    let client = world.connect(BROKER_UID);
    let before = get_child(&mut world, client, run);
    assert_eq!(before.is_none(), is_void, "{context}");
    if is_void {
        let call = world.create(client, params());
        assert!(!world.is_answered(call), "{context}");
        return;
    }
    let is_cut_short = is_cut_short(&world, run);
    let same = world.create(client, params());
    assert_eq!(world.created(same).child.id, run.child, "{context}");
    assert_eq!(world.created(same).outcome, Outcome::Created, "{context}");
    let taken = world.create(client, named("a"));
    let is_over = before.is_some_and(|child| child.state == ChildState::Ended);
    assert_eq!(world.is_answered(taken), !is_over, "{context}");
    let is_there = matches!(finding, Finding::Process { .. }) && !is_over;
    let alive = is_there.then_some(first(run)).into_iter().collect();
    let ended = see_through(&mut world, client, run, alive).unwrap();
    let cleaned = ended.cleanup.clone().unwrap();
    assert!(cleaned.ok, "{context}: {ended:?}");
    let cleanups = world.cleanups(run);
    // No more than one is needed that nobody cut short; and of one that the machine's end did cut short there may be
    // no record.
    assert!(
        (1..=1 + u32::from(is_cut_short)).contains(&cleanups),
        "{context}: {cleanups} cleanups, {ended:?}"
    );
    assert!(cleaned.attempts >= cleanups || finding == Finding::Rebooted, "{context}: {ended:?}");
    assert_eq!(world.outcome_on_record(run), ended.cleanup, "{context}");
}

#[test]
fn after_a_crash_at_any_point_every_child_ends_and_is_cleaned_up() {
    let mut count = 0;
    for turns in 1..=LIFE.len() {
        let (world, run) = lived(turns);
        for finding in LIFE[turns - 1].1(run) {
            for kept in world.may_be_kept(finding) {
                for crashes in [1, 2, 3] {
                    recover(turns, kept, finding, crashes);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 300, "{count} crashes");
}

#[test]
fn a_second_crash_finds_what_the_first_did() {
    for turns in 2..=LIFE.len() {
        let (world, run) = lived(turns);
        for finding in LIFE[turns - 1].1(run) {
            for kept in world.may_be_kept(finding) {
                let (mut world, run) = lived(turns);
                world.crash_at(kept, finding);
                let client = world.connect(BROKER_UID);
                let first = get_child(&mut world, client, run);
                let written = *world.may_be_kept(finding).start();
                world.crash_at(written, finding);
                let client = world.connect(BROKER_UID);
                let second = get_child(&mut world, client, run);
                assert_eq!(first, second, "after {turns} turns with {kept} writes: {finding:?}");
            }
        }
    }
}

#[test]
fn a_client_that_was_answered_finds_its_child() {
    for turns in 3..=LIFE.len() {
        for finding in LIFE[turns - 1].1(lived(turns).1) {
            let (mut world, run) = lived(turns);
            let kept = *world.may_be_kept(finding).start();
            world.crash_at(kept, finding);
            let client = world.connect(BROKER_UID);
            assert!(get_child(&mut world, client, run).is_some(), "after {turns} turns: {finding:?}");
        }
    }
}
