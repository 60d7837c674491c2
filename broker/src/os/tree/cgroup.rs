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
mod group;
mod home;
mod left_behind;
mod mount;
mod spares;
mod tree;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{Flock, OFlag};
use nix::sys::stat::fstat;
use thiserror::Error;

pub use controllers::Offer;
pub use group::{GroupUsage, number_of};
use home::Home;
pub use home::Leaf;
pub use left_behind::{PreviousFolder, remove_folder};
use left_behind::{lock_soon, remove_stale};
use mount::name_of;
pub(crate) use mount::read_any as read_any_mounts;
use tree::{DEPTH_MAX, FOLDER_PREFIX, errno, open_group, open_in, remove_tree, subgroups};

use crate::os::host::nofile::Provision;
use crate::os::process::probation;

/// How often the folder is made anew because another broker has removed it in that moment.
const CLAIMS_MAX: usize = 16;

/// So many groups are removed by the broker itself when it exits, in some milliseconds.
const REMOVED_INLINE_MAX: u64 = 64;

/// One group, by its number in the broker's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(u64);

/// Whether a group may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taint {
    /// Nothing was killed through it.
    Clean,
    /// `cgroup.kill` was written to.
    Killed,
    /// Bounds were written to it, which would bind the next child as well.
    Bounded,
}

/// The broker's folder of groups.
#[derive(Debug)]
pub struct Cgroups {
    path: PathBuf,
    /// Locked, so that no other broker takes it for one that was left behind.
    folder: Flock<File>,
    /// Its `cgroup.events`, held open: to find it takes several times as long as to read it.
    events: Option<File>,
    /// What the path of a child's group begins with in `/proc/PID/cgroup`.
    shown_prefix: String,
    /// Groups that are kept ready.
    spares_max: usize,
    /// Why no controller can be enabled in its home, if that is known already.
    crowded: Option<String>,
    offer: Offer,
    pool: Mutex<Pool>,
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
    returned: HashMap<Group, Taint>,
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
        /// The file of `/proc`.
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
        /// What was attempted, as it stands after "cannot".
        attempt: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
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
        let folder = claim(&path, || {})?;
        Self::in_folder(path, folder, shown)
    }

    fn in_folder(path: PathBuf, folder: Flock<File>, shown: &str) -> Result<Self, CgroupError> {
        let (shown_prefix, pool) = (format!("{shown}/"), Mutex::new(Pool::default()));
        let spares_max = Provision::SpareGroups.at_hand();
        let (crowded, offer) = (None, Offer::default());
        let events = open_in(folder.as_fd(), "cgroup.events", OFlag::O_RDONLY).ok().map(File::from);
        let cgroups = Self { path, folder, events, shown_prefix, spares_max, crowded, offer, pool };
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

    /// Returns where the folder of groups is mounted.
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

    fn directory(&self, group: Group) -> Result<OwnedFd, Errno> {
        open_group(self.folder.as_fd(), &group.name())
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
    ///
    /// What lives in a group is killed: the broker exits, and whoever has kept it from the end of its children until its
    /// deadline, as by taking all the time of the processors, gains nothing by that.
    pub fn leave(&self) {
        if !self.are_all_empty() {
            for name in subgroups(self.folder.as_fd()) {
                // One that has none is gone, or is nobody's.
                let _killed = self.kill_named(&name);
            }
        }
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

/// Makes the folder at a path, unless it is there, and locks it.
///
/// Another broker that starts at the same time takes one that nobody has locked yet for one that was left behind, and removes
/// it. What is locked then is nowhere, and the folder is made anew. `opened` is called whenever it is open and not locked.
fn claim(path: &Path, mut opened: impl FnMut()) -> Result<Flock<File>, CgroupError> {
    let refused = |attempt, errno| refused(attempt, path, errno);
    for _ in 0..CLAIMS_MAX {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refused("create", errno(&error)));
            }
            Ok(()) | Err(_) => {}
        }
        let folder = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(refused("open", errno(&error))),
            Ok(folder) => folder,
        };
        opened();
        let folder = lock_soon(folder).map_err(|errno| refused("lock", errno))?;
        let is_in_place = match (folder.metadata(), fs::metadata(path)) {
            (Ok(locked), Ok(there)) => (locked.dev(), locked.ino()) == (there.dev(), there.ino()),
            (Err(_), _) | (_, Err(_)) => false,
        };
        if is_in_place {
            return Ok(folder);
        }
    }
    Err(refused("keep", Errno::EBUSY))
}

fn refused(attempt: &'static str, path: &Path, errno: Errno) -> CgroupError {
    CgroupError::Refused { attempt, path: path.to_owned(), errno }
}

fn read(path: &'static str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Proc { path, source })
}

#[cfg(test)]
mod tests;
