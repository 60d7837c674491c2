//! Finds a process that a client names, for a child to live as long (`lifetime: {"pid": N}`).
//!
//! Its number is one of the client's pid namespace. That is the broker's own for most; in a namespace within it
//! (`pid_namespaces(7)`) the client itself is the only process whose number the kernel tells without a search.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use procbroker_core::{Anchor, AnchorSeen, AnchorUnknown, Pid, Shortage};

use crate::os::process::identity::{BirthmarkError, BootId, ProcessIdentity, has_birthmark};
use crate::os::process::pidfd;

/// Finds the process that the client at the other end of this connection, who is this process, means by a number.
///
/// # Errors
/// When there is none, or it cannot be told which one or whose it is.
pub fn find(number: u32, stream: BorrowedFd<'_>, client: Option<u32>) -> Result<AnchorSeen, AnchorUnknown> {
    let client = client.and_then(Pid::new).ok_or(AnchorUnknown::Elsewhere)?;
    let pid = translated(number, stream, client)?;
    let pidfd = open(pid)?;
    let status = Status::read(pid)?;
    let identity = ProcessIdentity::of(pid, pidfd.as_fd(), None);
    let identity = identity.map_err(|error| Errno::try_from(error).map_or(AnchorUnknown::Closed, unknown))?;
    // If it has not ended by now, nobody else can have had its number before.
    if pidfd::has_ended(pidfd.as_fd()) {
        return Err(AnchorUnknown::Gone);
    }
    let (real_uid, saved_uid) = status.users()?;
    let anchor = Anchor { pid, birthmark: identity.birthmark, boot: identity.boot.0 };
    Ok(AnchorSeen { anchor, real_uid, saved_uid })
}

