//! What children tell of themselves (`sd_notify(3)`): a datagram socket for each that asked for one, which only the child's
//! own processes are heard on.
//!
//! The sockets are files in a folder of the runtime folder, and each is writable by its child's user alone, so that nobody
//! else can fill its queue. Who has sent a datagram is what the kernel says (`SO_PASSCRED`, unix(7)); it counts if that is
//! the child's main process or descends from it. A socket lives as long as its child. An upgrade hands it over, and below
//! systemd it is [held](crate::os::service::fd_store) over a crash: what is sent meanwhile waits, as much as
//! `net.unix.max_dgram_qlen` lets wait, and whoever sends more waits too. Elsewhere the next broker binds the same path
//! anew after a crash, and a word that was sent meanwhile was refused to its sender.

mod datagram;
mod listening;
mod strays;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, bind, getsockname, setsockopt, shutdown, socket,
    sockopt::PassCred,
};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstat};
use nix::unistd::{Uid, fchownat, geteuid};
use procbroker_core::Run;
use procbroker_protocol::ChildId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::os::host::disposal::{self, Disposals, Table};
use crate::os::host::exposed_socket::{is_empty, let_go};
use crate::os::host::own_folder::{OwnError, OwnFolder};
use crate::os::process::descriptor::watched;
use crate::turns::SLICE;
use listening::Listening;
pub use listening::ReceivedNotices;
use strays::{Patience, Strays, WINDOW};

/// The folder of the sockets, in the runtime folder.
const FOLDER: &str = "notify";

/// How many sockets are looked at in one go.
const SOCKETS_A_TURN: usize = 64;

/// As many can be left in a socket as wait there (`net.unix.max_dgram_qlen`), which an administrator can raise up to here.
const DATAGRAMS_LEFT_MAX: usize = 1 << 16;

/// The sockets of all children that have one.
#[derive(Debug)]
pub struct Notices {
    folder: OwnFolder,
    epoll: Arc<Epoll>,
    listening: BTreeMap<ChildId, Listening>,
    /// Which child each number in an event means.
    tokens: BTreeMap<u64, ChildId>,
    next_token: u64,
    /// Those that have sent too much, with when they are read again.
    resting: VecDeque<(Instant, ChildId)>,
    strays: Strays,
    disposals: Disposals,
}

/// Whether there may be more to read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing waits in any socket.
    Nothing,
    /// Something may wait that was not looked at.
    More,
}

/// Whose word a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeOrigin {
    /// A process of the child whose socket it came by.
    Child,
    /// Another process.
    Stray,
}

