//! What the kernel offers for a process that is held by a descriptor (`pidfd_open(2)`, Linux 5.3).
#![expect(unsafe_code, reason = "the system calls on pidfds have no safe wrapper")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use procbroker_core::{Pid, SignalOutcome};
use procbroker_protocol::{ExitStatus, Signal};

/// Send to the process group that the pidfd's process leads or led (Linux 6.9).
const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;

/// Asks for, and says that there is, the exit status in [`Info`] (Linux 6.15).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IO(0xFF, 9)` (`ioctl(2)`).
const PIDFD_GET_USER_NAMESPACE: libc::Ioctl = libc::_IO(0xff, 9);

/// The kernel's `struct pidfd_info` in its first version, of 64 bytes.
#[derive(Default)]
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// Process, thread group and parent; then real, effective, saved and file system ids.
    ids: [u32; 11],
    /// As `waitpid(2)` gives it.
    exit_status: i32,
}

/// Opens a process.
///
/// # Errors
/// ESRCH when there is none of this number, or it has been reaped; EMFILE and ENFILE.
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: it takes two integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.get(), 0) };
    let descriptor = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it, with close-on-exec, and nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Asks for what stands for the user namespace of a process (`PIDFD_GET_USER_NAMESPACE` in the kernel's `linux/pidfd.h`, Linux
/// 6.11). The link in `/proc` tells the same; to follow it can take for as long as the process likes (see
/// `super::apart`).
///
/// # Errors
/// ESRCH when it has been reaped; ENOTTY or EINVAL before Linux 6.11; EMFILE and ENFILE.
pub fn user_namespace(pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: it reads and writes no memory.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_USER_NAMESPACE, 0) };
    let descriptor = Errno::result(result)?;
    // SAFETY: the kernel has just opened it, with close-on-exec, and nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether this error of [`open`] says that there is no such process; the number can be that of another's thread.
#[must_use]
pub fn means_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ESRCH | Errno::EINVAL | Errno::ENOENT)
}

/// Sends a signal to the process itself, never to one that got its number later.
///
/// # Errors
/// ESRCH when it has been reaped; EPERM when the broker may not.
pub fn send(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    send_with(pidfd, signal.number(), 0)
}

/// Has the process stand still (SIGSTOP) until it is killed or continued.
///
/// # Errors
/// As [`send`].
pub fn pause(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    send_with(pidfd, libc::SIGSTOP, 0)
}

/// Sends a signal to the process group of this leader, even if the leader itself has been reaped.
///
/// # Errors
/// ESRCH when nothing of the group is left, not even a zombie; EPERM when the broker may signal none of it;
/// EINVAL before Linux 6.9.
pub fn send_to_group(leader: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    send_with(leader, signal.number(), PIDFD_SIGNAL_PROCESS_GROUP)
}

/// Whether anything of this leader's process group is left, be it a zombie.
///
/// # Errors
/// EINVAL before Linux 6.9.
pub fn has_group(leader: BorrowedFd<'_>) -> Result<bool, Errno> {
    match send_with(leader, 0, PIDFD_SIGNAL_PROCESS_GROUP) {
        Ok(()) | Err(Errno::EPERM) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn send_with(pidfd: BorrowedFd<'_>, signal: i32, flags: u32) -> Result<(), Errno> {
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: without a `siginfo_t` it takes integers only.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, flags) };
    Errno::result(result).map(drop)
}

/// What a result of sending a signal means to the core.
#[must_use]
pub fn outcome(result: Result<(), Errno>) -> SignalOutcome {
    match result {
        Ok(()) => SignalOutcome::Delivered,
        Err(Errno::ESRCH) => SignalOutcome::Gone,
        Err(_) => SignalOutcome::Refused,
    }
}

/// Whether the process has ended, reaped or not.
#[must_use]
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::POLLIN)];
    loop {
        // A signal to this thread says nothing about the process.
        match poll(&mut polled, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            result => return result != Ok(0),
        }
    }
}

/// Whether the process has been reaped, so that another one may have its number.
#[must_use]
pub fn is_reaped(pidfd: BorrowedFd<'_>) -> bool {
    send_with(pidfd, 0, 0) == Err(Errno::ESRCH)
}

/// The number of a process that has not been reaped, of which there is no more than a descriptor
/// (`proc_pid_fdinfo(5)`).
#[must_use]
pub fn number(pidfd: BorrowedFd<'_>) -> Option<Pid> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    // -1 when it has been reaped, 0 when it is of another pid namespace.
    number.trim().parse().ok().and_then(Pid::new)
}

/// Waits until the process has ended, reaped or not; false when it has not by then.
#[must_use]
pub fn wait_for_end(pidfd: BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait does not end just before the deadline, again and again.
        let milliseconds = left.as_millis().saturating_add(u128::from(!left.is_zero()));
        let timeout = i32::try_from(milliseconds).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// The inode number of the descriptor, which no other process gets before the next boot (pidfs, Linux 6.9).
/// Before that all pidfds have the same one.
///
/// # Errors
/// Those of `fstat(2)`, none of which a pidfd is known to give.
pub fn inode(pidfd: BorrowedFd<'_>) -> Result<u64, Errno> {
    fstat(pidfd).map(|status| status.st_ino)
}

/// How a process ended that has been reaped, by whomever.
///
/// # Errors
/// ENODATA where nobody has reaped it, or where the kernel keeps no status of it; ENOTTY, EINVAL or ENODATA
/// before Linux 6.15, which did not know the question.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Result<ExitStatus, Errno> {
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    let request = nix::request_code_readwrite!(0xFF, 11, size_of::<Info>());
    // SAFETY: the request carries the size of the structure, and the kernel writes no more than that.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), request, &raw mut info) };
    // ESRCH: reaped, and the kernel has forgotten or never kept its status.
    Errno::result(result).map_err(|errno| if errno == Errno::ESRCH { Errno::ENODATA } else { errno })?;
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return Err(Errno::ENODATA);
    }
    Ok(from_wait_status(info.exit_status))
}

