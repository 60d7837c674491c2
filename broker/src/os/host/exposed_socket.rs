//! A Unix socket that others send to: what they send along comes in nowhere, and is let go of where that holds up nobody.
//!
//! Descriptors that come along with a message (`SCM_RIGHTS`, unix(7)) are closed by whoever drops the message: by reading it
//! without room for them, or by closing the socket with the message in it. To close a descriptor for the last time can take as
//! long as its sender likes (`SO_LINGER`, socket(7)). So a socket for which nobody wants any refuses them where the kernel can:
//! the sender gets EPERM. Elsewhere they stay in the socket, which is closed with them by [`Disposals`].

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, Shutdown, SockType, getsockopt, recv, recvmsg, setsockopt, shutdown, sockopt,
};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

use super::disposal::Disposals;

/// The number of the option that says whether descriptors may come to a socket (`SO_PASSRIGHTS`, Linux 6.16,
/// `include/uapi/asm-generic/socket.h`).
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_PASSRIGHTS: libc::c_int = 83;

/// As above, in `arch/sparc/include/uapi/asm/socket.h`.
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_PASSRIGHTS: libc::c_int = 0x005c;

sockopt_impl!(
    /// Whether descriptors may come along with what is sent to a socket.
    PassRights,
    Both,
    libc::SOL_SOCKET,
    SO_PASSRIGHTS,
    bool
);

/// Whether descriptors can be in a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptorPassing {
    /// None can: whoever sends one gets EPERM.
    Refused,
    /// Some can be in it, and have to be let go of.
    MayCome,
}

/// Has a socket refuse descriptors from now on, as a listener also for those who connect from now on; and says whether some
/// may be in it all the same: those that came before, or any where the kernel cannot refuse them.
pub fn refuse_rights(socket: &impl AsFd) -> DescriptorPassing {
    match getsockopt(socket, PassRights) {
        Ok(false) => DescriptorPassing::Refused,
        // It cannot fail where the option is known. Where it is not (ENOPROTOOPT), nothing is lost but what it spares.
        Ok(true) => {
            let _ = setsockopt(socket, PassRights, &false);
            DescriptorPassing::MayCome
        }
        Err(_) => DescriptorPassing::MayCome,
    }
}

/// A stream socket that a process of some user sends to, which is closed where that holds up nobody else.
#[derive(Debug)]
pub struct ExposedSocket {
    /// None only while it is dropped.
    socket: Option<Arc<OwnedFd>>,
    rights: DescriptorPassing,
    user: u32,
    disposals: Disposals,
}

impl ExposedSocket {
    /// Takes over a socket at whose other end is a process of this user. Descriptors are refused from now on.
    #[must_use]
    pub fn new(socket: OwnedFd, user: u32, disposals: &Disposals) -> Self {
        let rights = refuse_rights(&socket);
        if rights == DescriptorPassing::MayCome {
            // What is sent out of band (`MSG_OOB`) stands among the rest then, and is not dropped unseen in reading on.
            let _ = setsockopt(&socket, sockopt::OobInline, &true);
        }
        Self { socket: Some(Arc::new(socket)), rights, user, disposals: disposals.clone() }
    }

    /// A share in the descriptor, to be given up before this is.
    ///
    /// # Errors
    /// Never, as long as this is.
    pub fn share(&self) -> io::Result<Arc<OwnedFd>> {
        self.socket().cloned()
    }

    fn socket(&self) -> io::Result<&Arc<OwnedFd>> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads what is there without waiting, at most so much; 0 bytes mean that the other side is closed.
    ///
    /// # Errors
    /// `InvalidData` when descriptors are there, with which nothing is read; else what recv(2) says.
    pub fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket()?;
        let length = match self.rights {
            DescriptorPassing::Refused => bytes.len(),
            DescriptorPassing::MayCome => length_without_rights(socket, bytes)?,
        };
        let room = bytes.get_mut(..length).unwrap_or_default();
        Ok(recv(socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)?)
    }
}

impl Drop for ExposedSocket {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        match self.rights {
            DescriptorPassing::Refused => drop(socket),
            DescriptorPassing::MayCome => let_go(socket, self.user, &self.disposals),
        }
    }
}

/// Looks at what is there, and leaves it where it is.
fn length_without_rights(socket: &OwnedFd, bytes: &mut [u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, None, flags)?;
    // What there is no room for can be nothing but descriptors.
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors were sent along, which nobody takes",
        ));
    }
    Ok(message.bytes)
}

/// Closes a socket in which there may be descriptors that this user has sent: by [`Disposals`], unless it is empty.
pub fn let_go(socket: Arc<OwnedFd>, user: u32, disposals: &Disposals) {
    // Nothing can come any more.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
    if !is_empty(&socket) {
        disposals.close(user, socket);
    }
}

/// Whether nothing waits in a socket.
#[must_use]
pub fn is_empty(socket: &OwnedFd) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    match recv(socket.as_raw_fd(), &mut [0], flags) {
        Err(Errno::EAGAIN) => true,
        // A datagram can be empty, and bring something along.
        Ok(0) => getsockopt(socket, sockopt::SockType) == Ok(SockType::Stream),
        Ok(_) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
