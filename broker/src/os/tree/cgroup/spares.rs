//! Groups that are made ahead, and used again when nothing of a life is left in them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};

use super::tree::{DEPTH_MAX, cpu_used, open_in, remove_tree};
use super::{Cgroups, Group, Taint, bounds};

/// So many groups are tidied even when somebody waits, so that they do not pile up under load.
const TIDIED_AT_LEAST: usize = 4;

impl Cgroups {
    /// Tries what will be needed of every group.
    pub(super) fn first_group(&self) -> Result<(), Errno> {
        let (group, directory) = self.make()?;
        drop(open_in(directory.as_fd(), "cgroup.procs", OFlag::O_RDWR)?);
        drop(open_in(directory.as_fd(), "cgroup.kill", OFlag::O_WRONLY)?);
        self.pool().spares.push((group, directory));
        Ok(())
    }

    /// Takes a group that nothing was ever killed in, and its directory. A spare one that somebody else has removed is
    /// thrown away.
    ///
    /// # Errors
    /// When there is no spare one, and none can be made.
    pub fn take(&self) -> Result<(Group, OwnedFd), Errno> {
        loop {
            let Some((group, directory)) = self.pool().spares.pop() else { return self.make() };
            if is_in_place(&directory) {
                return Ok((group, directory));
            }
        }
    }

    /// Takes a group back that is not needed any more; what becomes of it is decided by [`tidy`](Self::tidy).
    pub fn give_back(&self, group: Group, taint: Taint) {
        self.pool().returned.insert(group, taint);
    }

    /// Whether spare groups run low while there is something to do about it.
    #[must_use]
    pub fn wants_tidying(&self) -> bool {
        let pool = self.pool();
        pool.spares.len() < self.spares_max / 2 || pool.returned.len() >= self.spares_max
    }

    /// Uses again or removes what was given back, and makes spare groups: a tenth of a millisecond for each, for
    /// when nobody waits. Returns whether all of that is done, and not interrupted by more urgent work.
    pub fn tidy(&self, is_wanted_elsewhere: impl Fn() -> bool) -> bool {
        let mut returned = std::mem::take(&mut self.pool().returned).into_iter();
        for (done, (group, taint)) in returned.by_ref().enumerate() {
            if done >= TIDIED_AT_LEAST && is_wanted_elsewhere() {
                self.pool().returned.insert(group, taint);
                self.pool().returned.extend(returned);
                return false;
            }
            if !self.reuse(group, taint) && !remove_tree(self.folder.as_fd(), &group.name(), DEPTH_MAX) {
                // Something still lives there.
                self.pool().returned.insert(group, Taint::Killed);
            } else if !self.is_spare(group) {
                self.pool().used_before.remove(&group);
            }
        }
        while self.pool().spares.len() < self.spares_max {
            let Ok(made) = self.make() else { return true };
            self.pool().spares.push(made);
        }
        true
    }

    /// Whether the group went to the spare ones.
    fn reuse(&self, group: Group, taint: Taint) -> bool {
        if taint != Taint::Clean || self.pool().spares.len() >= self.spares_max || self.is_populated(group) {
            return false;
        }
        let Ok(directory) = self.directory(group) else { return false };
        // A directory with one below it has a third link.
        let is_leaf = fstat(&directory).is_ok_and(|status| status.st_nlink == 2);
        if bounds::memory_kills(directory.as_fd()).unwrap_or(0) > 0 {
            return false;
        }
        if is_leaf {
            let used = cpu_used(directory.as_fd());
            let mut pool = self.pool();
            pool.used_before.insert(group, used);
            pool.spares.push((group, directory));
        }
        is_leaf
    }

    fn is_spare(&self, group: Group) -> bool {
        self.pool().spares.iter().any(|(spare, _)| *spare == group)
    }

    /// Tries a birth in a group that is given back afterwards.
    ///
    /// # Errors
    /// When there is no group to be had.
    pub fn rehearse<T>(&self, birth: impl FnOnce(BorrowedFd<'_>) -> T) -> Result<T, Errno> {
        let (group, directory) = self.take()?;
        let result = birth(directory.as_fd());
        self.give_back(group, Taint::Clean);
        Ok(result)
    }

    pub(super) fn make(&self) -> Result<(Group, OwnedFd), Errno> {
        let group = {
            let mut pool = self.pool();
            let group = Group(pool.next);
            pool.next += 1;
            group
        };
        mkdirat(self.folder(), group.name().as_str(), Mode::from_bits_truncate(0o755))?;
        let directory = self.directory(group)?;
        // The first look takes the kernel several times as long as those after it, and whoever takes the group waits for theirs.
        let _it_is = is_in_place(&directory);
        Ok((group, directory))
    }
}

/// Whether a group's directory was not removed: nothing is found in one that was.
fn is_in_place(directory: &OwnedFd) -> bool {
    fstatat(directory, "cgroup.procs", AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
}
