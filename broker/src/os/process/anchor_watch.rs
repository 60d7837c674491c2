//! Watches the processes that children's lives hang on, each by one descriptor, and says which have ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use procbroker_core::Anchor;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::anchor;
use super::descriptor::watched;

/// So many ends are taken in by one system call.
const BATCH: usize = 64;

/// After how long it is tried again to hold a process that there was no descriptor for.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The processes that are watched.
#[derive(Debug)]
pub struct AnchorWatch {
    epoll: Epoll,
    last_token: u64,
    watched: HashMap<u64, (Anchor, OwnedFd)>,
    tokens: HashMap<Anchor, u64>,
    /// Those that there was no descriptor for.
    unopened: Vec<Anchor>,
    /// When that is tried again.
    again_at: Option<Instant>,
}

/// Whether a process can still end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// Its end will be told.
    Begun,
    /// It has ended: there is nothing to watch.
    Over,
}

impl AnchorWatch {
    /// One that watches nothing yet.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            last_token: 0,
            watched: HashMap::new(),
            tokens: HashMap::new(),
            unopened: Vec::new(),
            again_at: None,
        })
    }

    /// Readable when one has ended. To be called in the event loop.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn readable(&self) -> io::Result<AsyncFd<OwnedFd>> {
        watched(self.epoll.0.as_fd().try_clone_to_owned()?, Interest::READABLE)
    }

    /// Watches a process until it ends, or says that it has.
    pub fn watch(&mut self, anchor: Anchor) -> Watching {
        match anchor::open_again(anchor) {
            Ok(Some(pidfd)) => match self.hold(anchor, pidfd) {
                Ok(()) => Watching::Begun,
                Err(errno) => self.put_off(anchor, errno),
            },
            Ok(None) => Watching::Over,
            Err(errno) => self.put_off(anchor, errno),
        }
    }

    fn hold(&mut self, anchor: Anchor, pidfd: OwnedFd) -> Result<(), Errno> {
        self.last_token += 1;
        self.epoll.add(pidfd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, self.last_token))?;
        self.tokens.insert(anchor, self.last_token);
        self.watched.insert(self.last_token, (anchor, pidfd));
        Ok(())
    }

    fn put_off(&mut self, anchor: Anchor, errno: Errno) -> Watching {
        if self.unopened.is_empty() {
            tracing::error!(pid = %anchor.pid, %errno, "cannot watch the process of a child's lifetime; trying again");
        }
        self.unopened.push(anchor);
        self.again_at.get_or_insert_with(|| Instant::now() + AGAIN_AFTER);
        Watching::Begun
    }

    /// Watches one process no longer.
    pub fn unwatch(&mut self, anchor: Anchor) {
        if let Some(token) = self.tokens.remove(&anchor) {
            self.forget(token);
        }
        self.unopened.retain(|unopened| *unopened != anchor);
        if self.unopened.is_empty() {
            self.again_at = None;
        }
    }

    fn forget(&mut self, token: u64) -> Option<Anchor> {
        let (anchor, pidfd) = self.watched.remove(&token)?;
        // A process that is being started may have a copy of the descriptor for a moment.
        let _not_there = self.epoll.delete(pidfd);
        Some(anchor)
    }

    /// Takes those that have ended, each of which is watched no longer.
    pub fn take_ended(&mut self) -> Vec<Anchor> {
        let mut ended = Vec::new();
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or_default();
            for event in events.iter().take(count) {
                if let Some(anchor) = self.forget(event.data()) {
                    self.tokens.remove(&anchor);
                    ended.push(anchor);
                }
            }
            if count < BATCH {
                return ended;
            }
        }
    }

    /// When it is tried again to hold those that there was no descriptor for.
    #[must_use]
    pub fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Tries that, if it is time. Returns those that have ended meanwhile.
    pub fn try_again(&mut self, now: Instant) -> Vec<Anchor> {
        if self.again_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.again_at = None;
        let mut ended = std::mem::take(&mut self.unopened);
        ended.retain(|anchor| match self.watch(*anchor) {
            Watching::Begun => false,
            Watching::Over => true,
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    /// A process that ends when its input does.
    fn start() -> (Child, Anchor) {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let seen = anchor::find(child.id(), one.as_fd(), Some(std::process::id())).unwrap();
        (child, seen.anchor)
    }

    fn end(child: &mut Child) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    fn rings(watch: &AnchorWatch, timeout: PollTimeout) -> bool {
        poll(&mut [PollFd::new(watch.epoll.0.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0
    }

    #[test]
    fn the_end_of_each_watched_process_is_told_once() {
        let mut watch = AnchorWatch::new().unwrap();
        let mut processes: Vec<_> = (0..BATCH + 3).map(|_| start()).collect();
        for (_, anchor) in &processes {
            assert_eq!(watch.watch(*anchor), Watching::Begun);
        }
        assert!(!rings(&watch, PollTimeout::ZERO));
        let (mut living, lives_on) = processes.pop().unwrap();
        let (mut unwanted, unwatched) = processes.pop().unwrap();
        watch.unwatch(unwatched);
        end(&mut unwanted);
        for (child, _) in &mut processes {
            end(child);
        }
        assert!(rings(&watch, PollTimeout::NONE));
        let mut ended = watch.take_ended();
        let mut expected: Vec<_> = processes.iter().map(|(_, anchor)| *anchor).collect();
        ended.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ended, expected);
        assert!(!rings(&watch, PollTimeout::ZERO));
        assert_eq!(watch.watch(unwatched), Watching::Over);
        end(&mut living);
        assert!(rings(&watch, PollTimeout::NONE));
        assert_eq!(watch.take_ended(), [lives_on]);
        assert!(watch.watched.is_empty() && watch.tokens.is_empty());
    }

    #[test]
    fn what_there_was_no_descriptor_for_is_held_as_soon_as_there_is_one() {
        let mut watch = AnchorWatch::new().unwrap();
        let [(mut first, over), (mut second, lives), (mut third, unwanted)] = [start(), start(), start()];
        for anchor in [over, lives, unwanted] {
            assert_eq!(watch.put_off(anchor, Errno::EMFILE), Watching::Begun);
        }
        end(&mut first);
        watch.unwatch(unwanted);
        let at = watch.again_at().unwrap();
        assert_eq!(watch.try_again(at.checked_sub(Duration::from_millis(1)).unwrap()), []);
        assert_eq!(watch.try_again(at), [over]);
        assert_eq!(watch.again_at(), None);
        end(&mut second);
        end(&mut third);
        assert_eq!(watch.take_ended(), [lives]);
    }
}
