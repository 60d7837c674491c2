//! What confines the process at the other end of a connection, at this moment.
//!
//! `/proc/PID/status` is that of the process's first thread: `no_new_privs` and the bounding set belong to threads.
//!
//! What counts is what its programs could get: with `no_new_privs` no more than it has (execve(2)), and from another user
//! namespace, where its sets are about that, nothing here (`user_namespaces(7)`).

mod hard_limits;
mod status;
mod unknown;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::fstat;
use procbroker_core::{CallerUnknown, Confinement, HardLimit, Pid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::os::process::pidfd;
use crate::os::process::proc::TEXT_BYTES;
use hard_limits::RESOURCES;
use status::{Life, Status};
use unknown::{refused, unknown};

/// What confines a process, in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bonds {
    no_new_privs: bool,
    /// The capabilities that it could have in the broker's user namespace: its bounding set, or less.
    capabilities: u64,
    /// The hard limits, by the number of the resource; `u64::MAX` is none.
    hard_limits: [u64; RESOURCES],
}

impl Bonds {
    /// What counts of a process that has no rights in the broker's namespace, whatever it has in its own.
    fn seen_from_another_namespace(self) -> Self {
        Self { no_new_privs: true, capabilities: 0, ..self }
    }
}

/// What confines the broker's own process, which callers are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    own: Bonds,
    /// The number that stands for every user without one here, if there are such users (`user_namespaces(7)`).
    unmapped: Option<u32>,
    namespace: Option<UserNamespace>,
}

/// Which user namespace a process is in: the device and the inode of what stands for it (`namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UserNamespace(u64, u64);

impl UserNamespace {
    /// That of a process; none where it may not be looked at.
    fn of(pid: u32) -> Option<Self> {
        let process = pidfd::open(Pid::new(pid)?).ok()?;
        match pidfd::user_namespace(process.as_fd()).and_then(|namespace| fstat(&namespace)) {
            Ok(found) => Some(Self(found.st_dev, found.st_ino)),
            Err(Errno::ESRCH) => None,
            // Before Linux 6.11 there is the link alone.
            Err(_) => {
                fs::metadata(format!("/proc/{pid}/ns/user")).ok().map(|found| Self(found.dev(), found.ino()))
            }
        }
    }
}

impl Baseline {
    /// Looks at the broker's own process.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn of_this_process() -> io::Result<Self> {
        let (own, _) = read(std::process::id()).map_err(|_| {
            io::Error::other("/proc/self/status and /proc/self/limits cannot be read; mount proc(5) there")
        })?;
        Ok(Self { own, unmapped: unmapped(), namespace: UserNamespace::of(std::process::id()) })
    }

    /// Whether the process of this number, whose user the kernel calls so, is of a user that has no number here.
    #[must_use]
    pub fn is_unmapped(&self, uid: u32, pid: Option<u32>) -> bool {
        self.unmapped == Some(uid)
            && pid.is_none_or(|pid| {
                // The number may also be a user's own, in the same namespace.
                let theirs = UserNamespace::of(pid);
                theirs.is_none() || theirs != self.namespace
            })
    }

    /// Whether a process is in another user namespace, as far as it may be looked at.
    fn is_elsewhere(&self, pid: u32) -> bool {
        UserNamespace::of(pid).is_some_and(|theirs| Some(theirs) != self.namespace)
    }

    /// Finds out what confines the process at the other end more tightly than the broker.
    ///
    /// A process of another pid namespace (a sidecar) cannot be looked into; its children gain nothing from programs.
    ///
    /// # Errors
    /// When it has ended, or the kernel does not tell.
    pub fn confinement(
        &self,
        stream: BorrowedFd<'_>,
        pid: Option<u32>,
        status_cache: &mut StatusCache,
    ) -> Result<Option<Arc<Confinement>>, CallerUnknown> {
        let Some(pid) = pid else {
            let unseen = Confinement { no_new_privs: true, ..Confinement::default() };
            return Ok((!self.own.no_new_privs).then(|| Arc::new(unseen)));
        };
        // Like its limits, this is another process's if that one has ended and its number is given away; so it comes first.
        let is_elsewhere = self.is_elsewhere(pid);
        let here = |bonds: Bonds| if is_elsewhere { bonds.seen_from_another_namespace() } else { bonds };
        if let Some(bonds) = status_cache.reread(pid) {
            return Ok(self.tighter(&here(bonds)));
        }
        let held = match getsockopt(&stream, sockopt::PeerPidfd) {
            Ok(held) => Some(held),
            // Before Linux 6.5 there is the number alone.
            Err(Errno::ENOPROTOOPT) => None,
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => return Err(CallerUnknown::Gone),
            Err(errno) => return Err(unknown(errno)),
        };
        let (bonds, status) = read(pid)?;
        // As long as it is there its number is nobody else's. One that has ended has left its connection to another.
        match held {
            Some(held) if pidfd::has_ended(held.as_fd()) => return Err(CallerUnknown::Gone),
            Some(_) => status_cache.keep(status),
            None => {}
        }
        Ok(self.tighter(&here(bonds)))
    }

    fn tighter(&self, bonds: &Bonds) -> Option<Arc<Confinement>> {
        let limits = (0..).zip(bonds.hard_limits.iter().zip(&self.own.hard_limits));
        let lower = limits.filter(|(_, (theirs, own))| theirs < own);
        let tighter = Confinement {
            no_new_privs: bonds.no_new_privs && !self.own.no_new_privs,
            capabilities: (self.own.capabilities & !bonds.capabilities != 0).then_some(bonds.capabilities),
            hard_limits: lower.map(|(resource, (&value, _))| HardLimit { resource, value }).collect(),
        };
        (tighter != Confinement::default()).then(|| Arc::new(tighter))
    }
}

