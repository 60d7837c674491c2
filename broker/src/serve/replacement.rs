//! The moment of a live upgrade: the record is complete, the last answers go out, and this program is replaced.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use procbroker_core::UpgradeFailure;

use crate::causes::with_causes;
use crate::driver::{Driver, Sources, Stay};
use crate::limits::{ANSWERING_PATIENCE, LOGS_PATIENCE, RECORD_PATIENCE};
use crate::os::host::listening::Sockets;
use crate::os::journal::JournalError;
use crate::os::process::signal_mask::HeldBack;
use crate::upgrade::{Beginning, Handover, Program};

/// How often it is looked whether the answers are out.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How long the thread that writes the log has for the last lines.
const LOG_PATIENCE: Duration = Duration::from_millis(10);

/// How long the record is waited for at a time: what waits for it may have something to say in between.
const RECORD_LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long it may take to find out what ended children have left.
const ENDS_PATIENCE: Duration = Duration::from_secs(2);

/// What is handed over beside what the driver has, and to whom.
pub(crate) struct Leaving<'a> {
    pub(crate) sockets: &'a Sockets,
    pub(crate) program: &'a Program,
    pub(crate) beginning: Beginning,
}

/// Becomes the new program. It returns only when that fails: why, and nothing has changed then.
///
/// Requests that have come in are answered until the last moment; no more clients are taken in meanwhile.
pub(crate) async fn hand_over(driver: &mut Driver, sources: &mut Sources, leaving: &Leaving<'_>) -> Stay {
    match become_program(driver, sources, leaving).await {
        Err(stay) => stay,
        Ok(never) => match never {},
    }
}

/// What never comes.
enum Never {}

async fn become_program(
    driver: &mut Driver,
    sources: &mut Sources,
    leaving: &Leaving<'_>,
) -> Result<Never, Stay> {
    learn_of_ends(driver, sources).await?;
    complete_record(driver, sources)?;
    // From here on a signal waits for the new program, or for the failure of the old one. Those that came before
    // have been seen by the event loop when it has slept.
    let held_back = HeldBack::begin().map_err(|errno| failed(&errno))?;
    let began = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        catch_up(driver, sources)?;
        let waited = began.elapsed();
        // A client that reads slowly asks again, as all of them do.
        let is_enough = driver.all_answers_are_out() && waited >= LOG_PATIENCE;
        if is_enough || waited >= ANSWERING_PATIENCE {
            break;
        }
    }
    complete_record(driver, sources)?;
    // From here on what children write waits in their pipes.
    let outputs = driver.handler().logs.pause(LOGS_PATIENCE).map_err(|error| failed(&error))?;
    let folder: Option<OwnedFd> =
        driver.handler().containment.pass_cgroup_folder().transpose().map_err(|error| failed(&error))?;
    // Nothing but the exec itself can fail any more: what was asked for is done as far as this program can tell.
    say_farewell(driver).await;
    let (events, counters) = (driver.event_history(), driver.counters());
    let children = driver.handed_over();
    let handler = driver.handler();
    let processes = handler.containment.adopted_processes();
    let handover = Handover {
        listeners: leaving.sockets.descriptors(),
        socket: leaving.sockets.own(),
        state_lock: handler.state.lock(),
        state_folder: (handler.state.path(), handler.state.folder().as_fd()),
        runtime_folder: (handler.runtime.path(), handler.runtime.as_fd()),
        cgroup_folder: folder.as_ref().map(AsFd::as_fd),
        processes: processes.iter().map(|(child, pidfd)| (*child, pidfd.as_fd())).collect(),
        outputs: outputs.pipes().chain(handler.notices.sockets()).collect(),
        nofile: handler.nofile,
        kept: handler.fd_store.ends(),
        events,
        children,
        counters,
        accounts: handler.accounts.clone(),
        beginning: leaving.beginning,
    };
    handler.prober.end_all();
    Err(failed(&leaving.program.execute(&handover, &held_back)))
}

/// Tells those who asked for it, and gives them and whoever has waited for the last of the record a moment to be written to.
/// Nothing more is taken in meanwhile, so that nothing changes.
async fn say_farewell(driver: &mut Driver) {
    driver.say_farewell();
    let began = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if driver.all_answers_are_out() || began.elapsed() >= ANSWERING_PATIENCE {
            return;
        }
    }
}

/// Waits until the core knows of the end of everything that has been reaped: nobody could tell it later.
async fn learn_of_ends(driver: &mut Driver, sources: &mut Sources) -> Result<(), Stay> {
    let began = Instant::now();
    let mut settled = driver.handler().containment.settled();
    loop {
        let is_settled = settled.try_recv() != Err(TryRecvError::Empty);
        catch_up(driver, sources)?;
        if is_settled && !driver.handler().containment.owes_ends() {
            return Ok(());
        }
        if is_settled {
            settled = driver.handler().containment.settled();
        }
        if began.elapsed() >= ENDS_PATIENCE {
            let message = "what ended children have left is not known yet; try again when they are gone";
            return Err(Stay::Failed(UpgradeFailure { message: message.to_owned() }));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has everything on record that is to be.
fn complete_record(driver: &mut Driver, sources: &mut Sources) -> Result<(), Stay> {
    let began = Instant::now();
    loop {
        catch_up(driver, sources)?;
        match driver.complete_record(RECORD_LOOK_EVERY) {
            Ok(()) => return Ok(()),
            // The thread that writes may itself wait for its reports to be taken in.
            Err(JournalError::Slow { .. }) if began.elapsed() < RECORD_PATIENCE => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}

fn catch_up(driver: &mut Driver, sources: &mut Sources) -> Result<(), Stay> {
    driver.catch_up(sources);
    if driver.is_handing_over() { Ok(()) } else { Err(Stay::CalledOff) }
}

fn failed(error: &dyn std::error::Error) -> Stay {
    Stay::Failed(UpgradeFailure { message: with_causes(error) })
}
