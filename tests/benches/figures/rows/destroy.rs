//! Destroy one child, until its exit is reported.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use procbroker_protocol::{CreateParams, Target};

use crate::bare::{self, Flock};
use crate::broker::Broker;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::figure::{Figure, Goal, Pair, Spread, Unit, median};
use crate::hello::Hello;
use crate::in_turn::in_turn;
use crate::peer::{Answers, Peer, echo};
use crate::scene::Scene;
use crate::table::quantity;

const RATIO_MAX: f64 = 1.3;

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    let mut connection = broker.connect()?;
    let peer = Peer::start(scene, &Answers::Echo)?;
    let mut stream = peer.connect()?;
    let hello = Hello::new(scene, "destroy")?;
    let command = scene.child_command(Some(hello.path()));
    let plan = bare::Plan { command: command.clone(), log: None };
    let params = CreateParams::new(command);
    let mut spawner = bare::spawner(scene)?;

    let mut rounds = Vec::new();
    let mut echoes = Vec::new();
    for _ in 0..scene.effort.rounds() {
        let [ours, bare, round_trips] = in_turn(
            scene.effort.samples(),
            [
                &mut || one_destroy(&mut connection, &params, &hello),
                &mut || one_kill(&mut spawner, &plan, &hello),
                &mut || echo(&mut stream),
            ],
        )?;
        let [bare, round_trip] = [bare, round_trips].map(|samples| median(&samples));
        rounds.push(Pair { ours: median(&ours), beside: bare + round_trip });
        echoes.push(round_trip);
    }
    drop(connection);
    broker.stop()?;

    let note = format!("echo {}", quantity(Unit::Time, Spread::of(&echoes).median));
    Ok(vec![
        Figure::beside(
            "destroy one, until its exit is reported",
            Unit::Time,
            "bare kill and wait + echo",
            &rounds,
        )
        .goal(Goal::RatioAtMost(RATIO_MAX))
        .note(note),
    ])
}

fn one_kill(spawner: &mut bare::Spawner, plan: &bare::Plan, hello: &Hello) -> Result<Duration, Failure> {
    let mut flock = Flock::default();
    flock.push(bare::spawn(spawner, plan)?);
    hello.wait()?;
    flock.end(Signal::SIGTERM)
}

fn one_destroy(
    connection: &mut Connection,
    params: &CreateParams,
    hello: &Hello,
) -> Result<Duration, Failure> {
    let id = connection.create(params.clone())?;
    hello.wait()?;
    let begin = Instant::now();
    let destroyed = connection.destroy(Target::Id(id))?;
    let took = begin.elapsed();
    if destroyed == 1 {
        return Ok(took);
    }
    Err(Failure::unexpected("destroy one child", format!("the broker reported {destroyed}")))
}
