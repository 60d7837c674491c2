//! What tells a process for good, also from one that has its number later: for what outlives the broker.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::statfs::{FsType, fstatfs};
pub use procbroker_core::Birthmark;
use procbroker_core::Pid;
use procbroker_protocol::ChildId;
use thiserror::Error;
use uuid::Uuid;

use crate::os::process::mark::{Mark, Patience, awaited_mark};
use crate::os::process::pidfd;
use crate::os::process::proc::{ProcessStat, start_ticks, stat_of};

/// Where the kernel tells its boot id (`random(4)`).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The file system that pidfds are on since Linux 6.9 (`PID_FS_MAGIC` in the kernel's `linux/magic.h`).
const PID_FS_MAGIC: FsType = FsType(0x5049_4446);

/// One run of the kernel, from its boot until the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub Uuid);

/// The boot id cannot be had.
#[derive(Debug, Error)]
pub enum BootIdError {
    /// It cannot be read.
    #[error(
        "cannot read {BOOT_ID_PATH}: {0}; mount proc, by which processes are told from those of an earlier boot"
    )]
    Unreadable(#[source] io::Error),
    /// It is no UUID.
    #[error("{BOOT_ID_PATH} has {text:?} in it, which is no UUID: {source}")]
    Malformed {
        /// What stands in the file instead.
        text: String,
        /// Why it is none.
        source: uuid::Error,
    },
}

impl BootId {
    /// That of the kernel as it runs now.
    ///
    /// # Errors
    /// When `/proc` does not tell it.
    pub fn current() -> Result<Self, BootIdError> {
        static CURRENT: OnceLock<BootId> = OnceLock::new();
        if let Some(&boot) = CURRENT.get() {
            return Ok(boot);
        }
        let text = fs::read_to_string(BOOT_ID_PATH).map_err(BootIdError::Unreadable)?;
        let parsed = Uuid::try_parse(text.trim_ascii());
        let boot = Self(parsed.map_err(|source| BootIdError::Malformed { text, source })?);
        Ok(*CURRENT.get_or_init(|| boot))
    }
}

/// A process for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// The process's number, which the kernel gives again once it is free.
    pub pid: Pid,
    /// What tells it from others of that number.
    pub birthmark: Birthmark,
    /// In which run of the kernel.
    pub boot: BootId,
    /// The number of the cgroup that it was born into, in the folder of its broker.
    pub cgroup: Option<u64>,
}

/// What there is of a process on record.
#[derive(Debug)]
pub enum Lookup {
    /// The same process, alive or not reaped yet.
    Same(OwnedFd),
    /// It has been reaped.
    Gone,
    /// It belongs to another run of the kernel, which it has not survived.
    OtherBoot,
}

impl ProcessIdentity {
    /// That of a process that has not been reaped, at the cost of one system call where the kernel has pidfs.
    ///
    /// # Errors
    /// ESRCH when it has been reaped and the kernel has no pidfs; else what `/proc` gives.
    pub fn of(pid: Pid, pidfd: BorrowedFd<'_>, cgroup: Option<u64>) -> io::Result<Self> {
        let boot = BootId::current().map_err(io::Error::other)?;
        Ok(Self { pid, birthmark: birthmark(pid, pidfd)?, boot, cgroup })
    }
}

