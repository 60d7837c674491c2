//! A client's socket: what it has sent can be read, and what it takes is written at once.
//!
//! Only readiness to read is watched all the time. A socket is ready to write nearly always, and says so again each
//! time that the client has read an answer: to be woken by that costs as much as the answer (epoll(7), `EPOLLOUT`). So it
//! is watched for room only as long as something waits for that, and by the same descriptor: a client that does not read
//! takes no more of them than another.
#![expect(unsafe_code, reason = "nix has no call for SIOCOUTQ")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::os::host::exposed_socket::ExposedSocket;
use crate::os::process::descriptor::watched_shared;

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

/// What a socket is watched for, beside the client's hangup, which the kernel always tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// What the client sends.
    Reading,
    /// That, and room for what it is sent.
    ReadingAndRoom,
}

/// The socket of a connection.
#[derive(Debug)]
pub struct ClientSocket {
    /// None once the event loop has refused it, after which there is nothing to wait for.
    watch: Option<AsyncFd<Arc<OwnedFd>>>,
    watched: Watched,
    socket: Arc<OwnedFd>,
    /// Declared last, so that it closes the socket.
    exposed: ExposedSocket,
}

impl ClientSocket {
    /// Takes over a socket that does not block.
    ///
    /// # Errors
    /// When the event loop cannot watch it.
    pub fn new(exposed: ExposedSocket) -> io::Result<Self> {
        let socket = exposed.share()?;
        let watch = Some(watch(&socket, Watched::Reading)?);
        Ok(Self { watch, watched: Watched::Reading, socket, exposed })
    }

    /// Returns the descriptor of the socket.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what is there, at most so much; 0 bytes mean that the client's side is closed.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, `InvalidData` when descriptors are, else what recv(2) says.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.watch()?.try_io(Interest::READABLE, |_| self.exposed.receive(bytes))
    }

    /// Forgets that the socket was readable: it is empty, and what comes next is a new event.
    pub fn is_empty_now(&self) {
        self.forget(Interest::READABLE);
    }

    /// Whether the client has read all that was written to it (`SIOCOUTQ`, `unix(7)`): then its socket has room for tens of
    /// kilobytes. Where the kernel does not say, it has not.
    #[must_use]
    pub fn is_all_read(&self) -> bool {
        let mut unread: libc::c_int = 0;
        // SAFETY: the kernel writes one number, to where there is one, and the descriptor is open.
        let asked = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
        asked == 0 && unread == 0
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room, else what send(2) says.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.socket.as_raw_fd(), bytes, flags) {
            Ok(length) => Ok(length),
            Err(Errno::EAGAIN) => {
                // The event that tells of more is yet to come.
                self.forget(Interest::WRITABLE);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn forget(&self, interest: Interest) {
        if let Some(watch) = &self.watch {
            let _ = watch.try_io(interest, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }

    /// Nothing waits for room any more.
    ///
    /// # Errors
    /// When the event loop watches it no more.
    pub fn all_is_written(&mut self) -> io::Result<()> {
        self.watch_for(Watched::Reading)
    }

    /// Waits until there is something to read.
    ///
    /// # Errors
    /// When the event loop has ended.
    pub async fn readable(&self) -> io::Result<()> {
        self.watch()?.ready(Interest::READABLE).await.map(drop)
    }

    /// Waits until there is room to write.
    ///
    /// # Errors
    /// When the event loop watches it no more, or has ended.
    pub async fn writable(&mut self) -> io::Result<()> {
        self.watch_for(Watched::ReadingAndRoom)?;
        self.watch()?.ready(Interest::WRITABLE).await.map(drop)
    }

    /// Waits until it can be read or written, as is asked; while it is to be neither, for the client to vanish.
    /// Nothing is lost when this is given up in the midst of waiting.
    ///
    /// # Errors
    /// When the event loop watches it no more, or has ended.
    pub async fn ready(&mut self, interest: Option<Interest>) -> io::Result<Readiness> {
        let reads = interest.is_some_and(Interest::is_readable);
        let writes = interest.is_some_and(Interest::is_writable);
        self.watch_for(if writes { Watched::ReadingAndRoom } else { Watched::Reading })?;
        let watch = self.watch()?;
        tokio::select! {
            told = watch.ready(Interest::READABLE), if reads => told.map(|_| Readiness::Readable),
            told = watch.ready(Interest::WRITABLE), if writes => told.map(|_| Readiness::Writable),
            // Nothing but a hangup is told there: it is not watched for room. A client that has closed its sending side
            // reads on, and is not gone.
            told = watch.ready(Interest::WRITABLE), if !reads && !writes => told.map(|_| Readiness::Gone),
        }
    }

    fn watch(&self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        self.watch.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What is there already is told anew.
    fn watch_for(&mut self, watched: Watched) -> io::Result<()> {
        if self.watched != watched {
            // The event loop takes a descriptor once, so that the watch before has to go first.
            drop(self.watch.take());
            self.watch = Some(watch(&self.socket, watched)?);
            self.watched = watched;
        }
        Ok(())
    }
}

fn watch(socket: &Arc<OwnedFd>, watched: Watched) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    watched_shared(
        Arc::clone(socket),
        match watched {
            Watched::Reading => Interest::READABLE,
            Watched::ReadingAndRoom => Interest::READABLE | Interest::WRITABLE,
        },
    )
}
