//! Descriptors that lie in a socket as messages (`unix(7)`, `SCM_RIGHTS`), where they stay open as long as somebody
//! holds the socket.
#![expect(unsafe_code, reason = "descriptors come out of a message as numbers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, getsockopt, recvmsg,
    sendmsg, setsockopt, socketpair, sockopt,
};
use procbroker_core::{Incarnation, Run};
use procbroker_protocol::ChildId;
use uuid::Uuid;

/// Bytes of messages that may lie in the socket, as the kernel counts them: 768 for each, on Linux 6.18. It is a
/// bound, and no memory is set aside; at least that of `net.core.wmem_max` (some 270 messages) is granted to all.
const BYTES_MAX: usize = 64 << 20;

/// What a message is taken to need of that: more than it does, so that there is always room to go once through all.
const BYTES_A_MESSAGE: usize = 1 << 10;

/// The first byte of a message with a process.
const PROCESS: u8 = 1;

/// The first byte of a message that marks a place.
const MARK: u8 = 2;

/// The first byte of a message of a process that is still to be started.
const EXPECTED: u8 = 3;

/// The first byte of a message with the socket that a child tells something on. Brokers that know of none drop it.
const SOCKET: u8 = 4;

/// A kind, a UUID, the number of a child's process, and which broker has started it.
const MESSAGE_BYTES: usize = 1 + 16 + 4 + 4;

type Message = [u8; MESSAGE_BYTES];

#[derive(Debug)]
pub(super) struct StoreQueue {
    read: OwnedFd,
    write: OwnedFd,
}

/// What is held of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StoredKind {
    /// A process of it.
    Process,
    /// The socket on which it tells how it is. It has one for all of its runs, and stands under the first.
    Socket,
}

/// One process of one child, or its socket, over all brokers that share the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreKey {
    /// Each broker counts the processes of a child anew.
    pub(super) run: Run,
    /// Which of the two it is.
    pub(super) held: StoredKind,
    /// How many brokers there were before the one that stored it.
    pub(super) age: u32,
}

impl StoreKey {
    /// By which the processes of one child are in the order of their starts.
    pub(super) fn order(self) -> (u32, Incarnation) {
        (self.age, self.run.incarnation)
    }
}

/// The message that is at the beginning.
#[derive(Debug)]
pub(super) enum First {
    Nothing,
    /// A process, or a socket.
    Stored {
        /// What it is of, and the broker that has stored it.
        key: StoreKey,
        /// The process or the socket.
        descriptor: OwnedFd,
    },
    /// A process that was still to be started.
    Expected(StoreKey),
    /// The end of the queue at some earlier time.
    Mark(Uuid),
    /// Something that no broker of this version writes.
    Malformed,
}

