//! Shutdown of many willing children: from SIGTERM until the broker has exited.

use nix::sys::signal::Signal;
use procbroker_protocol::CreateParams;

use super::thousands;
use crate::bare;
use crate::broker::Broker;
use crate::failure::Failure;
use crate::figure::{Figure, Goal, Pair, Unit};
use crate::population::create_many;
use crate::scene::Scene;

const RATIO_MAX: f64 = 1.15;
/// The more there are, the more of the kernel's own work is beside the signals.
const CROWD_RATIO_MAX: f64 = 1.25;
/// Fewer than this are no crowd.
const CROWD: usize = 1_001;

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    [scene.crowd.min(1_000), scene.crowd].into_iter().map(|children| figure(scene, children)).collect()
}

fn figure(scene: &Scene, children: usize) -> Result<Figure, Failure> {
    let command = scene.child_command(None);
    let params = CreateParams::new(command.clone());
    let plan = bare::Plan { command, log: None };
    let mut rounds = Vec::new();
    for _ in 0..scene.effort.long_rounds().max(2) {
        let (mut flock, _) = bare::spawn_many(scene, &plan, 2, children)?;
        let beside = flock.end(Signal::SIGTERM)?.as_secs_f64();
        let broker = Broker::start(scene)?;
        create_many(&broker, &params, children)?;
        let ours = broker.stop()?.as_secs_f64();
        rounds.push(Pair { ours, beside });
    }
    let work = format!("shutdown of {} children", thousands(children));
    let most = if children < CROWD { RATIO_MAX } else { CROWD_RATIO_MAX };
    Ok(Figure::beside(work, Unit::Time, "bare kill and reap", &rounds).goal(Goal::RatioAtMost(most)))
}
