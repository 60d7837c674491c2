//! SIGINT and SIGTERM: what is being measured ends with a failure, so that everything is cleaned up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Attempt, Failure};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes the signals over, by handlers, which no program that is started inherits.
pub(crate) fn catch() -> Result<(), Failure> {
    let attempt = "take over SIGINT and SIGTERM";
    let runtime = Builder::new_current_thread().enable_all().build().attempting(attempt)?;
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).attempting(attempt)?;
    let mut terminate = signal(SignalKind::terminate()).attempting(attempt)?;
    drop(inside);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Asked wherever work goes on for long.
pub(crate) fn check() -> Result<(), Failure> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
}