/// Reads a status as `waitpid(2)` gives it.
pub(crate) fn from_wait_status(status: i32) -> ExitStatus {
    if libc::WIFEXITED(status) {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    } else {
        ended_by(libc::WTERMSIG(status))
    }
}

/// The status of a process that this signal ended.
pub(crate) fn ended_by(signal: i32) -> ExitStatus {
    Signal::from_number(i64::from(signal)).map_or(ExitStatus::Unknown, ExitStatus::Signal)
}

/// What this kernel can do with pidfds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether there is `pidfd_open(2)`: Linux 5.3.
    pub open: bool,
    /// Whether [`send_to_group`] works: Linux 6.9.
    pub group_signal: bool,
    /// Whether [`exit_status`] tells of a process that somebody else has reaped: Linux 6.15.
    pub exit_status: bool,
}

impl Abilities {
    /// Asks the kernel, with the broker's own process as the object.
    #[must_use]
    pub fn probe() -> Self {
        let Some(own) = Pid::new(std::process::id()).and_then(|pid| open(pid).ok()) else {
            return Self { open: false, group_signal: false, exit_status: false };
        };
        Self {
            open: true,
            group_signal: has_group(own.as_fd()).is_ok(),
            exit_status: knows_exit_status(own.as_fd()),
        }
    }
}

/// A kernel that knows the question answers it for a living process without the bit, and without an error.
/// One of 6.13 or 6.14 answers the same way and never sets it, so the release decides between them.
fn knows_exit_status(own: BorrowedFd<'_>) -> bool {
    let answers = exit_status(own) == Err(Errno::ENODATA);
    answers && kernel_release().is_some_and(|release| release >= (6, 15))
}

/// The first two numbers of the kernel's release.
fn kernel_release() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    fn start(script: &str) -> (std::process::Child, OwnedFd) {
        let mut command = Command::new("/bin/sh");
        let child = command.args(["-c", script]).stdin(Stdio::piped()).process_group(0).spawn().unwrap();
        let pidfd = open(Pid::new(child.id()).unwrap()).unwrap();
        (child, pidfd)
    }

    #[test]
    fn a_signal_reaches_the_process_and_nothing_after_it_was_reaped() {
        let (mut child, pidfd) = start("read line");
        assert!(!has_ended(pidfd.as_fd()));
        assert_eq!(outcome(send(pidfd.as_fd(), Signal::TERM)), SignalOutcome::Delivered);
        assert!(wait_for_end(pidfd.as_fd(), Instant::now() + Duration::from_secs(60)));
        assert!(has_ended(pidfd.as_fd()));
        child.wait().unwrap();
        assert_eq!(outcome(send(pidfd.as_fd(), Signal::TERM)), SignalOutcome::Gone);
        assert_eq!(open(Pid::new(child.id()).unwrap()).unwrap_err(), Errno::ESRCH);
    }

    #[test]
    fn a_wait_for_a_process_that_lives_ends_at_its_deadline() {
        let (mut child, pidfd) = start("read line");
        assert!(!wait_for_end(pidfd.as_fd(), Instant::now() + Duration::from_millis(1)));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_group_is_signalled_through_its_leader_until_nothing_of_it_is_left() {
        if !Abilities::probe().group_signal {
            return;
        }
        let (mut child, pidfd) = start("read line");
        assert_eq!(has_group(pidfd.as_fd()), Ok(true));
        assert_eq!(send_to_group(pidfd.as_fd(), Signal::KILL), Ok(()));
        child.wait().unwrap();
        assert_eq!(has_group(pidfd.as_fd()), Ok(false));
        assert_eq!(send_to_group(pidfd.as_fd(), Signal::KILL), Err(Errno::ESRCH));
    }

    #[test]
    fn the_status_of_a_reaped_process_is_known_to_who_holds_it() {
        if !Abilities::probe().exit_status {
            return;
        }
        for (script, status) in
            [("exit 7", ExitStatus::Code(7)), ("kill -s KILL $$", ExitStatus::Signal(Signal::KILL))]
        {
            let (mut child, pidfd) = start(script);
            child.wait().unwrap();
            assert_eq!(exit_status(pidfd.as_fd()), Ok(status));
        }
    }

    #[test]
    fn each_process_has_an_inode_of_its_own_where_groups_can_be_signalled() {
        // Both came with Linux 6.9.
        let [(mut one, first), (mut other, second)] = [start("read line"), start("read line")];
        let same = inode(first.as_fd()) == inode(second.as_fd());
        assert_ne!(same, Abilities::probe().group_signal);
        for child in [&mut one, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
