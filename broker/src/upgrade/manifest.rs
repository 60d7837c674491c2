//! The manifest: the layout of what an upgrade hands over. It is a JSON object in a file in memory, which names descriptors by
//! their numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use procbroker_core::HandedOver;
use procbroker_protocol::ChildId;
use serde::{Deserialize, Serialize};

use super::error::UpgradeError;
use super::handover::{Beginning, FORMAT, Handover, Inherited};
use super::history::{self, Count};
use crate::flagged_accounts::FlaggedAccounts;
use crate::metrics::Counters;
use crate::os::host::nofile::Nofile;
use crate::os::process::descriptor::own_by_number;

/// Bytes of a manifest, at most: ten thousand processes take half a megabyte.
const BYTES_MAX: u64 = 64 << 20;

/// What is handed over, by the numbers of descriptors. Members that came later are absent in what an older program writes,
/// and passed over by one that reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) listeners: Vec<RawFd>,
    /// The socket's path and the lock beside it, where the broker made it itself.
    pub(super) socket: Option<(PathBuf, RawFd)>,
    pub(super) state_lock: RawFd,
    #[serde(default)]
    pub(super) state_folder: Option<(PathBuf, RawFd)>,
    #[serde(default)]
    pub(super) runtime_folder: Option<(PathBuf, RawFd)>,
    pub(super) cgroup_folder: Option<RawFd>,
    pub(super) processes: BTreeMap<ChildId, RawFd>,
    #[serde(default)]
    pub(super) outputs: Vec<RawFd>,
    /// The soft and the hard limit on open files that children get.
    pub(super) nofile: (u64, u64),
    /// Both ends of what systemd keeps for the broker.
    pub(super) kept: Option<[RawFd; 2]>,
    /// The events that were told of.
    #[serde(default)]
    pub(super) events: Option<(Count, RawFd)>,
    /// What is to be known of children beside what is on record.
    #[serde(default)]
    pub(super) children: BTreeMap<ChildId, HandedOver>,
    /// What was counted, for those who watch.
    #[serde(default)]
    pub(super) counters: Option<Counters>,
    #[serde(default)]
    pub(super) accounts: Option<FlaggedAccounts>,
    #[serde(default)]
    pub(super) beginning: Option<Beginning>,
}

impl Manifest {
    /// All descriptors in it.
    fn numbers(&self) -> Vec<RawFd> {
        let places = [&self.socket, &self.state_folder, &self.runtime_folder];
        let with_path = places.into_iter().flatten().map(|(_, descriptor)| *descriptor);
        let kept = self.kept.iter().flatten().copied();
        let kept = kept.chain(self.events.as_ref().map(|(_, file)| *file));
        let all = self.listeners.iter().chain(self.processes.values()).chain(&self.outputs);
        let all = all.chain(&self.cgroup_folder).copied();
        all.chain(with_path).chain(kept).chain([self.state_lock]).collect()
    }
}

