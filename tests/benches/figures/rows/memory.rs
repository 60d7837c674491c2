//! The broker's own memory: idle, and for each child.

use std::fs;

use procbroker_protocol::CreateParams;

use super::thousands;
use crate::broker::Broker;
use crate::failure::{Attempt, Failure};
use crate::figure::{Figure, Goal, Spread, Unit};
use crate::population::create_many;
use crate::scene::Scene;
use crate::table::quantity;

const IDLE_MAX_BYTES: f64 = 6.0 * 1_048_576.0;
const IDLE_PRIVATE_MAX_BYTES: f64 = 2.0 * 1_048_576.0;
pub(super) const CHILD_MAX_BYTES: f64 = 2.0 * 1_024.0;

/// From `/proc/PID/smaps_rollup` (`proc_pid_smaps(5)`), in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: f64,
    proportional: f64,
    private: f64,
}

impl Memory {
    pub(super) fn of(broker: &Broker) -> Result<Self, Failure> {
        let path = format!("/proc/{}/smaps_rollup", broker.pid());
        let text = fs::read_to_string(&path).attempting(format!("read {path}"))?;
        let sum = |names: &[&str]| -> f64 {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let wanted = lines.filter(|(name, _)| names.contains(name));
            // In KiB, with the unit behind it.
            let amounts =
                wanted.filter_map(|(_, amount)| amount.split_whitespace().next()?.parse::<f64>().ok());
            amounts.sum::<f64>() * 1_024.0
        };
        Ok(Self {
            resident: sum(&["Rss"]),
            proportional: sum(&["Pss"]),
            private: sum(&["Private_Clean", "Private_Dirty"]),
        })
    }
}

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let params = CreateParams::new(scene.child_command(None));
    let sizes = [scene.crowd.min(1_000), scene.crowd];
    let mut idle = Vec::new();
    let mut growth = sizes.map(|_| Vec::new());
    let mut private = sizes.map(|_| Vec::new());
    for _ in 0..scene.effort.long_rounds() {
        let broker = Broker::start(scene)?;
        let before = Memory::of(&broker)?;
        let mut alive = 0;
        for ((size, growth), private) in sizes.iter().zip(&mut growth).zip(&mut private) {
            create_many(&broker, &params, size - alive)?;
            alive = *size;
            let now = Memory::of(&broker)?;
            let each = 1.0 / u32::try_from(alive).map_or(f64::NAN, f64::from);
            growth.push((now.resident - before.resident) * each);
            private.push((now.private - before.private) * each);
        }
        broker.stop()?;
        idle.push(before);
    }
    let spread = |value: fn(&Memory) -> f64| Spread::of(&idle.iter().map(value).collect::<Vec<_>>());
    let proportional = quantity(Unit::Bytes, spread(|memory| memory.proportional).median);
    let mut figures = vec![
        Figure::alone("memory, idle (RSS)", Unit::Bytes, spread(|memory| memory.resident))
            .goal(Goal::AtMost(IDLE_MAX_BYTES))
            .note(format!("its share of what is shared counted (PSS) {proportional}")),
        Figure::alone("memory, idle, private", Unit::Bytes, spread(|memory| memory.private))
            .goal(Goal::AtMost(IDLE_PRIVATE_MAX_BYTES)),
    ];
    for ((size, growth), private) in sizes.into_iter().zip(growth).zip(private) {
        let work = format!("memory, for each of {} children (RSS)", thousands(size));
        let private = quantity(Unit::Bytes, Spread::of(&private).median);
        figures.push(
            Figure::alone(work, Unit::Bytes, Spread::of(&growth))
                .goal(Goal::AtMost(CHILD_MAX_BYTES))
                .note(format!("private {private}")),
        );
    }
    Ok(figures)
}
