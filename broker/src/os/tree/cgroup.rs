//! A cgroup (version 2) for each child, where one can be had: nothing that descends from the child leaves it, short
//! of being allowed to write to another one.
//!
//! All of them are in one folder `procbroker.PID` in the broker's home: its own group, or the one above where it has a leaf of
//! its own. Where that is so, controllers are enabled there, and groups can have bounds. A group costs up to 100 µs to make
//! and remove; a few are made ahead, and one that became empty by itself is used again. One that was killed never is: the
//! kernel goes on killing whatever is born into it. One that had bounds is not, nor one in which something was killed for want
//! of memory: a child finds no trace of another's life.

mod bounds;
mod controllers;
mod home;
mod mount;
mod tree;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use procbroker_core::Pid;
use procbroker_protocol::create::Resources;
use thiserror::Error;

pub use controllers::Offer;
use home::Home;
pub use home::Leaf;
use mount::name_of;
pub(crate) use mount::read_any as read_any_mounts;
use tree::{
    add_members, cpu_used, is_known_empty, is_populated, open_group, open_in, read_number, remove_tree,
    subgroups,
};

use crate::os::host::nofile::Provision;
use crate::os::probation;

/// So many groups are tidied even when somebody waits, so that they do not pile up under load.
const TIDIED_AT_LEAST: usize = 4;

/// So many groups are removed by the broker itself when it exits, in some milliseconds.
const REMOVED_INLINE_MAX: u64 = 64;

/// What the folder of a broker is called, before its pid.
const FOLDER_PREFIX: &str = "procbroker.";

/// How deep groups that a child made below its own are looked at; the kernel's default bound is the same depth
/// for practical purposes (`cgroup.max.depth`).
const DEPTH_MAX: usize = 32;

/// How long the lock of an earlier broker's folder is asked for.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How long is rested before it is asked for again.
const LOCK_REST: Duration = Duration::from_millis(1);

/// One group, by its number in the broker's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(u64);

/// Whether a group may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wear {
    /// Nothing was killed through it.
    Clean,
    /// `cgroup.kill` was written to.
    Killed,
    /// It has bounds.
    Bounded,
}

/// The broker's folder of groups.
#[derive(Debug)]
pub struct Cgroups {
    path: PathBuf,
    /// Locked, so that no other broker takes it for one that was left behind.
    folder: Flock<File>,
    /// What the path of a child's group begins with in `/proc/PID/cgroup`.
    shown_prefix: String,
    /// Groups that are kept ready.
    spares_max: usize,
    /// Why no controller can be enabled in its home, if that is known already.
    crowded: Option<String>,
    /// What bounds children.
    offer: Offer,
    pool: Mutex<Pool>,
}

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

/// The folder of an earlier broker, in which children may live.
#[derive(Debug)]
pub struct PreviousFolder {
    /// Where it was.
    pub path: PathBuf,
    /// The same, locked, if this process had it before it executed its program anew.
    pub folder: Option<OwnedFd>,
}

/// What becomes of the folder at the end.
#[derive(Clone, Copy, Debug, Default)]
enum Removal {
    /// It is to be removed.
    #[default]
    Due,
    /// It is gone, or somebody else removes it.
    Done,
}

#[derive(Debug, Default)]
struct Pool {
    removal: Removal,
    next: u64,
    spares: Vec<(Group, OwnedFd)>,
    returned: HashMap<Group, Wear>,
    /// What the kernel has counted before for those that were used before, in microseconds; none where nobody knows.
    used_before: HashMap<Group, Option<u64>>,
    /// Those of an earlier broker in which something lives, and that no child has claimed so far.
    inherited: BTreeSet<Group>,
    /// Those of an earlier broker in which something was killed for want of memory.
    memory_killed: BTreeSet<Group>,
}

/// Why children get no groups of their own.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// A file of `/proc` cannot be read.
    #[error("cannot read {path}: {source}")]
    Proc {
        /// Which file.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is no cgroup version 2 here.
    #[error(
        "no cgroup2 file system is mounted that shows the broker's own group; mount one at /sys/fs/cgroup"
    )]
    NotMounted,
    /// The broker may not make groups below its own.
    #[error(
        "cannot {attempt} {path}: {errno}; a broker has cgroups for its children when it runs as root with a \
         writable cgroup2 mount, or in a service with Delegate=yes"
    )]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        errno: Errno,
    },
}

