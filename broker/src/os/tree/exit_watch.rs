//! Has the worker woken when something ends that nothing else would tell of: what a child of an earlier broker has
//! left is not this one's to reap. As long as one process is known to be left of a child, one of them is held.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use procbroker_core::Run;

/// Stands for the waker among the events.
const WAKER: u64 = 0;

/// Stands for any process that is held.
const PROCESS: u64 = 1;

/// Calls the worker when it sleeps here and not at its queue.
#[derive(Clone, Debug)]
pub(super) struct Waker {
    event: Arc<EventFd>,
    is_awaited: Arc<AtomicBool>,
}

/// The processes whose end is waited for, one of each child.
#[derive(Debug)]
pub(super) struct ExitWatch {
    epoll: Epoll,
    waker: Waker,
    watched: HashMap<Run, OwnedFd>,
}

impl Waker {
    /// To be rung after something was put into the queue, or the queue was closed.
    pub(super) fn wake(&self) {
        if self.is_awaited.load(Ordering::SeqCst) {
            // It fails only when it was rung 2^64 times and not heard.
            let _rung = self.event.write(1);
        }
    }
}

impl ExitWatch {
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn new() -> Result<Self, Errno> {
        let event = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(event.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        let waker = Waker { event, is_awaited: Arc::default() };
        Ok(Self { epoll, waker, watched: HashMap::new() })
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Waits for the ends of these from now on, and for no others. Returns whether it can.
    pub(super) fn watch_only(&mut self, watched: HashMap<Run, OwnedFd>) -> bool {
        for (_, former) in self.watched.drain() {
            // Closing it is not enough while another thread has it open as well.
            let _not_there = self.epoll.delete(former);
        }
        let mut can_wait = true;
        for (run, watched_process) in watched {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, PROCESS);
            match self.epoll.add(watched_process.as_fd(), event) {
                Ok(()) => {
                    self.watched.insert(run, watched_process);
                }
                Err(_) => can_wait = false,
            }
        }
        can_wait
    }

    /// From here on the waker is rung. The queue is to be looked at after this, and before [`wait`](Self::wait).
    pub(super) fn listen(&self) {
        self.waker.is_awaited.store(true, Ordering::SeqCst);
    }

    /// The queue is looked at again by itself.
    pub(super) fn stop_listening(&self) {
        self.waker.is_awaited.store(false, Ordering::SeqCst);
    }

    /// Waits for the waker or for an end, and says whether it was an end.
    pub(super) fn wait(&self) -> bool {
        let mut events = [EpollEvent::empty(); 2];
        let Ok(count) = self.epoll.wait(&mut events, EpollTimeout::NONE) else { return false };
        // Nothing is there when an end alone has woken the worker.
        let _rung = self.waker.event.read();
        events.iter().take(count).any(|event| event.data() == PROCESS)
    }
}
