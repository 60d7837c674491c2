//! Commands that find out whether children are ready: one at a time, for a bounded time, none that has no point any more, and
//! nothing follows for a child before that of its own is gone.

use std::sync::Arc;

use procbroker_core::{Members, Run, SpawnOrder, paired_id};
use procbroker_protocol::ChildId;
use procbroker_protocol::duration::nanos;

use crate::sim::checks::orders::{has_a_turn, known};
use crate::sim::checks::readiness;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::by_command::{Command, Stage};
use crate::sim::ledger::track::Track;
use crate::sim::ledger::upgrade::Upgrade;
use crate::sim::machine::Machine;

/// A command is started.
///
/// # Errors
/// When nobody needs it, or another one is there.
pub fn begins(ledger: &Ledger, machine: &Machine, run: Run, order: &Arc<SpawnOrder>) -> Checked {
    let track = known(ledger, paired_id(run.child))?;
    readiness::is_due(ledger, track)?;
    let command = &track.command;
    let is_next = command.stage == Stage::Absent && run.incarnation == command.incarnation.next();
    Check::Readiness.demand(track.is_asked_by_command() && is_next, || {
        format!("{run:?} is to ask whether a child is ready: {track:?}")
    })?;
    Check::Orders.demand(order.params == track.params && order.run_as == track.run_as, || {
        format!("{run:?} is spawned otherwise than recorded")
    })?;
    Check::Upgrade
        .demand(!ledger.upgrade.holds_spawns(), || format!("{run:?} is spawned during an upgrade"))?;
    has_a_turn(ledger, track)?;
    let other = machine.families.values().find(|family| family.child == run.child && family.is_alive());
    Check::Readiness.demand(other.is_none(), || format!("{run:?} asks beside {other:?}"))
}

/// Whether the answer of a command is worth anything still.
fn is_wanted(ledger: &Ledger, track: &Track) -> bool {
    track.is_starting() && !matches!(ledger.upgrade, Upgrade::AwaitingLaunches { .. })
}

/// All of a command is killed.
///
/// # Errors
/// When it is not there, or has a point and time left.
pub fn kill(ledger: &Ledger, machine: &Machine, run: Run) -> Checked {
    let track = known(ledger, paired_id(run.child))?;
    let command = &track.command;
    let is_there = machine.family(run).is_some() || machine.flights.contains_key(&run);
    let is_its_own = command.incarnation == run.incarnation && track.has_command() && is_there;
    Check::Orders.demand(is_its_own, || format!("SIGKILL for {run:?}, and there is {command:?}"))?;
    let is_over = matches!(command.stage, Stage::Over { .. }) && command.members != Members::Nothing;
    let again = command.killed.is_some() || command.is_cut_short;
    let fair = is_over || again || command.is_late(ledger.now) || !is_wanted(ledger, track);
    Check::Readiness.demand(fair, || format!("{run:?} is killed at {}: {track:?}", ledger.now))
}

/// A command is given free.
///
/// # Errors
/// When something of it is there.
pub fn release(ledger: &Ledger, machine: &Machine, run: Run) -> Checked {
    let track = known(ledger, paired_id(run.child))?;
    let Command { incarnation, stage, members, .. } = track.command;
    let is_over = matches!(stage, Stage::Over { .. }) && members == Members::Nothing;
    Check::Orders.demand(is_over && incarnation == run.incarnation, || {
        format!("{run:?} is released at a wrong time: {:?}", track.command)
    })?;
    let left = machine.family(run).filter(|family| family.is_alive());
    let is_there = left.is_some() || machine.flights.contains_key(&run);
    Check::Orders.demand(!is_there, || format!("{run:?} is released while something of it is left: {left:?}"))
}

/// A child's run is given free: nothing is there that was to find out whether it is ready.
///
/// # Errors
/// When something is.
pub fn is_gone(machine: &Machine, track: &Track) -> Checked {
    let asks = paired_id(track.run.child);
    let left = machine.families.values().find(|family| family.child == asks && family.is_alive());
    let flies = machine.flights.keys().find(|run| run.child == asks);
    Check::Readiness.demand(!track.has_command() && left.is_none() && flies.is_none(), || {
        format!("{:?} is released before its command is gone: {left:?} {flies:?}", track.run)
    })
}

/// After a turn: a command that has no point or no time any more is being killed, and what is over is given free.
///
/// # Errors
/// When it stands still.
pub fn goes_on(ledger: &Ledger, track: &Track) -> Checked {
    let now = ledger.now;
    let command = &track.command;
    let is_timely = is_wanted(ledger, track) && !command.is_late(now) && !command.is_cut_short;
    let again = nanos(procbroker_core::KILL_AGAIN_AFTER);
    let is_killed = command.killed.is_some_and(|(_, last)| now < last + again);
    let fair = match command.stage {
        Stage::Absent => true,
        // One that has no program yet is killed once.
        Stage::Ordered { .. } => is_timely || command.killed.is_some(),
        Stage::Running { .. } => is_timely || is_killed,
        Stage::Over { .. } => command.members != Members::Nothing && is_killed,
    };
    Check::Readiness.demand(fair, || format!("a command stands still at {now}: {track:?}"))?;
    Check::Readiness.demand(!track.readiness.is_unreported, || {
        format!("nobody is told that a command could not be started: {track:?}")
    })
}

/// It is said that a command could not be started.
///
/// # Errors
/// When it could, or that was said before.
pub fn said(ledger: &Ledger, child: ChildId) -> Checked {
    let track = known(ledger, child)?;
    Check::Readiness.demand(track.readiness.is_unreported, || {
        format!("it is said without need that a command could not be started: {track:?}")
    })
}
