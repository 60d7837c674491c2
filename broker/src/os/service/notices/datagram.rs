//! One datagram at the head of a socket's queue, with who has sent it. What came along with it stays in the queue.
#![expect(unsafe_code, reason = "nix tells nothing of a datagram with descriptors that are not received")]

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, UnixCredentials, recv, recvmsg};
use procbroker_core::Pid;

/// Bytes of a datagram, at most: nothing that means anything is longer.
const BYTES_MAX: usize = 4096;

/// Room for the credentials of its sender, and for nothing else: what `CMSG_SPACE` says (cmsg(3)).
const CONTROL_BYTES: usize = {
    let word = size_of::<usize>();
    size_of::<libc::cmsghdr>().next_multiple_of(word) + size_of::<libc::ucred>().next_multiple_of(word)
};

/// Descriptors that come along with one message, at most: `SCM_MAX_FD` (unix(7)).
const RIGHTS_MAX: usize = 253;

#[derive(Debug)]
pub(super) struct Datagram {
    /// Who has sent it; none where the datagram is longer than any that means something.
    pub(super) sender: Option<Pid>,
    pub(super) text: Vec<u8>,
    pub(super) descriptors: Descriptors,
}

/// Whether descriptors came along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Descriptors {
    None,
    /// Some did: they are closed with the datagram.
    Some,
}

/// Looks at the next datagram, without waiting for one, and leaves it where it is.
pub(super) fn peek(socket: BorrowedFd<'_>) -> Result<Datagram, Errno> {
    let mut buffer = [0_u8; BYTES_MAX];
    // Aligned as the kernel's headers are.
    let mut control = [0_u64; CONTROL_BYTES.div_ceil(size_of::<u64>())];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zeroes are a message of nothing.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: the message names two buffers with their lengths, which live until it returns.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let count = usize::try_from(Errno::result(count)?).unwrap_or(0);
    let is_cut = message.msg_flags & libc::MSG_TRUNC != 0;
    // What there was no room for can be nothing but descriptors.
    let descriptors =
        if message.msg_flags & libc::MSG_CTRUNC == 0 { Descriptors::None } else { Descriptors::Some };
    let sender = sender(&message).filter(|_| !is_cut);
    Ok(Datagram { sender, text: buffer.get(..count).unwrap_or_default().to_vec(), descriptors })
}

/// Takes the next datagram away. The last descriptors of something may be closed with it, which takes as long as their
/// sender likes.
pub(super) fn discard(socket: BorrowedFd<'_>) {
    // The next look at the socket tells if there was none.
    let _ = recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT);
}

/// Takes the next datagram into a table of descriptors that ends with this thread: what came along with it is closed by that.
pub(super) fn take(socket: BorrowedFd<'_>) {
    let mut control = nix::cmsg_space!([RawFd; RIGHTS_MAX], UnixCredentials);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    // What comes has no owner. The next look at the socket tells if nothing did.
    let _ = recvmsg::<()>(socket.as_raw_fd(), &mut [], Some(&mut control), flags);
}

fn sender(message: &libc::msghdr) -> Option<Pid> {
    // SAFETY: the kernel has left a list of control messages there, and its length.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: it is null, or leads to a header within that buffer.
    let header = unsafe { first.as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
        return None;
    }
    // SAFETY: a message of this kind has credentials behind its header.
    let credentials: libc::ucred = unsafe { libc::CMSG_DATA(first).cast::<libc::ucred>().read_unaligned() };
    u32::try_from(credentials.pid).ok().and_then(Pid::new)
}
