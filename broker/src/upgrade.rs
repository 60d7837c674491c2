//! The live upgrade: this process becomes another program, and gives it everything that is open (`execve(2)`).
//!
//! Same process, same children: nobody but the broker's own program notices. What has to stay open is named in a
//! manifest, a file in memory whose descriptor an environment variable tells. Locks stay held, because
//! they belong to what was opened and not to the program; listening sockets stay, and with them the clients that wait to
//! be taken in.
//!
//! What the new program needs is looked up before, by the code that it starts with: what cannot be had is a reason not to
//! begin. Should it fail all the same before it serves, it executes the [former program](Predecessor) again, which it
//! was given as an open file, with everything as it was handed over.

mod check;
mod former;
pub(crate) mod hand_over;
mod history;
mod manifest;
mod program;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use procbroker_core::EventHistory;
use procbroker_protocol::{ChildId, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

pub use check::{CheckError, check, promise};
pub use former::Predecessor;
pub use manifest::FORMAT;
pub(crate) use manifest::read_any as read_any_manifest;
pub use program::Program;

use crate::flagged_accounts::FlaggedAccounts;
use crate::metrics::Counters;
use crate::os::host::nofile::Nofile;

/// The start of a program, which goes on when it is executed again because another one has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// What the start is told by.
    pub instance: Uuid,
    /// When it was.
    pub at: Timestamp,
}

/// What is handed over, by the descriptors themselves.
#[derive(Debug)]
pub struct Handover<'a> {
    /// The listening sockets: first that at the path which the broker has made itself.
    pub listeners: Vec<BorrowedFd<'a>>,
    /// The path of the socket that the broker made itself, and the lock beside it.
    pub socket: Option<(&'a Path, BorrowedFd<'a>)>,
    /// The lock of the state folder.
    pub state_lock: BorrowedFd<'a>,
    /// The state folder.
    pub state_folder: (&'a Path, BorrowedFd<'a>),
    /// The runtime folder.
    pub runtime_folder: (&'a Path, BorrowedFd<'a>),
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
    /// What was counted, and is counted on.
    pub counters: Counters,
    /// The accounts that the flags name.
    pub accounts: Option<FlaggedAccounts>,
    /// The start of this program.
    pub beginning: Beginning,
}

/// What was handed over to this program. The descriptors with an owner beside this one are those of which there is one for
/// each child.
#[derive(Debug)]
pub struct Inherited {
    /// The listening sockets.
    pub listeners: Vec<OwnedFd>,
    /// The path of the socket that the broker made itself, and the lock beside it.
    pub socket: Option<(PathBuf, OwnedFd)>,
    /// The lock of the state folder.
    pub state_lock: OwnedFd,
    /// The state folder, where the program before this one has passed it.
    pub state_folder: Option<(PathBuf, OwnedFd)>,
    /// The runtime folder, likewise.
    pub runtime_folder: Option<(PathBuf, OwnedFd)>,
    /// The folder of the children's control groups.
    pub cgroup_folder: Option<OwnedFd>,
    /// Processes that are not the broker's own children.
    pub processes: BTreeMap<ChildId, Arc<OwnedFd>>,
    /// The pipes that children write to, which are found again by their names, and the sockets on which they tell how they
    /// are.
    pub outputs: Vec<Arc<OwnedFd>>,
    /// The limit on open files that children get.
    pub nofile: Nofile,
    /// Both ends of what systemd keeps for the broker.
    pub kept: Option<[OwnedFd; 2]>,
    /// The events that were told of, if this program can read them.
    pub events: Option<EventHistory>,
    /// What was counted, where the program before this one has passed it.
    pub counters: Option<Counters>,
    /// The accounts that the flags name, where the program before this one has looked them up.
    pub accounts: Option<FlaggedAccounts>,
    /// The start of the program that has handed over.
    pub beginning: Option<Beginning>,
}

/// The upgrade failed.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The manifest cannot be made.
    #[error("cannot make the manifest of what is handed over: {0}; see the limits on memory and open files")]
    Pack(#[source] io::Error),
    /// This program cannot be kept for the case that the new one fails.
    #[error(
        "cannot open /proc/self/exe, which is executed again if the new program fails: {0}; see that /proc is mounted"
    )]
    KeepProgram(#[source] io::Error),
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
    /// The program that has handed over cannot be executed again.
    #[error("cannot execute the former program again: {errno}")]
    Return {
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

impl<'a> Handover<'a> {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        let listeners = self.listeners.iter().copied();
        let processes = self.processes.iter().map(|(_, pidfd)| *pidfd);
        let outputs = self.outputs.iter().copied();
        let locks = self.socket.map(|(_, lock)| lock).into_iter().chain([self.state_lock]);
        let folders = [self.state_folder.1, self.runtime_folder.1];
        let kept = self.kept.into_iter().flatten();
        let of_children = listeners.chain(processes).chain(outputs);
        of_children.chain(locks).chain(folders).chain(self.cgroup_folder).chain(kept)
    }
}
