//! Entry into a cgroup, and what the probe finds.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::*;

/// Longer than anything here takes, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A group of cgroup v2, removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Below the first mount of cgroup v2; `None` where there is none that may be written.
    fn new(test: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let path = Path::new(mount).join(format!("procbroker-test-{}-{test}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn directory(&self) -> OwnedFd {
        fs::File::open(&self.0).unwrap().into()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was reaped can be in it for a moment longer, until it has left the processor for good.
        let began = Instant::now();
        while let Err(error) = fs::remove_dir(&self.0) {
            let is_busy = error.kind() == std::io::ErrorKind::ResourceBusy && began.elapsed() < PATIENCE;
            assert!(is_busy || std::thread::panicking(), "{error}");
            if !is_busy {
                return;
            }
            std::thread::yield_now();
        }
    }
}

const BORN: SpawnFacilities = SpawnFacilities { method: CloneMethod::Clone3 };

#[test]
fn a_child_is_in_its_cgroup_before_its_program_begins() {
    let Some(group) = Group::new("entry") else { return };
    let scene = Scene::new();
    let spec = SpawnSpec { cgroup: Some(group.directory()), ..scene.spec(&["cat", "/proc/self/cgroup"]) };
    assert_eq!(run(BORN, spec), 0);
    let name = group.0.file_name().unwrap().to_str().unwrap();
    assert!(scene.take_output().lines().any(|line| line.ends_with(name)));
}

#[test]
fn a_directory_that_is_no_cgroup_is_refused() {
    let scene = Scene::new();
    let folder = fs::File::open(scene.folder.path()).unwrap();
    assert!(BORN.try_birth_in(folder.as_fd()).is_err());
    let spec = SpawnSpec { cgroup: Some(folder.into()), ..scene.spec(&["/bin/true"]) };
    assert_eq!(refusal(BORN, spec), ("cgroup", Errno::EBADF));
}

#[test]
fn a_child_killed_at_birth_by_its_cgroup_is_reported() {
    let Some(group) = Group::new("kill") else { return };
    let scene = Scene::new();
    let spec = || SpawnSpec { cgroup: Some(group.directory()), ..scene.spec(&["/bin/true"]) };
    BORN.try_birth_in(group.directory().as_fd()).unwrap();
    assert_eq!(run(BORN, spec()), 0);
    fs::write(group.0.join("cgroup.kill"), "1").unwrap();
    let is_born_dead = BORN.try_birth_in(group.directory().as_fd()).is_err();
    match spawn(BORN, spec()) {
        Err(failure) => assert_eq!(failure, SpawnError::Killed { signal: libc::SIGKILL }),
        // A kernel without the trap.
        Ok(spawned) => assert_eq!((reap(&spawned), is_born_dead), (0, false)),
    }
    assert_eq!(children_of_this_thread(), "");
}

#[test]
fn a_child_in_a_copy_of_the_memory_is_born_into_no_cgroup() {
    let Some(group) = Group::new("copy") else { return };
    assert!(SpawnFacilities { method: CloneMethod::Clone }.try_birth_in(group.directory().as_fd()).is_err());
}

#[test]
fn the_probe_finds_a_way_that_works_and_leaves_no_process() {
    let scene = Scene::new();
    let probed = SpawnFacilities::probe().unwrap();
    assert_eq!(children_of_this_thread(), "");
    assert_eq!(run(probed, scene.spec(&["/bin/true"])), 0);
}
