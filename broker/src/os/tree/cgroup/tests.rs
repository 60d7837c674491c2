use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FlockArg, OFlag};
use nix::sys::stat::{Mode, mkdirat};
use procbroker_core::Pid;
use procbroker_protocol::create::Resources;

use super::mount::locate;
use super::tree::open_in;
use super::*;
use crate::limits::SPARE_GROUPS_MAX;
use crate::os::process::alone;

/// Longer than anything here takes, even on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of its own for each test; none where this user can have no groups.
fn cgroups(test: &str) -> Option<Cgroups> {
    let own = read("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let base = locate(own, &read("/proc/self/mountinfo").unwrap())?;
    let name = format!("procbroker-test.{}.{test}", std::process::id());
    let shown = format!("{}/{name}", own.trim_end_matches('/'));
    Cgroups::at(base.join(name), &shown).ok()
}

/// A process that waits in a group.
fn member(cgroups: &Cgroups, group: Group) -> (Child, Pid) {
    let procs = cgroups.path().join(group.name()).join("cgroup.procs");
    let script = "echo $$ > \"$0\" && echo && exec cat";
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(procs)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    let pid = Pid::new(child.id()).unwrap();
    (child, pid)
}

/// Reaps a process, and waits until its group is empty: it can stay populated for a moment longer, until the process has
/// left the processor for good.
fn reap(cgroups: &Cgroups, group: Group, child: &mut Child) -> std::process::ExitStatus {
    let status = child.wait().unwrap();
    let began = Instant::now();
    while cgroups.is_populated(group) {
        assert!(began.elapsed() < PATIENCE, "{group:?} does not become empty");
        std::thread::yield_now();
    }
    status
}

fn groups(cgroups: &Cgroups) -> Vec<u64> {
    let mut numbers: Vec<u64> =
        subgroups(cgroups.folder()).into_iter().map(|name| name.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_group_knows_its_members_and_is_theirs_alone() {
    let Some(cgroups) = cgroups("members") else { return };
    let (group, _directory) = cgroups.take().unwrap();
    assert!(!cgroups.is_populated(group) && cgroups.are_all_empty());
    let (mut child, pid) = member(&cgroups, group);
    assert!(cgroups.is_populated(group) && !cgroups.are_all_empty());
    assert_eq!(cgroups.members(group), [pid]);
    assert_eq!(cgroups.group_of(pid), Some(group));
    assert_eq!(cgroups.group_of(Pid::new(std::process::id()).unwrap()), None);
    drop(child.stdin.take());
    reap(&cgroups, group, &mut child);
}

#[test]
fn nothing_lives_on_in_a_folder_that_is_left() {
    let Some(cgroups) = cgroups("left") else { return };
    let groups = [cgroups.take().unwrap().0, cgroups.take().unwrap().0];
    let mut children = groups.map(|group| member(&cgroups, group).0);
    cgroups.leave();
    for child in &mut children {
        assert_eq!(ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }
    while !cgroups.are_all_empty() {
        std::thread::yield_now();
    }
    cgroups.remove();
}

#[test]
fn a_group_that_became_empty_by_itself_is_used_again() {
    let Some(cgroups) = cgroups("reuse") else { return };
    let (group, directory) = cgroups.take().unwrap();
    let inode = fstat(&directory).unwrap().st_ino;
    cgroups.give_back(group, Taint::Clean);
    assert!(cgroups.tidy(|| false));
    let taken: Vec<_> = (0..SPARE_GROUPS_MAX).map(|_| cgroups.take().unwrap()).collect();
    let again = taken.iter().find(|(number, _)| *number == group).unwrap();
    assert_eq!(fstat(&again.1).unwrap().st_ino, inode);
}

#[test]
fn what_an_earlier_child_of_a_group_has_used_is_not_the_next_ones() {
    let Some(cgroups) = cgroups("usage") else { return };
    let (group, _directory) = cgroups.take().unwrap();
    let (mut child, pid) = member(&cgroups, group);
    let first = cgroups.usage(group).unwrap();
    assert_eq!(first.members, [pid]);
    // What is counted for a process that runs for a moment comes a tick later at most.
    let began = Instant::now();
    while cgroups.usage(group).unwrap().cpu_micros == Some(0) {
        assert!(began.elapsed() < PATIENCE, "nothing is counted: {:?}", cgroups.usage(group));
    }
    drop(child.stdin.take());
    reap(&cgroups, group, &mut child);
    cgroups.give_back(group, Taint::Clean);
    assert!(cgroups.tidy(|| false));
    let again = cgroups.usage(group).unwrap();
    assert_eq!((again.cpu_micros, again.members), (Some(0), vec![]));
}

#[test]
fn a_killed_group_is_never_used_again() {
    let Some(cgroups) = cgroups("killed") else { return };
    let (group, _directory) = cgroups.take().unwrap();
    let (mut child, _) = member(&cgroups, group);
    cgroups.kill(group).unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&reap(&cgroups, group, &mut child)),
        Some(libc::SIGKILL)
    );
    cgroups.give_back(group, Taint::Killed);
    assert!(cgroups.tidy(|| false));
    assert!(!groups(&cgroups).contains(&group.0));
    for _ in 0..2 * SPARE_GROUPS_MAX {
        assert_ne!(cgroups.take().unwrap().0, group);
    }
}

#[test]
fn a_group_that_had_bounds_is_never_used_again() {
    let Some(cgroups) = cgroups("bounded") else { return };
    let (group, directory) = cgroups.take().unwrap();
    assert_eq!(cgroups.bound(directory.as_fd(), &Resources::default()), Ok(Taint::Clean));
    cgroups.give_back(group, Taint::Bounded);
    assert!(cgroups.tidy(|| false));
    assert!(!groups(&cgroups).contains(&group.0));
}

#[test]
fn bounds_that_cannot_be_set_are_an_error() {
    let Some(cgroups) = cgroups("unbound") else { return };
    let (_group, directory) = cgroups.take().unwrap();
    // No controller was enabled in this folder.
    let resources = Resources { pids_max: Some(1), ..Resources::default() };
    assert_eq!(cgroups.bound(directory.as_fd(), &resources), Err(Errno::ENOENT));
}

#[test]
fn a_group_in_which_something_lives_is_kept_until_it_is_empty() {
    let Some(cgroups) = cgroups("busy") else { return };
    let (group, _directory) = cgroups.take().unwrap();
    let (mut child, _) = member(&cgroups, group);
    cgroups.give_back(group, Taint::Clean);
    assert!(cgroups.tidy(|| false));
    assert!(groups(&cgroups).contains(&group.0));
    assert!(cgroups.pool().spares.iter().all(|(spare, _)| *spare != group));
    drop(child.stdin.take());
    reap(&cgroups, group, &mut child);
    assert!(cgroups.tidy(|| false));
    assert!(!groups(&cgroups).contains(&group.0));
}

#[test]
fn groups_that_a_child_made_below_its_own_are_looked_into_and_removed() {
    let Some(cgroups) = cgroups("below") else { return };
    let (group, directory) = cgroups.take().unwrap();
    mkdirat(&directory, "own", Mode::S_IRWXU).unwrap();
    let inner = Group(group.0);
    let procs = cgroups.path().join(inner.name()).join("own/cgroup.procs");
    let (mut child, pid) = member(&cgroups, group);
    fs::write(procs, pid.to_string()).unwrap();
    assert_eq!(cgroups.members(group), [pid]);
    assert_eq!(cgroups.group_of(pid), Some(group));
    assert!(cgroups.is_populated(group));
    child.kill().unwrap();
    reap(&cgroups, group, &mut child);
    cgroups.give_back(group, Taint::Clean);
    assert!(cgroups.tidy(|| false));
    assert!(!groups(&cgroups).contains(&group.0));
}

#[test]
fn the_folder_of_a_broker_that_is_gone_is_removed_and_a_living_ones_is_kept() {
    let Some(cgroups) = cgroups("stale") else { return };
    let base = cgroups.path();
    let [stale, living] = ["procbroker.1", "procbroker.2"].map(|name| base.join(name));
    for folder in [&stale, &living] {
        fs::create_dir(folder).unwrap();
        fs::create_dir(folder.join("0")).unwrap();
    }
    let lock = File::open(&living).unwrap();
    lock.lock().unwrap();
    remove_stale(base);
    assert!(!stale.exists() && living.join("0").exists());
    drop(lock);
    remove_stale(base);
    assert!(!living.exists());
}

#[test]
fn nothing_of_the_folder_is_left_when_it_is_dropped() {
    let Some(cgroups) = cgroups("dropped") else { return };
    let path = cgroups.path().to_owned();
    assert!(cgroups.tidy(|| false));
    assert_eq!(groups(&cgroups).len(), SPARE_GROUPS_MAX);
    drop(cgroups);
    assert!(!path.exists());
}

#[test]
fn whoever_may_make_no_groups_is_told_what_to_do() {
    let result = Cgroups::at("/proc/self/procbroker.0".into(), "");
    let message = result.unwrap_err().to_string();
    assert!(message.contains("/proc/self/procbroker.0") && message.contains("Delegate=yes"), "{message}");
}

#[test]
fn a_broker_has_one_folder_named_by_its_pid() {
    if !alone::here(module_path!(), "a_broker_has_one_folder_named_by_its_pid") {
        return;
    }
    let Ok(cgroups) = Cgroups::begin() else { return };
    assert!(cgroups.path().ends_with(format!("procbroker.{}", std::process::id())));
    let (group, _directory) = cgroups.take().unwrap();
    let (mut child, pid) = member(&cgroups, group);
    assert_eq!(cgroups.group_of(pid), Some(group));
    child.kill().unwrap();
    reap(&cgroups, group, &mut child);
}

#[test]
fn the_group_is_found_below_a_mount_that_shows_a_part_of_the_hierarchy() {
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().join("with space");
    fs::create_dir_all(point.join("b")).unwrap();
    fs::write(point.join("b/cgroup.procs"), "").unwrap();
    let escaped = point.to_str().unwrap().replace(' ', "\\040");
    let mountinfo = format!(
        "30 20 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
         31 20 0:2 /other /nowhere rw shared:1 - cgroup2 cgroup2 rw\n\
         32 20 0:2 /a {escaped} rw shared:1 master:2 - cgroup2 cgroup2 rw\n"
    );
    assert_eq!(locate("/a/b", &mountinfo), Some(point.join("b")));
    assert_eq!(locate("/c/b", &mountinfo), None);
    assert_eq!(locate("/a/b", ""), None);
}

#[test]
fn the_folder_of_this_process_before_it_executed_itself_goes_on_and_no_number_is_given_again() {
    let Some(scratch) = cgroups("previous") else { return };
    let path = scratch.path().join(format!("{FOLDER_PREFIX}previous"));
    let shown = name_of(&path, &read("/proc/self/mountinfo").unwrap()).unwrap();
    let earlier = Cgroups::at(path.clone(), &shown).unwrap();
    let [empty, populated, last] = [(), (), ()].map(|()| earlier.take().unwrap().0);
    let (mut child, pid) = member(&earlier, populated);
    let passed = earlier.pass_folder().unwrap();
    // As an exec does: nothing is removed, and the passed descriptor keeps the lock.
    std::mem::forget(earlier);
    assert!(PreviousFolder { path: path.clone(), folder: None }.lock().is_none());
    let previous = PreviousFolder { path: path.clone(), folder: Some(passed) };
    let cgroups = Cgroups::begin_after(Some(previous), Leaf::Stay).unwrap();
    assert_eq!(cgroups.path(), path);
    assert_eq!(cgroups.group_of(pid), Some(populated));
    assert_eq!(cgroups.unclaimed(), [populated]);
    let adopted = [empty, populated, populated, last].map(|group| cgroups.adopt(group.number()));
    assert_eq!(adopted, [None, Some(populated), None, None]);
    assert!(cgroups.take().unwrap().0 > last);
    child.kill().unwrap();
    reap(&cgroups, populated, &mut child);
    cgroups.give_back(populated, Taint::Killed);
    drop(cgroups);
    assert!(!path.exists());
}

#[test]
fn a_folder_that_is_gone_or_no_brokers_is_not_taken() {
    let Some(scratch) = cgroups("no-previous") else { return };
    let gone = PreviousFolder { path: scratch.path().join(format!("{FOLDER_PREFIX}gone")), folder: None };
    assert!(gone.lock().is_none());
    let (group, _directory) = scratch.take().unwrap();
    assert!(PreviousFolder { path: scratch.path().join(group.name()), folder: None }.lock().is_none());
}

#[test]
fn the_kernels_name_of_a_folder_is_found_by_its_mount() {
    let mountinfo = "30 20 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                     32 20 0:2 /a /with\\040space rw shared:1 master:2 - cgroup2 cgroup2 rw\n";
    let name = |path: &str| name_of(Path::new(path), mountinfo);
    assert_eq!(name("/with space/b/procbroker.1").as_deref(), Some("/a/b/procbroker.1"));
    assert_eq!(name("/sys/fs/cgroup/pids/procbroker.1"), None);
}

#[test]
fn a_folder_in_which_something_lives_is_left_as_it_is() {
    let Some(scratch) = cgroups("inhabited") else { return };
    let path = scratch.path().join(format!("{FOLDER_PREFIX}1"));
    let shown = name_of(&path, &read("/proc/self/mountinfo").unwrap()).unwrap();
    let earlier = Cgroups::at(path.clone(), &shown).unwrap();
    let (group, _directory) = earlier.take().unwrap();
    assert!(earlier.tidy(|| false));
    let before = groups(&earlier);
    let (mut child, _) = member(&earlier, group);
    let folder = earlier.folder().try_clone_to_owned().unwrap();
    // As after a crash: the lock is gone, and nothing was removed.
    nix::fcntl::Flock::unlock(Flock::lock(File::from(folder), FlockArg::LockExclusiveNonblock).unwrap())
        .unwrap();
    remove_stale(scratch.path());
    assert_eq!(groups(&earlier), before);
    child.kill().unwrap();
    reap(&earlier, group, &mut child);
    drop(earlier);
    assert!(!path.exists());
}

#[test]
fn spare_groups_that_somebody_else_has_removed_are_thrown_away() {
    let Some(cgroups) = cgroups("removed") else { return };
    assert!(cgroups.tidy(|| false));
    for number in groups(&cgroups) {
        fs::remove_dir(cgroups.path().join(number.to_string())).unwrap();
    }
    let (group, directory) = cgroups.take().unwrap();
    assert_eq!(groups(&cgroups), vec![group.0]);
    drop(open_in(directory.as_fd(), "cgroup.procs", OFlag::O_RDWR).unwrap());
}

/// Any folder will do: what is locked has to be what is at the path.
#[test]
fn a_folder_that_another_broker_removes_before_it_is_locked_is_made_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join(format!("{FOLDER_PREFIX}1"));
    let mut removals = 3;
    let removed_thrice = || {
        if removals > 0 {
            removals -= 1;
            remove_stale(scratch.path());
            assert!(!path.exists());
        }
    };
    let folder = claim(&path, removed_thrice).unwrap();
    assert_eq!(folder.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
    assert_eq!(removals, 0);
    // It is not removed any more.
    remove_stale(scratch.path());
    assert!(path.exists());
}

#[test]
fn a_folder_that_is_always_removed_is_given_up_with_its_path() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join(format!("{FOLDER_PREFIX}1"));
    let error = claim(&path, || fs::remove_dir(&path).unwrap()).unwrap_err();
    assert!(error.to_string().contains(&format!("cannot keep {}", path.display())), "{error}");
}
