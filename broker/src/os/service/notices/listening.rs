//! The socket of one child: what waits in it is read, some at a time, and what comes along with it is let go of.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::unistd::Uid;
use procbroker_core::{Notice, Pid, Run};

use super::datagram::{self, Datagram, Descriptors};
use super::strays::WINDOW;
use crate::os::host::disposal::{self, Table};

/// How many datagrams of one socket are read before the next one has its turn.
const DATAGRAMS_A_TURN: usize = 8;

/// How many datagrams of one child are read in a [`WINDOW`]: whoever sends more waits.
const DATAGRAMS_A_WINDOW: u32 = 200;

/// What one process of a child has told.
#[derive(Debug)]
pub struct ReceivedNotices {
    /// The run of the child whose socket it came by.
    pub run: Run,
    /// The process that has sent it, as the kernel says.
    pub sender: Pid,
    /// Whose processes tell something there.
    pub user: u32,
    /// What it has told.
    pub notices: Vec<Notice>,
}

/// The socket of a child.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: Arc<OwnedFd>,
    /// Whose processes tell something there.
    pub(super) user: Uid,
    pub(super) token: u64,
    /// Whose word is heard: none until its program has been executed.
    pub(super) run: Option<Run>,
    window_began: Option<Instant>,
    in_window: u32,
    /// Whether its next datagram has been read, and waits to be let go of with what came along.
    disposal: Arc<AtomicBool>,
}

impl Listening {
    /// Takes a socket on which nobody is heard yet.
    pub(super) fn new(socket: Arc<OwnedFd>, user: Uid, token: u64) -> Self {
        Self { socket, user, token, run: None, window_began: None, in_window: 0, disposal: Arc::default() }
    }

    /// Whether it has told so much that it is not heard for the rest of the window.
    pub(super) fn is_too_much(&self) -> bool {
        self.in_window >= DATAGRAMS_A_WINDOW
    }

    /// Whether its next datagram waits to be let go of.
    pub(super) fn is_disposing(&self) -> bool {
        self.disposal.load(Ordering::Acquire)
    }

    /// Its next datagram cannot be let go of now.
    pub(super) fn dispose_later(&self) {
        self.disposal.store(false, Ordering::Release);
    }

    /// Reads some of what waits, until `hear` breaks it off.
    pub(super) fn read(&mut self, now: Instant, mut hear: impl FnMut(ReceivedNotices) -> ControlFlow<()>) {
        if self.window_began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            (self.window_began, self.in_window) = (Some(now), 0);
        }
        let Some(run) = self.run else { return };
        for _ in 0..DATAGRAMS_A_TURN {
            if self.is_too_much() {
                return;
            }
            let Datagram { sender, text, descriptors } = match datagram::peek(self.socket.as_fd()) {
                Ok(datagram) => datagram,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            self.in_window += 1;
            match descriptors {
                Descriptors::None => datagram::discard(self.socket.as_fd()),
                // Nothing behind it is read before.
                Descriptors::Some => self.disposal.store(true, Ordering::Release),
            }
            let user = self.user.as_raw();
            let heard = sender.map_or(ControlFlow::Continue(()), |sender| {
                let (notices, unreadable) = Notice::parse(&text);
                if let Some(what) = unreadable {
                    tracing::debug!(child = %run.child, "a child tells of itself what cannot be read: {}", what.as_str());
                }
                hear(ReceivedNotices { run, sender, user, notices })
            });
            match descriptors {
                Descriptors::None if heard.is_continue() => {}
                Descriptors::None | Descriptors::Some => return,
            }
        }
    }

    /// Has it read, unless that is for the disposal of its next datagram to do.
    pub(super) fn watch(&self, epoll: &Epoll) {
        if !self.is_disposing() {
            watch(epoll, &self.socket, self.token);
        }
    }

    /// What lets go of the next datagram, and then has the socket heard again. Who waits for a barrier
    /// (`sd_notify_barrier(3)`) waits for what came along to be closed.
    pub(super) fn disposal_of_next(&self, epoll: &Arc<Epoll>) -> Box<dyn FnOnce() + Send> {
        let (socket, disposal) = (Arc::clone(&self.socket), Arc::clone(&self.disposal));
        let (epoll, token) = (Arc::clone(epoll), self.token);
        Box::new(move || {
            let is_taken = disposal::in_passing(&socket, |socket, table| match table {
                Table::Own => datagram::take(socket.as_fd()),
                Table::Shared => datagram::discard(socket.as_fd()),
            });
            if is_taken.is_err() {
                datagram::discard(socket.as_fd());
            }
            disposal.store(false, Ordering::Release);
            watch(&epoll, &socket, token);
        })
    }
}

fn watch(epoll: &Epoll, socket: &OwnedFd, token: u64) {
    let mut event = EpollEvent::new(EpollFlags::EPOLLIN, token);
    let watched = match epoll.add(socket, event) {
        Err(Errno::EEXIST) => epoll.modify(socket, &mut event),
        other => other,
    };
    if let Err(errno) = watched {
        tracing::error!(%errno, "a child cannot be heard; it will not be found ready");
    }
}
