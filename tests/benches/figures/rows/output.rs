//! The output of a child that nobody reads, beside `cat` from a pipe to a file; and what a child that writes without
//! pause costs the creates of others.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use procbroker_client::blocking;
use procbroker_protocol::{CreateParams, Target};

use super::create::one_create;
use crate::broker::Broker;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Pair, Unit, percentile_99};
use crate::hello::Hello;
use crate::scene::Scene;

const RATE_RATIO_MIN: f64 = 0.8;
const TAIL_RATIO_MAX: f64 = 1.5;
/// What one child writes, in bytes: many times what is kept of it.
const OUTPUT_BYTES: u32 = 256 << 20;

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    Ok(vec![rate(scene)?, tail(scene)?])
}

fn rate(scene: &Scene) -> Result<Figure, Failure> {
    let broker = Broker::start(scene)?;
    let client = blocking::Broker::at(broker.socket()).map_err(client_failure)?;
    let file = scene.path("output");
    let mut rounds = Vec::new();
    for _ in 0..scene.effort.rounds() {
        let beside = f64::from(OUTPUT_BYTES) / piped(&file)?.as_secs_f64();
        let begin = Instant::now();
        let mut command = client.command("head");
        command.args(["-c", &OUTPUT_BYTES.to_string(), "/dev/zero"]);
        let created = command.spawn().map_err(client_failure)?;
        created.child.wait().map_err(client_failure)?;
        let ours = f64::from(OUTPUT_BYTES) / begin.elapsed().as_secs_f64();
        rounds.push(Pair { ours, beside });
    }
    drop(client);
    broker.stop()?;
    let work = "output of one child that nobody reads, bytes";
    Ok(Figure::beside(work, Unit::Rate, "cat from a pipe to a file", &rounds)
        .goal(Goal::RatioAtLeast(RATE_RATIO_MIN)))
}

/// How long it takes to write as much through a pipe and `cat` to a file.
fn piped(file: &Path) -> Result<Duration, Failure> {
    let attempt = "write from a pipe to a file by cat";
    let begin = Instant::now();
    let status = Command::new("sh")
        .args(["-c", "head -c \"$1\" /dev/zero | cat > \"$2\"", "sh"])
        .arg(OUTPUT_BYTES.to_string())
        .arg(file)
        .stdin(Stdio::null())
        .status()
        .attempting(attempt)?;
    let took = begin.elapsed();
    std::fs::remove_file(file).attempting(attempt)?;
    if status.success() { Ok(took) } else { Err(Failure::unexpected(attempt, status.to_string())) }
}

fn tail(scene: &Scene) -> Result<Figure, Failure> {
    let broker = Broker::start(scene)?;
    let mut connection = broker.connect()?;
    let hello = Hello::new(scene, "output-hello")?;
    let params = CreateParams::new(scene.child_command(Some(hello.path())));
    let chatty = CreateParams::new(vec!["yes".to_owned()]);
    let samples = scene.effort.samples();
    let mut rounds = Vec::new();
    for _ in 0..scene.effort.rounds() {
        let mut creates = || -> Result<f64, Failure> {
            let taken: Result<Vec<Duration>, Failure> =
                (0..samples).map(|_| one_create(&mut connection, &params, &hello)).collect();
            Ok(percentile_99(&taken?))
        };
        let beside = creates()?;
        let neighbour = broker.connect()?.create(chatty.clone())?;
        let ours = creates()?;
        broker.connect()?.destroy(Target::Id(neighbour))?;
        rounds.push(Pair { ours, beside });
    }
    drop(connection);
    broker.stop()?;
    let work = "create, 99th percentile, beside a child that writes without pause";
    Ok(Figure::beside(work, Unit::Time, "the same without it", &rounds)
        .goal(Goal::RatioAtMost(TAIL_RATIO_MAX)))
}

fn client_failure(source: procbroker_client::Error) -> Failure {
    Failure::Client { attempt: "create a child that writes".into(), source: Box::new(source) }
}
