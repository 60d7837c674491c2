//! The hard limits of a process, by system call where that is allowed, else from its file in `/proc`.
#![expect(unsafe_code, reason = "prlimit(2) of another process has no safe wrapper")]

use nix::errno::Errno;

/// The kernel's resources, by number (`getrlimit(2)`).
pub(super) const RESOURCES: usize = 16;

/// How `/proc/PID/limits` begins each of its lines, by the number of the resource.
const LIMIT_NAMES: [&str; RESOURCES] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

/// Asks the kernel for them (`prlimit(2)`): EPERM for a process of another user without `CAP_SYS_RESOURCE`.
pub(super) fn of(pid: u32) -> Result<[u64; RESOURCES], Errno> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let mut hard = [0; RESOURCES];
    for (resource, place) in (0_u32..).zip(&mut hard) {
        // The kernel's `struct rlimit64`: soft and hard.
        let mut limit = [0_u64; 2];
        let none = std::ptr::null::<u64>();
        // SAFETY: it reads nothing, and writes one limit, which has this size.
        let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, none, limit.as_mut_ptr()) };
        Errno::result(result)?;
        *place = limit[1];
    }
    Ok(hard)
}

/// Reads `/proc/PID/limits` (`proc_pid_limits(5)`): in each line the name, the soft limit and the hard one.
pub(super) fn parse(text: &str) -> Option<[u64; RESOURCES]> {
    let mut hard = [0; RESOURCES];
    for (name, place) in LIMIT_NAMES.iter().zip(&mut hard) {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        *place = match line.split_whitespace().nth(1)? {
            "unlimited" => u64::MAX,
            number => number.parse().ok()?,
        };
    }
    Some(hard)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn limits_are_read_alike_by_call_and_from_the_file() {
        let pid = std::process::id();
        let file = fs::read_to_string("/proc/self/limits").unwrap();
        assert_eq!(parse(&file), Some(of(pid).unwrap()));
        assert_eq!(parse(file.split_once("Max pending signals").unwrap().0), None);
    }
}
