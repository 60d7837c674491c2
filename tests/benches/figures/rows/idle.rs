//! How often the broker wakes up while it has nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use procbroker_protocol::CreateParams;
use procbroker_protocol::create::{Check, Cleanup, Lifetime, Limit, Restart, RestartPolicy};

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
    // A client that is connected and silent, but for what it holds.
    let mut connection = broker.connect()?;
    let kinds = kinds(scene, &broker);
    let each = children / (kinds.len() + 1);
    for params in &kinds {
        create_many(&broker, params, each)?;
    }
    let held =
        CreateParams { lifetime: Lifetime::Connection, ..CreateParams::new(scene.child_command(None)) };
    for _ in each * kinds.len()..children {
        connection.create(held.clone())?;
    }
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
    let (seconds, children) = (WATCHED.as_secs(), thousands(children));
    let work = format!("wake-ups in {seconds} s, {children} children of every kind idle");
    let figure = Figure::alone(work, Unit::Count, Spread::of(&[wakes])).goal(Goal::AtMost(0.0));
    Ok(vec![if by_thread.is_empty() {
        figure
    } else {
        figure.note(format!("by thread: {}", by_thread.join(", ")))
    }])
}

/// Children with a life of their own, as many kinds as there are: none of them has anything to do before the hour is over.
fn kinds(scene: &Scene, broker: &Broker) -> Vec<CreateParams> {
    let plain = CreateParams::new(scene.child_command(None));
    let hour = Duration::from_secs(3_600);
    let listener = Check::Unix(broker.socket().to_string_lossy().into_owned());
    let asked = Check::Command(vec!["true".to_owned()]);
    let cleanup = Cleanup { command: vec!["true".to_owned()], timeout: hour };
    let limit = Limit { key: "idle".to_owned(), max: u32::MAX, wait: Some(hour) };
    let restart = Restart { policy: RestartPolicy::Always, ..Restart::default() };
    vec![
        CreateParams { lifetime: Lifetime::Ttl(hour), ..plain.clone() },
        CreateParams { lifetime: Lifetime::Pid(std::process::id()), ..plain.clone() },
        CreateParams { ready: listener.into(), ..plain.clone() },
        CreateParams { ready: asked.into(), ..plain.clone() },
        CreateParams { cleanup: Some(cleanup), limit: Some(limit), ..plain.clone() },
        CreateParams { restart, ..plain },
    ]
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
