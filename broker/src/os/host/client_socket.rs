//! A client's socket: what it has sent can be read, and what it takes is written at once.
//!
//! Only readiness to read is watched all the time. A socket is ready to write nearly always, and says so again each
//! time that the client has read an answer: to be woken by that costs as much as the answer (epoll(7), `EPOLLOUT`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::os::process::descriptor::watched;

/// What waiting for a socket has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is something to read, or the client has closed its side.
    Readable,
    /// There is room for more.
    Writable,
    /// The client has closed it wholly, so that nobody reads any answer.
    Gone,
}

/// The socket of a connection.
#[derive(Debug)]
pub struct ClientSocket {
    /// Watched for what the client sends, and for its hangup, which the kernel always tells.
    descriptor: AsyncFd<OwnedFd>,
    /// Watched for room, as long as something waits for it. A second descriptor, since one can be watched once.
    room: Option<AsyncFd<OwnedFd>>,
}

impl ClientSocket {
    /// Takes over a socket that does not block.
    ///
    /// # Errors
    /// When the event loop cannot watch it.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self { descriptor: watched(descriptor, Interest::READABLE)?, room: None })
    }

    /// The socket itself.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.get_ref().as_fd()
    }

    /// Reads what is there, at most so much; 0 bytes mean that the client's side is closed.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, else what recv(2) says.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.descriptor.try_io(Interest::READABLE, |descriptor| {
            Ok(recv(descriptor.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT)?)
        })
    }

    /// Forgets that the socket was readable: it is empty, and what comes next is a new event.
    pub fn is_empty_now(&self) {
        let _ =
            self.descriptor.try_io(Interest::READABLE, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room, else what send(2) says.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.descriptor.as_raw_fd(), bytes, flags) {
            Ok(length) => Ok(length),
            Err(Errno::EAGAIN) => {
                self.forget_room();
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// There is none: the event that tells of more is yet to come.
    fn forget_room(&self) {
        if let Some(room) = &self.room {
            let _ = room.try_io(Interest::WRITABLE, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }

    /// Nothing waits for room any more.
    pub fn all_is_written(&mut self) {
        self.room = None;
    }

    /// Waits until there is something to read.
    ///
    /// # Errors
    /// When the event loop has ended.
    pub async fn readable(&self) -> io::Result<()> {
        self.descriptor.ready(Interest::READABLE).await.map(drop)
    }

    /// Waits until there is room to write.
    ///
    /// # Errors
    /// When the system has no descriptor left to wait with, or the event loop has ended.
    pub async fn writable(&mut self) -> io::Result<()> {
        self.watch_room()?;
        match &self.room {
            Some(room) => room.ready(Interest::WRITABLE).await.map(drop),
            None => std::future::pending().await,
        }
    }

    /// Waits until it can be read or written, as is asked; while it is not to be read, also for the client to vanish.
    /// Nothing is lost when this is given up in the midst of waiting.
    ///
    /// # Errors
    /// When the system has no descriptor left to wait with, or the event loop has ended.
    pub async fn ready(&mut self, interest: Option<Interest>) -> io::Result<Readiness> {
        let reads = interest.is_some_and(Interest::is_readable);
        let writes = interest.is_some_and(Interest::is_writable);
        if writes {
            self.watch_room()?;
        }
        let (descriptor, room) = (&self.descriptor, self.room.as_ref().filter(|_| writes));
        tokio::select! {
            told = descriptor.ready(Interest::READABLE), if reads => {
                told.map(|_| Readiness::Readable)
            }
            told = is_ready_to_write(room), if room.is_some() => told.map(|()| Readiness::Writable),
            // Nothing but a hangup is told there: the descriptor is not watched for room. A client that has closed its
            // sending side reads on, and is not gone.
            told = descriptor.ready(Interest::WRITABLE), if !reads => told.map(|_| Readiness::Gone),
        }
    }

    fn watch_room(&mut self) -> io::Result<()> {
        if self.room.is_none() {
            let copy = self.descriptor.get_ref().as_fd().try_clone_to_owned()?;
            self.room = Some(watched(copy, Interest::WRITABLE)?);
        }
        Ok(())
    }
}

async fn is_ready_to_write(room: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    match room {
        Some(room) => room.ready(Interest::WRITABLE).await.map(drop),
        None => std::future::pending().await,
    }
}
