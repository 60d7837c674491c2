//! The live upgrade: this process becomes another program, and gives it everything that is open (`execve(2)`).
//!
//! Same process, same children: nobody but the broker's own program notices. What has to stay open is named in a
//! manifest, a file in memory whose descriptor an environment variable tells. Locks stay held, because they belong to
//! what was opened and not to the program; listening sockets stay, and with them the clients that wait to be taken in.

mod check;
pub(crate) mod hand_over;
mod history;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use procbroker_core::EventHistory;
use procbroker_protocol::ChildId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use check::{CheckError, check, promise};

use crate::os::host::nofile::Nofile;
use crate::os::process::descriptor::own_by_number;
use crate::os::process::signal_mask::HeldBack;
use crate::os::variables::MANIFEST_VARIABLE;
use history::Count;

/// The form of the manifest. A program that does not know it cannot take over.
pub const FORMAT: u32 = 1;

/// Bytes of a manifest, at most: ten thousand processes take half a megabyte.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// What is handed over, by the numbers of descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    listeners: Vec<RawFd>,
    /// The socket's path and the lock beside it, where the broker made it itself.
    socket: Option<(PathBuf, RawFd)>,
    state_lock: RawFd,
    cgroup_folder: Option<RawFd>,
    processes: BTreeMap<ChildId, RawFd>,
    #[serde(default)]
    outputs: Vec<RawFd>,
    /// The soft and the hard limit on open files that children get.
    nofile: (u64, u64),
    /// Both ends of what systemd keeps for the broker.
    kept: Option<[RawFd; 2]>,
    /// The events that were told of.
    #[serde(default)]
    events: Option<(Count, RawFd)>,
}

impl Manifest {
    /// All descriptors in it.
    fn numbers(&self) -> Vec<RawFd> {
        let lock = self.socket.iter().map(|(_, lock)| *lock);
        let kept = self.kept.iter().flatten().copied();
        let kept = kept.chain(self.events.map(|(_, file)| file));
        let all = self.listeners.iter().chain(self.processes.values()).chain(&self.outputs);
        let all = all.chain(&self.cgroup_folder).copied();
        all.chain(lock).chain(kept).chain([self.state_lock]).collect()
    }
}

