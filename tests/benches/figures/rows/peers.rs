//! Create and destroy from Python, beside what a team without a broker writes: a multiprocessing manager that owns the
//! children of all workers, and `subprocess.Popen` in the worker itself, which owns nothing beyond the worker's end.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::broker::Broker;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Pair, Spread, Unit};
use crate::hello::Hello;
use crate::scene::Scene;

const RATIO_MAX: f64 = 1.0;
const PROGRAM: &str = include_str!("../peers.py");
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/python/src");

/// What the program prints, in seconds.
#[derive(Deserialize)]
struct Taken {
    broker: Way,
    manager: Way,
    subprocess: Way,
}

#[derive(Deserialize)]
struct Way {
    create: Vec<f64>,
    destroy: Vec<f64>,
}

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    let hello = Hello::new(scene, "peers")?;
    let [mut manager, mut subprocess, mut destroy] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..scene.effort.rounds() {
        let taken = run(scene, broker.socket(), &hello)?;
        let middle = |values: &[f64]| Spread::of(values).median;
        let ours = middle(&taken.broker.create);
        manager.push(Pair { ours, beside: middle(&taken.manager.create) });
        subprocess.push(Pair { ours, beside: middle(&taken.subprocess.create) });
        destroy.push(Pair { ours: middle(&taken.broker.destroy), beside: middle(&taken.manager.destroy) });
    }
    broker.stop()?;
    let work = "create from Python, until the child runs";
    let manager_name = "a multiprocessing manager";
    let goal = Goal::RatioAtMost(RATIO_MAX);
    Ok(vec![
        Figure::beside(work, Unit::Time, manager_name, &manager).goal(goal),
        Figure::beside(work, Unit::Time, "subprocess.Popen in the worker", &subprocess),
        Figure::beside("destroy from Python, until the end is known", Unit::Time, manager_name, &destroy)
            .goal(goal),
    ])
}

fn run(scene: &Scene, socket: &Path, hello: &Hello) -> Result<Taken, Failure> {
    let attempt = "create children from Python (python3 is needed)";
    let output = Command::new("python3")
        .args(["-c", PROGRAM, PACKAGE])
        .arg(socket)
        .args(scene.child_command(Some(hello.path())))
        .arg(scene.effort.samples().to_string())
        .output()
        .attempting(attempt)?;
    if !output.status.success() {
        return Err(Failure::unexpected(attempt, String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Failure::unexpected(attempt, error.to_string()))
}
