//! Lets go of what children have sent along, where that holds up nobody but their own user.
//!
//! What is closed for the last time may take its time: a socket that lingers takes as long as its owner has said
//! (`SO_LINGER`, socket(7)). So a thread of the user's own does it, which is there as long as there is something to do.
//! One user's never waits for another's, and the broker's threads wait for none.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::os::process::signal_mask::HeldBack;

/// The stack of a thread, which makes a few system calls.
const STACK_BYTES: usize = 64 << 10;

/// Something to let go of.
type Load = Box<dyn FnOnce() + Send>;

/// What is to be let go of, by user.
#[derive(Default)]
pub(super) struct Disposals(BTreeMap<u32, Arc<Queue>>);

#[derive(Default)]
struct Queue(Mutex<Work>);

#[derive(Default)]
struct Work {
    loads: VecDeque<Load>,
    is_served: bool,
}

impl Disposals {
    /// Has something done in its user's turn, by a thread that may be held up by it.
    ///
    /// # Errors
    /// When the system has no thread for it: then it is not done.
    pub(super) fn submit(&mut self, user: u32, load: Load) -> io::Result<()> {
        self.0.retain(|other, queue| *other == user || queue.work().is_served);
        let queue = self.0.entry(user).or_default();
        let mut work = queue.work();
        if !work.is_served {
            let served = Arc::clone(queue);
            // It inherits that it takes no signals.
            let held = HeldBack::begin()?;
            let thread = thread::Builder::new().name("disposal".to_owned()).stack_size(STACK_BYTES);
            thread.spawn(move || served.serve())?;
            drop(held);
            work.is_served = true;
        }
        work.loads.push_back(load);
        Ok(())
    }
}

impl Queue {
    fn serve(&self) {
        loop {
            let mut work = self.work();
            let Some(load) = work.loads.pop_front() else {
                work.is_served = false;
                return;
            };
            drop(work);
            load();
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        // Nothing that can panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Disposals {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Disposals").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_holds_up_one_users_disposals_holds_up_no_other_users() {
        let mut disposals = Disposals::default();
        let (release, gate) = mpsc::channel::<()>();
        let (tell, done) = mpsc::channel();
        let slow = tell.clone();
        disposals
            .submit(
                1,
                Box::new(move || {
                    assert!(gate.recv().is_err(), "the other end has gone");
                    slow.send("held up").unwrap();
                }),
            )
            .unwrap();
        for (user, word) in [(1, "behind it"), (2, "another user's")] {
            let tell = tell.clone();
            disposals.submit(user, Box::new(move || tell.send(word).unwrap())).unwrap();
        }
        assert_eq!(done.recv(), Ok("another user's"));
        drop(release);
        assert_eq!((done.recv(), done.recv()), (Ok("held up"), Ok("behind it")));
        // A user of whom nothing is left to do is forgotten, and served again all the same.
        while disposals.0.get(&2).is_some_and(|queue| queue.work().is_served) {
            thread::yield_now();
        }
        disposals.submit(3, Box::new(move || tell.send("late").unwrap())).unwrap();
        assert_eq!(done.recv(), Ok("late"));
        assert!(!disposals.0.contains_key(&2));
    }
}
