//! Gives the worker its jobs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use super::vigil::Bell;
use super::worker::{Job, Pending};

/// The main thread's end of the queue. The worker ends when it is dropped.
#[derive(Debug)]
pub(super) struct Orders {
    jobs: Option<Sender<Job>>,
    bell: Bell,
    pending: Pending,
}

impl Orders {
    pub(super) fn new(jobs: Sender<Job>, bell: Bell, pending: Pending) -> Self {
        Self { jobs: Some(jobs), bell, pending }
    }

    /// Has it find out what is left of children whose main process has ended: those of an earlier broker, or the own.
    pub(super) fn examine(&self, is_foreign: bool) {
        if is_foreign {
            self.give_once(&self.pending.examine_foreign, Job::ExamineForeign);
        } else {
            self.give_once(&self.pending.examine, Job::Examine);
        }
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
        self.bell.ring();
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.jobs = None;
        self.bell.ring();
    }
}
