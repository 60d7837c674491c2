//! Short forms for the tests of restarts: a child under a policy, and its runs.

use std::time::Duration;

use procbroker_core::{ConnectionId, Members, Run};
use procbroker_protocol::create::RestartPolicy;
use procbroker_protocol::{ChildState, CreateParams, ExitStatus};

use super::{World, next, restarted};

pub(crate) const FAILED: ExitStatus = ExitStatus::Code(1);

pub(crate) fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A child that runs under a policy.
pub(crate) fn running(policy: RestartPolicy, params: CreateParams) -> (World, ConnectionId, Run) {
    let (mut world, client) = World::with_client();
    let run = world.start(client, restarted(policy, params));
    (world, client, run)
}

/// A run ends by itself and leaves nothing, and that another one follows is on record.
pub(crate) fn fails(world: &mut World, run: Run) {
    world.exited(run, FAILED, Members::Nothing);
    world.recorded(next(run));
}

/// Lets a run fail, and the next one begin after a pause that is this long to the millisecond.
pub(crate) fn fail_and_return(world: &mut World, run: Run, pause: Duration) -> Run {
    fails(world, run);
    assert_eq!(world.spawns(), []);
    world.advance(pause.saturating_sub(millis(1)));
    assert_eq!(world.spawns(), [], "before {pause:?}");
    world.advance(millis(1));
    let next = next(run);
    assert_eq!(world.spawns(), [next], "after {pause:?}");
    world.spawned(next);
    next
}

pub(crate) fn state(world: &mut World, client: ConnectionId, run: Run) -> ChildState {
    world.shown(client, run).state
}