/// Writes the manifest. The file of the events is one of what is in it.
pub(super) fn pack(handover: &Handover<'_>, events: (Count, RawFd)) -> io::Result<OwnedFd> {
    let number = |descriptor: &BorrowedFd<'_>| descriptor.as_raw_fd();
    let place =
        |(path, descriptor): (&std::path::Path, BorrowedFd<'_>)| (path.to_owned(), number(&descriptor));
    let manifest = Manifest {
        format: FORMAT,
        listeners: handover.listeners.iter().map(number).collect(),
        socket: handover.socket.map(place),
        state_lock: handover.state_lock.as_raw_fd(),
        state_folder: Some(place(handover.state_folder)),
        runtime_folder: Some(place(handover.runtime_folder)),
        cgroup_folder: handover.cgroup_folder.as_ref().map(number),
        processes: handover.processes.iter().map(|(child, pidfd)| (*child, number(pidfd))).collect(),
        outputs: handover.outputs.iter().map(number).collect(),
        nofile: (handover.nofile.soft, handover.nofile.hard),
        kept: handover.kept.map(|ends| ends.map(|end| end.as_raw_fd())),
        events: Some(events),
        children: handover.children.clone(),
        counters: Some(handover.counters.clone()),
        accounts: handover.accounts.clone(),
        beginning: Some(handover.beginning),
    };
    let mut file = File::from(memfd_create(c"procbroker manifest", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&manifest)?)?;
    Ok(file.into())
}

/// The descriptors that were handed over, by their numbers. Whoever has them all can hand them over again.
#[derive(Debug, Default)]
pub(super) struct InheritedDescriptors(BTreeMap<RawFd, Arc<OwnedFd>>);

impl InheritedDescriptors {
    /// Takes one, and closes it to the children of this program.
    pub(super) fn hold(&mut self, descriptor: RawFd) -> Result<(), UpgradeError> {
        let owned = adopt(descriptor)?;
        self.0.insert(descriptor, Arc::new(owned));
        Ok(())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().map(|descriptor| descriptor.as_fd())
    }

    /// One that is held, for one more owner.
    fn shared(&self, descriptor: RawFd) -> Result<Arc<OwnedFd>, UpgradeError> {
        self.0.get(&descriptor).map(Arc::clone).ok_or_else(malformed)
    }

    /// Duplicates one that is held.
    pub(super) fn copy(&self, descriptor: RawFd) -> Result<OwnedFd, UpgradeError> {
        self.shared(descriptor)?.try_clone().map_err(UpgradeError::Unpack)
    }
}

/// Takes what is in the manifest with this descriptor, and holds all of it.
pub(super) fn unpack(descriptor: RawFd, held: &mut InheritedDescriptors) -> Result<Inherited, UpgradeError> {
    held.hold(descriptor)?;
    let mut text = Vec::new();
    let mut file = File::from(held.copy(descriptor)?);
    file.rewind().map_err(UpgradeError::Unpack)?;
    file.take(BYTES_MAX).read_to_end(&mut text).map_err(UpgradeError::Unpack)?;
    let manifest = read(&text, descriptor)?;
    for number in manifest.numbers() {
        held.hold(number)?;
    }
    inherit(manifest, held)
}

fn inherit(manifest: Manifest, held: &InheritedDescriptors) -> Result<Inherited, UpgradeError> {
    let copy = |number| held.copy(number);
    let place = |place: Option<(PathBuf, RawFd)>| {
        place.map(|(path, number)| Ok::<_, UpgradeError>((path, copy(number)?))).transpose()
    };
    Ok(Inherited {
        listeners: manifest.listeners.into_iter().map(copy).collect::<Result<_, _>>()?,
        socket: place(manifest.socket)?,
        state_lock: copy(manifest.state_lock)?,
        state_folder: place(manifest.state_folder)?,
        runtime_folder: place(manifest.runtime_folder)?,
        cgroup_folder: manifest.cgroup_folder.map(copy).transpose()?,
        processes: manifest
            .processes
            .into_iter()
            .map(|(child, pidfd)| Ok((child, held.shared(pidfd)?)))
            .collect::<Result<_, UpgradeError>>()?,
        outputs: manifest.outputs.into_iter().map(|number| held.shared(number)).collect::<Result<_, _>>()?,
        nofile: Nofile { soft: manifest.nofile.0, hard: manifest.nofile.1 },
        kept: match manifest.kept {
            Some([read, write]) => Some([copy(read)?, copy(write)?]),
            None => None,
        },
        events: match manifest.events {
            Some((count, events)) => history::read(count, copy(events)?),
            None => None,
        },
        handed_over: manifest.children,
        counters: manifest.counters,
        accounts: manifest.accounts,
        beginning: manifest.beginning,
    })
}

/// Reads a manifest that came in this descriptor. No descriptor may be in it twice.
fn read(text: &[u8], descriptor: RawFd) -> Result<Manifest, UpgradeError> {
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
pub(crate) fn read_any(bytes: &[u8]) {
    let _ = read(bytes, libc::STDERR_FILENO + 1);
}

pub(super) fn malformed() -> UpgradeError {
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
