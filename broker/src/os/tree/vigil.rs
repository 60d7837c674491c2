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

/// Stands for the bell among the events.
const BELL: u64 = 0;

/// Stands for any process that is held.
const WITNESS: u64 = 1;

/// Calls the worker when it sleeps here and not at its queue.
#[derive(Clone, Debug)]
pub(super) struct Bell {
    event: Arc<EventFd>,
    is_heard: Arc<AtomicBool>,
}

/// The processes whose end is waited for, one of each child.
#[derive(Debug)]
pub(super) struct Vigil {
    epoll: Epoll,
    bell: Bell,
    witnesses: HashMap<Run, OwnedFd>,
}

impl Bell {
    /// To be rung after something was put into the queue, or the queue was closed.
    pub(super) fn ring(&self) {
        if self.is_heard.load(Ordering::SeqCst) {
            // It fails only when it was rung 2^64 times and not heard.
            let _rung = self.event.write(1);
        }
    }
}

impl Vigil {
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn new() -> Result<Self, Errno> {
        let event = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(event.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let bell = Bell { event, is_heard: Arc::default() };
        Ok(Self { epoll, bell, witnesses: HashMap::new() })
    }

    pub(super) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.witnesses.is_empty()
    }

    /// Waits for the ends of these from now on, and for no others. Returns whether it can.
    pub(super) fn hold(&mut self, witnesses: HashMap<Run, OwnedFd>) -> bool {
        for (_, former) in self.witnesses.drain() {
            // Closing it is not enough while another thread has it open as well.
            let _not_there = self.epoll.delete(former);
        }
        let mut can_wait = true;
        for (run, witness) in witnesses {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, WITNESS);
            match self.epoll.add(witness.as_fd(), event) {
                Ok(()) => {
                    self.witnesses.insert(run, witness);
                }
                Err(_) => can_wait = false,
            }
        }
        can_wait
    }

    /// From here on the bell is rung. The queue is to be looked at after this, and before [`wait`](Self::wait).
    pub(super) fn listen(&self) {
        self.bell.is_heard.store(true, Ordering::SeqCst);
    }

    /// The queue is looked at again by itself.
    pub(super) fn stop_listening(&self) {
        self.bell.is_heard.store(false, Ordering::SeqCst);
    }

    /// Waits for the bell or for an end, and says whether it was an end.
    pub(super) fn wait(&self) -> bool {
        let mut events = [EpollEvent::empty(); 2];
        let Ok(count) = self.epoll.wait(&mut events, EpollTimeout::NONE) else { return false };
        // Nothing is there when an end alone has woken the worker.
        let _rung = self.bell.event.read();
        events.iter().take(count).any(|event| event.data() == WITNESS)
    }
}
