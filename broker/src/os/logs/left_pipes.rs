//! Finds the pipe that keeps a broker which was killed from going, and has it released.
//!
//! A process closes what it has open before it is gone, and to close a pipe it waits for whoever holds that within the kernel. Which
//! pipe that is nothing tells: so each is opened, on a thread that is given up where it does not come back from one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procbroker_core::Pid;

use super::error::LogsError;
use super::holders::{self, HeldPipe, Reach};
use super::pipe_use::PipePlace;
use super::pipes::Pipes;
use super::stream::StreamId;

/// How long it may take to open one before those are ended who are sure to hold it, and before others are: microseconds, where
/// nobody does.
const PATIENCE: [(Duration, Reach); 2] =
    [(Duration::from_millis(100), Reach::TheSure), (Duration::from_secs(2), Reach::TheSuspicious)];

/// How often it is looked whether the thread has gone on.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How much memory the thread may use for its calls, in bytes.
const STACK_BYTES: usize = 128 << 10;

/// Ends those who hold pipes in a folder that an earlier broker has left. That broker itself, `dying`, is none of them.
///
/// # Errors
/// When the folder cannot be used, or the system refuses a thread.
pub fn release_all(folder: &Path, dying: Pid) -> Result<(), LogsError> {
    if !folder.is_dir() {
        return Ok(());
    }
    let pipes = Pipes::open(folder.to_owned())?;
    let left: Arc<[StreamId]> = pipes.all()?.into();
    let opened = Arc::new(AtomicUsize::new(0));
    let open = {
        let (pipes, left, opened) = (pipes.clone(), Arc::clone(&left), Arc::clone(&opened));
        move || {
            for id in left.iter() {
                // One that is gone, or is no pipe, keeps nobody.
                drop(pipes.reopen(*id));
                opened.fetch_add(1, Ordering::Release);
            }
        }
    };
    let builder = thread::Builder::new().name("opener".to_owned()).stack_size(STACK_BYTES);
    builder.spawn(open).map_err(|error| LogsError::new("start a thread for", folder.to_owned(), error))?;
    let own = Pid::new(std::process::id()).unwrap_or(dying);
    let mut at = 0;
    while let Some(id) = left.get(at) {
        let is_held = || opened.load(Ordering::Acquire) == at;
        let began = Instant::now();
        for (patience, reach) in PATIENCE {
            while is_held() && began.elapsed() < patience {
                thread::sleep(LOOK_EVERY);
            }
            // One that is gone by now was opened before, and is held by somebody who cannot be told.
            let Some(found) = pipes.place(*id).filter(|_| is_held()) else { break };
            let held = HeldPipe { place: PipePlace::told(&found), user: found.st_uid, name: id.to_string() };
            holders::release(&held, reach, &[own, dying], is_held);
        }
        if is_held() {
            return Ok(());
        }
        at = opened.load(Ordering::Acquire);
    }
    Ok(())
}
