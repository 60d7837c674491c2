//! One child's group: what lives in it and what that uses, its bounds, and its end.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use procbroker_core::Pid;
use procbroker_protocol::create::Resources;

use super::tree::{
    DEPTH_MAX, FOLDER_PREFIX, add_members, cpu_used, errno, is_known_empty, is_populated, open_in,
    read_number,
};
use super::{Cgroups, Group, Taint, bounds};

/// What the kernel counts for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupUsage {
    /// Microseconds of processor time, of processes that have ended too.
    pub cpu_micros: Option<u64>,
    /// Bytes of memory, where the controller is there.
    pub memory: Option<u64>,
    /// The most of them at any time.
    pub memory_peak: Option<u64>,
    /// What lives in it.
    pub members: Vec<Pid>,
}

/// The number of the group that a process is in or below, in the folder of whichever broker.
#[must_use]
pub fn number_of(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut names = path.split(['/', ' ']).skip_while(|name| !name.starts_with(FOLDER_PREFIX));
    names.nth(1)?.parse().ok()
}

impl Cgroups {
    /// What a group's present child has used, as far as the kernel counts that, and its processes.
    #[must_use]
    pub fn usage(&self, group: Group) -> Option<GroupUsage> {
        let directory = self.directory(group).ok()?;
        let used_before = self.pool().used_before.get(&group).copied();
        let used = cpu_used(directory.as_fd());
        // Of a group without a history, all is its child's.
        let cpu_micros =
            used.zip(used_before.unwrap_or(Some(0))).map(|(now, before)| now.saturating_sub(before));
        let number = |name| read_number(directory.as_fd(), name);
        let memory_peak = number("memory.peak").filter(|_| used_before.is_none());
        let mut members = Vec::new();
        add_members(directory.as_fd(), DEPTH_MAX, &mut members);
        Some(GroupUsage { cpu_micros, memory: number("memory.current"), memory_peak, members })
    }

    /// Sets the bounds of a group before something is born into it, and says what it may be used for afterwards.
    ///
    /// # Errors
    /// What the kernel has against it.
    pub fn bound(&self, directory: BorrowedFd<'_>, resources: &Resources) -> Result<Taint, Errno> {
        if !bounds::are_any(resources) {
            return Ok(Taint::Clean);
        }
        bounds::set(directory, resources).map(|()| Taint::Bounded)
    }

    /// Sets the bounds of a group again, as far as they are not there any more.
    ///
    /// # Errors
    /// What the kernel has against it.
    pub fn restore_bounds(&self, group: Group, resources: &Resources) -> Result<(), Errno> {
        bounds::restore(self.directory(group)?.as_fd(), resources)
    }

    /// Whether the kernel has killed something in a group for want of memory, as far as it counts that. No earlier child of
    /// the group can have been killed so.
    #[must_use]
    pub fn has_killed_for_memory(&self, group: Group) -> bool {
        self.offer.enabled.contains("memory")
            && self
                .directory(group)
                .is_ok_and(|directory| bounds::memory_kills(directory.as_fd()).unwrap_or(0) > 0)
    }

    /// Whether it had done so in the group of this number while that was an earlier broker's.
    #[must_use]
    pub fn had_killed_for_memory(&self, number: u64) -> bool {
        self.pool().memory_killed.contains(&Group(number))
    }

    /// Whether anything lives in the group or below it; zombies do not count.
    #[must_use]
    pub fn is_populated(&self, group: Group) -> bool {
        is_populated(self.folder.as_fd(), &format!("{}/cgroup.events", group.0))
    }

    /// Whether it is known that nothing lives in any group of the folder.
    #[must_use]
    pub fn are_all_empty(&self) -> bool {
        self.events.as_ref().is_some_and(is_known_empty)
    }

    /// Whether a process that has not ended is in the group or below it. A group stays populated until its last
    /// process has left the processor for good, which can be after it was reaped.
    #[must_use]
    pub fn has_members(&self, group: Group) -> bool {
        self.is_populated(group) && !self.members(group).is_empty()
    }

    /// Kills everything in the group and below it (`cgroup.kill`, Linux 5.14), except for processes whose first thread
    /// has ended: the kernel sends the signal to that one.
    ///
    /// # Errors
    /// ENOENT when the group is gone.
    pub fn kill(&self, group: Group) -> Result<(), Errno> {
        self.kill_named(&group.name())
    }

    pub(super) fn kill_named(&self, name: &str) -> Result<(), Errno> {
        let file = open_in(self.folder.as_fd(), &format!("{name}/cgroup.kill"), OFlag::O_WRONLY)?;
        File::from(file).write_all(b"1").map_err(|error| errno(&error))
    }

    /// Everything that lives in the group or below it.
    #[must_use]
    pub fn members(&self, group: Group) -> Vec<Pid> {
        let mut members = Vec::new();
        if let Ok(directory) = self.directory(group) {
            add_members(directory.as_fd(), DEPTH_MAX, &mut members);
        }
        members
    }

    /// The group that a process is in or below, if it is one of these.
    #[must_use]
    pub fn group_of(&self, pid: Pid) -> Option<Group> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let below = path.strip_prefix(&self.shown_prefix)?;
        below.split(['/', ' ']).next()?.parse().ok().map(Group)
    }
}
