//! Gives the worker its jobs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use super::exit_watch::Waker;
use super::job::{Job, Pending};
use super::search::Search;

/// The driver's end of the queue. The worker ends when it is dropped.
#[derive(Debug)]
pub(super) struct Orders {
    jobs: Option<Sender<Job>>,
    waker: Waker,
    pending: Pending,
}

impl Orders {
    pub(super) fn new(jobs: Sender<Job>, waker: Waker, pending: Pending) -> Self {
        Self { jobs: Some(jobs), waker, pending }
    }

    /// Has it find out what is left of children whose main process has ended.
    pub(super) fn examine(&self, search: Search) {
        self.give_once(self.pending.examine.of(search), Job::Examine(search));
    }

    /// Has it make and remove cgroups.
    pub(super) fn tidy(&self) {
        self.give_once(&self.pending.tidy, Job::Tidy);
    }

    fn give_once(&self, pending: &AtomicBool, job: Job) {
        if !pending.swap(true, Ordering::SeqCst) {
            self.give(job);
        }
    }

    pub(super) fn give(&self, job: Job) {
        self.pending.queued.fetch_add(1, Ordering::SeqCst);
        // The worker takes jobs as long as this sender lives.
        let _taken = self.jobs.as_ref().map(|jobs| jobs.send(job));
        self.waker.wake();
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.jobs = None;
        self.waker.wake();
    }
}
