//! What holds from one broker to the next: nothing is lost, and nobody lives whom nobody knows.

use procbroker_core::{Progress, Recovered, Safety, paired_id};
use procbroker_protocol::ExitReason;

use crate::sim::disk::Loss;
use crate::sim::family::Family;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::Track;
use crate::sim::machine::Machine;

/// What is on record at a start is what there was, and everything that lives is on record.
///
/// # Errors
/// When it is not.
pub fn begins(ledger: &Ledger, machine: &Machine, found: &[Recovered]) -> Checked {
    for recovered in found {
        let intent = &recovered.intent;
        let Some(track) = ledger.tracks.get(&intent.id) else {
            return Err(Check::Recovery.broken(format!("{intent:?} is on record, and never was")));
        };
        let same = intent.params == track.params
            && intent.owner == track.owner
            && intent.run_as == track.run_as
            && intent.created_at == track.clock.wall(track.born);
        Check::Recovery.demand(same, || format!("{track:?} is on record as {intent:?}"))?;
    }
    let mut numbers: Vec<_> =
        found.iter().map(|it| (ledger.creations.get(&it.intent.id), it.intent.number)).collect();
    numbers.sort_unstable();
    Check::Recovery.demand(numbers.is_sorted_by(|before, after| before.1 < after.1), || {
        format!("children are on record in another order than that of their creations: {numbers:?}")
    })?;
    let unknown = machine.families.values().filter(|family| family.is_alive()).find(|family| {
        let is_its = |recovered: &&Recovered| {
            [recovered.intent.id, paired_id(recovered.intent.id)].contains(&family.child)
        };
        let row = found.iter().find(is_its);
        row.is_none_or(|row| matches!(row.progress, Some(Progress::Ended { .. })))
    });
    Check::Recovery.demand(unknown.is_none(), || format!("nobody knows of {unknown:?}"))
}

/// These children are not on record any more.
///
/// # Errors
/// When one of them was promised to be.
pub fn lost(children: &[Track], loss: Loss, machine: &Machine) -> Checked {
    let promised = |track: &&Track| {
        let has_run = machine.past(track.run.child).has_run;
        match loss {
            // One that holds nothing which outlives the machine can be lost with it.
            Loss::Power => {
                has_run && track.params.cleanup.is_some() || track.told.known == Some(Safety::Power)
            }
            Loss::Process | Loss::Nothing => has_run || track.told.known.is_some(),
        }
    };
    let missing = children.iter().find(promised);
    Check::Recovery.demand(missing.is_none(), || format!("{missing:?} is lost in a crash"))
}

/// A broker leaves in order: what it leaves on record is for the next one to clean up, and nothing else.
///
/// # Errors
/// When a child is on record as alive whose processes are not there.
pub fn leaves(ledger: &Ledger, machine: &Machine) -> Checked {
    for (child, row) in machine.disk.rows() {
        let is_its = |family: &Family| [child, paired_id(child)].contains(&family.child);
        let alive = machine.families.values().any(|family| is_its(family) && family.is_alive());
        let Some(track) = ledger.tracks.get(&child) else { continue };
        let open = match &row.progress {
            Some(Progress::Ended { exit, cleanup, .. }) => {
                let cleaned = cleanup.is_some() || track.params.cleanup.is_none();
                let known = exit.reason != ExitReason::BrokerLost || track.known_exit.as_ref() == Some(exit);
                cleaned && known && !alive
            }
            Some(Progress::Cleaning { .. }) => track.cleaning.is_some(),
            // It may have died as the broker was leaving, which it would not before.
            Some(
                Progress::Starting { .. }
                | Progress::Running { .. }
                | Progress::Restarting { .. }
                | Progress::Stopping(_),
            ) => alive || machine.has_excuse(),
            None | Some(Progress::Unwanted { .. }) => !track.is_spawned(),
        };
        Check::Recovery.demand(open, || format!("{track:?} is left on record as {:?}", row.progress))?;
    }
    Ok(())
}
