//! What the worker is asked to do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use procbroker_core::{Asked, Members, Run};
use procbroker_protocol::Signal;
use procbroker_protocol::request::Scope;

use super::process_table::ProcessEntry;
use super::search::{PerSearch, Search};

/// So many children at the most wait to be let go of by the worker, each with a descriptor.
const RELEASED_MAX: usize = 512;

/// So many are let go of before it is asked whether there is something more urgent to do.
const LET_GO_AT_A_TIME: usize = 32;

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
    /// Let go of what was released.
    LetGo,
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
    pub(super) let_go: Arc<AtomicBool>,
    /// What is to be let go of.
    pub(super) released: Released,
    /// All jobs that are waiting.
    pub(super) queued: Arc<AtomicUsize>,
}

/// Children of which nothing is left: to close a descriptor takes the kernel longer than all else that is done for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Released(Arc<Mutex<Vec<ProcessEntry>>>);

impl Released {
    fn lock(&self) -> MutexGuard<'_, Vec<ProcessEntry>> {
        // Nothing that can panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes these, as far as there is room.
    pub(super) fn put(&self, entries: &mut Vec<ProcessEntry>) {
        let mut released = self.lock();
        let room = RELEASED_MAX.saturating_sub(released.len());
        let kept = entries.len().saturating_sub(room);
        released.extend(entries.drain(kept..));
    }

    /// Lets go of all of them, unless that is interrupted. Returns whether it is done.
    pub(super) fn let_go(&self, is_wanted_elsewhere: impl Fn() -> bool) -> bool {
        loop {
            let some = {
                let mut released = self.lock();
                let kept = released.len().saturating_sub(LET_GO_AT_A_TIME);
                released.split_off(kept)
            };
            if some.is_empty() {
                return true;
            }
            drop(some);
            if is_wanted_elsewhere() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::process_table::ProcessEntry;
    use super::*;

    fn entries(count: usize) -> Vec<ProcessEntry> {
        (0..count).map(|_| ProcessEntry::new(Search::Inherited, None)).collect()
    }

    #[test]
    fn no_more_wait_to_be_let_go_of_than_there_is_room_for() {
        let released = Released::default();
        let mut few = entries(RELEASED_MAX - 1);
        released.put(&mut few);
        assert!(few.is_empty());
        let mut more = entries(3);
        released.put(&mut more);
        assert_eq!((more.len(), released.lock().len()), (2, RELEASED_MAX));
        assert!(released.let_go(|| false));
        assert!(released.lock().is_empty());
    }

    #[test]
    fn letting_go_makes_way_for_what_is_more_urgent_and_is_gone_on_with() {
        let released = Released::default();
        released.put(&mut entries(2 * LET_GO_AT_A_TIME + 1));
        let asked = Cell::new(0);
        let at_the_second = || {
            asked.set(asked.get() + 1);
            asked.get() == 2
        };
        assert!(!released.let_go(at_the_second));
        assert_eq!(released.lock().len(), 1);
        assert!(released.let_go(|| false));
        assert!(released.lock().is_empty());
    }
}
