//! Create by one client, until the answer is there and the child is known to run.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use procbroker_client::blocking;
use procbroker_protocol::{CreateParams, Target};

use crate::bare::{self, Flock};
use crate::broker::Broker;
use crate::connection::Connection;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Pair, Spread, Unit, median, percentile_99};
use crate::hello::Hello;
use crate::in_turn::in_turn;
use crate::peer::{Answers, Peer, echo};
use crate::scene::Scene;
use crate::table::quantity;

const RATIO_MAX: f64 = 1.15;

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    let mut connection = broker.connect()?;
    let client = blocking::Broker::at(broker.socket()).map_err(client_failure)?;
    let peer = Peer::start(scene, &Answers::Echo)?;
    let mut stream = peer.connect()?;
    let hello = Hello::new(scene, "create")?;
    let command = scene.child_command(Some(hello.path()));
    let minimal = bare::Plan { command: command.clone(), log: None };
    let mut logging = NewPipes { folder: scene.subfolder()?, count: 0 };
    let mut spawner = bare::spawner(scene)?;
    let mut other_spawner = bare::spawner(scene)?;
    let params = CreateParams::new(command.clone());
    let samples = scene.effort.samples();

    let mut rounds = Rounds::default();
    for _ in 0..scene.effort.rounds() {
        let [ours, by_rust_client, spawn, with_log, by_standard, round_trip] = in_turn(
            samples,
            [
                &mut || one_create(&mut connection, &params, &hello),
                &mut || client_create(&client, &command, &hello),
                &mut || bare_create(&mut spawner, &minimal, &hello),
                &mut || bare_create(&mut other_spawner, &logging.plan(command.clone())?, &hello),
                &mut || standard_create(&command, &hello),
                &mut || echo(&mut stream),
            ],
        )?;
        let [spawn, round_trip] = [spawn, round_trip].map(|samples| median(&samples));
        let beside = spawn + round_trip;
        rounds.plain.push(Pair { ours: median(&ours), beside });
        rounds.by_rust_client.push(Pair { ours: median(&by_rust_client), beside });
        rounds.tails.push(percentile_99(&ours));
        rounds.spawns.push(spawn);
        rounds.with_log.push(median(&with_log));
        rounds.by_standard.push(median(&by_standard));
        rounds.echoes.push(round_trip);
    }
    drop((connection, client));
    broker.stop()?;
    Ok(rounds.figures())
}

/// What the rounds gave; times are medians of a round, in seconds.
#[derive(Default)]
struct Rounds {
    plain: Vec<Pair>,
    by_rust_client: Vec<Pair>,
    tails: Vec<f64>,
    spawns: Vec<f64>,
    with_log: Vec<f64>,
    by_standard: Vec<f64>,
    echoes: Vec<f64>,
}

impl Rounds {
    fn figures(&self) -> Vec<Figure> {
        let middle = |values: &[f64]| quantity(Unit::Time, Spread::of(values).median);
        let work = "create, one client, until the child runs";
        let bare = "bare spawn + echo";
        let goal = Goal::RatioAtMost(RATIO_MAX);
        let bare_note = format!(
            "bare: spawn until hello {} (output to /dev/null), with its output in a new pipe, as the broker's \
             children have it, {}, std::process::Command {}; echo {}",
            middle(&self.spawns),
            middle(&self.with_log),
            middle(&self.by_standard),
            middle(&self.echoes),
        );
        vec![
            Figure::beside(work, Unit::Time, bare, &self.plain)
                .goal(goal)
                .note(bare_note)
                .note(format!("ours: 99th percentile {}", middle(&self.tails))),
            Figure::beside(format!("{work} (Rust client)"), Unit::Time, bare, &self.by_rust_client)
                .goal(goal),
        ]
    }
}

/// Times the create alone; the child is destroyed afterwards.
pub(super) fn one_create(
    connection: &mut Connection,
    params: &CreateParams,
    hello: &Hello,
) -> Result<Duration, Failure> {
    let params = params.clone();
    let begin = Instant::now();
    let id = connection.create(params)?;
    hello.wait()?;
    let took = begin.elapsed();
    connection.destroy(Target::Id(id))?;
    Ok(took)
}

fn client_create(client: &blocking::Broker, command: &[String], hello: &Hello) -> Result<Duration, Failure> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Failure::unexpected("create by the Rust client", "the command is empty"))?;
    let mut command = client.command(program);
    command.args(arguments);
    let begin = Instant::now();
    let created = command.spawn().map_err(client_failure)?;
    hello.wait()?;
    let took = begin.elapsed();
    created.child.destroy().map_err(client_failure)?;
    Ok(took)
}

fn client_failure(source: procbroker_client::Error) -> Failure {
    Failure::Client { attempt: "create by the Rust client".into(), source: Box::new(source) }
}

pub(super) fn bare_create(
    spawner: &mut bare::Spawner,
    plan: &bare::Plan,
    hello: &Hello,
) -> Result<Duration, Failure> {
    let mut flock = Flock::default();
    let begin = Instant::now();
    flock.push(bare::spawn(spawner, plan)?);
    hello.wait()?;
    let took = begin.elapsed();
    flock.end(Signal::SIGTERM)?;
    Ok(took)
}

/// A new pipe for each child's output.
struct NewPipes {
    folder: PathBuf,
    count: usize,
}

impl NewPipes {
    fn plan(&mut self, command: Vec<String>) -> Result<bare::Plan, Failure> {
        self.count += 1;
        let path = self.folder.join(self.count.to_string());
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).attempting("make a pipe for a child's output")?;
        Ok(bare::Plan { command, log: Some(path) })
    }
}

/// The standard library's way, for who doubts that the bare spawn is the fastest.
fn standard_create(command: &[String], hello: &Hello) -> Result<Duration, Failure> {
    let mut flock = Flock::default();
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Failure::unexpected("spawn by the standard library", "the command is empty"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let child = command.spawn().attempting("spawn by the standard library")?;
    flock.push(Pid::from_raw(child.id().cast_signed()));
    hello.wait()?;
    let took = begin.elapsed();
    flock.end(Signal::SIGTERM)?;
    Ok(took)
}
