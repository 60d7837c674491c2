//! Where a child is in its life, with what is known of it there alone.

use crate::child::cleaning::Cleaning;
use crate::child::launching::Launching;
use crate::child::probing::Probing;
use crate::child::restarting::Restarting;
use crate::child::stopping::{Stop, Stopping};
use crate::child::watchdog::Watchdog;
use crate::ids::Pid;

/// Where a child is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// The intent to start it is being recorded.
    Recording {
        /// The stop of a child that is to end before it begins.
        cancelled: Option<Stop>,
    },
    /// It is on record, and waits for its turn to be started.
    Queued,
    /// Its process is being started.
    Spawning(Launching),
    /// Its process runs, and is not ready yet.
    Starting {
        /// The number of its main process.
        pid: Pid,
        /// How it is found out when it is.
        probing: Probing,
    },
    /// Its process runs and is ready.
    Running {
        /// The number of its main process.
        pid: Pid,
        /// What is to be heard from it.
        watchdog: Watchdog,
    },
    /// It is being brought to an end, or what it left behind is.
    Stopping(Box<Stopping>),
    /// Nothing of its last run is left, and the next one is to come.
    Restarting(Box<Restarting>),
    /// Nothing of it is left, and its cleanup is under way.
    Cleaning(Box<Cleaning>),
    /// Nothing of it is left, and its end is told.
    Ended,
}