/// The `/proc/PID/status` of the process at the other end of a connection, held open: to read it again costs half as much as to
/// find the process again.
#[derive(Debug, Default)]
pub struct StatusCache {
    held: Option<Held>,
    places: Option<Arc<Semaphore>>,
}

/// A file that is that of no other process for as long as it is open.
#[derive(Debug)]
struct Held {
    status: File,
    _place: OwnedSemaphorePermit,
}

impl StatusCache {
    /// Makes an empty cache. As many files are held open at a time as there are places.
    #[must_use]
    pub fn new(places: Arc<Semaphore>) -> Self {
        Self { held: None, places: Some(places) }
    }

    fn keep(&mut self, status: File) {
        let place = self.places.as_ref().and_then(|places| Arc::clone(places).try_acquire_owned().ok());
        self.held = place.map(|place| Held { status, _place: place });
    }

    /// What confines it now; none where that has to be found out from the beginning.
    ///
    /// The limits come first: its number is nobody else's as long as its status can be read after that.
    fn reread(&mut self, pid: u32) -> Option<Bonds> {
        let held = self.held.take()?;
        let hard_limits = hard_limits::of(pid).ok()?;
        let Status { no_new_privs, capabilities, life } = Status::read(&held.status).ok()?;
        match life {
            Life::Over => None,
            Life::Alive => {
                self.held = Some(held);
                Some(Bonds { no_new_privs, capabilities, hard_limits })
            }
        }
    }
}

/// The user that stands for those without a number, where the broker's user namespace has not all of them.
fn unmapped() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    if counts.sum::<u64>() >= u64::from(u32::MAX) {
        return None;
    }
    let number = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
    Some(number.and_then(|number| number.trim().parse().ok()).unwrap_or(65_534))
}

fn read(pid: u32) -> Result<(Bonds, File), CallerUnknown> {
    let status = File::open(format!("/proc/{pid}/status")).map_err(refused)?;
    let Status { no_new_privs, capabilities, .. } = Status::read(&status)?;
    let hard_limits = match hard_limits::of(pid) {
        // Not without `CAP_SYS_RESOURCE`, for a process of another user.
        Err(Errno::EPERM) => hard_limits::parse(&text(pid, "limits")?).ok_or(CallerUnknown::Closed)?,
        Err(_) => return Err(CallerUnknown::Gone),
        Ok(limits) => limits,
    };
    Ok((Bonds { no_new_privs, capabilities, hard_limits }, status))
}

