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
use super::proc_reader::{self, Reading};

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

/// What `/proc/PID/stat` says of a process (`proc_pid_stat(5)`).
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
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Reads the state of a process; `None` when it has been reaped.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        Self::parse(&read_stat(&format!("/proc/{pid}/stat"))?)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = fields(text)?;
        let state = fields.next()?;
        let mut id = || fields.next().map(parse);
        let (parent, group, session) = (id()?, id()?, id()?);
        // Fields 9, 20 and 22; the three before were 4 to 6.
        let mut number = |skipped| fields.nth(skipped).and_then(|field| u64::from_str(field).ok());
        let (flags, threads, start_ticks) = (number(2)?, number(10)?, number(1)?);
        let pid = parse(text.split_once(' ')?.0)?;
        // The state is that of the first thread, which may have ended before others.
        let is_zombie = is_dead(state) && threads <= 1;
        let is_of_kernel = flags & KERNEL_THREAD != 0;
        Some(Self { pid, is_zombie, is_of_kernel, parent, group, session, start_ticks })
    }
}

/// What is told of the process of this descriptor, which may be anybody's.
#[derive(Debug)]
pub(crate) enum Told {
    /// This.
    Stat(ProcessStat),
    /// It has been reaped.
    Gone,
    /// The kernel keeps whoever asks: the process stands still in the midst of an execve(2).
    Nothing,
}

/// Asks for the state of a process that may be anybody's, and waits for no longer than the kernel usually takes.
pub(crate) fn told_of(pid: Pid, pidfd: BorrowedFd<'_>) -> Told {
    match proc_reader::read(&format!("/proc/{pid}/stat")) {
        Reading::Kept => Told::Nothing,
        Reading::Done(Err(_)) => Told::Gone,
        Reading::Done(Ok(text)) => {
            let stat = ProcessStat::parse(&String::from_utf8_lossy(&text));
            // Not reaped by now, so that the number was its own.
            stat.filter(|_| !pidfd::is_reaped(pidfd)).map_or(Told::Gone, Told::Stat)
        }
    }
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
    let _ = ProcessStat::parse(text);
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
    fn who_may_be_anybody_is_told_of_and_one_that_has_been_reaped_is_not() {
        let mut process = std::process::Command::new("sleep").arg("infinity").spawn().unwrap();
        let pid = Pid::new(process.id()).unwrap();
        let pidfd = pidfd::open(pid).unwrap();
        let told = told_of(pid, std::os::fd::AsFd::as_fd(&pidfd));
        assert!(matches!(told, Told::Stat(stat) if stat.pid == pid && !stat.is_zombie), "{told:?}");
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(matches!(told_of(pid, std::os::fd::AsFd::as_fd(&pidfd)), Told::Gone));
    }

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
            start_ticks: 31_415,
        };
        assert_eq!(ProcessStat::parse(text), Some(stat));
        assert_eq!(ProcessStat::parse("42 (a) S 7 8"), None);
        assert_eq!(ProcessStat::parse(""), None);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_while_others_run_is_no_zombie() {
        let is_zombie = |threads| {
            let text = format!("42 (a) Z 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 31415 0 0\n");
            ProcessStat::parse(&text).map(|stat| stat.is_zombie)
        };
        assert_eq!([is_zombie(2), is_zombie(1)], [Some(false), Some(true)]);
    }

    #[test]
    fn the_own_process_is_read_as_the_system_calls_say() {
        let own = Pid::new(std::process::id()).unwrap();
        let stat = ProcessStat::read(own).unwrap();
        assert_eq!(stat.pid, own);
        assert_eq!(stat.parent.map(Pid::get), Some(nix::unistd::getppid().as_raw().cast_unsigned()));
        assert_eq!(stat.group.map(Pid::get), Some(nix::unistd::getpgrp().as_raw().cast_unsigned()));
        let session = nix::unistd::getsid(None).unwrap().as_raw().cast_unsigned();
        assert_eq!(stat.session.map_or(0, Pid::get), session);
        assert!(!stat.is_zombie);
        assert!(stat.start_ticks > 0);
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
