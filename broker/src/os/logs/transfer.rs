//! Moves bytes from a child's pipe to a file: written before they are consumed, so that a crash in between repeats a
//! piece and loses none.
//!
//! They are not spliced right from the child's pipe: splice(2) holds the pipe's lock for as long as the disk takes, and
//! a child that writes to its pipe meanwhile, or ends, could not even be killed. So they are passed on to a pipe of
//! the log thread's own by tee(2), which copies nothing, and spliced from there.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice, tee};
use nix::unistd::{pipe2, read};

use super::error::LogsError;

/// How much is moved at a time, in bytes: what a pipe holds unless its child has made it larger (pipe(7)).
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// What goes through the log thread's own pipe.
#[derive(Debug)]
pub(super) struct Transfer {
    reader: File,
    writer: OwnedFd,
    nowhere: File,
    way: Way,
}

/// How bytes get to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By splice(2).
    Splice,
    /// Through memory: the file system knows no splice(2) (EINVAL).
    Copy,
}

impl Transfer {
    /// Makes the pipe.
    ///
    /// # Errors
    /// When the system refuses a descriptor.
    pub(super) fn new() -> Result<Self, LogsError> {
        let refused = |errno: Errno| LogsError::new("make a pipe for", "the log thread".into(), errno.into());
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(refused)?;
        let nowhere = File::options().write(true).open("/dev/null");
        let nowhere = nowhere.map_err(|source| LogsError::new("open", "/dev/null".into(), source))?;
        Ok(Self { reader: File::from(reader), writer, nowhere, way: Way::Splice })
    }

    /// Takes a copy of what waits in a child's pipe, at most a piece.
    ///
    /// # Errors
    /// EAGAIN where nothing waits.
    pub(super) fn peek(&self, pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
        loop {
            match tee(pipe, &self.writer, PIECE_BYTES, SpliceFFlags::SPLICE_F_NONBLOCK) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Writes so much of the copy to a file, at this place. Fewer bytes may have got there when it fails.
    pub(super) fn write(&mut self, file: &File, at: u64, length: usize) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < length {
            let place = at.saturating_add(written as u64);
            let result = match self.way {
                Way::Splice => self.splice(file, place, length - written),
                Way::Copy => self.copy(file, place, length - written),
            };
            match result {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.way == Way::Splice => {
                    self.way = Way::Copy;
                }
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    fn splice(&self, file: &File, at: u64, length: usize) -> io::Result<usize> {
        let mut place = i64::try_from(at).map_err(|_| Errno::EFBIG)?;
        Ok(splice(&self.reader, None, file, Some(&mut place), length, SpliceFFlags::empty())?)
    }

    fn copy(&self, file: &File, at: u64, length: usize) -> io::Result<usize> {
        let mut bytes = vec![0; length.min(PIECE_BYTES)];
        let read = (&self.reader).read(&mut bytes)?;
        file.write_all_at(bytes.get(..read).unwrap_or_default(), at)?;
        Ok(read)
    }

    /// Lets go of what is left of the copy.
    pub(super) fn forget(&self) {
        consume(self.reader.as_fd(), &self.nowhere, usize::MAX);
    }

    /// Takes so many bytes out of a child's pipe, for good.
    pub(super) fn consume(&self, pipe: BorrowedFd<'_>, length: usize) {
        consume(pipe, &self.nowhere, length);
    }

    /// Takes so many bytes out of a child's pipe, for good, and returns them.
    pub(super) fn take(pipe: BorrowedFd<'_>, length: usize) -> Vec<u8> {
        let (mut bytes, mut taken) = (vec![0; length], 0);
        while let Some(rest) = bytes.get_mut(taken..).filter(|rest| !rest.is_empty()) {
            match read(pipe, rest) {
                // Empty: its child has read from it itself.
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(length) => taken += length,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "cannot empty a pipe");
                    break;
                }
            }
        }
        bytes.truncate(taken);
        bytes
    }
}

/// Takes bytes out of a pipe until it is empty, or so many are gone.
fn consume(pipe: BorrowedFd<'_>, nowhere: &File, length: usize) {
    let mut left = length;
    while left > 0 {
        let most = left.min(PIECE_BYTES);
        let taken = match splice(pipe, None, nowhere, None, most, SpliceFFlags::SPLICE_F_NONBLOCK) {
            // A sandbox may not know that way.
            Err(Errno::EINVAL | Errno::ENOSYS) => read(pipe, &mut vec![0; most]),
            other => other,
        };
        match taken {
            // Empty: its child has read from it itself.
            Ok(0) | Err(Errno::EAGAIN) => return,
            Ok(taken) => left = left.saturating_sub(taken),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::warn!(%errno, "cannot empty a pipe");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe_with(content: &[u8]) -> (File, File) {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut writer = File::from(writer);
        writer.write_all(content).unwrap();
        (File::from(reader), writer)
    }

    fn rest(pipe: &mut File) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 10];
        let length = pipe.read(&mut bytes).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn bytes_are_in_the_file_before_they_leave_the_pipe_by_either_way() {
        for way in [Way::Splice, Way::Copy] {
            let (mut pipe, _writer) = pipe_with(b"one two");
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(b"zero ", 0).unwrap();
            let mut transfer = Transfer { way, ..Transfer::new().unwrap() };
            assert_eq!(transfer.peek(pipe.as_fd()), Ok(7));
            let (written, result) = transfer.write(&file, 5, 3);
            assert!(written == 3 && result.is_ok(), "{result:?}");
            let mut found = [0; 8];
            file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(&found, b"zero one");
            transfer.forget();
            transfer.consume(pipe.as_fd(), 3);
            assert_eq!(rest(&mut pipe), b" two");
            assert_eq!(transfer.peek(pipe.as_fd()), Err(Errno::EAGAIN));
            assert_eq!(rest(&mut transfer.reader), b"");
        }
    }

    #[test]
    fn what_a_file_does_not_take_is_told() {
        let (pipe, _writer) = pipe_with(b"one");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut transfer = Transfer { way: Way::Copy, ..Transfer::new().unwrap() };
        transfer.peek(pipe.as_fd()).unwrap();
        let (written, result) = transfer.write(&full, 0, 3);
        assert_eq!((written, result.unwrap_err().raw_os_error()), (0, Some(libc::ENOSPC)));
    }

    #[test]
    fn a_pipe_that_is_emptied_by_somebody_else_holds_nobody_up() {
        let (pipe, _writer) = pipe_with(b"one");
        Transfer::new().unwrap().consume(pipe.as_fd(), 100);
        assert_eq!(Transfer::take(pipe.as_fd(), 100), b"");
    }

    #[test]
    fn what_is_taken_is_shown_and_the_rest_stays() {
        let (mut pipe, _writer) = pipe_with(b"one two");
        assert_eq!(Transfer::take(pipe.as_fd(), 3), b"one");
        assert_eq!(rest(&mut pipe), b" two");
    }
}
