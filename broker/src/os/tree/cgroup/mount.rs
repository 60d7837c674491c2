//! Where the cgroup hierarchy is mounted, and what a group is called there and by the kernel.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a group is mounted (`proc_pid_mountinfo(5)`): `own` is its path in the whole hierarchy, of which a mount
/// may show a part only.
pub(super) fn locate(own: &str, mountinfo: &str) -> Option<PathBuf> {
    mounts(mountinfo).find_map(|(root, point)| {
        let path = point.join(Path::new(own).strip_prefix(root).ok()?);
        path.join("cgroup.procs").exists().then_some(path)
    })
}

/// White space and backslashes are octal numbers there.
fn unescape(field: &str) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let number = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = number.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\');
        bytes.push(number.unwrap_or(first));
        rest = if number.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    OsStr::from_bytes(&bytes).to_owned()
}

/// The reverse: what the kernel calls the group whose folder this is.
pub(super) fn name_of(folder: &Path, mountinfo: &str) -> Option<String> {
    mounts(mountinfo).find_map(|(root, point)| {
        let below = folder.strip_prefix(&point).ok()?;
        Path::new(root).join(below).to_str().map(str::to_owned)
    })
}

/// Reads any text as the mounts of a process.
pub(crate) fn read_any(mountinfo: &str, folder: &Path) {
    let _ = name_of(folder, mountinfo);
}

/// The part of the hierarchy that each mount of it shows, and where.
fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then_some(())?;
        let mut fields = mount.split(' ').skip(3);
        Some((fields.next()?, PathBuf::from(unescape(fields.next()?))))
    })
}
