//! A live upgrade: asked for, checked, and handed over when nothing is in the air.

use crate::sim::agenda::SECOND;
use crate::sim::family::Part;
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::Track;
use crate::sim::ledger::upgrade::Upgrade;
use crate::sim::machine::Machine;

/// How long processes that are being started have, in nanoseconds.
const PATIENCE: u64 = 10 * SECOND;

/// The other program is asked.
///
/// # Errors
/// When nobody wants it, or it was asked already.
pub fn check(ledger: &Ledger) -> Checked {
    let fair = ledger.upgrade == Upgrade::Wanted && ledger.closing.is_none();
    Check::Upgrade.demand(fair, || format!("an upgrade is checked, and is {:?}", ledger.upgrade))
}

/// The other program takes over.
///
/// # Errors
/// When something is in the air that could be lost.
pub fn hand_over(ledger: &Ledger, machine: &Machine) -> Checked {
    let is_awaiting_launches = matches!(ledger.upgrade, Upgrade::AwaitingLaunches { .. });
    Check::Upgrade.demand(is_awaiting_launches && ledger.closing.is_none(), || {
        format!("the broker hands over, and the upgrade is {:?}", ledger.upgrade)
    })?;
    let flying = ledger.live_tracks().find(|track| is_in_the_way(track));
    Check::Upgrade
        .demand(flying.is_none(), || format!("the broker hands over while this starts: {flying:?}"))?;
    // The next program would not look for it.
    let asking = machine.families.values().find(|family| family.part == Part::Probe && family.is_alive());
    Check::Upgrade.demand(asking.is_none(), || format!("the broker hands over, and there is {asking:?}"))
}

/// Whether something of a child keeps the broker from handing over.
fn is_in_the_way(track: &Track) -> bool {
    track.in_flight() > 0 || track.has_command()
}

/// A request for an upgrade is answered well.
///
/// # Errors
/// When nothing is handed over.
pub fn answered(ledger: &Ledger) -> Checked {
    let is_awaiting_launches = matches!(ledger.upgrade, Upgrade::AwaitingLaunches { .. });
    Check::Upgrade
        .demand(is_awaiting_launches, || format!("an upgrade is answered, and is {:?}", ledger.upgrade))
}

/// The upgrade has come to nothing.
///
/// # Errors
/// When nothing is wrong with it.
pub fn refused(ledger: &Ledger) -> Checked {
    let fair = match ledger.upgrade {
        Upgrade::Refused => true,
        Upgrade::AwaitingLaunches { since } => ledger.now == since + PATIENCE,
        Upgrade::None | Upgrade::Wanted | Upgrade::Checking | Upgrade::HandingOver => false,
    };
    Check::Upgrade.demand(fair, || format!("an upgrade is refused, and is {:?}", ledger.upgrade))
}

/// After a turn: an upgrade that can go on does.
///
/// # Errors
/// When it stands still.
pub fn goes_on(ledger: &mut Ledger) -> Checked {
    if ledger.upgrade == Upgrade::Refused {
        ledger.upgrade = Upgrade::None;
    }
    let fair = match ledger.upgrade {
        Upgrade::None | Upgrade::Checking | Upgrade::HandingOver => true,
        Upgrade::Wanted | Upgrade::Refused => false,
        Upgrade::AwaitingLaunches { since } => {
            let flies = ledger.live_tracks().any(is_in_the_way);
            flies && ledger.now < since + PATIENCE
        }
    };
    Check::Upgrade.demand(fair, || format!("an upgrade stands still: {:?}", ledger.upgrade))
}
