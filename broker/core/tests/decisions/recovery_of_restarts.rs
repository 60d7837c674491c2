//! Restarts that were under way when the broker died: what was counted still counts, and no run is started twice.

use procbroker_core::{Finding, Input, Members, Notice, Progress};
use procbroker_protocol::create::RestartPolicy::{Always, Never, OnFailure};
use procbroker_protocol::create::{Ready, Restart};
use procbroker_protocol::{ChildState, CreateParams, ExitReason, ExitStatus};

use crate::world::*;

#[test]
fn a_pause_goes_on_after_a_crash_and_what_was_counted_still_counts() {
    let (mut world, client) = World::with_client();
    let policy = Restart { policy: OnFailure, max: 2, window: secs(60), ..Restart::default() };
    let mut run = world.start(client, CreateParams { restart: policy, ..unnamed() });
    run = fail_and_return(&mut world, run, millis(100));
    fails(&mut world, run);
    world.advance(millis(50));
    world.set_clock(86_400);
    world.crash(Finding::NeverStarted);
    let run = first(run);
    world.advance(millis(149));
    assert_eq!(world.spawns(), []);
    world.advance(millis(1));
    assert_eq!(world.spawns(), [run]);
    world.spawned(run);
    world.exited(run, FAILED, Members::Nothing);
    let client = world.connect(BROKER_UID);
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.restarts), (ChildState::Ended, 2));
    assert!(shown.exit.as_ref().unwrap().gave_up);
}

#[test]
fn a_run_that_was_just_started_when_the_broker_died_is_found_and_not_started_twice() {
    let (mut world, _, run) = running(Always, unnamed());
    fails(&mut world, run);
    world.advance(millis(100));
    assert!(matches!(world.progress(run), Some(Progress::Restarting { .. })));
    world.crash(alive(run));
    world.advance(secs(100));
    assert_eq!(world.spawns(), []);
    let client = world.connect(BROKER_UID);
    let shown = world.shown(client, run);
    assert_eq!((shown.state, shown.restarts), (ChildState::Running, 1));
}

#[test]
fn a_run_of_which_nobody_can_say_that_it_ever_was_counts_once_with_the_one_in_its_place() {
    let (mut world, client) = World::with_client();
    let policy = Restart { policy: OnFailure, max: 1, window: secs(60), ..Restart::default() };
    let run = world.start(client, CreateParams { restart: policy, ..unnamed() });
    fails(&mut world, run);
    world.advance(millis(100));
    // Its process may have come and gone, or have never been: the record says that it was to come, and no more.
    world.crash(gone(ExitStatus::Unknown));
    assert_eq!(world.spawns(), [first(run)]);
    world.spawned(first(run));
    let client = world.connect(BROKER_UID);
    assert_eq!(world.shown(client, run).restarts, 1);
    world.exited(first(run), FAILED, Members::Nothing);
    assert!(world.shown(client, run).exit.clone().unwrap().gave_up);
}

#[test]
fn a_child_that_ended_while_no_broker_was_there_is_restarted_by_its_policy_but_not_after_a_reboot() {
    let (mut world, _, run) = running(OnFailure, unnamed());
    world.crash(gone(FAILED));
    world.recorded(next(first(run)));
    world.advance(millis(100));
    assert_eq!(world.spawns(), [next(first(run))]);
    let (mut world, _, run) = running(OnFailure, cleaned(unnamed()));
    world.crash(Finding::Rebooted);
    let client = world.connect(BROKER_UID);
    let shown = world.shown(client, run);
    assert_eq!(shown.state, ChildState::Cleaning);
    assert_eq!(shown.exit.as_ref().unwrap().reason, ExitReason::BrokerLost);
    let (mut world, _, run) = running(OnFailure, unnamed());
    world.exited(run, FAILED, Members::Nothing);
    world.crash(Finding::Rebooted);
    let client = world.connect(BROKER_UID);
    let shown = world.shown(client, run);
    assert_eq!(shown.state, ChildState::Ended);
    assert_eq!(shown.exit.as_ref().unwrap().reason, ExitReason::BrokerLost);
}

#[test]
fn a_later_run_that_ended_unready_while_no_broker_was_there_is_restarted_but_not_after_a_reboot() {
    for finding in [gone(FAILED), Finding::Rebooted] {
        let (mut world, client) = World::with_client();
        let params = CreateParams { ready: Ready::Notify, ..restarted(Always, unnamed()) };
        let call = world.create(client, params);
        let run = world.run(call);
        world.recorded(run);
        world.spawned(run);
        world.take();
        world.give(Input::Notified { run, notices: vec![Notice::Ready] });
        let again = fail_and_return(&mut world, run, millis(100));
        assert_eq!(state(&mut world, client, run), ChildState::Starting);
        world.crash(finding);
        let client = world.connect(BROKER_UID);
        let shown = world.shown(client, again);
        if finding == Finding::Rebooted {
            assert_eq!(shown.state, ChildState::Ended);
            assert_eq!(shown.exit.as_ref().unwrap().reason, ExitReason::BrokerLost);
        } else {
            assert_eq!((shown.state, shown.restarts), (ChildState::Backoff, 2));
        }
    }
}

#[test]
fn a_restart_by_hand_goes_on_after_a_crash() {
    let (mut world, client, run) = running(Never, unnamed());
    world.call(client, restart(id(run)));
    world.crash(alive(run));
    world.ends(first(run));
    world.recorded(next(first(run)));
    assert_eq!(world.spawns(), [next(first(run))]);
}
