//! Several threads that begin together.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Lets each worker have a thread, and says how long it took from the moment when all were there until the last
/// one was done.
pub(crate) fn together<W: Send>(
    workers: &mut [W],
    work: impl Fn(&mut W) -> Result<(), Failure> + Sync,
) -> Result<Duration, Failure> {
    let barrier = Barrier::new(workers.len() + 1);
    thread::scope(|scope| {
        let (barrier, work) = (&barrier, &work);
        let spawn = |worker| {
            scope.spawn(move || {
                barrier.wait();
                work(worker)
            })
        };
        let threads: Vec<_> = workers.iter_mut().map(spawn).collect();
        barrier.wait();
        let begin = Instant::now();
        let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let took = begin.elapsed();
        for result in results {
            result.unwrap_or_else(|_| Err(Failure::unexpected("work on a thread", "it panicked")))?;
        }
        Ok(took)
    })
}
