//! Processes that a broker should have ended: found in `/proc`, not in what the broker says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that has something to do with a test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tagged {
    pub(crate) pid: i32,
    pub(crate) command: String,
}

/// Every live process, except this one, whose environment or command line contains the path of the test's
/// folder. The environment of a child does, by `PROCBROKER_SOCKET`; one that wipes its environment has to
/// have the path in its command line.
pub(crate) fn tagged_processes(folder: &Path) -> Vec<Tagged> {
    tagged_environments(folder).into_iter().map(|(process, _)| process).collect()
}

/// The same, with their environments as far as they are text.
pub(crate) fn tagged_environments(folder: &Path) -> Vec<(Tagged, BTreeMap<String, String>)> {
    let tag = folder.as_os_str().as_encoded_bytes();
    let own = i32::try_from(std::process::id()).expect("a pid");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        // A process that ends meanwhile, or belongs to somebody else, cannot be read.
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if contains(&command, tag) || contains(&environment, tag) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let environment = String::from_utf8_lossy(&environment);
            let variables =
                environment.split_terminator('\0').filter_map(|variable| variable.split_once('='));
            let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            found.push((Tagged { pid, command }, variables));
        }
    }
    found.sort();
    found
}

/// Kills all of them, until there is none, and removes the control groups that they leave.
pub(crate) fn kill_tagged(folder: &Path) {
    let mut groups = BTreeSet::new();
    loop {
        let left = tagged_processes(folder);
        if left.is_empty() {
            break;
        }
        for process in left {
            groups.extend(broker_group(process.pid));
            // Whoever has ended meanwhile is not there to be killed.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }
    for group in groups {
        remove_groups(&group);
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The folder of the broker's groups that a process is in: that of the child is one below it.
pub(crate) fn broker_group(pid: i32) -> Option<PathBuf> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = lines.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })?;
    let group = mount.join(path);
    let broker = group.parent()?.to_owned();
    broker.file_name()?.to_str()?.starts_with("procbroker").then_some(broker)
}

/// Removes a group and those below it, as far as they are empty.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    // A group whose last process is only just gone stays; there is nothing to fail about here.
    let _ = fs::remove_dir(group);
}
