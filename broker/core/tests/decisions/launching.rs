//! Processes that do not get to their programs: they are killed by whatever would stop them, and never were.

use std::time::Duration;

use procbroker_core::{Call, ConnectionId, Effect, Finding, Input, Members, Progress, Run, UpgradeFailure};
use procbroker_protocol::create::RestartPolicy::{Always, OnFailure};
use procbroker_protocol::create::{IfExists, ReadyTimeout};
use procbroker_protocol::error::SpawnFailure;
use procbroker_protocol::request::NoParams;
use procbroker_protocol::{
    CreateParams, ErrorKind, Exit, ExitReason, ExitStatus, Outcome, Request, Response, Signal,
};

use crate::world::*;

/// What an ordinary process needs at the most to get to its program.
const MOMENT: Duration = Duration::from_millis(100);

/// A child whose process is on its way to its program.
fn launching(params: CreateParams) -> (World, ConnectionId, Call, Run) {
    let (mut world, client) = World::with_client();
    let call = world.create(client, params);
    let run = world.run(call);
    world.recorded(run);
    assert_eq!(world.spawns(), [run]);
    (world, client, call, run)
}

/// A child whose next run is on its way to its program.
fn launching_again(params: CreateParams) -> (World, ConnectionId, Run) {
    let (mut world, client) = World::with_client();
    let run = world.start(client, params);
    world.exited(run, ExitStatus::Code(1), Members::Nothing);
    world.recorded(next(run));
    world.advance(secs(1));
    assert_eq!(world.spawns(), [next(run)]);
    (world, client, next(run))
}

fn killed(world: &mut World, run: Run) {
    let (errno, errno_name, step) = (125, "ECANCELED".to_owned(), "killed".to_owned());
    world.give(Input::SpawnFailed { run, failure: SpawnFailure { errno, errno_name, step } });
}

/// An upgrade of which the other program says this.
fn upgrade(world: &mut World, client: ConnectionId, result: Result<(), UpgradeFailure>) -> Call {
    let call = world.call(client, Request::Upgrade(NoParams {}));
    world.give(Input::UpgradeChecked { result });
    call
}

/// The exit tells that SIGKILL was sent, and nothing else.
fn is_by_force(exit: &Exit, reason: ExitReason) {
    let steps: Vec<Signal> = exit.steps.iter().map(|step| step.signal).collect();
    assert_eq!((exit.reason, exit.forced, steps), (reason, true, vec![Signal::KILL]), "{exit:?}");
}

