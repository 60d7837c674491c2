//! The checkers: each order is held against the book before it is taken down, and after each turn the
//! book is searched for what should have been ordered.

pub mod answers;
pub mod by_command;
pub mod children;
pub mod cleanups;
pub mod creates;
pub mod events;
pub mod leases;
pub mod lives;
pub mod orders;
pub mod places;
pub mod promises;
pub mod queries;
pub mod readiness;
pub mod runs;
pub mod shutdown;
pub mod standstill;
pub mod stops;
pub mod targets;
pub mod upgrades;

use procbroker_core::{Afterwards, Effect, Progress, Purpose, Record, Report};
use procbroker_protocol::{ChildId, ExitReason};

use crate::sim::finding::Checked;
use crate::sim::ledger::Ledger;
use crate::sim::ledger::track::Start;
use crate::sim::machine::Machine;

/// The child that an order shows to be ended for another one, if anybody wants it ended.
fn ended_for_another(ledger: &Ledger, effect: &Effect) -> Option<ChildId> {
    match effect {
        Effect::Record { run, record: Record::Progress(progress), .. } => {
            let reason = match progress {
                Progress::Unwanted { reason, .. } => Some(*reason),
                // What had ended by itself has, and does not run again.
                Progress::Stopping(stopping) if stopping.afterwards == Afterwards::End => {
                    let is_called_off = stopping.reason == ExitReason::Exited;
                    Some(if is_called_off { ExitReason::Replaced } else { stopping.reason })
                }
                Progress::Restarting { unwanted, .. } => unwanted.as_ref().map(|(reason, _)| *reason),
                Progress::Cleaning { exit, .. } | Progress::Ended { exit, .. } => Some(exit.reason),
                Progress::Stopping(_) | Progress::Starting { .. } | Progress::Running { .. } => None,
            };
            (reason == Some(ExitReason::Replaced)).then_some(run.child)
        }
        // It never was, and nothing has kept it from its start.
        Effect::Release { run } => {
            let track = ledger.tracks.get(&run.child).filter(|track| track.run == *run)?;
            let is_unstarted =
                track.start == Start::Recorded { written: true } && track.runs.between.is_none();
            is_unstarted.then_some(run.child)
        }
        _ => None,
    }
}

/// Holds one order against the book, and takes it down.
///
/// # Errors
/// When it breaks a promise.
pub fn order(ledger: &mut Ledger, machine: &Machine, effect: &Effect) -> Checked {
    if let Effect::Signal { call: None, .. }
    | Effect::Kill { .. }
    | Effect::Release { .. }
    | Effect::Record {
        record: Record::Progress(Progress::Stopping(_) | Progress::Restarting { .. }),
        ..
    } = effect
    {
        ledger.follow_waves();
    }
    if let Effect::Record {
        record: Record::Progress(Progress::Unwanted { .. } | Progress::Stopping(_)),
        ..
    } = effect
    {
        ledger.note_replacements();
        ledger.follow_waves();
    }
    if let Some(id) = ended_for_another(ledger, effect)
        && let Some((winner, rivals)) = ledger.whose_turn(id)
    {
        if let Some(asked) = ledger.calls.get(&winner) {
            places::given(ledger, winner, asked)?;
        }
        ledger.note_turn(id, winner, rivals);
    }
    match effect {
        Effect::Admit { connection } => orders::admitted(ledger, *connection)?,
        Effect::Refuse { connection, error } => orders::refused(ledger, *connection, error)?,
        Effect::Answer { call, result, after: _, usage: _ } => {
            answers::answer(ledger, *call, result)?;
            if let Ok(response) = result {
                ledger.subscribed(*call, response);
            }
        }
        Effect::Record { run, record: Record::Intent(intent), .. } => orders::intent(ledger, *run, intent)?,
        Effect::Record { run, record: Record::Progress(progress), safety, receipt, expires: _ } => {
            orders::progress(ledger, *run, progress, (*safety, *receipt))?;
        }
        Effect::Spawn { run, order, purpose: Purpose::Main } => orders::spawn(ledger, machine, *run, order)?,
        Effect::Spawn { run, order, purpose: Purpose::Probe } => {
            by_command::begins(ledger, machine, *run, order)?;
        }
        Effect::Spawn { run, order, purpose: Purpose::Cleanup { exit } } => {
            cleanups::spawn(ledger, machine, *run, order, exit)?;
        }
        Effect::Signal { run, signal, scope, call } => {
            orders::reaches_a_process(ledger, machine, *run, "a signal")?;
            match call {
                Some(asked) => targets::requested_signal(ledger, *run, *signal, *scope, *asked)?,
                None => stops::step(ledger, *run, *signal, *scope)?,
            }
        }
        Effect::Kill { run } if ledger.is_command(*run) => {
            ledger.note_replacements();
            by_command::kill(ledger, machine, *run)?;
        }
        Effect::Kill { run } if ledger.is_launch(*run) => {
            ledger.note_replacements();
            ledger.follow_waves();
            ledger.note_unwanted();
            stops::cuts_short(ledger, *run)?;
        }
        Effect::Kill { run } => {
            orders::reaches_a_process(ledger, machine, *run, "SIGKILL")?;
            stops::kill(ledger, *run)?;
        }
        Effect::Release { run } if ledger.is_command(*run) => by_command::release(ledger, machine, *run)?,
        Effect::Release { run } => orders::release(ledger, machine, *run)?,
        Effect::AwaitRun { child } => orders::awaits_run(machine, *child)?,
        Effect::Forget { child } => orders::forget(ledger, *child)?,
        Effect::Record { record: Record::Answered(answered), .. } => {
            creates::remembered(ledger, answered)?;
        }
        Effect::ForgetAnswers { on_record } => creates::unremembered(ledger, machine, on_record)?,
        Effect::Unread { connection } => events::roused(ledger, *connection)?,
        Effect::Publish { connection, notifications } => {
            events::published(ledger, *connection, notifications)?;
        }
        Effect::ReadLog { call, child, .. } => events::log(ledger, *call, *child)?,
        Effect::CheckUpgrade => upgrades::check(ledger)?,
        Effect::HandOver => upgrades::hand_over(ledger, machine)?,
        Effect::Report(Report::Ended { child }) => {
            orders::ended(ledger, machine, child)?;
        }
        Effect::Report(report) => shutdown::report(ledger, report)?,
        Effect::Sweep => shutdown::sweep(ledger)?,
        Effect::Exit(cause) => shutdown::exit(ledger, machine, *cause)?,
        Effect::Watch { anchor } => leases::watches(ledger, *anchor)?,
        Effect::Unwatch { anchor } => leases::unwatches(ledger, *anchor)?,
        Effect::Probe { run, order: _, since } => readiness::asks(ledger, *run, *since)?,
        Effect::ReadTail { call, child, .. } => readiness::last_words(ledger, *call, *child)?,
        Effect::EndLog { .. } | Effect::Measure { .. } | Effect::Notify(_) => {}
    }
    ledger.record(effect);
    match effect {
        // What is shown of it has to be as it is from now on.
        Effect::Report(Report::Ended { child }) => children::child(ledger, child.owner.uid, child),
        _ => Ok(()),
    }
}
