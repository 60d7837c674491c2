//! The folders of groups: each is found in an open one, so that no path is followed twice.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use procbroker_core::Pid;

/// What the folder of a broker is called, before its pid.
pub(super) const FOLDER_PREFIX: &str = "procbroker.";

/// How deep groups that a child made below its own are looked at; the kernel's default bound is the same depth
/// for practical purposes (`cgroup.max.depth`).
pub(super) const DEPTH_MAX: usize = 32;

pub(super) fn open_in(directory: BorrowedFd<'_>, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(directory, name, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Whether this is the root of the whole hierarchy, which may have processes and bounded groups at once. It is the only
/// group that has no type.
pub(super) fn is_root(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
}

/// The names of the groups right below one.
pub(super) fn subgroups(directory: BorrowedFd<'_>) -> Vec<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut entries) = Dir::openat(directory, ".", flags, Mode::empty()) else { return Vec::new() };
    let groups = entries.iter().flatten().filter(|entry| entry.file_type() == Some(Type::Directory));
    let names = groups.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "." && name != "..").collect()
}

pub(super) fn open_group(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    open_in(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// Removes a group and those below it, and says whether it is gone.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &str, depth: usize) -> bool {
    if matches!(unlinkat(parent, name, UnlinkatFlags::RemoveDir), Ok(()) | Err(Errno::ENOENT)) {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else { return false };
    let Ok(directory) = open_group(parent, name) else { return false };
    for below in subgroups(directory.as_fd()) {
        remove_tree(directory.as_fd(), &below, depth);
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir).is_ok()
}

pub(super) fn add_members(directory: BorrowedFd<'_>, depth: usize, members: &mut Vec<Pid>) {
    let mut text = String::new();
    let procs = open_in(directory, "cgroup.procs", OFlag::O_RDONLY).map(File::from);
    if procs.is_ok_and(|mut file| file.read_to_string(&mut text).is_ok()) {
        members.extend(text.lines().filter_map(|line| Pid::new(line.parse().ok()?)));
    }
    let Some(depth) = depth.checked_sub(1) else { return };
    for name in subgroups(directory) {
        if let Ok(below) = open_group(directory, &name) {
            add_members(below.as_fd(), depth, members);
        }
    }
}

/// The number that is all of a file in a group, if it is there.
pub(super) fn read_number(directory: BorrowedFd<'_>, name: &str) -> Option<u64> {
    read_text(directory, name)?.trim_end().parse().ok()
}

/// The processor time of a group, in microseconds. Every group has it, whatever controllers there are (`cpu.stat`).
pub(super) fn cpu_used(directory: BorrowedFd<'_>) -> Option<u64> {
    let text = read_text(directory, "cpu.stat")?;
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).and_then(|number| number.parse().ok())
}

pub(super) fn read_text(directory: BorrowedFd<'_>, name: &str) -> Option<String> {
    let mut text = String::new();
    let mut file = File::from(open_in(directory, name, OFlag::O_RDONLY).ok()?);
    file.read_to_string(&mut text).ok().map(|_| text)
}

/// Whether this `cgroup.events` says that something lives in its group or below it; zombies do not count.
pub(super) fn is_populated(directory: BorrowedFd<'_>, events: &str) -> bool {
    open_in(directory, events, OFlag::O_RDONLY).is_ok_and(|events| says(&File::from(events), b"populated 1"))
}

/// Whether this `cgroup.events` can be read, and says that nothing lives in its group or below it.
pub(super) fn is_known_empty(events: &File) -> bool {
    says(events, b"populated 0")
}

fn says(events: &File, wanted: &[u8]) -> bool {
    let mut text = [0; 128];
    let count = events.read_at(&mut text, 0).unwrap_or(0);
    let text = text.get(..count).unwrap_or_default();
    text.split(|&byte| byte == b'\n').any(|line| line == wanted)
}

/// The number of what the system said.
pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}
