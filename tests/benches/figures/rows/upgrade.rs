//! The live upgrade: how long nobody is answered.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procbroker_protocol::CreateParams;

use super::thousands;
use crate::broker::Broker;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::figure::{Figure, Pair, Spread, Unit};
use crate::population::create_many;
use crate::scene::Scene;
use crate::table::quantity;

const UPGRADES: usize = 20;
/// How long nobody may be answered before something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    [0, scene.crowd.min(1_000)].into_iter().map(|children| figure(scene, children)).collect()
}

fn figure(scene: &Scene, children: usize) -> Result<Figure, Failure> {
    let broker = Broker::start(scene)?;
    create_many(&broker, &CreateParams::new(scene.child_command(None)), children)?;
    let over = AtomicBool::new(false);
    let (answers, windows) = thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(broker.socket(), &over));
        let windows = upgrade_often(scene, &broker);
        over.store(true, Ordering::Relaxed);
        let answers =
            asking.join().unwrap_or_else(|_| Err(Failure::unexpected("ask for status", "it panicked")));
        (answers, windows)
    });
    let (answers, windows) = (answers?, windows?);
    let alive = broker.connect()?.list()?.len();
    if alive != children {
        return Err(Failure::unexpected("upgrade", format!("{alive} of {children} children are left")));
    }
    broker.stop()?;

    let gap = |window: &Window| answers.longest_gap(window).as_secs_f64();
    let rounds: Vec<Pair> =
        windows.iter().map(|[quiet, upgrade]| Pair { ours: gap(upgrade), beside: gap(quiet) }).collect();
    let took: Vec<f64> =
        windows.iter().map(|[_, upgrade]| (upgrade.end - upgrade.begin).as_secs_f64()).collect();
    let work = format!("upgrade with {} children, longest gap", thousands(children));
    let took = quantity(Unit::Time, Spread::of(&took).median);
    Ok(Figure::beside(work, Unit::Time, "the same during procbroker status", &rounds).note(format!(
        "{UPGRADES} upgrades, each {took} from the start of the command to its end; between two answers to status, \
         each over a connection of its own: none of {} was refused, {} were closed without an answer",
        answers.at.len() + answers.lost,
        answers.lost,
    )))
}

/// When a command ran.
struct Window {
    begin: Instant,
    end: Instant,
}

/// For each round one without an upgrade, and one with.
fn upgrade_often(scene: &Scene, broker: &Broker) -> Result<Vec<[Window; 2]>, Failure> {
    let window = |verb| {
        let begin = Instant::now();
        broker.run(scene, verb).map(|()| Window { begin, end: Instant::now() })
    };
    (0..UPGRADES).map(|_| Ok([window("status")?, window("upgrade")?])).collect()
}

/// What somebody was told who asked without pause.
#[derive(Default)]
struct Answers {
    at: Vec<Instant>,
    /// Connections that were closed without an answer.
    lost: usize,
}

impl Answers {
    /// The longest time without an answer that touches this window.
    fn longest_gap(&self, window: &Window) -> Duration {
        let pairs = self.at.iter().zip(self.at.iter().skip(1));
        let touching = pairs.filter(|(from, to)| **to > window.begin && **from < window.end);
        touching.map(|(from, to)| *to - *from).max().unwrap_or_default()
    }
}

/// Asks for the status, each time over a new connection, until it is over, and once more. That no connection can be
/// made is a failure; one that is closed without an answer is made again.
fn ask_until(socket: &Path, over: &AtomicBool) -> Result<Answers, Failure> {
    let mut answers = Answers::default();
    let mut last = Instant::now();
    loop {
        let is_last = over.load(Ordering::Relaxed);
        let stream = Connection::knock(socket)?;
        match Connection::over(stream).and_then(|mut connection| connection.status()) {
            Ok(()) => {
                last = Instant::now();
                answers.at.push(last);
                if is_last {
                    return Ok(answers);
                }
            }
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) if last.elapsed() > PATIENCE => return Err(failure),
            Err(_) => answers.lost += 1,
        }
    }
}
