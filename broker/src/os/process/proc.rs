//! Reads what `/proc` tells of processes: their state, and their children.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::{FromStr, SplitAsciiWhitespace};

use nix::errno::Errno;
use procbroker_core::Pid;

use super::pidfd;

/// The kernel's flag of threads of its own (`PF_KTHREAD` in `linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Bytes of one read of a list: some 600 pids.
const LIST_BYTES: usize = 4096;

/// Every process that this `/proc` shows.
pub(crate) fn processes() -> impl Iterator<Item = Pid> {
    all_processes().into_iter().flatten()
}

/// Lists every process that this `/proc` shows.
///
/// # Errors
/// When `/proc` cannot be opened, as for EMFILE.
pub(crate) fn all_processes() -> io::Result<impl Iterator<Item = Pid>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| parse(entry.file_name().to_str()?)))
}

fn parse(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::new)
}

pub(crate) fn read_list(file: &File) -> io::Result<Vec<Pid>> {
    let mut text = Vec::new();
    let mut buffer = [0; LIST_BYTES];
    loop {
        let count = file.read_at(&mut buffer, text.len() as u64)?;
        if count == 0 {
            break;
        }
        text.extend(buffer.iter().take(count));
    }
    Ok(String::from_utf8_lossy(&text).split_ascii_whitespace().filter_map(parse).collect())
}

/// The children of a process, started by any of its threads.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| File::open(thread.path().join("children")).ok());
    lists.filter_map(|file| read_list(&file).ok()).flatten().collect()
}

/// Whether the kernel has such lists.
pub(crate) fn lists_children() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// Every process with its parent, for kernels that list no children.
pub(crate) fn parents() -> Vec<ProcessStat> {
    processes().filter_map(ProcessStat::read).collect()
}

/// What `/proc` says of a process.
///
/// It comes from `status` (`proc_pid_status(5)`), which never waits for the process (see `super::apart`); where that
/// does not tell all of it, as before Linux 6.8, from `stat` (`proc_pid_stat(5)`), which does not wait there either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// The number of the process.
    pub pid: Pid,
    /// Whether all of its threads have ended, and it only waits to be reaped.
    pub is_zombie: bool,
    /// Whether it is a thread of the kernel, which belongs to nobody and has no environment.
    pub is_of_kernel: bool,
    /// Its parent; none where that is outside of the pid namespace.
    pub parent: Option<Pid>,
    /// The number of its process group; none for a process of another pid namespace.
    pub group: Option<Pid>,
    /// The number of its session; none for a process of another pid namespace.
    pub session: Option<Pid>,
}

impl ProcessStat {
    /// Reads the state of a process; `None` when it has been reaped.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        let status = fs::read(format!("/proc/{pid}/status")).ok()?;
        Self::of_status(&String::from_utf8_lossy(&status))
            .or_else(|| Self::of_stat(&read_stat(&format!("/proc/{pid}/stat"))?))
    }

    /// `None` where something is missing. Numbers come in those of this pid namespace first.
    fn of_status(text: &str) -> Option<Self> {
        let member = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_ascii_whitespace().next()
        };
        let threads: u64 = member("Threads")?.parse().ok()?;
        Some(Self {
            pid: parse(member("Pid")?)?,
            // The state is that of the first thread, which may have ended before others.
            is_zombie: is_dead(member("State")?) && threads <= 1,
            is_of_kernel: member("Kthread")? != "0",
            parent: parse(member("PPid")?),
            group: parse(member("NSpgid")?),
            session: parse(member("NSsid")?),
        })
    }

    pub(super) fn of_stat(text: &str) -> Option<Self> {
        let mut fields = fields(text)?;
        let state = fields.next()?;
        let mut id = || fields.next().map(parse);
        let (parent, group, session) = (id()?, id()?, id()?);
        // Fields 9 and 20; the three before were 4 to 6.
        let mut number = |skipped| fields.nth(skipped).and_then(|field| u64::from_str(field).ok());
        let (flags, threads) = (number(2)?, number(10)?);
        let pid = parse(text.split_once(' ')?.0)?;
        let is_zombie = is_dead(state) && threads <= 1;
        let is_of_kernel = flags & KERNEL_THREAD != 0;
        Some(Self { pid, is_zombie, is_of_kernel, parent, group, session })
    }
}

/// When a process started, in clock ticks since boot (`proc_pid_stat(5)`, field 22). It may wait for the process.
pub(crate) fn start_ticks(pid: Pid) -> Option<u64> {
    fields(&read_stat(&format!("/proc/{pid}/stat"))?)?.nth(19)?.parse().ok()
}

/// Whether a thread of this process could go on, and is not let or is at it.
pub(super) fn is_runnable(thread: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tR"))
}

/// The name of a process's first thread (`proc_pid_comm(5)`); `None` when it has been reaped.
pub(crate) fn thread_name(pid: Pid) -> Option<Vec<u8>> {
    let mut name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    name.pop_if(|last| *last == b'\n');
    Some(name)
}

/// The signals that this process ignores, signal 1 in the lowest bit (`proc_pid_status(5)`); none where that is not told.
pub(crate) fn ignored_signals() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// The users of a process (`proc_pid_status(5)`): real, effective, saved, and for files; `None` when it has been reaped.
pub(crate) fn user_ids(pid: Pid) -> Option<[u32; 4]> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let ids: Option<Vec<u32>> = line.split_whitespace().map(|id| id.parse().ok()).collect();
    ids?.try_into().ok()
}

