//! Short forms for the tests of the shutdown.

use procbroker_core::{Call, ConnectionId, Effect, Input, Run};
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::Scope;
use procbroker_protocol::response::ShutdownReport;
use procbroker_protocol::{Response, Signal};

use super::{Sent, World, of_order, step};

pub(crate) fn by_term(seconds: u64) -> Vec<StopStep> {
    vec![step(Signal::TERM, seconds)]
}

pub(crate) fn term(run: Run) -> Sent {
    Sent::Signal(run, Signal::TERM, Scope::Group)
}

pub(crate) fn sweep(world: &mut World) {
    assert!(world.take().contains(&Effect::Sweep));
    world.give(Input::Swept { left: 0 });
}

pub(crate) fn report_of(world: &World, call: Call) -> ShutdownReport {
    match world.answer(call) {
        Ok(Response::ShutDown(report)) => report,
        other => panic!("a shutdown was answered with {other:?}"),
    }
}

/// A world with one child for each stop order, in that order.
pub(crate) fn world_of(waves: &[(i32, u64)]) -> (World, ConnectionId, Vec<Run>) {
    let (mut world, client) = World::with_client();
    let runs =
        waves.iter().map(|(order, grace)| world.start(client, of_order(*order, by_term(*grace)))).collect();
    (world, client, runs)
}
