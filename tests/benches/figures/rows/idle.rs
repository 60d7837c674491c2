//! How often the broker wakes up while it has nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use procbroker_protocol::CreateParams;

use super::thousands;
use crate::broker::Broker;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Spread, Unit};
use crate::population::create_many;
use crate::scene::Scene;

/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// Before it is watched, so that what the last create left to do is over.
const SETTLES: Duration = Duration::from_secs(2);

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let children = scene.crowd.min(1_000);
    let broker = Broker::start(scene)?;
    // A client that is connected and silent.
    let connection = broker.connect()?;
    create_many(&broker, &CreateParams::new(scene.child_command(None)), children)?;
    thread::sleep(SETTLES);
    let before = switches(broker.pid())?;
    thread::sleep(WATCHED);
    let after = switches(broker.pid())?;
    drop(connection);
    broker.stop()?;

    let woken = |(name, count): (&(u32, String), &u32)| {
        let more = count - before.get(name).copied().unwrap_or_default().min(*count);
        (more > 0).then(|| format!("{} {more}", name.1))
    };
    let by_thread: Vec<String> = after.iter().filter_map(woken).collect();
    let sum = |counts: &Switches| counts.values().sum::<u32>();
    let wakes = f64::from(sum(&after).saturating_sub(sum(&before)));
    let work = format!("wake-ups in {} s, {} children idle", WATCHED.as_secs(), thousands(children));
    let figure = Figure::alone(work, Unit::Count, Spread::of(&[wakes])).goal(Goal::AtMost(0.0));
    Ok(vec![if by_thread.is_empty() {
        figure
    } else {
        figure.note(format!("by thread: {}", by_thread.join(", ")))
    }])
}

/// For each thread, by its id and name, how often it gave its processor up to wait.
type Switches = BTreeMap<(u32, String), u32>;

/// From /proc/PID/task/TID/status (`proc_pid_status(5)`).
fn switches(pid: u32) -> Result<Switches, Failure> {
    let folder = format!("/proc/{pid}/task");
    let attempt = || format!("count the wake-ups in {folder}");
    let mut switches = Switches::new();
    for entry in fs::read_dir(&folder).attempting(attempt())? {
        let entry = entry.attempting(attempt())?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let status = fs::read_to_string(entry.path().join("status")).attempting(attempt())?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let count = field("voluntary_ctxt_switches:").and_then(|count| count.parse().ok());
        let count = count.ok_or_else(|| Failure::unexpected(attempt(), "there is no count of a thread"))?;
        switches.insert((thread, field("Name:").unwrap_or_default().to_owned()), count);
    }
    Ok(switches)
}
