//! The waves of a shutdown, its deadline and its end.

use std::time::Duration;

use procbroker_core::{ExitCause, Report};
use procbroker_protocol::ChildState;
use procbroker_protocol::duration::nanos;
use procbroker_protocol::response::ShutdownReport;

use crate::sim::checks::{by_command, children, cleanups, runs, upgrades};
use crate::sim::finding::{Check, Checked};
use crate::sim::ledger::Ledger;
use crate::sim::ledger::closing::Closing;
use crate::sim::ledger::lives::Census;
use crate::sim::ledger::track::Track;
use crate::sim::machine::{Machine, SWEEP_TIME};

/// Below this the kernel may need longer to kill than there is time.
const TIMEOUT_CHECKED: Duration = Duration::from_secs(1);

/// A line for people is written.
///
/// # Errors
/// When it is not true.
pub fn report(ledger: &Ledger, report: &Report) -> Checked {
    match report {
        Report::Idle => {
            let patience = ledger.config.exit_when_idle.map(nanos);
            let due = patience.zip(ledger.idle_since).map(|(patience, since)| since + patience);
            Check::Shutdown.demand(due == Some(ledger.now) && ledger.closing.is_none(), || {
                format!("the broker is idle at {} and not at {due:?}", ledger.now)
            })
        }
        Report::ShuttingDown { children, .. } => {
            let live = ledger.live.len();
            let told = usize::try_from(*children).unwrap_or(usize::MAX);
            Check::Shutdown.demand(ledger.closing.is_some() && told == live, || {
                format!("a shutdown of {told} children begins, and there are {live}")
            })
        }
        Report::ShutDown { left, .. } => {
            let without = ledger.live_tracks().all(|track| track.cleaning.is_some() || !track.is_spawned());
            Check::Shutdown.demand(*left > 0 || without, || {
                "the shutdown is said to leave nothing, and children are left".to_owned()
            })
        }
        Report::Hurried { .. } => Check::Shutdown
            .demand(ledger.closing.as_ref().is_some_and(|closing| closing.hurried.is_some()), || {
                "the shutdown is hurried by nobody".to_owned()
            }),
        Report::Started { child } | Report::Forced { child } | Report::Ended { child } => {
            children::child(ledger, child.owner.uid, child)
        }
        Report::ProbeFailed { child, .. } => {
            by_command::said(ledger, child.id)?;
            children::child(ledger, child.owner.uid, child)
        }
        Report::Restarting { child, pause } => {
            runs::follows(ledger, child.id, *pause)?;
            children::child(ledger, child.owner.uid, child)
        }
        Report::CleanupLeft { child } => Check::Cleanup
            .demand(ledger.closing.is_some() && cleanups::may_be_left(ledger, child.id), || {
                format!("the cleanup of {} is left to the next broker without need", child.id)
            }),
        Report::Recovered { alive, ended, void } => {
            let told = Census { alive: *alive, ended: *ended, void: *void };
            let expected = ledger.found_at_start;
            Check::Recovery.demand(told == expected, || format!("{told:?} are found, and not {expected:?}"))
        }
        Report::UpgradeRefused { .. } => upgrades::refused(ledger),
        Report::StartFailed { .. } | Report::CleanupFailed { .. } | Report::HandingOver => Ok(()),
    }
}

/// What descends from no child is ended, once all have ended, or short of the deadline where they do not.
///
/// # Errors
/// When children are left, and have time to end.
pub fn sweep(ledger: &Ledger) -> Checked {
    let closing = ledger.closing.as_ref();
    let once = closing.is_some_and(|closing| closing.swept.or(closing.swept_early).is_none());
    let is_late = closing.and_then(Closing::sweeps_early_at).is_some_and(|at| at <= ledger.now);
    Check::Shutdown.demand(once && (is_late || ledger.live_tracks().all(Track::is_left)), || {
        format!("the sweep comes while {:?} are left, or twice, or without a shutdown", ledger.live)
    })
}

/// The broker exits.
///
/// # Errors
/// When it is too late, or something is left that need not be.
pub fn exit(ledger: &Ledger, machine: &Machine, cause: ExitCause) -> Checked {
    let Some(closing) = &ledger.closing else {
        return Err(Check::Shutdown.broken("the broker exits without a shutdown"));
    };
    Check::Shutdown.demand(ledger.now <= closing.deadline, || {
        format!("the broker exits at {} and not by {}", ledger.now, closing.deadline)
    })?;
    Check::Answers
        .demand(ledger.waiting.is_empty(), || format!("the broker exits and leaves {:?}", ledger.waiting))?;
    match cause {
        ExitCause::Done => Check::Shutdown
            .demand(!machine.is_alive() && machine.flights.is_empty() && machine.strays == 0, || {
                format!("the broker says that all is gone, and {:?} are left", machine.families)
            }),
        ExitCause::Main(_) => {
            Err(Check::Shutdown.broken("the broker exits with a main command, and there is none"))
        }
        ExitCause::Left(left) => {
            let since = closing.swept.or(closing.swept_early);
            let sweeping = since.is_some_and(|at| ledger.now - at <= SWEEP_TIME);
            // What came to be after the last kill had begun has less time to die.
            let late = machine.families.values().any(|family| family.told_at >= closing.kill_at);
            let fair = machine.has_excuse() || late || sweeping || closing.timeout < TIMEOUT_CHECKED;
            Check::Shutdown.demand(left > 0 && fair, || {
                format!("the broker leaves {left} behind without need: {:?}", ledger.live)
            })
        }
    }
}

/// A `shutdown` is answered.
///
/// # Errors
/// When the report is not true.
pub fn answered(report: &ShutdownReport) -> Checked {
    let forced = report.children.iter().filter(|child| child.exit.as_ref().is_some_and(|exit| exit.forced));
    let forced = u32::try_from(forced.count()).unwrap_or(u32::MAX);
    Check::Shutdown.demand(forced == report.forced, || {
        format!("the report counts {} forced of {forced}", report.forced)
    })?;
    report.children.iter().try_for_each(|child| {
        Check::Shutdown.demand(matches!(child.state, ChildState::Cleaning | ChildState::Ended), || {
            format!("the report has {} that is {:?}", child.id, child.state)
        })
    })
}

/// After a turn: the shutdown has not come to a standstill.
///
/// # Errors
/// When something that is due was not ordered.
pub fn goes_on(ledger: &Ledger) -> Checked {
    if ledger.exited {
        return Ok(());
    }
    Check::Shutdown.demand(!ledger.farewell, || {
        "requests are answered as if the broker exited, and it does not".to_owned()
    })?;
    let Some(closing) = &ledger.closing else {
        let patience = ledger.config.exit_when_idle.map(nanos);
        let due = patience.zip(ledger.idle_since).map(|(patience, since)| since + patience);
        return Check::Shutdown.demand(due.is_none_or(|due| ledger.now < due), || {
            format!("the broker does not exit although it is idle since {:?}", ledger.idle_since)
        });
    };
    Check::Shutdown.demand(ledger.now < closing.deadline, || "the deadline is over".to_owned())?;
    let left = ledger.live_tracks().any(|track| !track.is_left());
    let swept = closing.swept.or(closing.swept_early);
    let is_late = closing.sweeps_early_at().is_some_and(|at| at <= ledger.now);
    Check::Shutdown.demand(swept.is_some() || !is_late, || {
        "what descends from the broker is not ended before the deadline".to_owned()
    })?;
    Check::Shutdown
        .demand(swept.is_some() || left, || "no child is left, and the shutdown does not go on".to_owned())
}
