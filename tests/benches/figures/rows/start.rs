//! Start of the broker, until it answers.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::broker::Broker;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Pair, Unit};
use crate::scene::Scene;

const START_MAX_SECONDS: f64 = 0.010;

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let mut rounds = Vec::new();
    for _ in 0..scene.effort.rounds() {
        let attempt = "run /bin/true";
        let begin = Instant::now();
        let mut command = Command::new("/bin/true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().attempting(attempt)?;
        let beside = begin.elapsed().as_secs_f64();
        let broker = Broker::start(scene)?;
        let ours = broker.start.as_secs_f64();
        broker.stop()?;
        rounds.push(Pair { ours, beside });
    }
    Ok(vec![
        Figure::beside("start until status is answered", Unit::Time, "/bin/true", &rounds)
            .goal(Goal::AtMost(START_MAX_SECONDS))
            .note("with a new state folder each time"),
    ])
}
