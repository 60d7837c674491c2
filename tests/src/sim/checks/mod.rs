//! The checkers: each order is held against the book before it is taken down, and after each turn the
//! book is searched for what should have been ordered.

pub mod answers;
pub mod children;
pub mod creates;
pub mod orders;
pub mod queries;
pub mod shutdown;
pub mod standstill;
pub mod stops;
pub mod targets;

use procbroker_core::Effect;

use crate::sim::finding::Checked;
use crate::sim::ledger::Ledger;
use crate::sim::machine::Machine;

/// Holds one order against the book, and takes it down.
///
/// # Errors
/// When it breaks a promise.
pub fn order(ledger: &mut Ledger, machine: &Machine, effect: &Effect) -> Checked {
    if let Effect::Signal { call: None, .. } | Effect::Kill { .. } = effect {
        ledger.follow_waves();
    }
    match effect {
        Effect::Admit { connection } => orders::admitted(ledger, *connection)?,
        Effect::Refuse { connection, error } => orders::refused(ledger, *connection, error)?,
        Effect::Answer { call, result } => answers::answer(ledger, *call, result)?,
        Effect::Record { run, record } => orders::record(ledger, *run, record)?,
        Effect::Spawn { run, order } => orders::spawn(ledger, machine, *run, order)?,
        Effect::Signal { run, signal, scope, call } => {
            orders::reaches_a_process(ledger, *run, "a signal")?;
            match call {
                Some(call) => targets::requested_signal(ledger, *run, *signal, *scope, *call)?,
                None => stops::step(ledger, *run, *signal, *scope)?,
            }
        }
        Effect::Kill { run } => {
            orders::reaches_a_process(ledger, *run, "SIGKILL")?;
            stops::kill(ledger, *run)?;
        }
        Effect::Release { run } => orders::release(ledger, machine, *run)?,
        Effect::Forget { child } => orders::forget(ledger, *child)?,
        Effect::Report(report) => shutdown::report(ledger, report)?,
        Effect::Sweep => shutdown::sweep(ledger)?,
        Effect::Exit(cause) => shutdown::exit(ledger, machine, *cause)?,
        Effect::Notify(_) => {}
    }
    ledger.record(effect);
    Ok(())
}