/// What is handed over, by the descriptors themselves.
#[derive(Debug)]
pub struct Handover<'a> {
    /// The listening sockets.
    pub listeners: Vec<BorrowedFd<'a>>,
    /// The path of the socket that the broker made itself, and the lock beside it.
    pub socket: Option<(&'a Path, BorrowedFd<'a>)>,
    /// The lock of the state folder.
    pub state_lock: BorrowedFd<'a>,
    /// The folder of the children's control groups, which is locked too.
    pub cgroup_folder: Option<BorrowedFd<'a>>,
    /// Processes that are not the broker's own children, and could not be found again once they have ended.
    pub processes: Vec<(ChildId, BorrowedFd<'a>)>,
    /// The pipes that children write to, and the sockets on which they tell how they are: what waits in one is lost when
    /// nobody has it open.
    pub outputs: Vec<BorrowedFd<'a>>,
    /// The limit on open files that children get; the broker's own is raised.
    pub nofile: Nofile,
    /// Both ends of what systemd keeps for the broker.
    pub kept: Option<[BorrowedFd<'a>; 2]>,
    /// The events that were told of: their numbers go on.
    pub events: EventHistory,
}

/// What was handed over to this program.
#[derive(Debug)]
pub struct Inherited {
    /// The listening sockets.
    pub listeners: Vec<OwnedFd>,
    /// The path of the socket that the broker made itself, and the lock beside it.
    pub socket: Option<(PathBuf, OwnedFd)>,
    /// The lock of the state folder.
    pub state_lock: OwnedFd,
    /// The folder of the children's control groups.
    pub cgroup_folder: Option<OwnedFd>,
    /// Processes that are not the broker's own children.
    pub processes: BTreeMap<ChildId, OwnedFd>,
    /// The pipes that children write to, which are found again by their names, and the sockets on which they tell how they
    /// are.
    pub outputs: Vec<OwnedFd>,
    /// The limit on open files that children get.
    pub nofile: Nofile,
    /// Both ends of what systemd keeps for the broker.
    pub kept: Option<[OwnedFd; 2]>,
    /// The events that were told of, if this program can read them.
    pub events: Option<EventHistory>,
}

/// The upgrade failed.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The manifest cannot be made.
    #[error("cannot make the manifest of what is handed over: {0}; see the limits on memory and open files")]
    Pack(#[source] io::Error),
    /// A descriptor cannot be kept open.
    #[error("cannot keep descriptor {descriptor} open for the new program: {errno}")]
    Keep {
        /// Its number.
        descriptor: RawFd,
        /// What the system said.
        errno: Errno,
    },
    /// The new program cannot be executed.
    #[error("cannot execute {program}: {errno}; check the program and its permissions")]
    Execute {
        /// Its path.
        program: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// What was handed over to this program makes no sense.
    #[error("this program was to take over from another one, and cannot make out what it was given: {0}")]
    Unpack(#[source] io::Error),
    /// It comes from a program that is too different.
    #[error(
        "this program was to take over from one that hands over in form {0}; it knows form {FORMAT} only"
    )]
    Format(u32),
}

/// The program that is executed by an upgrade, with what it is told: as this one was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// How this program was started: to be called early, before anybody replaces its file.
    ///
    /// It is found by the name that it was called by, and not by the file that this turned out to be: a link to the
    /// present version will be one to the next.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn own() -> io::Result<Self> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let called = arguments.first().map(PathBuf::from).unwrap_or_default();
        let path = if called.as_os_str().as_bytes().contains(&b'/') {
            std::path::absolute(&called)?
        } else {
            match in_path(&called, &std::env::var_os("PATH").unwrap_or_default()) {
                Some(path) => path,
                None => std::env::current_exe()?,
            }
        };
        Ok(Self { path, arguments })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Becomes this program. It returns only when that fails, and nothing has changed then.
    ///
    /// Signals have to be [held back](HeldBack) until the new program is ready for them: a SIGTERM in between would
    /// end the broker and leave its children.
    #[must_use]
    pub fn execute(&self, handover: &Handover<'_>, _held_back: &HeldBack) -> UpgradeError {
        let packed = history::write(&handover.events)
            .and_then(|(count, events)| Ok((pack(handover, (count, events.as_raw_fd()))?, events)));
        let (manifest, events) = match packed {
            Ok(packed) => packed,
            Err(error) => return UpgradeError::Pack(error),
        };
        let kept: Vec<BorrowedFd<'_>> =
            handover.descriptors().chain([manifest.as_fd(), events.as_fd()]).collect();
        let error = match keep_open(&kept) {
            Ok(()) => self.execute_with(manifest.as_raw_fd()),
            Err(error) => error,
        };
        for descriptor in kept {
            // It was set before, so that it can be set.
            let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
        error
    }

    fn execute_with(&self, manifest: RawFd) -> UpgradeError {
        let failed = |errno| UpgradeError::Execute { program: self.path.clone(), errno };
        let told = format!("{MANIFEST_VARIABLE}={}:{manifest}", std::process::id());
        let inherited = std::env::vars_os().filter(|(name, _)| name != MANIFEST_VARIABLE);
        let environment = inherited.map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        });
        let environment: Option<Vec<CString>> =
            environment.chain([OsString::from(told)]).map(|variable| text(&variable)).collect();
        let arguments: Option<Vec<CString>> = self.arguments.iter().map(|argument| text(argument)).collect();
        match (text(self.path.as_os_str()), arguments, environment) {
            (Some(path), Some(arguments), Some(environment)) => {
                match nix::unistd::execve(&path, &arguments, &environment) {
                    Err(errno) => failed(errno),
                }
            }
            _ => failed(Errno::EINVAL),
        }
    }
}

impl<'a> Handover<'a> {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        let listeners = self.listeners.iter().copied();
        let processes = self.processes.iter().map(|(_, pidfd)| *pidfd);
        let outputs = self.outputs.iter().copied();
        let locks = self.socket.map(|(_, lock)| lock).into_iter().chain([self.state_lock]);
        let kept = self.kept.into_iter().flatten();
        listeners.chain(processes).chain(outputs).chain(locks).chain(self.cgroup_folder).chain(kept)
    }
}

/// Takes what was handed over to this program: nothing where it was started in any other way.
///
/// # Errors
/// When it makes no sense.
pub fn inherited() -> Result<Option<Inherited>, UpgradeError> {
    std::env::var_os(MANIFEST_VARIABLE).map_or(Ok(None), |told| unpack(&told))
}