#[test]
fn one_that_is_destroyed_has_a_moment_and_its_end_tells_of_the_force() {
    let (mut world, client, create, run) = launching(cleaned(named("a")));
    let destroy = world.call(client, destroy(name("a")));
    world.advance(Duration::from_millis(99));
    assert_eq!(world.sent(), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    world.advance(secs(20));
    assert_eq!(world.sent(), [], "one that cannot be ended is killed once");
    killed(&mut world, run);
    let ErrorKind::StartFailed { exit, .. } = world.refused(create) else { panic!("{create:?}") };
    is_by_force(&exit, ExitReason::Destroyed);
    is_by_force(world.children(destroy)[0].exit.as_ref().unwrap(), ExitReason::Destroyed);
    assert_eq!(world.spawns(), [], "it has no cleanup");
    assert_eq!(world.counts().totals.forced_stops, 1);
}

#[test]
fn one_that_gets_to_its_program_within_the_moment_ends_in_order() {
    let (mut world, client, _, run) = launching(named("a"));
    world.call(client, destroy(name("a")));
    world.advance(MOMENT / 2);
    world.spawned(run);
    assert_eq!(world.sent(), [term(run)]);
    world.advance(MOMENT);
    assert_eq!(world.sent(), []);
}

#[test]
fn one_that_gets_to_its_program_as_it_is_killed_is_killed_with_all_that_it_has_started() {
    let (mut world, client, _, run) = launching(named("a"));
    let destroy = world.call(client, destroy(name("a")));
    world.advance(MOMENT);
    world.take();
    world.spawned(run);
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    world.exited(run, ExitStatus::Signal(Signal::KILL), Members::Nothing);
    is_by_force(world.children(destroy)[0].exit.as_ref().unwrap(), ExitReason::Destroyed);
    assert_eq!(world.counts().totals.forced_stops, 1);
}

#[test]
fn one_that_is_late_is_killed_a_moment_later() {
    let params = CreateParams { ready_timeout: ReadyTimeout(secs(1)), ..named("a") };
    let (mut world, _, create, run) = launching(params);
    world.advance(secs(1));
    assert!(matches!(world.refused(create), ErrorKind::Timeout(None)));
    assert_eq!(world.sent(), []);
    world.advance(MOMENT);
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    killed(&mut world, run);
    assert!(!world.is_on_record(run));
}

#[test]
fn a_shutdown_without_time_kills_it_at_once() {
    let (mut world, _, create, run) = launching(named("a"));
    world.term();
    world.advance(MOMENT / 2);
    world.advance(secs(1));
    world.take();
    let (mut other, _, _, hurried) = launching(named("a"));
    other.term();
    other.advance(Duration::from_millis(20));
    assert_eq!(other.sent(), []);
    other.give(Input::ShutdownAsked {
        cause: procbroker_core::ShutdownCause::Limited { timeout: Duration::from_millis(100) },
    });
    other.advance(Duration::from_millis(50));
    assert_eq!(other.sent(), [Sent::Kill(hurried)]);
    killed(&mut world, run);
    assert_eq!(world.refused(create), ErrorKind::ShuttingDown);
    sweep(&mut world);
}

#[test]
fn the_next_run_of_a_child_that_is_destroyed_is_killed_too() {
    let (mut world, client, run) = launching_again(restarted(Always, named("a")));
    let destroy = world.call(client, destroy(name("a")));
    world.advance(MOMENT);
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    killed(&mut world, run);
    is_by_force(world.children(destroy)[0].exit.as_ref().unwrap(), ExitReason::Destroyed);
}

#[test]
fn an_upgrade_kills_it_after_a_second_and_the_next_program_starts_it_for_who_asks_again() {
    let params = || requested(cleaned(named("a")), 7);
    let (mut world, client, create, run) = launching(params());
    let call = upgrade(&mut world, client, Ok(()));
    world.advance(Duration::from_millis(999));
    assert_eq!(world.sent(), [], "an ordinary one gets to its program");
    world.advance(Duration::from_millis(1));
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    assert!(!world.is_answered(call));
    killed(&mut world, run);
    assert!(!world.is_answered(create), "nothing has failed");
    assert_eq!(world.answer(call), Ok(Response::Upgraded));
    let orders = world.take();
    assert!(orders.contains(&Effect::HandOver) && orders.contains(&Effect::Release { run }));
    world.crash(Finding::NeverStarted);
    assert!(!world.is_on_record(run));
    let client = world.connect(BROKER_UID);
    let again = world.create(client, params());
    world.recorded(world.run(again));
    world.spawned(world.run(again));
    assert_eq!(world.created(again).outcome, Outcome::Created);
}

#[test]
fn one_that_an_upgrade_has_killed_is_started_again_when_no_other_program_takes_over() {
    let (mut world, client, create, run) = launching(named("a"));
    upgrade(&mut world, client, Ok(()));
    world.advance(secs(1));
    killed(&mut world, run);
    world.take();
    world.give(Input::HandOverFailed { failure: UpgradeFailure { message: "no".to_owned() } });
    assert_eq!(world.spawns(), [run]);
    world.spawned(run);
    assert_eq!(world.created(create).child.id, run.child);
}

#[test]
fn an_upgrade_puts_the_next_run_of_a_child_off_and_the_next_program_starts_it() {
    for policy in [Always, OnFailure] {
        let (mut world, client) = World::with_client();
        let first = world.start(client, restarted(policy, named("a")));
        world.call(client, restart(name("a")));
        world.ends(first);
        let run = next(first);
        world.recorded(run);
        world.take();
        upgrade(&mut world, client, Ok(()));
        world.advance(secs(1));
        assert_eq!(world.sent(), [Sent::Kill(run)]);
        killed(&mut world, run);
        let orders = world.take();
        assert!(orders.contains(&Effect::HandOver) && orders.contains(&Effect::Release { run }));
        world.crash_with(|_, _| Finding::NeverStarted);
        assert_eq!(world.spawns(), [super::world::first(run)]);
    }
}

#[test]
fn what_was_put_off_runs_in_this_program_when_no_other_takes_over() {
    let (mut world, client, run) = launching_again(restarted(Always, named("a")));
    upgrade(&mut world, client, Ok(()));
    world.advance(secs(1));
    killed(&mut world, run);
    world.take();
    world.give(Input::HandOverFailed { failure: UpgradeFailure { message: "no".to_owned() } });
    assert_eq!(world.spawns(), [run]);
    world.spawned(run);
    assert_eq!(world.shown(client, run).restarts, 1);
}

#[test]
fn what_was_put_off_ends_with_a_shutdown() {
    let (mut world, client, run) = launching_again(restarted(Always, named("a")));
    upgrade(&mut world, client, Ok(()));
    world.advance(secs(1));
    world.take();
    world.term();
    killed(&mut world, run);
    sweep(&mut world);
}

#[test]
fn an_upgrade_puts_a_cleanup_off_and_it_has_not_failed() {
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Spawning);
    upgrade(&mut world, client, Ok(()));
    world.advance(secs(1));
    assert_eq!(world.sent(), [Sent::Kill(attempt)]);
    killed(&mut world, attempt);
    assert!(world.take().contains(&Effect::HandOver));
    assert_eq!(world.attempts_on_record(run), 1);
    world.crash_with(|_, _| Finding::NeverStarted);
    let again = next(first(attempt));
    world.begin_cleanup(again);
    world.end_cleanup(again, CLEAN);
    assert!(world.outcome_on_record(run).is_some_and(|cleaned| cleaned.ok));
}

