//! What the worker is asked to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::Sender;
use std::time::Instant;

use procbroker_core::{Asked, Members, Run};
use procbroker_protocol::Signal;
use procbroker_protocol::request::Scope;

use super::search::{PerSearch, Search};

/// What the worker is asked to do.
#[derive(Debug)]
pub(super) enum WorkerJob {
    /// Find out what is left of the children whose main process has ended.
    Examine(Search),
    /// Find out what is left of those whose main process was gone before the broker came.
    Survey {
        answer: Sender<HashMap<Run, Members>>,
    },
    /// Kill all of a child.
    Kill {
        run: Run,
    },
    Signal(SignalOrder),
    /// Kill all that descends from the broker.
    Sweep {
        deadline: Instant,
    },
    /// Make and remove cgroups ahead.
    Tidy,
    /// Say when everything that was asked for before is done and reported.
    Settle {
        answer: Sender<()>,
    },
}

/// A signal to more processes than the main one.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignalOrder {
    pub(super) run: Run,
    pub(super) signal: Signal,
    pub(super) scope: Scope,
    pub(super) asked: Option<Asked>,
}

/// The jobs of one kind that are waiting, of which more than one would do nothing more.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub(super) examine: PerSearch<Arc<AtomicBool>>,
    pub(super) tidy: Arc<AtomicBool>,
    /// All jobs that are waiting.
    pub(super) queued: Arc<AtomicUsize>,
}