/// The text of a `stat` file of `/proc`.
pub(super) fn read_stat(path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

/// The fields of a `stat` file from the third on. The second, the name of the program, is in parentheses and may have any
/// character in it.
pub(super) fn fields(text: &str) -> Option<SplitAsciiWhitespace<'_>> {
    Some(text.rsplit_once(')')?.1.split_ascii_whitespace())
}

pub(super) fn is_dead(state: &str) -> bool {
    matches!(state, "Z" | "X" | "x")
}

/// The time that processors have spent on a process and on those children of it that it has waited for, in clock ticks.
pub(crate) fn cpu_ticks(pid: Pid) -> Option<u64> {
    let text = read_stat(&format!("/proc/{pid}/stat"))?;
    // Fields 14 to 17.
    let times = fields(&text)?.skip(11).take(4).map(|field| u64::from_str(field).ok());
    times.sum()
}

/// The memory of a process that is in the machine's, in pages.
pub(crate) fn resident_pages(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The status that a process ended with which has not been reaped, as `wait(2)` gives it (field 52). The kernel tells
/// others than those who may trace the process a 0 instead.
pub(crate) fn zombie_status(pid: Pid) -> Option<i32> {
    let text = read_stat(&format!("/proc/{pid}/stat"))?;
    let mut fields = fields(&text)?;
    // Fields 4 to 51 are between.
    if fields.next()? == "Z" { fields.nth(48)?.parse().ok() } else { None }
}

/// Reads any text as the state of a process.
pub(crate) fn read_any_stat(text: &str) {
    let _ = (ProcessStat::of_status(text), ProcessStat::of_stat(text));
}

/// What `/proc` says of the process that a descriptor refers to.
pub(crate) fn stat_of(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<ProcessStat, Errno> {
    let stat = ProcessStat::read(pid);
    // If it has not been reaped by now, nobody else can have had its number before.
    if pidfd::is_reaped(pidfd) {
        return Err(Errno::ESRCH);
    }
    stat.ok_or(Errno::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let text = "42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 31415 0 0\n";
        let pid = |number| Pid::new(number).unwrap();
        let stat = ProcessStat {
            pid: pid(42),
            is_zombie: false,
            is_of_kernel: false,
            parent: Some(pid(7)),
            group: Some(pid(8)),
            session: Some(pid(9)),
        };
        assert_eq!(ProcessStat::of_stat(text), Some(stat));
        assert_eq!(ProcessStat::of_stat("42 (a) S 7 8"), None);
        assert_eq!(ProcessStat::of_stat(""), None);
        let text = "Name:\ta\\nPid:\t1\nState:\tS (sleeping)\nPid:\t42\nPPid:\t7\nNSpgid:\t8\t1\nNSsid:\t9\t1\nKthread:\t0\nThreads:\t1\n";
        assert_eq!(ProcessStat::of_status(text), Some(stat));
        assert_eq!(ProcessStat::of_status(&text.replace("Kthread:\t0\n", "")), None);
        assert_eq!(ProcessStat::of_status(""), None);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_while_others_run_is_no_zombie() {
        let is_zombie = |threads| {
            let text = format!("42 (a) Z 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 31415 0 0\n");
            ProcessStat::of_stat(&text).map(|stat| stat.is_zombie)
        };
        assert_eq!([is_zombie(2), is_zombie(1)], [Some(false), Some(true)]);
        let is_zombie = |threads| {
            let text = format!(
                "State:\tZ (zombie)\nPid:\t42\nPPid:\t7\nNSpgid:\t8\nNSsid:\t9\nKthread:\t0\nThreads:\t{threads}\n"
            );
            ProcessStat::of_status(&text).map(|stat| stat.is_zombie)
        };
        assert_eq!([is_zombie(2), is_zombie(1)], [Some(false), Some(true)]);
    }

    #[test]
    fn the_own_process_is_read_as_the_system_calls_say() {
        let own = Pid::new(std::process::id()).unwrap();
        let stat = ProcessStat::read(own).unwrap();
        let read = |file| fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        assert_eq!(ProcessStat::of_stat(&read("stat")), Some(stat));
        // All that is there since Linux 6.8.
        assert!(
            !read("status").contains("\nKthread:") || ProcessStat::of_status(&read("status")) == Some(stat)
        );
        assert_eq!(stat.pid, own);
        assert_eq!(stat.parent.map(Pid::get), Some(nix::unistd::getppid().as_raw().cast_unsigned()));
        assert_eq!(stat.group.map(Pid::get), Some(nix::unistd::getpgrp().as_raw().cast_unsigned()));
        let session = nix::unistd::getsid(None).unwrap().as_raw().cast_unsigned();
        assert_eq!(stat.session.map_or(0, Pid::get), session);
        assert!(!stat.is_zombie);
        assert!(start_ticks(own).unwrap() > 0);
    }

    #[test]
    fn the_children_of_all_threads_of_a_process_are_its_children() {
        let start = || std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn();
        let mut child = start().unwrap();
        let own = Pid::new(std::process::id()).unwrap();
        let pid = Pid::new(child.id()).unwrap();
        assert!(children(own).contains(&pid));
        assert!(parents().iter().any(|stat| stat.pid == pid && stat.parent == Some(own)));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children(own).contains(&pid));
    }
}