/// Takes what is in the manifest that the variable tells.
fn unpack(told: &OsStr) -> Result<Option<Inherited>, UpgradeError> {
    let numbers = told.to_str().and_then(|told| told.split_once(':'));
    let Some((process, descriptor)) = numbers else { return Ok(None) };
    // A program that was started from within this environment is not meant.
    if process.parse() != Ok(std::process::id()) {
        return Ok(None);
    }
    let descriptor: RawFd = descriptor.parse().map_err(|_| malformed())?;
    let mut text = Vec::new();
    let mut file = File::from(adopt(descriptor)?);
    file.rewind().map_err(UpgradeError::Unpack)?;
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(UpgradeError::Unpack)?;
    let manifest = read_manifest(&text, descriptor)?;
    Ok(Some(Inherited {
        listeners: manifest.listeners.into_iter().map(adopt).collect::<Result<_, _>>()?,
        socket: match manifest.socket {
            Some((path, lock)) => Some((path, adopt(lock)?)),
            None => None,
        },
        state_lock: adopt(manifest.state_lock)?,
        cgroup_folder: manifest.cgroup_folder.map(adopt).transpose()?,
        processes: manifest
            .processes
            .into_iter()
            .map(|(child, pidfd)| Ok((child, adopt(pidfd)?)))
            .collect::<Result<_, UpgradeError>>()?,
        outputs: manifest.outputs.into_iter().map(adopt).collect::<Result<_, _>>()?,
        nofile: Nofile { soft: manifest.nofile.0, hard: manifest.nofile.1 },
        kept: match manifest.kept {
            Some([read, write]) => Some([adopt(read)?, adopt(write)?]),
            None => None,
        },
        events: match manifest.events {
            Some((count, events)) => history::read(count, adopt(events)?),
            None => None,
        },
    }))
}

/// Reads a manifest that came in this descriptor. No descriptor may be in it twice.
fn read_manifest(text: &[u8], descriptor: RawFd) -> Result<Manifest, UpgradeError> {
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| UpgradeError::Unpack(error.into()))?;
    if manifest.format != FORMAT {
        return Err(UpgradeError::Format(manifest.format));
    }
    let mut numbers = manifest.numbers();
    numbers.push(descriptor);
    let count = numbers.len();
    if numbers.into_iter().collect::<BTreeSet<_>>().len() != count {
        return Err(malformed());
    }
    Ok(manifest)
}

/// Reads any bytes as a manifest.
pub(crate) fn read_any_manifest(bytes: &[u8]) {
    let _ = read_manifest(bytes, libc::STDERR_FILENO + 1);
}

fn malformed() -> UpgradeError {
    UpgradeError::Unpack(io::ErrorKind::InvalidData.into())
}

/// Takes a descriptor that was handed over, and closes it to the children of this program.
fn adopt(descriptor: RawFd) -> Result<OwnedFd, UpgradeError> {
    let unusable = |errno: Errno| UpgradeError::Unpack(errno.into());
    if descriptor <= libc::STDERR_FILENO {
        return Err(unusable(Errno::EBADF));
    }
    own_by_number(descriptor).map_err(unusable)
}

/// Lets descriptors stay open in the new program.
fn keep_open(descriptors: &[BorrowedFd<'_>]) -> Result<(), UpgradeError> {
    descriptors.iter().try_for_each(|descriptor| {
        let result = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()));
        let number = descriptor.as_raw_fd();
        result.map(drop).map_err(|errno| UpgradeError::Keep { descriptor: number, errno })
    })
}

fn pack(handover: &Handover<'_>, events: (Count, RawFd)) -> io::Result<OwnedFd> {
    let number = |descriptor: &BorrowedFd<'_>| descriptor.as_raw_fd();
    let manifest = Manifest {
        format: FORMAT,
        listeners: handover.listeners.iter().map(number).collect(),
        socket: handover.socket.map(|(path, lock)| (path.to_owned(), lock.as_raw_fd())),
        state_lock: handover.state_lock.as_raw_fd(),
        cgroup_folder: handover.cgroup_folder.as_ref().map(number),
        processes: handover.processes.iter().map(|(child, pidfd)| (*child, number(pidfd))).collect(),
        outputs: handover.outputs.iter().map(number).collect(),
        nofile: (handover.nofile.soft, handover.nofile.hard),
        kept: handover.kept.map(|ends| ends.map(|end| end.as_raw_fd())),
        events: Some(events),
    };
    let mut file = File::from(memfd_create(c"procbroker manifest", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&manifest)?)?;
    Ok(file.into())
}

fn text(value: &OsStr) -> Option<CString> {
    CString::new(value.as_bytes()).ok()
}

/// The first program of this name in a list of folders, as a shell finds it.
fn in_path(name: &Path, folders: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
