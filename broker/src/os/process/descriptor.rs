//! Takes over descriptors that are told by their numbers.
#![expect(unsafe_code, reason = "descriptors that come by number have no owner yet")]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

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
