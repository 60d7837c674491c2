//! What a child does that looks whether something listens somewhere: raw system calls only, as in `child`.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use super::plan::Ids;
use super::raw::{call, call_with_five};

/// What is asked, prepared by the broker.
pub(super) struct Inquiry {
    pub(super) place: Place,
    /// Whose rights count on the way there; those of the broker itself where there are none.
    pub(super) ids: Option<Ids>,
}

/// Where somebody is to listen.
pub(super) enum Place {
    Path {
        path: CString,
        /// Whose listener is meant.
        user: libc::uid_t,
    },
    /// Whoever it is that listens.
    Address(SockaddrStorage),
}

/// Below it stand the descriptors of a process; what was found has a number of one digit, in a table with next to nothing in it.
const DESCRIPTORS: &[u8; 14] = b"/proc/self/fd/";

/// The kernel's `struct open_how` (openat2(2), Linux 5.6).
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// `RESOLVE_NO_MAGICLINKS`.
const NO_MAGIC_LINKS: u64 = 0x02;

/// Connects to where somebody is to listen.
pub(super) fn listens(inquiry: &Inquiry) -> Result<(), Errno> {
    match &inquiry.place {
        Place::Path { path, user } => listens_at_path(path, *user),
        Place::Address(address) => accepts(address),
    }
}

/// Connects to an address, and waits for that until it is killed: what a user may not reach, by a rule of a firewall about the
/// owner of a socket, is not reached for it.
fn accepts(address: &SockaddrStorage) -> Result<(), Errno> {
    let family = address.family().ok_or(Errno::EAFNOSUPPORT)? as i32;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let [family, kind] = [family, kind].map(|number| number.cast_unsigned() as usize);
    // SAFETY: it takes no memory.
    let socket = unsafe { call(libc::SYS_socket, [family, kind, 0, 0]) }?;
    let (place, length) = (address.as_ptr().expose_provenance(), address.len() as usize);
    // SAFETY: it reads one address.
    unsafe { call(libc::SYS_connect, [socket, place, length, 0]) }?;
    Ok(())
}

/// Connects to what is there, and asks whose it is. Another user's socket says nothing of the child, even where the child may
/// reach it.
///
/// The path leads through no link of `/proc`: `/proc/PID/root` and the like jump over closed folders for who may trace that
/// process.
fn listens_at_path(path: &CStr, user: libc::uid_t) -> Result<(), Errno> {
    let how = OpenHow {
        flags: u64::from((libc::O_PATH | libc::O_CLOEXEC).cast_unsigned()),
        mode: 0,
        resolve: NO_MAGIC_LINKS,
    };
    let here = libc::AT_FDCWD as isize;
    let [path, how] = [path.as_ptr().expose_provenance(), (&raw const how).expose_provenance()];
    // SAFETY: the path ends with a NUL, and it reads as many bytes as `how` has.
    let place = unsafe { call(libc::SYS_openat2, [here.cast_unsigned(), path, how, size_of::<OpenHow>()]) }?;
    let kind = (libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned() as usize;
    // SAFETY: it takes no memory.
    let socket = unsafe { call(libc::SYS_socket, [libc::AF_UNIX as usize, kind, 0, 0]) }?;
    // What was found is connected to, wherever the path leads by now.
    let address = address_of(place).ok_or(Errno::EMFILE)?;
    let address = (&raw const address).expose_provenance();
    // SAFETY: it reads one address.
    unsafe { call(libc::SYS_connect, [socket, address, size_of::<libc::sockaddr_un>(), 0]) }?;
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::EOVERFLOW)?;
    let [level, name] = [libc::SOL_SOCKET as usize, libc::SO_PEERCRED as usize];
    let [place, length] = [(&raw mut peer).expose_provenance(), (&raw mut length).expose_provenance()];
    // SAFETY: it writes as many bytes as there are, and how many these are.
    unsafe { call_with_five(libc::SYS_getsockopt, [socket, level, name, place, length]) }?;
    if peer.uid == user { Ok(()) } else { Err(Errno::EPERM) }
}

/// The address of what this process has open.
fn address_of(descriptor: usize) -> Option<libc::sockaddr_un> {
    let digit = u8::try_from(descriptor).ok().filter(|number| *number < 10)?;
    let mut address = libc::sockaddr_un {
        sun_family: libc::sa_family_t::try_from(libc::AF_UNIX).ok()?,
        sun_path: [0; 108],
    };
    let path = DESCRIPTORS.iter().copied().chain([digit.wrapping_add(b'0')]);
    for (place, byte) in address.sun_path.iter_mut().zip(path) {
        // The type of a C character differs between processors.
        *place = libc::c_char::try_from(byte).ok()?;
    }
    Some(address)
}