#[test]
fn a_cleanup_that_gets_to_its_program_as_an_upgrade_kills_it_is_begun_anew() {
    let Halfway { mut world, client, attempt, .. } = Halfway::at(At::Spawning);
    upgrade(&mut world, client, Ok(()));
    world.advance(secs(1));
    world.take();
    world.spawned(attempt);
    assert!(world.sent().contains(&Sent::Kill(attempt)));
    world.exited(attempt, KILLED, Members::Nothing);
    assert!(world.take().iter().any(|order| matches!(order, Effect::Release { .. })));
    world.give(Input::HandOverFailed { failure: UpgradeFailure { message: "no".to_owned() } });
    world.recorded(next(attempt));
    assert_eq!(world.spawns(), [next(attempt)]);
}

#[test]
fn the_time_of_a_cleanup_bounds_its_start() {
    let Halfway { mut world, client, run, attempt, .. } = Halfway::at(At::Spawning);
    world.advance(secs(30));
    assert_eq!(world.sent(), [Sent::Kill(attempt)]);
    killed(&mut world, attempt);
    world.recorded(attempt);
    assert_eq!(world.ended(client, run).cleanup, outcome(false, None, 1));
}

#[test]
fn a_cleanup_without_time_has_a_moment_to_start() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, cleaned_in(0, named("a")));
    world.ends(run);
    world.recorded(next(run));
    world.take();
    world.advance(MOMENT);
    assert_eq!(world.sent(), [Sent::Kill(next(run))]);
}

#[test]
fn a_shutdown_leaves_a_cleanup_that_does_not_start_to_the_next_broker() {
    let Halfway { mut world, run, attempt, .. } = Halfway::at(At::Spawning);
    world.give(Input::ShutdownAsked { cause: procbroker_core::ShutdownCause::Limited { timeout: secs(2) } });
    world.advance(Duration::from_millis(1_800));
    assert!(world.sent().contains(&Sent::Kill(attempt)));
    killed(&mut world, attempt);
    assert_eq!(world.attempts_on_record(run), 1);
    sweep(&mut world);
}

#[test]
fn one_that_a_dead_broker_has_left_on_its_way_is_killed_and_was_not_started() {
    let request = 7;
    let (mut world, _, _, run) = launching(cleaned(requested(named("a"), request)));
    world.crash(Finding::Unexecuted { pid: pid_of(run) });
    assert_eq!(world.sent(), [Sent::Kill(first(run))]);
    let client = world.connect(BROKER_UID);
    // Who asks again waits for the name, and starts another one then.
    let again = world.create(client, requested(named("a"), request));
    assert!(!world.is_answered(again));
    world.exited(first(run), ExitStatus::Unknown, Members::Nothing);
    assert_eq!(world.spawns(), [], "it has no cleanup");
    assert!(!world.is_on_record(run));
    world.recorded(world.run(again));
    world.spawned(world.run(again));
    assert_eq!(world.created(again).outcome, Outcome::Created);
}

#[test]
fn one_that_never_was_refuses_nobody_its_name_or_its_place() {
    for if_exists in [IfExists::Fail, IfExists::Reuse, IfExists::Replace] {
        let named = CreateParams { if_exists, ..named("a") };
        let (mut world, _, _, run) =
            launching(CreateParams { name: named.name.clone(), ..under_limit("k", 1) });
        world.crash(Finding::Unexecuted { pid: pid_of(run) });
        let client = world.connect(BROKER_UID);
        let other = world.create(client, under_limit("k", 1));
        world.recorded(world.run(other));
        let namesake = world.create(client, named);
        assert!(!world.is_answered(namesake));
        world.exited(first(run), ExitStatus::Unknown, Members::Nothing);
        world.recorded(world.run(namesake));
        for call in [other, namesake] {
            world.spawned(world.run(call));
            assert_eq!(world.created(call).outcome, Outcome::Created);
        }
        let late = world.create(client, under_limit("k", 1));
        assert_eq!(world.refused(late), ErrorKind::LimitExceeded);
    }
}