fn text(pid: u32, file: &str) -> Result<String, CallerUnknown> {
    let mut text = Vec::with_capacity(TEXT_BYTES);
    let read = File::open(format!("/proc/{pid}/{file}")).and_then(|file| {
        // Without asking for its length, which such a file does not have.
        file.take(u64::MAX).read_to_end(&mut text)
    });
    read.map_err(refused)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use nix::sys::resource::{Resource, setrlimit};

    use super::*;
    use crate::os::process::alone;

    fn bonds(no_new_privs: bool, capabilities: u64, nofile: u64) -> Bonds {
        let mut hard_limits = [u64::MAX; RESOURCES];
        hard_limits[7] = nofile;
        Bonds { no_new_privs, capabilities, hard_limits }
    }

    #[test]
    fn only_what_is_tighter_than_the_broker_counts() {
        let baseline = Baseline { own: bonds(false, 0b110, 100), unmapped: None, namespace: None };
        let tighter = |theirs| baseline.tighter(&theirs);
        for free in [bonds(false, 0b110, 100), bonds(false, 0b111, 101), bonds(false, 0b110, u64::MAX)] {
            assert_eq!(tighter(free), None, "{free:?}");
        }
        let confined = tighter(bonds(true, 0b101, 99));
        let hard_limits = vec![HardLimit { resource: 7, value: 99 }];
        let expected = Confinement { no_new_privs: true, capabilities: Some(0b101), hard_limits };
        assert_eq!(confined, Some(Arc::new(expected)));
        let baseline = Baseline { own: bonds(true, 0, 0), unmapped: None, namespace: None };
        assert_eq!(baseline.tighter(&bonds(true, 0, 0)), None);
    }

    #[test]
    fn this_process_is_no_more_confined_than_itself() {
        let baseline = Baseline::of_this_process().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let confinement =
            baseline.confinement(one.as_fd(), Some(std::process::id()), &mut StatusCache::default()).unwrap();
        assert_eq!(confinement, None);
    }

    #[test]
    fn a_process_that_cannot_be_seen_gains_nothing() {
        let baseline = Baseline { own: bonds(false, 0, 0), unmapped: None, namespace: None };
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(
            baseline
                .confinement(one.as_fd(), None, &mut StatusCache::default())
                .unwrap()
                .is_some_and(|bonds| bonds.no_new_privs)
        );
    }

    /// A cache with room for one file.
    fn roomy_cache() -> StatusCache {
        StatusCache::new(Arc::new(Semaphore::new(1)))
    }

    #[test]
    fn one_that_was_looked_at_is_looked_at_anew_each_time() {
        if !alone::here(module_path!(), "one_that_was_looked_at_is_looked_at_anew_each_time") {
            return;
        }
        let baseline = Baseline::of_this_process().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let mut status_cache = roomy_cache();
        let mut look =
            || baseline.confinement(one.as_fd(), Some(std::process::id()), &mut status_cache).unwrap();
        assert_eq!(look(), None);
        assert_eq!(look(), None);
        setrlimit(Resource::RLIMIT_NOFILE, 50, 60).unwrap();
        let hard_limits = vec![HardLimit { resource: 7, value: 60 }];
        let confined = Confinement { hard_limits, ..Confinement::default() };
        assert_eq!(look(), Some(Arc::new(confined)));
        assert!(status_cache.held.is_some());
    }

    #[test]
    fn one_that_has_ended_is_not_taken_for_alive_because_it_was_held() {
        let mut process = Command::new("true").spawn().unwrap();
        let pid = process.id();
        let mut status_cache = roomy_cache();
        status_cache.keep(read(pid).unwrap().1);
        let pidfd = pidfd::open(procbroker_core::Pid::new(pid).unwrap()).unwrap();
        assert!(pidfd::wait_for_end(pidfd.as_fd(), Instant::now() + Duration::from_secs(60)));
        let status = status_cache.held.as_ref().unwrap().status.try_clone().unwrap();
        assert_eq!(status_cache.reread(pid), None, "not while nobody has reaped it");
        status_cache.keep(status);
        assert!(status_cache.held.is_some(), "its place was given back");
        process.wait().unwrap();
        assert_eq!(status_cache.reread(pid), None, "nor after that");
        assert!(status_cache.held.is_none());
    }

    #[test]
    fn no_more_are_held_than_there_are_places() {
        let places = Arc::new(Semaphore::new(1));
        let [mut one, mut other] = [(); 2].map(|()| StatusCache::new(Arc::clone(&places)));
        for status_cache in [&mut one, &mut other] {
            status_cache.keep(read(std::process::id()).unwrap().1);
        }
        assert!(one.held.is_some() && other.held.is_none());
        drop(one);
        other.keep(read(std::process::id()).unwrap().1);
        assert!(other.held.is_some());
    }

    #[test]
    fn a_process_that_is_gone_is_not_looked_for_by_its_number() {
        let found = read(u32::try_from(libc::pid_t::MAX).unwrap()).map(drop);
        assert_eq!(found, Err(CallerUnknown::Gone));
    }

    #[test]
    fn the_number_for_all_the_unmapped_is_a_users_own_in_the_same_namespace_only() {
        let own = bonds(false, 0, 0);
        let baseline =
            Baseline { own, unmapped: Some(65_534), namespace: UserNamespace::of(std::process::id()) };
        assert!(baseline.is_unmapped(65_534, None));
        assert!(!baseline.is_unmapped(65_534, Some(std::process::id())));
        assert!(!baseline.is_unmapped(1_000, None));
        assert!(!Baseline { own, unmapped: None, namespace: None }.is_unmapped(65_534, None));
    }
}