/// What tells a process that has not been reaped from all others of its number.
///
/// # Errors
/// ESRCH when it has been reaped and the kernel has no pidfs; else what the kernel gives.
pub(crate) fn birthmark(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<Birthmark, Errno> {
    if has_pidfs() {
        return pidfd::inode(pidfd).map(Birthmark::Inode);
    }
    ticks_of(pid, pidfd).map(Birthmark::StartTicks)
}

/// When the process of a descriptor started, that has not been reaped.
fn ticks_of(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let ticks = start_ticks(pid);
    // If it has not been reaped by now, nobody else can have had its number before.
    if pidfd::is_reaped(pidfd) {
        return Err(Errno::ESRCH);
    }
    ticks.ok_or(Errno::EIO)
}

impl ProcessIdentity {
    /// Whether a descriptor refers to this process, be it reaped: by its inode, or else by its number.
    pub(crate) fn is_of(&self, pidfd: BorrowedFd<'_>) -> bool {
        match self.birthmark {
            Birthmark::Inode(inode) => has_pidfs() && pidfd::inode(pidfd) == Ok(inode),
            // One that was reaped has no number any more, and was passed on under the name of the child.
            Birthmark::StartTicks(_) => pidfd::number(pidfd).is_none_or(|number| number == self.pid),
        }
    }
}

/// Looks for a process on record, which was the main process of this child.
///
/// A process that was given the number later is never taken for it. Where only the time of its start is
/// known, it also has to lead a session, as each child does for as long as it lives, and must not have the mark
/// of another child.
///
/// # Errors
/// When it cannot be told, for want of descriptors or memory.
pub fn find(child: ChildId, identity: &ProcessIdentity) -> Result<Lookup, Errno> {
    if BootId::current().is_ok_and(|boot| boot != identity.boot) {
        return Ok(Lookup::OtherBoot);
    }
    let pidfd = match pidfd::open(identity.pid) {
        Ok(pidfd) => pidfd,
        Err(errno) if pidfd::means_gone(errno) => return Ok(Lookup::Gone),
        Err(errno) => return Err(errno),
    };
    let is_same = match identity.birthmark {
        Birthmark::Inode(inode) => has_pidfs() && pidfd::inode(pidfd.as_fd())? == inode,
        Birthmark::StartTicks(ticks) => match ticks_of(identity.pid, pidfd.as_fd()) {
            Ok(found) if found != ticks => false,
            Ok(_) => may_be_child(child, &stat_of(identity.pid, pidfd.as_fd())?),
            Err(Errno::ESRCH) => false,
            Err(errno) => return Err(errno),
        },
    };
    Ok(if is_same { Lookup::Same(pidfd) } else { Lookup::Gone })
}

/// Why it cannot be told whether a process is the one that was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BirthmarkError {
    /// It has been reaped.
    Gone,
    /// The kernel does not say.
    Unknown(Errno),
}

/// Whether the process that a descriptor refers to is the one that this tells from others of its number.
pub(super) fn has_birthmark(
    pid: Pid,
    pidfd: BorrowedFd<'_>,
    birthmark: Birthmark,
) -> Result<bool, BirthmarkError> {
    match birthmark {
        Birthmark::Inode(inode) => {
            Ok(has_pidfs() && pidfd::inode(pidfd).map_err(BirthmarkError::Unknown)? == inode)
        }
        Birthmark::StartTicks(ticks) => match ticks_of(pid, pidfd) {
            Ok(found) => Ok(found == ticks),
            Err(Errno::ESRCH) => Err(BirthmarkError::Gone),
            Err(errno) => Err(BirthmarkError::Unknown(errno)),
        },
    }
}

/// Whether what a process cannot change speaks against its being the main process of a child.
fn may_be_child(child: ChildId, stat: &ProcessStat) -> bool {
    // Only what the process started with is asked for its mark, which a program can overwrite, or drop when it executes
    // another one. So its absence proves nothing, but that of the session does.
    let has_other_mark = || match awaited_mark(stat.pid, &mut Patience::for_recovery()) {
        Mark::Child(marked) => marked != child,
        Mark::Nobody | Mark::Changing => false,
    };
    stat.session == Some(stat.pid) && (stat.is_zombie || !has_other_mark())
}

/// Whether a pidfd has an inode of its own here.
#[must_use]
pub fn has_pidfs() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let own = Pid::new(std::process::id()).and_then(|pid| pidfd::open(pid).ok());
        let kind = own.and_then(|own| fstatfs(own).ok()).map(|statfs| statfs.filesystem_type());
        kind == Some(PID_FS_MAGIC)
    })
}