#[test]
fn who_wants_the_name_of_one_that_never_was_waits_for_it_as_long_as_its_own_child_may_take() {
    for if_exists in [IfExists::Fail, IfExists::Reuse, IfExists::Replace] {
        let (mut world, _, _, run) = launching(named("a"));
        world.crash(Finding::Unexecuted { pid: pid_of(run) });
        let client = world.connect(BROKER_UID);
        let hasty = CreateParams { ready_timeout: ReadyTimeout(secs(5)), if_exists, ..named("a") };
        let (hasty, patient) = (world.create(client, hasty), world.create(client, reuse("a")));
        // The process is where no signal reaches it.
        world.advance(Duration::from_millis(4_999));
        assert!(!world.is_answered(hasty));
        world.advance(Duration::from_millis(1));
        assert_eq!(world.refused(hasty), ErrorKind::Timeout(None));
        let message = world.answer(hasty).unwrap_err().message;
        assert!(message.contains("the name a is held by a process") && message.contains("5s"), "{message}");
        assert!(!world.is_answered(patient));
        world.take();
        world.exited(first(run), ExitStatus::Unknown, Members::Nothing);
        assert_eq!(world.intents(), [world.run(patient)]);
        let late = world.create(client, named("a"));
        assert!(matches!(world.refused(late), ErrorKind::NameTaken(Some(_))));
    }
}

#[test]
fn a_request_whose_first_child_never_was_waits_for_nothing() {
    let (mut world, _, _, run) = launching(requested(unnamed(), 7));
    world.crash(Finding::Unexecuted { pid: pid_of(run) });
    let client = world.connect(BROKER_UID);
    let again = world.create(client, requested(unnamed(), 7));
    world.recorded(world.run(again));
    world.spawned(world.run(again));
    let child = world.created(again).child.id;
    world.exited(first(run), ExitStatus::Unknown, Members::Nothing);
    let retry = world.create(client, requested(unnamed(), 7));
    assert_eq!(world.created(retry).child.id, child);
}

#[test]
fn one_that_was_to_be_stopped_ends_so_in_the_next_broker() {
    let (mut world, client, _, run) = launching(requested(named("a"), 7));
    world.call(client, destroy(name("a")));
    world.crash(Finding::Unexecuted { pid: pid_of(run) });
    assert_eq!(world.sent(), [Sent::Kill(first(run))]);
    let client = world.connect(BROKER_UID);
    let again = world.create(client, requested(named("a"), 7));
    world.exited(first(run), ExitStatus::Unknown, Members::Nothing);
    let ErrorKind::StartFailed { exit, .. } = world.refused(again) else { panic!("{again:?}") };
    is_by_force(&exit, ExitReason::Destroyed);
}

#[test]
fn that_it_was_never_started_is_known_after_the_next_crash_too() {
    let (mut world, _, _, run) = launching(requested(named("a"), 7));
    world.crash(Finding::Unexecuted { pid: pid_of(run) });
    assert!(matches!(world.progress(run), Some(Progress::Unwanted { reason: ExitReason::StartFailed, .. })));
    world.crash(gone(ExitStatus::Unknown));
    let client = world.connect(BROKER_UID);
    let again = world.create(client, requested(named("a"), 7));
    world.recorded(world.run(again));
    world.spawned(world.run(again));
    assert_eq!(world.created(again).outcome, Outcome::Created);
}

#[test]
fn the_next_run_that_was_on_its_way_in_a_crash_is_started_once_more() {
    let (mut world, _, run) = launching_again(restarted(Always, named("a")));
    world.crash(Finding::Unexecuted { pid: pid_of(run) });
    assert_eq!(world.sent(), [Sent::Kill(first(run))]);
    world.exited(first(run), ExitStatus::Unknown, Members::Nothing);
    assert_eq!(world.spawns(), [first(run)]);
    let client = world.connect(BROKER_UID);
    world.spawned(first(run));
    assert_eq!(world.shown(client, run).restarts, 1);
}

#[test]
fn a_main_command_is_not_killed_for_an_upgrade_and_is_for_the_next_broker() {
    let mut world = World::of_main(apache());
    let run = main_run(1);
    world.recorded(run);
    world.take();
    let client = world.connect(BROKER_UID);
    let call = upgrade(&mut world, client, Ok(()));
    world.advance(secs(9));
    assert_eq!(world.sent(), []);
    world.advance(secs(1));
    assert_eq!(world.refused(call), ErrorKind::Internal);
    world.next_main(2, apache());
    world.crash(Finding::Unexecuted { pid: pid_of(run) });
    assert_eq!(world.sent(), [Sent::Kill(run)]);
    assert!(!world.wants_main(main_run(2)));
    world.exited(run, ExitStatus::Unknown, Members::Nothing);
    assert!(world.wants_main(main_run(2)));
}
