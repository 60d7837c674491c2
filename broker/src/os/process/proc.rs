//! Reads what `/proc` tells of processes: their state, and their children.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::{FromStr, SplitAsciiWhitespace};

use nix::errno::Errno;
use procbroker_core::Pid;

use super::pidfd;

/// The kernel's flag of threads of its own (`PF_KTHREAD` in `linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// SIGKILL in a set of signals.
const KILLED: u64 = 1 << (libc::SIGKILL - 1);

/// Bytes of a file of `/proc` that are read at a time; most are shorter.
pub(crate) const TEXT_BYTES: usize = 4096;

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

/// The members of a `status` file that a [`ProcessStat`] is made of, as far as they have been read.
#[derive(Default)]
struct StatMembers {
    state_is_dead: Option<bool>,
    pid: Option<Pid>,
    /// The numbers of these; 0 is none that is here.
    parent: Option<u32>,
    group: Option<u32>,
    session: Option<u32>,
    is_of_kernel: Option<bool>,
    threads: Option<u64>,
}

impl StatMembers {
    /// Takes in a line, and breaks off where nothing more is needed. Numbers come in those of this pid namespace first.
    fn take(&mut self, line: &[u8]) -> ControlFlow<()> {
        let Some((name, value)) = str::from_utf8(line).ok().and_then(|line| line.split_once(':')) else {
            return ControlFlow::Continue(());
        };
        let Some(first) = value.split_ascii_whitespace().next() else { return ControlFlow::Continue(()) };
        match name {
            "State" => self.state_is_dead = Some(is_dead(first)),
            "Pid" => self.pid = parse(first),
            "PPid" => self.parent = first.parse().ok(),
            "NSpgid" => self.group = first.parse().ok(),
            "NSsid" => self.session = first.parse().ok(),
            "Kthread" => self.is_of_kernel = Some(first != "0"),
            "Threads" => self.threads = first.parse().ok(),
            _ => return ControlFlow::Continue(()),
        }
        if self.stat().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// `None` where something is missing.
    fn stat(&self) -> Option<ProcessStat> {
        let (state_is_dead, threads) = (self.state_is_dead?, self.threads?);
        Some(ProcessStat {
            pid: self.pid?,
            // The state is that of the first thread, which may have ended before others.
            is_zombie: state_is_dead && threads <= 1,
            is_of_kernel: self.is_of_kernel?,
            parent: Pid::new(self.parent?),
            group: Pid::new(self.group?),
            session: Pid::new(self.session?),
        })
    }
}

impl ProcessStat {
    /// Reads the state of a process; `None` when it has been reaped.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        let status = File::open(format!("/proc/{pid}/status")).ok()?;
        let mut members = StatMembers::default();
        each_line(&status, |line| members.take(line)).ok()?;
        members.stat().or_else(|| Self::of_stat(&read_stat(&format!("/proc/{pid}/stat"))?))
    }