impl Cgroups {
    /// Makes the folder and a first group, and removes what brokers that are gone left empty.
    ///
    /// # Errors
    /// Why there are no groups to be had.
    pub fn begin() -> Result<Self, CgroupError> {
        Self::begin_after(None, Leaf::Stay)
    }

    /// Goes on in the folder of a previous broker, if it is still there and nobody else has it: then its groups are
    /// this broker's. Else it does what [`begin`](Self::begin) does. Before that it leaves the group that it was started in,
    /// where it may. Children have no bounds before [`enable_controllers`](Self::enable_controllers).
    ///
    /// # Errors
    /// Why there are no groups to be had.
    pub fn begin_after(previous: Option<PreviousFolder>, leaf: Leaf) -> Result<Self, CgroupError> {
        let mountinfo = read("/proc/self/mountinfo")?;
        let own = read("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let home = own.and_then(|own| Home::find(own, &mountinfo, leaf));
        let crowded = home.as_ref().and_then(|home| home.crowded.clone());
        // Before anything is tidied, which would take it for one that was left behind.
        if let Some(previous) = previous
            && let Some(shown) = name_of(&previous.path, &mountinfo)
            && let Some(folder) = previous.lock()
            && let Ok(mut cgroups) = Self::in_folder(previous.path, folder, &shown)
        {
            cgroups.crowded = crowded;
            return Ok(cgroups);
        }
        let home = home.ok_or(CgroupError::NotMounted)?;
        let name = format!("{FOLDER_PREFIX}{}", std::process::id());
        remove_stale(&home.path);
        let mut cgroups = Self::at(home.path.join(&name), &home.shown_below(&name))?;
        cgroups.crowded = crowded;
        // What an unknown broker with the same pid has left in it is no child's of this one.
        cgroups.pool().inherited.clear();
        Ok(cgroups)
    }

    fn at(path: PathBuf, shown: &str) -> Result<Self, CgroupError> {
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refused("create", &path, errno(&error)));
            }
            Ok(()) | Err(_) => {}
        }
        let folder = File::open(&path).map_err(|error| refused("open", &path, errno(&error)))?;
        let folder = Flock::lock(folder, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| refused("lock", &path, errno))?;
        Self::in_folder(path, folder, shown)
    }

    fn in_folder(path: PathBuf, folder: Flock<File>, shown: &str) -> Result<Self, CgroupError> {
        let (shown_prefix, pool) = (format!("{shown}/"), Mutex::new(Pool::default()));
        let spares_max = Provision::SpareGroups.at_hand();
        let (crowded, offer) = (None, Offer::default());
        let cgroups = Self { path, folder, shown_prefix, spares_max, crowded, offer, pool };
        cgroups.take_stock();
        cgroups.first_group().map_err(|errno| {
            let error = refused("use groups in", &cgroups.path, errno);
            let _ignored = fs::remove_dir(&cgroups.path);
            error
        })?;
        Ok(cgroups)
    }

    /// Sees what an earlier broker has left. No number is given again that one of its children may have had, though
    /// its group was empty and is removed.
    fn take_stock(&self) {
        let highest = subgroups(self.folder.as_fd()).into_iter().filter_map(|name| name.parse().ok()).max();
        self.pool().next = highest.map_or(0, |number: u64| number.saturating_add(1));
        for name in subgroups(self.folder.as_fd()) {
            let group = name.parse().ok().map(Group);
            let directory = open_group(self.folder.as_fd(), &name);
            if directory.is_ok_and(|directory| bounds::memory_kills(directory.as_fd()).unwrap_or(0) > 0) {
                self.pool().memory_killed.extend(group);
            }
            if !remove_tree(self.folder.as_fd(), &name, DEPTH_MAX) {
                self.pool().inherited.extend(group);
            }
        }
    }

    /// The group of this number, for a child of the earlier broker whose folder this is: none when it was empty,
    /// or has been claimed before.
    #[must_use]
    pub fn adopt(&self, number: u64) -> Option<Group> {
        let mut pool = self.pool();
        let group = pool.inherited.take(&Group(number))?;
        pool.used_before.insert(group, None);
        Some(group)
    }

    /// Groups of the earlier broker that no child has claimed.
    #[must_use]
    pub fn unclaimed(&self) -> Vec<Group> {
        self.pool().inherited.iter().copied().collect()
    }

    /// Tries what will be needed of every group.
    fn first_group(&self) -> Result<(), Errno> {
        let (group, directory) = self.make()?;
        drop(open_in(directory.as_fd(), "cgroup.procs", OFlag::O_RDWR)?);
        drop(open_in(directory.as_fd(), "cgroup.kill", OFlag::O_WRONLY)?);
        self.pool().spares.push((group, directory));
        Ok(())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A duplicate of the folder's descriptor, which keeps its lock: for the next program of this process.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn pass_folder(&self) -> io::Result<OwnedFd> {
        self.folder.as_fd().try_clone_to_owned()
    }

    /// The folder's descriptor: a group itself.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a group that nothing was ever killed in, and its directory. A spare one that somebody else has removed is
    /// thrown away.
    ///
    /// # Errors
    /// When there is no spare one, and none can be made.
    pub fn take(&self) -> Result<(Group, OwnedFd), Errno> {
        loop {
            let Some((group, directory)) = self.pool().spares.pop() else { return self.make() };
            // In a folder that was removed nothing is found any more.
            if fstatat(&directory, "cgroup.procs", AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
                return Ok((group, directory));
            }
        }
    }

    /// Takes a group back that is not needed any more; what becomes of it is decided by [`tidy`](Self::tidy).
    pub fn give_back(&self, group: Group, wear: Wear) {
        self.pool().returned.insert(group, wear);
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
        for (done, (group, wear)) in returned.by_ref().enumerate() {
            if done >= TIDIED_AT_LEAST && is_wanted_elsewhere() {
                self.pool().returned.insert(group, wear);
                self.pool().returned.extend(returned);
                return false;
            }
            if !self.reuse(group, wear) && !remove_tree(self.folder.as_fd(), &group.name(), DEPTH_MAX) {
                // Something still lives there.
                self.pool().returned.insert(group, Wear::Killed);
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
    fn reuse(&self, group: Group, wear: Wear) -> bool {
        if wear != Wear::Clean || self.pool().spares.len() >= self.spares_max || self.is_populated(group) {
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

    /// Tries a birth in a group that is given back afterwards.
    ///
    /// # Errors
    /// When there is no group to be had.
    pub fn rehearse<T>(&self, birth: impl FnOnce(BorrowedFd<'_>) -> T) -> Result<T, Errno> {
        let (group, directory) = self.take()?;
        let result = birth(directory.as_fd());
        self.give_back(group, Wear::Clean);
        Ok(result)
    }

    /// Enables the controllers that bound children, as far as that can be, and says what is offered from now on.
    pub fn enable_controllers(&mut self) -> &Offer {
        let taken = self.take();
        self.offer = match (&taken, self.path.parent()) {
            (Ok((group, _)), Some(home)) => {
                let group = self.path.join(group.name());
                controllers::enable(home, &self.path, &group, self.crowded.as_deref())
            }
            (Ok(_), None) => Offer::nothing("the folder of groups is in none"),
            (Err(errno), _) => {
                Offer::nothing(&format!("no group can be made in {}: {errno}", self.path.display()))
            }
        };
        self.pool().spares.extend(taken);
        &self.offer
    }

    /// Sets the bounds of a group before something is born into it, and says what it may be used for afterwards.
    ///
    /// # Errors
    /// What the kernel has against it.
    pub fn bound(&self, directory: BorrowedFd<'_>, resources: &Resources) -> Result<Wear, Errno> {
        if !bounds::are_any(resources) {
            return Ok(Wear::Clean);
        }
        bounds::set(directory, resources).map(|()| Wear::Bounded)
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

    fn make(&self) -> Result<(Group, OwnedFd), Errno> {
        let group = {
            let mut pool = self.pool();
            let group = Group(pool.next);
            pool.next += 1;
            group
        };
        mkdirat(self.folder(), group.name().as_str(), Mode::from_bits_truncate(0o755))?;
        Ok((group, self.directory(group)?))
    }

    fn directory(&self, group: Group) -> Result<OwnedFd, Errno> {
        open_group(self.folder.as_fd(), &group.name())
    }

    /// Whether anything lives in the group or below it; zombies do not count.
    #[must_use]
    pub fn is_populated(&self, group: Group) -> bool {
        is_populated(self.folder.as_fd(), &format!("{}/cgroup.events", group.0))
    }

    /// Whether it is known that nothing lives in any group of the folder.
    #[must_use]
    pub fn are_all_empty(&self) -> bool {
        is_known_empty(self.folder.as_fd(), "cgroup.events")
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
        let file = open_in(self.folder.as_fd(), &format!("{}/cgroup.kill", group.0), OFlag::O_WRONLY)?;
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

    /// Removes the folder, as far as nothing lives in it. It happens too when this is dropped.
    pub fn remove(&self) {
        self.pool().spares.clear();
        let _is_gone = remove_folder(self.folder.as_fd(), &self.path);
    }

    /// Removes the folder at once where it has few groups, and has a process of its own do it where there are many:
    /// the kernel takes a tenth of a millisecond for each, and nobody is to wait for that when nothing lives any more.
    ///
    /// That process holds the folder's lock, so that no broker which starts meanwhile takes it for its own. Should it be
    /// killed, the next broker removes what is left.
    pub fn leave(&self) {
        // A folder has two links, and one for each that is in it.
        let groups = fstat(self.folder.as_fd()).map_or(0, |status| status.st_nlink.saturating_sub(2));
        if groups <= REMOVED_INLINE_MAX || self.remove_elsewhere().is_err() {
            self.remove();
        }
        self.pool().removal = Removal::Done;
    }

    fn remove_elsewhere(&self) -> io::Result<()> {
        let folder = self.folder.as_fd().try_clone_to_owned()?;
        let mut remover = Command::new("/proc/self/exe");
        remover.arg0("procbroker").arg("remove-groups").arg(&self.path).current_dir("/").process_group(0);
        remover.stdin(folder).stdout(Stdio::null()).stderr(Stdio::null()).env_clear().spawn().map(drop)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let removal = self.pool().removal;
        match removal {
            Removal::Due if !probation::is_on() => self.remove(),
            Removal::Due | Removal::Done => {}
        }
    }
}

impl PreviousFolder {
    /// None when it is gone, or when somebody else has it.
    fn lock(&self) -> Option<Flock<File>> {
        let is_folder = |name: &OsStr| name.as_bytes().starts_with(FOLDER_PREFIX.as_bytes());
        self.path.file_name().is_some_and(is_folder).then_some(())?;
        let at_path = File::open(&self.path).ok()?;
        let file = match self.folder.as_ref().map(OwnedFd::try_clone) {
            None => at_path,
            Some(passed) => {
                let passed = File::from(passed.ok()?);
                let is_same = fstat(&passed).ok()?.st_ino == fstat(&at_path).ok()?.st_ino;
                is_same.then_some(passed)?
            }
        };
        // Another broker that looks for folders to remove has the lock for a moment, and finds this one in use.
        let began = Instant::now();
        loop {
            match Flock::lock(file.try_clone().ok()?, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Some(locked),
                Err((_, Errno::EWOULDBLOCK)) if began.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_REST);
                }
                Err(_) => return None,
            }
        }
    }
}

impl Group {
    /// Its number in the broker's folder.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    fn name(self) -> String {
        self.0.to_string()
    }
}

/// Removes the groups below a broker's folder, as far as nothing lives in them, and then the folder, which is at this path.
/// Returns whether it is gone.
#[must_use]
pub fn remove_folder(folder: BorrowedFd<'_>, path: &Path) -> bool {
    for name in subgroups(folder) {
        remove_tree(folder, &name, DEPTH_MAX);
    }
    fs::remove_dir(path).is_ok() || !path.exists()
}

fn refused(attempt: &'static str, path: &Path, errno: Errno) -> CgroupError {
    CgroupError::Refused { attempt, path: path.to_owned(), errno }
}

fn read(path: &'static str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Proc { path, source })
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Removes the folders of brokers that are gone: those that nobody has locked, and that are empty.
fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(FOLDER_PREFIX.as_bytes()) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        let Ok(folder) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) else { continue };
        // A next broker may go on with it, which tells by the numbers of groups which are in use.
        if is_populated(folder.as_fd(), "cgroup.events") {
            continue;
        }
        for name in subgroups(folder.as_fd()) {
            remove_tree(folder.as_fd(), &name, DEPTH_MAX);
        }
        let _ignored = fs::remove_dir(entry.path());
    }
}

#[cfg(test)]
mod tests;
