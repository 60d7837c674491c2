//! One datagram, with who has sent it and what came along.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use procbroker_core::Pid;

use crate::os::process::descriptor::own_by_number;

/// Bytes of a datagram, at most: nothing that means anything is longer.
const BYTES_MAX: usize = 4096;

/// How many descriptors may come with one (`SCM_MAX_FD`, unix(7)).
const DESCRIPTORS_MAX: usize = 253;

/// A datagram.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Who has sent it; none where the datagram is longer than any that means something.
    pub(super) sender: Option<Pid>,
    pub(super) text: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Takes the next datagram, without waiting for one.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<Datagram, Errno> {
    let mut buffer = [0; BYTES_MAX];
    let mut control = cmsg_space!(UnixCredentials, [std::os::fd::RawFd; DESCRIPTORS_MAX]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (count, is_cut, sender, numbers) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let (mut sender, mut numbers) = (None, Vec::new());
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmCredentials(credentials) => {
                    sender = u32::try_from(credentials.pid()).ok().and_then(Pid::new);
                }
                ControlMessageOwned::ScmRights(rights) => numbers.extend(rights),
                _ => {}
            }
        }
        (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC), sender, numbers)
    };
    // Nobody but this call knows of them.
    let descriptors = numbers.into_iter().filter_map(|number| own_by_number(number).ok()).collect();
    let text = buffer.get(..count).unwrap_or_default().to_vec();
    Ok(Datagram { sender: sender.filter(|_| !is_cut), text, descriptors })
}