impl StoreQueue {
    /// A new one, with close-on-exec.
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // What is asked for beyond wmem_max needs CAP_NET_ADMIN.
        setsockopt(&write, sockopt::SndBufForce, &BYTES_MAX)
            .or_else(|_| setsockopt(&write, sockopt::SndBuf, &BYTES_MAX))?;
        Ok(Self { read, write })
    }

    /// The one that has these ends.
    pub(super) fn of_ends(read: OwnedFd, write: OwnedFd) -> io::Result<Self> {
        for end in [&read, &write] {
            if getsockopt(end, sockopt::SockType)? != SockType::SeqPacket {
                return Err(io::Error::other("it is no socket of packets in sequence"));
            }
            // Whoever passed it on had to take that off.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        Ok(Self { read, write })
    }

    /// What is read from, and what is written to.
    pub(super) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.read.as_fd(), self.write.as_fd()]
    }

    /// How many messages may lie in it.
    pub(super) fn capacity(&self) -> io::Result<usize> {
        Ok(getsockopt(&self.write, sockopt::SndBuf)? / BYTES_A_MESSAGE)
    }

    /// Puts a process or a socket at the end.
    ///
    /// EAGAIN: there is no room. ETOOMANYREFS: too many descriptors of this user lie in sockets (`unix(7)`).
    pub(super) fn push(&self, key: StoreKey, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let kind = match key.held {
            StoredKind::Process => PROCESS,
            StoredKind::Socket => SOCKET,
        };
        self.send(&of_key(kind, key), &[ControlMessage::ScmRights(&[descriptor.as_raw_fd()])])
    }

    /// Puts a mark at the end for a process that is still to be started.
    pub(super) fn push_expected(&self, key: StoreKey) -> io::Result<()> {
        self.send(&of_key(EXPECTED, key), &[])
    }

    /// Marks the end of what is there now.
    pub(super) fn mark_end(&self) -> io::Result<Uuid> {
        let mark = Uuid::new_v4();
        self.send(&message(MARK, mark, 0, 0), &[])?;
        Ok(mark)
    }

    fn send(&self, message: &Message, rights: &[ControlMessage<'_>]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // A message of this kind of socket is sent as a whole, or not at all.
        sendmsg::<()>(self.write.as_raw_fd(), &[IoSlice::new(message)], rights, flags, None)?;
        Ok(())
    }

    /// Whose process is at the beginning, if one is.
    pub(super) fn first_key(&self) -> io::Result<Option<StoreKey>> {
        let mut buffer = Message::default();
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let mut parts = [IoSliceMut::new(&mut buffer)];
        match recvmsg::<()>(self.read.as_raw_fd(), &mut parts, None, flags).map(drop) {
            Ok(()) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        Ok(match parse(&buffer) {
            Parsed::Stored(key) | Parsed::Expected(key) => Some(key),
            Parsed::Mark(_) | Parsed::Malformed => None,
        })
    }

    /// What is at the beginning, where it stays.
    ///
    /// EMFILE: there is no descriptor left for the process.
    pub(super) fn first(&self) -> io::Result<First> {
        let mut buffer = Message::default();
        let mut room = cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = match recvmsg::<()>(self.read.as_raw_fd(), &mut parts, Some(&mut room), flags) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(First::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let length = received.bytes;
        let was_cut = received.flags.contains(MsgFlags::MSG_CTRUNC);
        let mut held = None;
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                for descriptor in descriptors {
                    // SAFETY: the kernel has just opened it for this process, and nobody else has its number.
                    held = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
        }
        Ok(match (parse(&buffer), held) {
            _ if length != MESSAGE_BYTES => First::Malformed,
            (Parsed::Stored(key), Some(descriptor)) => First::Stored { key, descriptor },
            (Parsed::Stored(_), None) if was_cut => return Err(Errno::EMFILE.into()),
            (Parsed::Stored(_), None) | (Parsed::Malformed, _) => First::Malformed,
            (Parsed::Expected(key), _) => First::Expected(key),
            (Parsed::Mark(mark), _) => First::Mark(mark),
        })
    }

    /// Takes the message away that is at the beginning, if one is, and lets go of its process.
    pub(super) fn drop_first(&self) -> io::Result<()> {
        let mut nothing = [0; 1];
        let mut parts = [IoSliceMut::new(&mut nothing)];
        match recvmsg::<()>(self.read.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT).map(drop) {
            Ok(()) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What a message says.
enum Parsed {
    Stored(StoreKey),
    Expected(StoreKey),
    Mark(Uuid),
    Malformed,
}

fn of_key(kind: u8, key: StoreKey) -> Message {
    message(kind, key.run.child.as_uuid(), key.run.incarnation.0, key.age)
}

fn message(kind: u8, id: Uuid, number: u32, age: u32) -> Message {
    let mut message = Message::default();
    let numbers = number.to_le_bytes().into_iter().chain(age.to_le_bytes());
    let bytes = [kind].into_iter().chain(id.into_bytes()).chain(numbers);
    message.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    message
}

fn parse(message: &Message) -> Parsed {
    let [kind, rest @ ..] = message;
    let Some((&id, rest)) = rest.split_first_chunk() else { return Parsed::Malformed };
    let Some((&number, rest)) = rest.split_first_chunk() else { return Parsed::Malformed };
    let Some((&age, [])) = rest.split_first_chunk() else { return Parsed::Malformed };
    let id = Uuid::from_bytes(id);
    let incarnation = Incarnation(u32::from_le_bytes(number));
    let (run, age) = (Run { child: ChildId::from_uuid(id), incarnation }, u32::from_le_bytes(age));
    let key = |held| StoreKey { run, held, age };
    match *kind {
        PROCESS => Parsed::Stored(key(StoredKind::Process)),
        SOCKET => Parsed::Stored(key(StoredKind::Socket)),
        EXPECTED => Parsed::Expected(key(StoredKind::Process)),
        MARK => Parsed::Mark(id),
        _ => Parsed::Malformed,
    }
}