/// Opens a process that was found before. `None` when it has ended, or it lived in another run of the kernel.
///
/// # Errors
/// When it cannot be told, for want of descriptors or memory.
pub fn open_again(anchor: Anchor) -> Result<Option<OwnedFd>, Errno> {
    if BootId::current().is_ok_and(|boot| boot.0 != anchor.boot) {
        return Ok(None);
    }
    let pidfd = match pidfd::open(anchor.pid) {
        Ok(pidfd) => pidfd,
        Err(errno) if pidfd::means_gone(errno) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    match has_birthmark(anchor.pid, pidfd.as_fd(), anchor.birthmark) {
        Ok(is_same) => Ok(Some(pidfd).filter(|pidfd| is_same && !pidfd::has_ended(pidfd.as_fd()))),
        Err(BirthmarkError::Gone) => Ok(None),
        Err(BirthmarkError::Unknown(errno)) => Err(errno),
    }
}

/// Returns the number here of the process that the client means.
fn translated(number: u32, stream: BorrowedFd<'_>, client: Pid) -> Result<Pid, AnchorUnknown> {
    // Before Linux 6.5 there is the number alone.
    let held = getsockopt(&stream, sockopt::PeerPidfd).ok();
    let numbers = Status::read(client)?.numbers();
    if held.is_some_and(|held| pidfd::has_ended(held.as_fd())) {
        return Err(AnchorUnknown::Gone);
    }
    match numbers.as_slice() {
        // Without namespaces the kernel lists none.
        [] | [_] => Pid::new(number).ok_or(AnchorUnknown::Gone),
        [.., own] if *own == number => Ok(client),
        [..] => Err(AnchorUnknown::Elsewhere),
    }
}

fn open(pid: Pid) -> Result<OwnedFd, AnchorUnknown> {
    pidfd::open(pid)
        .map_err(|errno| if pidfd::means_gone(errno) { AnchorUnknown::Gone } else { unknown(errno) })
}

/// What an error says of a process that was to be looked at.
fn unknown(errno: Errno) -> AnchorUnknown {
    match errno {
        Errno::ENOENT | Errno::ESRCH => AnchorUnknown::Gone,
        Errno::EMFILE => AnchorUnknown::Short(Shortage::Descriptors),
        Errno::ENFILE => AnchorUnknown::Short(Shortage::Files),
        Errno::ENOMEM => AnchorUnknown::Short(Shortage::Memory),
        _ => AnchorUnknown::Closed,
    }
}

/// What `/proc/PID/status` says of a process (`proc_pid_status(5)`).
struct Status(String);

impl Status {
    fn read(pid: Pid) -> Result<Self, AnchorUnknown> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"));
        text.map(Self)
            .map_err(|error: io::Error| Errno::try_from(error).map_or(AnchorUnknown::Closed, unknown))
    }

    fn values(&self, key: &str) -> impl Iterator<Item = u32> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().split_ascii_whitespace().filter_map(|value| value.parse().ok())
    }

    /// Its real and its saved user.
    fn users(&self) -> Result<(u32, u32), AnchorUnknown> {
        let users: Vec<u32> = self.values("Uid").collect();
        match users.as_slice() {
            [real, _, saved, _] => Ok((*real, *saved)),
            [..] => Err(AnchorUnknown::Closed),
        }
    }

    /// Its number in the broker's pid namespace, and in each that is within it, down to its own.
    fn numbers(&self) -> Vec<u32> {
        self.values("NSpid").collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use nix::unistd::getuid;

    use super::*;

    fn find_for_this_process(number: u32) -> Result<AnchorSeen, AnchorUnknown> {
        let (one, _other) = UnixStream::pair().unwrap();
        find(number, one.as_fd(), Some(std::process::id()))
    }

    fn waiting() -> std::process::Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn a_process_is_found_with_its_user_and_is_known_again_until_it_ends() {
        let mut child = waiting();
        let seen = find_for_this_process(child.id()).unwrap();
        assert_eq!((seen.anchor.pid.get(), seen.real_uid), (child.id(), getuid().as_raw()));
        assert_eq!(find_for_this_process(child.id()), Ok(seen));
        assert!(open_again(seen.anchor).unwrap().is_some());
        let other = Anchor { boot: uuid::Uuid::nil(), ..seen.anchor };
        assert!(open_again(other).unwrap().is_none(), "of another boot");
        let held = pidfd::open(seen.anchor.pid).unwrap();
        drop(child.stdin.take());
        let soon = std::time::Instant::now() + std::time::Duration::from_secs(60);
        assert!(pidfd::wait_for_end(held.as_fd(), soon));
        // Nobody has reaped it, and it is over all the same.
        assert!(open_again(seen.anchor).unwrap().is_none());
        assert_eq!(find_for_this_process(child.id()), Err(AnchorUnknown::Gone));
        child.wait().unwrap();
        assert!(open_again(seen.anchor).unwrap().is_none());
        assert_eq!(find_for_this_process(child.id()), Err(AnchorUnknown::Gone));
    }

    #[test]
    fn another_process_of_the_same_number_is_not_taken_for_it() {
        let own = find_for_this_process(std::process::id()).unwrap().anchor;
        let mut child = waiting();
        let recycled = Anchor { pid: Pid::new(child.id()).unwrap(), ..own };
        let is_taken = open_again(recycled).unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_taken);
    }

    #[test]
    fn the_numbers_of_a_namespace_within_are_told_for_the_client_alone() {
        let status = Status("Name:\ta\nUid:\t7\t8\t9\t8\nNSpid:\t4711\t12\n".to_owned());
        assert_eq!(status.numbers(), [4711, 12]);
        assert_eq!(status.users(), Ok((7, 9)));
        assert!(Status(String::new()).numbers().is_empty());
        assert_eq!(Status(String::new()).users(), Err(AnchorUnknown::Closed));
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(find(1, one.as_fd(), None), Err(AnchorUnknown::Elsewhere));
    }

    #[test]
    fn what_is_no_process_is_not_found() {
        for number in [u32::MAX, i32::MAX.unsigned_abs()] {
            assert_eq!(find_for_this_process(number), Err(AnchorUnknown::Gone), "{number}");
        }
    }
}
