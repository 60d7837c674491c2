//! Places under a limit: who waits for one gets it in his turn, and nobody waits while there is one.

use procbroker_core::Call;

use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::asked::Asked;

/// A create that has waited for a place gets it.
///
/// # Errors
/// When it was the turn of another one.
pub fn given(ledger: &Ledger, call: Call, asked: &Asked) -> Checked {
    let Some((limit, _)) = asked.patience().filter(|_| asked.seeks) else { return Ok(()) };
    if ledger.has_rival_seeker(call) {
        return Ok(());
    }
    let uid = asked.peer.uid;
    for other in ledger.could_have_place(call, &limit.key) {
        let is_first = other.peer.uid == uid && other.at < asked.at;
        Check::Places
            .demand(!is_first, || format!("{asked:?} gets a place before {other:?}, which came first"))?;
        let passed = ledger.turns.get(&(limit.key.clone(), other.peer.uid));
        let again = passed.is_some_and(|passed| other.peer.uid != uid && passed.contains(&uid));
        Check::Places
            .demand(!again, || format!("user {uid} gets a place again before it is the turn of {other:?}"))?;
    }
    Ok(())
}

/// After a turn: a create that waits for a place has to, and not for too long.
///
/// # Errors
/// When it does not.
pub fn goes_on(ledger: &Ledger, asked: &Asked) -> Checked {
    let until = asked.waits_for_place_until();
    let fair = asked.seeks && ledger.is_without_place(asked) && until.is_some_and(|until| ledger.now < until);
    let waits_for_its_name = || {
        let holder = asked.wanted_name().and_then(|name| ledger.holder(name));
        asked.may_have_had_its_turn && holder.is_some_and(|holder| !holder.demands.is_empty())
    };
    let fair = fair || waits_for_its_name();
    Check::Progress.demand(fair, || format!("{asked:?} waits for nothing, or for too long"))
}

/// Whether a create may be told now that there is no place under its limit: not after it has ended another one for it.
#[must_use]
pub fn is_refused_in_time(ledger: &Ledger, asked: &Asked) -> bool {
    asked.kept_for.is_none() && has_waited(ledger, asked)
}

/// Whether a create may be told that there is no place under its limit, as far as it waits for one.
#[must_use]
fn has_waited(ledger: &Ledger, asked: &Asked) -> bool {
    let until = asked.waits_for_place_until();
    asked.patience().is_none() || until.is_some_and(|until| until <= ledger.now)
}
