//! One user's work beside two thousand hostile connections of others, against the same work on a quiet broker.
//!
//! The hostile processes run at the lowest priority, so that what is measured is whose turn it is in the broker, and not
//! whose it is on the processors.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use procbroker_protocol::request::LogsParams;
use procbroker_protocol::{CreateParams, Request, Response, Target};

use crate::broker::Broker;
use crate::connection::Connection;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Pair, Spread, Unit, median, percentile_99};
use crate::scene::Scene;
use crate::table::quantity;

const RATIO_MAX: f64 = 2.0;

/// What they do, and who they are: the last may not even connect.
const CONDUCTS: [(&str, &str); 9] = [
    ("silent", GUEST),
    ("partial", GUEST),
    ("flood", GUEST),
    ("unread", GUEST),
    ("subscribe", GUEST),
    ("pipeline", GUEST),
    ("garbage", GUEST),
    ("churn", GUEST),
    ("refused", OUTSIDER),
];

/// Users who own nothing here.
const GUEST: &str = "64002";
const OUTSIDER: &str = "64003";

/// Connections of each kind.
const OF_EACH: usize = 250;

/// So many may all be there, of whom one user may have half: what they do is done inside, and not at the door.
const CONNECTIONS_MAX: &str = "8192";

/// How long each part of the work has taken, in seconds.
#[derive(Default)]
struct Took {
    all: Vec<Duration>,
    status: Vec<Duration>,
}

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    if !geteuid().is_root() {
        return Err(Failure::unexpected("act as several users", "only root can"));
    }
    let [mut all, mut status] = [Vec::new(), Vec::new()];
    let [mut middle, mut quiet_middle] = [Vec::new(), Vec::new()];
    for _ in 0..scene.effort.long_rounds().max(3) {
        let flags = ["--socket-mode", "666", "--allow-user", GUEST, "--max-connections", CONNECTIONS_MAX];
        let broker = Broker::start_with(scene, &flags)?;
        let mut connection = broker.connect()?;
        let quiet = work(scene, &mut connection)?;
        let crowds: Result<Vec<Crowd>, Failure> =
            CONDUCTS.iter().map(|(conduct, user)| Crowd::gather(&broker, conduct, user)).collect();
        let crowds = crowds?;
        let loud = work(scene, &mut connection)?;
        drop(crowds);
        drop(connection);
        broker.stop()?;
        all.push(Pair { ours: percentile_99(&loud.all), beside: percentile_99(&quiet.all) });
        status.push(Pair { ours: percentile_99(&loud.status), beside: percentile_99(&quiet.status) });
        middle.push(median(&loud.all));
        quiet_middle.push(median(&quiet.all));
    }
    let [middle, quiet_middle] =
        [middle, quiet_middle].map(|values| quantity(Unit::Time, Spread::of(&values).median));
    let crowd = super::thousands(CONDUCTS.len() * OF_EACH);
    let beside = "the same, quiet";
    Ok(vec![
        Figure::beside(
            format!("create, status, logs, destroy beside {crowd} hostile connections: 99th percentile"),
            Unit::Time,
            beside,
            &all,
        )
        .goal(Goal::RatioAtMost(RATIO_MAX))
        .note(format!("median: {middle}, quiet {quiet_middle}")),
        Figure::beside(
            format!("status alone beside {crowd} hostile connections: 99th percentile"),
            Unit::Time,
            beside,
            &status,
        ),
    ])
}

/// From a child's start to its end, again and again.
fn work(scene: &Scene, connection: &mut Connection) -> Result<Took, Failure> {
    let params = CreateParams::new(scene.child_command(None));
    let mut took = Took::default();
    for _ in 0..scene.effort.samples() * 2 {
        let begin = Instant::now();
        let id = connection.create(params.clone())?;
        let asked = Instant::now();
        connection.status()?;
        took.status.push(asked.elapsed());
        let logs = LogsParams {
            target: Target::Id(id),
            stream: procbroker_protocol::request::LogStream::Stdout,
            tail: None,
            since: None,
            timestamps: false,
            follow: false,
            position: None,
        };
        match connection.call(&Request::Logs(logs))? {
            Response::Logs(_) => {}
            other => return Err(Failure::unexpected("call logs", format!("the broker answered {other:?}"))),
        }
        connection.destroy(Target::Id(id))?;
        took.all.push(begin.elapsed());
    }
    Ok(took)
}

/// Hostile connections of one kind, in a process of their own.
struct Crowd(Child);

impl Crowd {
    fn gather(broker: &Broker, conduct: &str, user: &str) -> Result<Self, Failure> {
        let attempt = || format!("gather a crowd ({conduct}) with setpriv and python3");
        let mut process = Command::new("setpriv")
            .args(["--reuid", user, "--regid", user, "--clear-groups", "nice", "-n", "19"])
            .args(["env", "PATH=/usr/bin:/bin", "python3", "-c"])
            .arg(include_str!("../../../tests/broker/hostile/crowd.py"))
            .arg(broker.socket())
            .args([conduct, &OF_EACH.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .attempting(attempt())?;
        let told = process.stdout.take();
        let crowd = Self(process);
        let mut line = String::new();
        if let Some(told) = told {
            BufReader::new(told).read_line(&mut line).attempting(attempt())?;
        }
        if line.trim() == OF_EACH.to_string() {
            Ok(crowd)
        } else {
            Err(Failure::unexpected(attempt(), format!("it said {line:?}")))
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
