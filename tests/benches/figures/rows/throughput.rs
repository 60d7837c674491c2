//! Create by 8 clients at once, beside the highest rate of bare spawns.

use nix::sys::signal::Signal;
use procbroker_protocol::{CreateParams, Target};

use crate::bare;
use crate::broker::Broker;
use crate::failure::Failure;
use crate::figure::{Figure, Goal, Pair, Spread, Unit};
use crate::population::{CLIENTS, create_many};
use crate::scene::{Effort, Scene};
use crate::table::quantity;

const RATIO_MIN: f64 = 0.9;
/// From how many threads bare children are spawned, to find the best.
const THREADS: [usize; 4] = [1, 2, 4, 8];

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    let mut connection = broker.connect()?;
    let command = scene.child_command(None);
    let params = CreateParams::new(command.clone());
    let plan = bare::Plan { command, log: None };
    let children = match scene.effort {
        Effort::Quick => 400,
        Effort::Full => 1_600,
    };
    let mut ours = Vec::new();
    let mut by_threads = THREADS.map(|threads| (threads, Vec::new()));
    for _ in 0..scene.effort.rounds() {
        for (threads, rates) in &mut by_threads {
            rates.push(bare_rate(scene, &plan, *threads, children)?);
        }
        let took = create_many(&broker, &params, children)?;
        connection.destroy(Target::All)?;
        ours.push(rate(children, took.as_secs_f64()));
    }
    drop(connection);
    broker.stop()?;

    let medians = by_threads.each_ref().map(|(threads, rates)| (*threads, Spread::of(rates).median));
    let best = by_threads
        .into_iter()
        .max_by(|(_, one), (_, other)| Spread::of(one).median.total_cmp(&Spread::of(other).median));
    let (threads, rates) = best.unwrap_or_default();
    let rounds: Vec<Pair> = ours.into_iter().zip(rates).map(|(ours, beside)| Pair { ours, beside }).collect();
    let each = medians.map(|(threads, rate)| format!("{threads}: {}", quantity(Unit::Rate, rate))).join(", ");
    let work = format!("create, {CLIENTS} clients");
    let bare = format!("bare spawns, {threads} threads");
    Ok(vec![
        Figure::beside(work, Unit::Rate, bare, &rounds)
            .goal(Goal::RatioAtLeast(RATIO_MIN))
            .note(format!("bare spawns by threads: {each}")),
    ])
}

fn bare_rate(scene: &Scene, plan: &bare::Plan, threads: usize, children: usize) -> Result<f64, Failure> {
    let (mut flock, took) = bare::spawn_many(scene, plan, threads, children)?;
    let spawned = flock.len();
    flock.end(Signal::SIGTERM)?;
    Ok(rate(spawned, took.as_secs_f64()))
}

pub(super) fn rate(children: usize, seconds: f64) -> f64 {
    u32::try_from(children).map_or(f64::NAN, f64::from) / seconds
}
