//! Takes over descriptors that are told by their numbers, and has the event loop watch those that have an owner.
#![expect(unsafe_code, reason = "a number has no owner yet, and tokio takes an owned descriptor on trust")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Becomes the owner of an open descriptor that nothing else in this program owns, and closes it on `execve(2)`.
///
/// # Errors
/// EBADF when no such descriptor is open.
pub(crate) fn own_by_number(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: the descriptor is only asked about; a number that is not open gives EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and the caller knows that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has the event loop watch a descriptor. To be called in the event loop.
///
/// # Errors
/// When the event loop cannot watch it: there is no memory left, or it is a file that is always ready.
pub(crate) fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what an `OwnedFd` owns is open, and its number names one file, for as long as the `AsyncFd` owns it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

/// Has the event loop watch a descriptor that others hold as well. To be called in the event loop.
///
/// # Errors
/// As [`watched`].
pub(crate) fn watched_shared(
    descriptor: Arc<OwnedFd>,
    interest: Interest,
) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: as for `watched`: the `AsyncFd` has a share in the owner.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
