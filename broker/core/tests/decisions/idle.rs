//! The exit for lack of work.

use std::time::Duration;

use procbroker_core::{Effect, ExitCause, Input, Report};

use crate::world::*;

fn impatient() -> World {
    World::with(|config| config.exit_when_idle = Some(secs(60)))
}

#[test]
fn an_idle_broker_exits_after_the_time_that_was_set() {
    let mut world = impatient();
    world.give(Input::Due);
    world.advance(Duration::from_millis(59_999));
    assert_eq!(world.take(), []);
    world.advance(Duration::from_millis(1));
    let orders = world.take();
    assert!(orders.contains(&Effect::Report(Report::Idle)) && orders.contains(&Effect::Sweep));
    world.give(Input::Swept { left: 0 });
    assert_eq!(world.exit(), Some(ExitCause::Done));
}

#[test]
fn a_connection_or_a_live_child_is_work() {
    let mut world = impatient();
    let client = world.connect(BROKER_UID);
    world.advance(secs(3600));
    let run = world.start(client, unnamed());
    world.give(Input::Disconnected { connection: client });
    world.advance(secs(3600));
    world.ends(run);
    assert_eq!(world.due_in(), Some(secs(60)));
    world.advance(secs(30));
    let client = world.connect(BROKER_UID);
    world.advance(secs(3600));
    world.give(Input::Disconnected { connection: client });
    assert_eq!(world.due_in(), Some(secs(60)));
    world.take();
    world.advance(secs(60));
    assert!(world.take().contains(&Effect::Sweep));
}

#[test]
fn a_broker_without_that_setting_never_exits_by_itself() {
    let mut world = World::new();
    world.give(Input::Due);
    assert_eq!(world.due_in(), None);
}
