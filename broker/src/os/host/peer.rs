//! Who is at the other end of a connection, as the kernel noted it when it connected (`unix(7)`).
#![expect(unsafe_code, reason = "nix has no SO_PEERGROUPS")]

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use procbroker_core::Peer;
use thiserror::Error;

/// Supplementary groups that fit at the first try; most users have fewer.
const GROUPS: usize = 64;

/// As many as a process can have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// The kernel does not say who connected.
#[derive(Debug, Error)]
#[error("cannot find out who connected ({option}): {errno}; is it a connected Unix stream socket?")]
pub struct PeerError {
    /// Which socket option was asked for.
    option: &'static str,
    /// What the kernel said.
    #[source]
    errno: Errno,
}

/// Asks for the credentials of the other end.
///
/// # Errors
/// When this is not a connected Unix stream socket.
pub fn peer(stream: BorrowedFd<'_>) -> Result<Peer, PeerError> {
    let credentials = getsockopt(&stream, sockopt::PeerCredentials)
        .map_err(|errno| PeerError { option: "SO_PEERCRED", errno })?;
    let groups = groups(stream).map_err(|errno| PeerError { option: "SO_PEERGROUPS", errno })?;
    // 0: a process of another pid namespace, which has no number here.
    let pid = u32::try_from(credentials.pid()).ok().filter(|&pid| pid != 0);
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid(), groups, pid })
}

fn groups(stream: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    groups_from(stream, GROUPS)
}

/// `room`: the number of groups that the first buffer has room for.
fn groups_from(stream: BorrowedFd<'_>, room: usize) -> Result<Vec<u32>, Errno> {
    let mut groups: Vec<libc::gid_t> = vec![0; room];
    loop {
        let bytes = groups.len() * size_of::<libc::gid_t>();
        let mut length = libc::socklen_t::try_from(bytes).map_err(|_| Errno::E2BIG)?;
        // SAFETY: the kernel writes at most `length` bytes to the buffer, which has that many.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).unwrap_or(0) / mem::size_of::<libc::gid_t>();
        match Errno::result(result) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // `length` is what is needed.
            Err(Errno::ERANGE) if count > groups.len() && count <= GROUPS_MAX => groups.resize(count, 0),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::unistd::{getegid, geteuid, getgroups};

    use super::*;

    fn own_groups() -> Vec<u32> {
        getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect()
    }

    #[test]
    fn the_other_end_is_known_with_all_its_groups() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer(one.as_fd()).unwrap();
        assert_eq!((peer.uid, peer.gid), (geteuid().as_raw(), getegid().as_raw()));
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.groups, own_groups());
    }

    #[test]
    fn more_groups_than_the_first_buffer_holds_are_all_read() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(groups_from(one.as_fd(), 0).unwrap(), own_groups());
    }

    #[test]
    fn what_is_no_connection_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = peer(file.as_fd()).unwrap_err();
        assert_eq!(error.errno, Errno::ENOTSOCK);
        assert!(error.to_string().contains("SO_PEERCRED"));
    }
}
