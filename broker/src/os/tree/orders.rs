//! Gives the worker its jobs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use super::exit_watch::Waker;
use super::job::{Pending, WorkerJob};
use super::process_table::ProcessEntry;
use super::search::Search;

/// The driver's end of the queue. The worker ends when it is dropped.
#[derive(Debug)]
pub(super) struct JobQueue {
    jobs: Option<Sender<WorkerJob>>,
    waker: Waker,
    pending: Pending,
}

impl JobQueue {
    pub(super) fn new(jobs: Sender<WorkerJob>, waker: Waker, pending: Pending) -> Self {
        Self { jobs: Some(jobs), waker, pending }
    }

    /// Has it find out what is left of children whose main process has ended.
    pub(super) fn examine(&self, search: Search) {
        self.give_once(self.pending.examine.of(search), WorkerJob::Examine(search));
    }

    /// Has it make and remove cgroups.
    pub(super) fn tidy(&self) {
        self.give_once(&self.pending.tidy, WorkerJob::Tidy);
    }

    /// Has it let go of these, as far as it does not have too many already.
    pub(super) fn let_go(&self, released: &mut Vec<ProcessEntry>) {
        self.pending.released.put(released);
        self.give_once(&self.pending.let_go, WorkerJob::LetGo);
    }

    fn give_once(&self, pending: &AtomicBool, job: WorkerJob) {
        if !pending.swap(true, Ordering::SeqCst) {
            self.give(job);
        }
    }

    pub(super) fn give(&self, job: WorkerJob) {
        self.pending.queued.fetch_add(1, Ordering::SeqCst);
        // The worker takes jobs as long as this sender lives.
        let _taken = self.jobs.as_ref().map(|jobs| jobs.send(job));
        self.waker.wake();
    }
}

impl Drop for JobQueue {
    fn drop(&mut self) {
        self.jobs = None;
        self.waker.wake();
    }
}
