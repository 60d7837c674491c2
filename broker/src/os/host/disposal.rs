//! Lets go of what others have sent along, where that holds up nobody but their own user.
//!
//! What is closed for the last time may take its time: a socket that lingers takes as long as its owner has said
//! (`SO_LINGER`, socket(7)), unless it is closed by the end of a thread: for one that is ending the kernel does not wait
//! (`PF_EXITING`, `inet_release` in `net/ipv4/af_inet.c`). So a thread with a table of descriptors of its own has them when all
//! others have closed them, and ends. Where the system lets no thread have its own table, another one of the user's, which is
//! there as long as there is something to do, takes as long as it takes. One user's never waits for another's, and the
//! broker's threads wait for none.
#![expect(unsafe_code, reason = "nix has no close_range")]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use crate::os::process::signal_mask::HeldBack;

/// The stack of a thread, which makes a few system calls.
const STACK_BYTES: usize = 64 << 10;

/// Something to let go of.
type Load = Box<dyn FnOnce() + Send>;

/// What is to be let go of, by user.
#[derive(Clone, Default)]
pub struct Disposals(Arc<Mutex<BTreeMap<u32, Arc<Queue>>>>);

/// What is to be let go of for one user.
#[derive(Default)]
struct Queue(Mutex<Work>);

#[derive(Default)]
struct Work {
    loads: VecDeque<Load>,
    is_served: bool,
}

/// Something is not done, because the system has no thread for it.
struct Undone {
    load: Load,
    error: io::Error,
}

/// Whether a thread has a table of descriptors of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// What is opened in it is closed by the end of the thread.
    Own,
    /// It is the broker's.
    Shared,
}

impl Disposals {
    /// Has something done in its user's turn, by a thread that may be held up by it.
    ///
    /// # Errors
    /// When the system has no thread for it: then it is not done.
    pub fn submit(&self, user: u32, load: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.queue(user).put(load).map_err(|undone| undone.error)
    }

    /// Closes a descriptor with all that others have sent to it. Where the system has no thread for that, it stays open until
    /// something else is let go of.
    pub fn close(&self, user: u32, descriptor: Arc<OwnedFd>) {
        let queue = self.queue(user);
        let closing = Box::new(move || while_all_are_held(|| drop(descriptor)));
        if let Err(Undone { load, error }) = queue.put(closing) {
            tracing::warn!(%error, "what a user has sent along cannot be let go of; trying again with the next");
            queue.work().loads.push_back(load);
        }
    }

    fn queue(&self, user: u32) -> Arc<Queue> {
        // Nothing that can panic is done under the lock.
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|other, queue| *other == user || queue.goes_on());
        Arc::clone(queues.entry(user).or_default())
    }
}

impl Queue {
    fn put(self: &Arc<Self>, load: Load) -> Result<(), Undone> {
        let mut work = self.work();
        if !work.is_served {
            if let Err(error) = self.start() {
                return Err(Undone { load, error });
            }
            work.is_served = true;
        }
        work.loads.push_back(load);
        Ok(())
    }

    /// Whether there is anything left to do, for which there is a thread if the system has one by now.
    fn goes_on(self: &Arc<Self>) -> bool {
        let mut work = self.work();
        if !work.is_served && !work.loads.is_empty() {
            work.is_served = self.start().is_ok();
        }
        work.is_served || !work.loads.is_empty()
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        let served = Arc::clone(self);
        // It inherits that it takes no signals.
        let _held = HeldBack::begin()?;
        disposal_thread().spawn(move || served.serve())?;
        Ok(())
    }

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

fn disposal_thread() -> thread::Builder {
    thread::Builder::new().name("disposal".to_owned()).stack_size(STACK_BYTES)
}

/// Does something while another thread has all descriptors too: what this closes is closed for the last time by the end of
/// that one.
fn while_all_are_held(work: impl FnOnce()) {
    let (tell, held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let holder = disposal_thread().spawn(move || {
        let _ = tell.send(own_table());
        // It is closed, and nothing comes.
        let _ = released.recv();
    });
    if holder.is_ok() {
        let _ = held.recv();
    }
    work();
    drop(release);
}

/// Has something done with a descriptor by a thread that ends right after it, and returns when it is done. What that opens in
/// a table of its own is closed by its end.
///
/// # Errors
/// When the system has no thread for it: then it is not done.
pub fn in_passing(
    descriptor: &Arc<OwnedFd>,
    work: impl FnOnce(&OwnedFd, Table) + Send + 'static,
) -> io::Result<()> {
    let (tell, done) = mpsc::channel::<()>();
    // The last share is never given up there, which would close it in no other table.
    let share = Arc::clone(descriptor);
    disposal_thread().spawn(move || {
        let table = own_table();
        work(&share, table);
        drop(share);
        drop(tell);
    })?;
    // Nothing is ever sent: it hangs up when it is done.
    let _ = done.recv();
    Ok(())
}

/// Gets this thread a table of its own, with all that is open now: `close_range(2)`, Linux 5.9, or `unshare(2)`, since either
/// may be forbidden.
fn own_table() -> Table {
    let (none, flags) = (libc::c_ulong::from(u32::MAX), libc::c_ulong::from(libc::CLOSE_RANGE_UNSHARE));
    // SAFETY: no descriptor has such a number, so that none is closed; no memory is touched.
    let unshared = unsafe { libc::syscall(libc::SYS_close_range, none, none, flags) };
    if Errno::result(unshared).is_ok() || unshare(CloneFlags::CLONE_FILES).is_ok() {
        Table::Own
    } else {
        Table::Shared
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
        let disposals = Disposals::default();
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
        while disposals.0.lock().unwrap().get(&2).is_some_and(|queue| queue.work().is_served) {
            thread::yield_now();
        }
        disposals.submit(3, Box::new(move || tell.send("late").unwrap())).unwrap();
        assert_eq!(done.recv(), Ok("late"));
        assert!(!disposals.0.lock().unwrap().contains_key(&2));
    }
}
