//! What others send along to a real socket.

use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};

use nix::sys::socket::{ControlMessage, sendmsg};

use super::*;

/// The user who sends.
const USER: u32 = 1;

/// Who reads what was written to a socket that was sent along.
type Reader = TcpStream;

/// A socket with more in it than its reader has room for, which is waited for when it is closed for the last time.
fn lingering() -> (OwnedFd, Reader) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut full = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write(&[0; 8192]).is_ok() {}
    setsockopt(&full, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 3600 }).unwrap();
    (full.into(), reader)
}

/// Sends bytes and such a socket, which nobody has any more but who gets it.
fn send_along(to: &impl AsRawFd, bytes: &[u8], flags: MsgFlags) -> Reader {
    let (full, reader) = lingering();
    let rights = [full.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(bytes)], &rights, flags, None).unwrap();
    reader
}

/// Returns when the socket that was sent has been closed, and all of it has come.
fn is_closed(mut reader: Reader) {
    reader.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn what_is_sent_along_is_refused_where_the_kernel_can() {
    let (own, other) = UnixStream::pair().unwrap();
    assert_eq!(refuse_rights(&own), DescriptorPassing::MayCome, "it came to be before");
    if refuse_rights(&own) == DescriptorPassing::MayCome {
        println!("skipped: this kernel refuses none");
        return;
    }
    let rights = [0];
    let rights = [ControlMessage::ScmRights(&rights)];
    let sent = sendmsg::<()>(other.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None);
    assert_eq!(sent.unwrap_err(), Errno::EPERM);
    let exposed = ExposedSocket::new(own.into(), USER, &Disposals::default());
    (&other).write_all(b"x").unwrap();
    assert_eq!(exposed.receive(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn nothing_is_read_of_what_descriptors_come_along_with() {
    let (own, other) = UnixStream::pair().unwrap();
    // As where the kernel cannot refuse them.
    let (socket, rights, disposals) =
        (Some(Arc::new(own.into())), DescriptorPassing::MayCome, Disposals::default());
    let exposed = ExposedSocket { socket, rights, user: USER, disposals };
    let mut bytes = [0; 8];
    let nothing = exposed.receive(&mut bytes).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    (&other).write_all(b"said").unwrap();
    assert_eq!((exposed.receive(&mut bytes).unwrap(), &bytes[..4]), (4, b"said".as_slice()));
    let reader = send_along(&other, b"more", MsgFlags::empty());
    assert_eq!(exposed.receive(&mut bytes).unwrap_err().kind(), ErrorKind::InvalidData);
    drop(exposed);
    is_closed(reader);
    assert!((&other).write(b"x").is_err(), "it is closed as well");
}

#[test]
fn what_lingers_in_one_socket_is_waited_for_by_no_other() {
    let disposals = Disposals::default();
    let mut readers = Vec::new();
    for flags in [MsgFlags::empty(), MsgFlags::MSG_OOB, MsgFlags::empty()] {
        let (own, other) = UnixStream::pair().unwrap();
        readers.push(send_along(&other, b"x", flags));
        drop(ExposedSocket::new(own.into(), USER, &disposals));
        let (own, other) = UnixDatagram::pair().unwrap();
        readers.push(send_along(&other, b"", MsgFlags::empty()));
        let_go(Arc::new(own.into()), USER, &disposals);
    }
    // Nobody reads what the first ones wait for.
    while let Some(reader) = readers.pop() {
        is_closed(reader);
    }
}

#[test]
fn a_socket_with_nothing_in_it_is_closed_by_who_drops_it() {
    let (own, other) = UnixStream::pair().unwrap();
    drop(ExposedSocket::new(own.into(), USER, &Disposals::default()));
    assert_eq!((&other).read(&mut [0]).unwrap(), 0);
    assert!((&other).write(b"x").is_err());
}