impl Notices {
    /// Takes the folder for the sockets, in the runtime folder. `inherited` are those of the program before this one.
    ///
    /// # Errors
    /// When the folder cannot be used, or the system refuses a descriptor.
    pub fn open(
        runtime: &OwnFolder,
        inherited: Vec<Arc<OwnedFd>>,
        disposals: Disposals,
    ) -> Result<Self, OwnError> {
        let folder = runtime.passable_subfolder(FOLDER)?;
        let refused = |errno: Errno| OwnError::Refused {
            attempt: "watch the sockets in",
            path: folder.path().to_owned(),
            source: errno.into(),
        };
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(refused)?);
        let (listening, tokens) = (BTreeMap::new(), BTreeMap::new());
        let (resting, strays) = (VecDeque::new(), Strays::default());
        let mut notices =
            Self { folder, epoll, listening, tokens, next_token: 0, resting, strays, disposals };
        for socket in inherited {
            if let Some(child) = child_of(&socket) {
                notices.keep(child, socket, geteuid());
            }
        }
        Ok(notices)
    }

    /// Becomes readable when a child has told something.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn readable(&self) -> io::Result<AsyncFd<OwnedFd>> {
        watched(self.epoll.0.as_fd().try_clone_to_owned()?, Interest::READABLE)
    }

    /// Takes the socket of a child that was held for it while there was no broker, unless it has one.
    pub fn take(&mut self, child: ChildId, socket: OwnedFd) {
        if !self.listening.contains_key(&child) && child_of(&socket) == Some(child) {
            self.keep(child, Arc::new(socket), geteuid());
        }
    }

    /// The socket of a child.
    #[must_use]
    pub fn socket(&self, child: ChildId) -> Option<BorrowedFd<'_>> {
        self.listening.get(&child).map(|one| one.socket.as_fd())
    }

    /// The sockets, for the next program of this process.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listening.values().map(|one| one.socket.as_fd())
    }

    /// Makes the socket of a child whose processes are this user's, unless it has one, and says where it is. Nobody is heard
    /// on it before [`hear`](Self::hear).
    ///
    /// # Errors
    /// Such as EMFILE, or ENAMETOOLONG where the runtime folder's path is too long for a socket in it.
    pub fn open_for(
        &mut self,
        child: ChildId,
        runtime: impl AsFd,
        user: Option<Uid>,
    ) -> Result<PathBuf, Errno> {
        let name = name_of(child);
        let path = self.folder.path().join(&name);
        if let Some(listening) = self.listening.get_mut(&child) {
            listening.run = None;
            listening.user = user.unwrap_or_else(geteuid);
            return Ok(path);
        }
        let socket = self.bind(&name, &path)?;
        if let Some(user) = user {
            // Its user may pass through, and still not look around.
            let passable = Mode::S_IRWXU | Mode::S_IXGRP | Mode::S_IXOTH;
            fchmod(runtime.as_fd(), passable)?;
            fchmod(self.folder.as_fd(), passable)?;
            fchownat(&self.folder, name.as_str(), Some(user), None, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        self.keep(child, Arc::new(socket), user.unwrap_or_else(geteuid));
        Ok(path)
    }

    fn bind(&self, name: &str, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&socket, PassCred, &true)?;
        // What a broker that crashed has left leads nowhere.
        self.folder.remove(name).map_err(|_| Errno::EEXIST)?;
        let descriptor = socket.as_raw_fd();
        bind(descriptor, &UnixAddr::new(path)?)?;
        fchmodat(&self.folder, name, Mode::S_IRUSR | Mode::S_IWUSR, FchmodatFlags::FollowSymlink)?;
        Ok(socket)
    }

    fn keep(&mut self, child: ChildId, socket: Arc<OwnedFd>, user: Uid) {
        let token = self.next_token;
        self.next_token += 1;
        self.tokens.insert(token, child);
        self.listening.insert(child, Listening::new(socket, user, token));
    }

    /// Hears what the processes of this run tell from now on, and have told before.
    pub fn hear(&mut self, run: Run) {
        let Self { epoll, listening, .. } = self;
        if let Some(listening) = listening.get_mut(&run.child) {
            listening.run = Some(run);
            listening.watch(epoll);
        }
    }

    /// A child has ended: its socket goes, with what is in it.
    pub fn end(&mut self, child: ChildId) {
        let Some(Listening { socket, user, token, .. }) = self.listening.remove(&child) else { return };
        self.tokens.remove(&token);
        // It may stay open for a while, and tells nothing any more.
        let _ = self.epoll.delete(&socket);
        // Nothing can come any more.
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        if !is_empty(&socket) {
            // The fd store can have it for longer, and lets go of it on the driver's thread.
            if let Err(error) = self.disposals.submit(user.as_raw(), emptied(Arc::clone(&socket))) {
                tracing::warn!(%error, "what a child has told last cannot be let go of apart from its socket");
            }
        }
        let_go(socket, user.as_raw(), &self.disposals);
        if let Err(error) = self.folder.remove(&name_of(child)) {
            tracing::warn!(%error, "cannot remove the socket of a child that has ended");
        }
    }

    /// Removes what is left of children that are not heard any more.
    pub fn tidy(&self) {
        for name in self.folder.entries().unwrap_or_default() {
            let child = uuid::Uuid::try_parse(&name).ok().map(ChildId::from_uuid);
            if child.is_none_or(|child| !self.listening.contains_key(&child)) {
                // It is in nobody's way.
                let _ = self.folder.remove(&name);
            }
        }
    }

    /// When somebody is heard again who has told too much.
    #[must_use]
    pub fn rest_until(&self) -> Option<Instant> {
        self.resting.front().map(|(until, _)| *until)
    }

    /// Hears those again whose rest is over.
    pub fn wake(&mut self, now: Instant) {
        while self.rest_until().is_some_and(|until| until <= now) {
            let Some((_, child)) = self.resting.pop_front() else { break };
            let Self { epoll, listening, .. } = self;
            if let Some(listening) = listening.get_mut(&child).filter(|one| one.run.is_some()) {
                listening.watch(epoll);
            }
        }
    }

    /// Reads what there is, some of each, for as long as nobody waits for the event loop for long; the rest waits in the
    /// sockets. `hear` takes each word in, and says whose it is.
    pub fn read(&mut self, now: Instant, mut hear: impl FnMut(ReceivedNotices) -> NoticeOrigin) -> Rest {
        let began = Instant::now();
        let mut event = [EpollEvent::empty()];
        for _ in 0..SOCKETS_A_TURN {
            if began.elapsed() >= SLICE {
                return Rest::More;
            }
            // One at a time: the kernel puts that behind all others, so that the sockets take turns.
            if self.epoll.wait(&mut event, EpollTimeout::ZERO).unwrap_or_default() == 0 {
                return Rest::Nothing;
            }
            if let Some(child) = self.tokens.get(&event[0].data()).copied() {
                self.read_one(child, (now, began), &mut hear);
            }
        }
        Rest::More
    }

    fn read_one(
        &mut self,
        child: ChildId,
        (now, began): (Instant, Instant),
        hear: &mut impl FnMut(ReceivedNotices) -> NoticeOrigin,
    ) {
        let Some(listening) = self.listening.get_mut(&child) else { return };
        let user = listening.user.as_raw();
        let mut patience = self.strays.patience(user, now);
        if patience == Patience::Left {
            let strays = &mut self.strays;
            listening.read(now, |word| {
                if hear(word) == NoticeOrigin::Stray {
                    patience = strays.count(user, now);
                }
                if patience == Patience::Over {
                    tracing::warn!(uid = user, %child, "processes that are no child's tell too much; this user's children are heard again in a moment");
                }
                let is_enough = patience == Patience::Over || began.elapsed() >= SLICE;
                if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        let is_disposing = listening.is_disposing();
        let is_too_much = listening.is_too_much();
        if listening.run.is_none() || is_too_much || is_disposing || patience == Patience::Over {
            // Taken out, and not only asked of for nothing: one that still stands in the kernel's list of those that are
            // ready would be watched again without a word to who waits for this epoll (`ep_modify` in
            // fs/eventpoll.c). It is watched, so that this cannot fail.
            let _ = self.epoll.delete(&listening.socket);
        }
        if is_disposing {
            let load = listening.disposal_of_next(&self.epoll);
            if let Err(error) = self.disposals.submit(user, load) {
                tracing::warn!(%child, %error, "what a child has sent along cannot be let go of; trying again");
                listening.dispose_later();
                self.resting.push_back((now + WINDOW, child));
            }
        } else if patience == Patience::Over {
            self.resting.push_back((now + WINDOW, child));
        } else if is_too_much && listening.run.is_some() {
            tracing::warn!(%child, "a child tells too much of itself; it is heard again in a moment");
            self.resting.push_back((now + WINDOW, child));
        }
    }
}

/// What takes all that is left out of a socket to which nothing comes any more.
fn emptied(socket: Arc<OwnedFd>) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        let taken = disposal::in_passing(&socket, |socket, table| {
            for _ in 0..DATAGRAMS_LEFT_MAX {
                if is_empty(socket) {
                    return;
                }
                match table {
                    Table::Own => datagram::take(socket.as_fd()),
                    Table::Shared => datagram::discard(socket.as_fd()),
                }
            }
        });
        if let Err(error) = taken {
            tracing::warn!(%error, "what a child has told last cannot be let go of apart from its socket");
        }
    })
}

/// Whether a descriptor that was handed over is a socket, and not a pipe.
#[must_use]
pub fn is_socket(descriptor: impl AsFd) -> bool {
    fstat(descriptor).is_ok_and(|found| found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits())
}

fn name_of(child: ChildId) -> String {
    child.as_uuid().simple().to_string()
}

/// Whose socket it is, by its path.
fn child_of(socket: &impl AsRawFd) -> Option<ChildId> {
    let address: UnixAddr = getsockname(socket.as_raw_fd()).ok()?;
    let name = address.path()?.file_name()?.to_str()?.to_owned();
    uuid::Uuid::try_parse(&name).ok().map(ChildId::from_uuid)
}
