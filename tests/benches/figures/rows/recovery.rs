//! Start of the broker after one that was killed: until all of its children are managed again.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use procbroker::os::process::pidfd;
use procbroker_core::Pid;
use procbroker_protocol::CreateParams;
use procbroker_protocol::child::Child;

use super::memory::{CHILD_MAX_BYTES, Memory};
use super::thousands;
use crate::broker::Broker;
use crate::failure::Failure;
use crate::figure::{Figure, Goal, Pair, Spread, Unit};
use crate::population::create_many;
use crate::scene::Scene;
use crate::table::quantity;

const RECOVERY_MAX_SECONDS: f64 = 1.0;

/// What the rounds gave, in seconds and bytes.
#[derive(Default)]
struct Rounds {
    listed: Vec<Pair>,
    answered: Vec<f64>,
    idle: Vec<f64>,
    recovered: Vec<f64>,
    growth: Vec<f64>,
}

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let params = CreateParams::new(scene.child_command(None));
    let mut rounds = Rounds::default();
    for _ in 0..scene.effort.long_rounds() {
        let mut broker = Broker::start(scene)?;
        let idle = Memory::of(&broker)?.resident;
        create_many(&broker, &params, scene.crowd)?;
        let before = broker.connect()?.list()?;
        let beside = bare_look(&before)?;
        broker.kill_and_start_again(scene)?;
        let answered = broker.start.as_secs_f64();
        let begin = Instant::now();
        let after = broker.connect()?.list()?;
        let listed = answered + begin.elapsed().as_secs_f64();
        check(&before, &after)?;
        let recovered = Memory::of(&broker)?.resident;
        broker.stop()?;
        rounds.listed.push(Pair { ours: listed, beside });
        rounds.answered.push(answered);
        rounds.idle.push(idle);
        rounds.recovered.push(recovered);
        rounds.growth.push((recovered - idle) / u32::try_from(after.len()).map_or(f64::NAN, f64::from));
    }
    Ok(rounds.figures(scene.crowd))
}

impl Rounds {
    fn figures(&self, children: usize) -> Vec<Figure> {
        let children = thousands(children);
        let middle = |unit, values: &[f64]| quantity(unit, Spread::of(values).median);
        let work = format!("recovery of {children} children, until all are listed");
        let bare = "bare pidfd_open, fstat of each";
        vec![
            Figure::beside(work, Unit::Time, bare, &self.listed)
                .goal(Goal::AtMost(RECOVERY_MAX_SECONDS))
                .note(format!(
                    "until status is answered {}; killed with SIGKILL when the last create was answered; what the disk \
                     has is in the page cache",
                    middle(Unit::Time, &self.answered)
                )),
            Figure::alone(
                format!("memory after it, for each of {children} children (RSS)"),
                Unit::Bytes,
                Spread::of(&self.growth),
            )
            .goal(Goal::AtMost(CHILD_MAX_BYTES))
            .note(format!(
                "in all {}, with none {}",
                middle(Unit::Bytes, &self.recovered),
                middle(Unit::Bytes, &self.idle)
            )),
        ]
    }
}

/// The least that tells whether a process is still the same one: a descriptor of it, and its inode. In seconds.
fn bare_look(children: &[Arc<Child>]) -> Result<f64, Failure> {
    let attempt = "look at a child";
    let begin = Instant::now();
    for child in children {
        let pid = child.pid.and_then(Pid::new);
        let pid = pid.ok_or_else(|| Failure::unexpected(attempt, format!("{} has no process", child.id)))?;
        let look = pidfd::open(pid).and_then(|pidfd| pidfd::inode(pidfd.as_fd()));
        look.map_err(|errno| Failure::unexpected(attempt, format!("process {pid}: {errno}")))?;
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// A figure of a recovery that loses something would mean nothing.
fn check(before: &[Arc<Child>], after: &[Arc<Child>]) -> Result<(), Failure> {
    let attempt = "find all children again";
    if after.len() != before.len() {
        let found = format!("there are {} instead of {}", after.len(), before.len());
        return Err(Failure::unexpected(attempt, found));
    }
    match before.iter().zip(after).find(|(before, after)| before != after) {
        None => Ok(()),
        Some((before, after)) => {
            Err(Failure::unexpected(attempt, format!("{after:?} was {before:?} before the kill")))
        }
    }
}
