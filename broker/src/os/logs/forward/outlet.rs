//! The socket that entries go to, one datagram each.
//!
//! Nothing is ever sent in a way that blocks. Where there is no room it is waited for, for a moment; a reader that makes none
//! within that is not waited for again before it has taken something.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::destination::{Destination, LineReader};

/// How long a reader may take to make room.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);

/// A larger entry is handed over as a file in memory, as the journal's native protocol has it: a few of that size would fill
/// the socket's buffer, and those behind them found no room.
const DATAGRAM_BYTES_MAX: usize = 32 << 10;

/// What of the file must not change any more, so that the journal trusts it.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// The way to a reader.
#[derive(Debug)]
pub(super) struct Outlet {
    destination: Destination,
    socket: Option<UnixDatagram>,
    mood: Mood,
}

/// Whether the reader is worth waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Reads,
    /// It has made no room for so long.
    Sulks,
}

impl Outlet {
    /// The socket is looked for with the first entry.
    pub(super) fn new(destination: Destination) -> Self {
        Self { destination, socket: None, mood: Mood::Reads }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.destination.socket
    }

    /// Sends an entry.
    ///
    /// # Errors
    /// When nobody listens there, or there is no room.
    pub(super) fn send(&mut self, entry: &[u8]) -> io::Result<()> {
        let had_socket = self.socket.is_some();
        match self.attempt(entry) {
            // The reader was started anew, perhaps.
            Err(error) if had_socket && has_left(&error) => {
                self.socket = None;
                self.attempt(entry)
            }
            result => result,
        }
    }

    fn attempt(&mut self, entry: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.destination.socket)?,
        };
        let socket = self.socket.insert(socket);
        let mut until = None;
        loop {
            match hand_over(socket, self.destination.reader, entry) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let until = *until.get_or_insert_with(|| Instant::now() + ROOM_PATIENCE);
                    if self.mood == Mood::Sulks || !has_room(socket, until) {
                        self.mood = Mood::Sulks;
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.mood = Mood::Reads;
                    return Ok(());
                }
            }
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

/// Whether an error says that nobody listens any more.
fn has_left(error: &io::Error) -> bool {
    let left = [Errno::ECONNREFUSED, Errno::ECONNRESET, Errno::ENOTCONN, Errno::EPIPE];
    left.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Waits until there is room, at most until then. The socket is connected, so that it is its reader's room (unix(7)).
fn has_room(socket: &UnixDatagram, until: Instant) -> bool {
    let patience = until.saturating_duration_since(Instant::now());
    if patience.is_zero() {
        return false;
    }
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    // One that is interrupted is tried again, and comes here again.
    poll(&mut sockets, timeout) != Ok(0)
}

fn hand_over(socket: &UnixDatagram, reader: LineReader, entry: &[u8]) -> io::Result<()> {
    match reader {
        LineReader::Syslog => socket.send(entry).map(drop),
        LineReader::Journal if entry.len() > DATAGRAM_BYTES_MAX => as_file(socket, entry),
        LineReader::Journal => match socket.send(entry) {
            // The machine's buffers are smaller than they usually are.
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => as_file(socket, entry),
            result => result.map(drop),
        },
    }
}

/// Sends an entry as a file that cannot be changed, with nothing beside it.
fn as_file(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    let file = memfd_create(c"procbroker-entry", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(entry)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    let descriptors = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(socket.as_raw_fd(), &[], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        _folder: tempfile::TempDir,
        outlet: Outlet,
    }

    impl Scene {
        fn new(reader: LineReader) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let outlet = Outlet::new(Destination { reader, socket: folder.path().join("socket") });
            Self { _folder: folder, outlet }
        }

        fn listen(&self) -> UnixDatagram {
            let socket = UnixDatagram::bind(self.outlet.socket()).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }
    }

    fn received(socket: &UnixDatagram) -> Option<Vec<u8>> {
        let mut entry = vec![0; 256 << 10];
        let length = socket.recv(&mut entry).ok()?;
        entry.truncate(length);
        Some(entry)
    }

    #[test]
    fn a_reader_that_is_not_there_is_found_as_soon_as_it_is_and_again_when_it_was_started_anew() {
        let mut scene = Scene::new(LineReader::Syslog);
        assert_eq!(scene.outlet.send(b"one").unwrap_err().kind(), io::ErrorKind::NotFound);
        let reader = scene.listen();
        scene.outlet.send(b"two").unwrap();
        assert_eq!(received(&reader).as_deref(), Some(&b"two"[..]));
        drop(reader);
        assert_eq!(scene.outlet.send(b"three").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_file(scene.outlet.socket()).unwrap();
        let reader = scene.listen();
        scene.outlet.send(b"four").unwrap();
        assert_eq!(received(&reader).as_deref(), Some(&b"four"[..]));
    }

    #[test]
    fn a_reader_that_does_not_read_is_waited_for_once_and_sent_more_when_it_does() {
        let mut scene = Scene::new(LineReader::Journal);
        let reader = scene.listen();
        let mut taken = 0;
        let error = loop {
            match scene.outlet.send(b"one") {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(error.kind() == io::ErrorKind::WouldBlock && taken > 0, "{error} after {taken}");
        assert_eq!(scene.outlet.mood, Mood::Sulks);
        let began = Instant::now();
        for _ in 0..1_000 {
            scene.outlet.send(b"lost").unwrap_err();
        }
        assert!(began.elapsed() < 100 * ROOM_PATIENCE, "each was waited for");
        let read = std::iter::from_fn(|| received(&reader)).count();
        assert_eq!(read, taken);
        scene.outlet.send(b"two").unwrap();
        assert_eq!(scene.outlet.mood, Mood::Reads);
    }

    #[test]
    fn room_that_is_made_meanwhile_is_used() {
        let mut scene = Scene::new(LineReader::Journal);
        let reader = scene.listen();
        reader.set_nonblocking(false).unwrap();
        reader.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let reading = std::thread::spawn(move || (0..5_000).filter(|_| received(&reader).is_some()).count());
        let mut sent = 0;
        while sent < 5_000 {
            // On a machine that is busy with something else the reader may not get its turn for so long.
            sent += usize::from(scene.outlet.send(b"one").is_ok());
        }
        assert_eq!(reading.join().unwrap(), 5_000);
    }

    #[test]
    fn what_syslog_cannot_take_at_once_is_refused() {
        let mut scene = Scene::new(LineReader::Syslog);
        let _reader = scene.listen();
        let error = scene.outlet.send(&vec![b'x'; 4 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EMSGSIZE as i32));
    }
}
