//! What one program hands over to the next one, and what that one has inherited; `manifest` has the layout in which it goes there.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procbroker_core::{EventHistory, HandedOver};
use procbroker_protocol::{ChildId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::flagged_accounts::FlaggedAccounts;
use crate::metrics::Counters;
use crate::os::host::nofile::Nofile;

/// The form of the manifest. A program that does not know it cannot take over.
pub const FORMAT: u32 = 1;

/// The start of a program, which goes on when it is executed again because another one has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// What the start is told by.
    pub instance: Uuid,
    /// When it was started, in the time of the wall clock.
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
    /// The path of the state folder, and the folder as it is open.
    pub state_folder: (&'a Path, BorrowedFd<'a>),
    /// The path of the runtime folder, and the folder as it is open.
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
    /// What is to be known of children beside what is on record.
    pub children: BTreeMap<ChildId, HandedOver>,
    /// What was counted, and is counted on.
    pub counters: Counters,
    /// The accounts that the flags name.
    pub accounts: Option<FlaggedAccounts>,
    /// The start of this program.
    pub beginning: Beginning,
}

impl<'a> Handover<'a> {
    /// All of them, which have to stay open in the next program.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
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

/// What was handed over to this program. The descriptors with an owner beside this one are those of which there is one for
/// each child.
#[derive(Debug)]
pub struct Inherited {
    /// The listening sockets, with whatever clients wait in them.
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
    /// What is to be known of children beside what is on record, where the program before this one has passed it.
    pub handed_over: BTreeMap<ChildId, HandedOver>,
    /// What was counted, where the program before this one has passed it.
    pub counters: Option<Counters>,
    /// The accounts that the flags name, where the program before this one has looked them up.
    pub accounts: Option<FlaggedAccounts>,
    /// The start of the program that has handed over.
    pub beginning: Option<Beginning>,
}
