//! What a user may reach in the file system, for as long as the broker looks at something for that user.
//!
//! The kernel checks paths by ids that belong to the thread (credentials(7), "Filesystem user ID and filesystem group ID").
//! The C library would change those of all threads, so that the calls are made without it.
#![expect(unsafe_code, reason = "setgroups(2) of one thread and PR_SET_DUMPABLE have no wrapper")]

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setfsgid, setfsuid};
use procbroker_core::RunAs;

/// Whose rights count when a path is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The broker's own rights: everything, where it is root.
    Own,
    /// Those of another user, and of nobody else: not even the broker's groups and capabilities count.
    Of {
        /// The user id.
        uid: u32,
        /// The id of the primary group.
        gid: u32,
        /// The ids of the supplementary groups.
        groups: Vec<u32>,
    },
}

impl Rights {
    /// Those of a child that runs so.
    #[must_use]
    pub fn of(run_as: &RunAs) -> Self {
        match run_as {
            RunAs::Broker => Self::Own,
            RunAs::User { uid, gid, groups, .. } => Self::Of { uid: *uid, gid: *gid, groups: groups.clone() },
        }
    }
}

/// What the thread had before.
struct Before {
    groups: Vec<u32>,
}

impl Drop for Before {
    fn drop(&mut self) {
        // The capabilities come back with the user, and with them the right to have the groups again.
        setfsuid(geteuid());
        forbid_tracing();
        setfsgid(getegid());
        let restored = set_groups(&self.groups);
        debug_assert_eq!(restored, Ok(()), "a thread that may change its groups may change them back");
    }
}

/// Looks at something with these rights.
///
/// # Errors
/// When this thread may not take them on: then nothing is looked at.
pub fn with<T>(rights: &Rights, look: impl FnOnce() -> T) -> Result<T, Errno> {
    let Rights::Of { uid, gid, groups } = rights else { return Ok(look()) };
    let own = getgroups()?.into_iter().map(Gid::as_raw).collect();
    set_groups(groups)?;
    let before = Before { groups: own };
    setfsgid(Gid::from_raw(*gid));
    // From here on the thread has no capabilities for files either (capabilities(7), "Effect of user ID changes").
    setfsuid(Uid::from_raw(*uid));
    forbid_tracing();
    // What was refused is told by what there is now: neither call has an error.
    let refused = setfsuid(Uid::from_raw(u32::MAX)) != Uid::from_raw(*uid)
        || setfsgid(Gid::from_raw(u32::MAX)) != Gid::from_raw(*gid);
    let seen = if refused { Err(Errno::EPERM) } else { Ok(look()) };
    drop(before);
    seen
}

/// Another user for files makes a process what `fs.suid_dumpable` says, which may be that it can be traced (prctl(2),
/// `PR_SET_DUMPABLE`); a child of that user may be in the broker's memory at the moment.
fn forbid_tracing() {
    // SAFETY: it takes no memory.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: it reads as many numbers as there are, and changes this thread alone.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn what_is_closed_to_a_user_is_closed_to_who_looks_for_it_and_open_again_afterwards() {
        if !geteuid().is_root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str, mode, uid, gid| {
            let path = scratch.path().join(name);
            fs::write(&path, "").unwrap();
            chown(&path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        let [closed, of_roots_group, own, of_its_group, of_another_group] = [
            file("closed", 0o600, 0, 0),
            file("root", 0o640, 0, 0),
            file("own", 0o600, 64_001, 0),
            file("group", 0o640, 0, 64_002),
            file("other", 0o640, 0, 64_003),
        ];
        let rights = Rights::Of { uid: 64_001, gid: 64_001, groups: vec![64_002] };
        let opens = |path: &std::path::PathBuf| with(&rights, || File::open(path).is_ok()).unwrap();
        let groups = getgroups().unwrap();
        for path in [&own, &of_its_group] {
            assert!(opens(path), "{}", path.display());
        }
        for path in [&closed, &of_roots_group, &of_another_group] {
            assert!(!opens(path), "{}", path.display());
            assert!(File::open(path).is_ok(), "{}", path.display());
        }
        assert_eq!(getgroups().unwrap(), groups);
        assert!(with(&Rights::Own, || File::open(&closed).is_ok()).unwrap());
    }
}