    /// `None` where something is missing.
    fn of_status(text: &str) -> Option<Self> {
        let mut members = StatMembers::default();
        let _all_or_enough = text.lines().try_for_each(|line| members.take(line.as_bytes()));
        members.stat()
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

/// The rest of the line of a process's `status` that begins so (`proc_pid_status(5)`).
fn status_member(process: &str, beginning: &str) -> Option<String> {
    let status = File::open(format!("/proc/{process}/status")).ok()?;
    let mut member = None;
    let found = |line: &[u8]| {
        member =
            line.strip_prefix(beginning.as_bytes()).map(|rest| String::from_utf8_lossy(rest).into_owned());
        if member.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    each_line(&status, found).ok()?;
    member
}

/// Goes through the lines of a file of `/proc`, each of them once, until `visit` breaks off.
///
/// A line that is longer than a file of `/proc` mostly is (the groups of a process can be 65,536) is passed over, and so is
/// one without its end. Nothing is taken from the heap for it: some are read for each create.
///
/// # Errors
/// When the file cannot be read, as for ESRCH.
pub(crate) fn each_line(file: &File, mut visit: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
    let mut buffer = [0; TEXT_BYTES];
    let (mut offset, mut held) = (0, 0);
    let mut is_too_long = false;
    loop {
        let count = file.read_at(&mut buffer[held..], offset)?;
        if count == 0 {
            return Ok(());
        }
        offset += count as u64;
        let filled = held + count;
        let mut begin = 0;
        while let Some(length) = buffer[begin..filled].iter().position(|&byte| byte == b'\n') {
            let line = &buffer[begin..begin + length];
            begin += length + 1;
            if !std::mem::take(&mut is_too_long) && visit(line).is_break() {
                return Ok(());
            }
        }
        buffer.copy_within(begin..filled, 0);
        held = filled - begin;
        if is_too_long || held == buffer.len() {
            (is_too_long, held) = (true, 0);
        }
    }
}

/// When a process started, in clock ticks since boot (`proc_pid_stat(5)`, field 22). It may wait for the process.
pub(crate) fn start_ticks(pid: Pid) -> Option<u64> {
    fields(&read_stat(&format!("/proc/{pid}/stat"))?)?.nth(19)?.parse().ok()
}

/// Whether a thread of this process could go on, and is not let or is at it.
pub(in crate::os) fn is_runnable(thread: i32) -> bool {
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
    let set = status_member("self", "SigIgn:");
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// Whether a process is gone or will be, whatever keeps it: it was sent SIGKILL, or has given up its memory.
///
/// One whose thread waits for something in the kernel that no signal ends (`State: D`) stays, with all that it has open.
pub(crate) fn is_dying(pid: Pid) -> bool {
    let Ok(status) = File::open(format!("/proc/{pid}/status")) else { return true };
    let mut has_memory = false;
    let mut is_killed = false;
    let look = |line: &[u8]| {
        has_memory |= line.starts_with(b"VmSize:");
        let pending = [&b"SigPnd:"[..], b"ShdPnd:"].iter().find_map(|name| line.strip_prefix(*name));
        let pending = pending.and_then(|set| u64::from_str_radix(str::from_utf8(set).ok()?.trim(), 16).ok());
        is_killed |= pending.is_some_and(|set| set & KILLED != 0);
        ControlFlow::Continue(())
    };
    each_line(&status, look).is_err() || is_killed || !has_memory
}

/// The users of a process (`proc_pid_status(5)`): real, effective, saved, and for files; `None` when it has been reaped.
pub(crate) fn user_ids(pid: Pid) -> Option<[u32; 4]> {
    let line = status_member(&pid.to_string(), "Uid:")?;
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
    fn who_has_ended_or_is_gone_is_dying_and_who_lives_is_not() {
        let mut child =
            std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::new(child.id()).unwrap();
        assert!(!is_dying(pid));
        child.kill().unwrap();
        // It takes the signal, and gives up its memory a moment later.
        while !is_dying(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_dying(pid), "it is gone");
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

    #[test]
    fn each_line_is_seen_once_and_whole_and_the_very_long_ones_are_passed_over() {
        let mut file = tempfile::tempfile().unwrap();
        let long = "1".repeat(TEXT_BYTES);
        let full = &long[1..];
        let lines: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
        let text = format!("a\n{long}\n\n{full}\n{long}{long}2\n{}\nno end", lines.join("\n"));
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let mut seen = Vec::new();
        let visit = |line: &[u8]| {
            seen.push(String::from_utf8(line.to_vec()).unwrap());
            ControlFlow::Continue(())
        };
        each_line(&file, visit).unwrap();
        let expected: Vec<String> =
            ["a", "", full].map(str::to_owned).into_iter().chain(lines.iter().cloned()).collect();
        assert!(seen == expected, "{} lines, where {} were expected", seen.len(), expected.len());
        let mut count = 0;
        let until_the_third = |_: &[u8]| {
            count += 1;
            if count < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        each_line(&file, until_the_third).unwrap();
        assert_eq!(count, 3, "nothing is read behind what was looked for");
    }
}
