//! Reads what `/proc` tells of processes: their state, their children, and whose child they are marked as.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use procbroker_core::{Pid, counterpart};
use procbroker_protocol::ChildId;

use super::pidfd;
use crate::os::environment::{EXIT_REASON_VARIABLE, PROBE_VARIABLE};

/// The variable by which a child and all that inherit its environment are known.
pub const CHILD_ID_VARIABLE: &str = "PROCBROKER_CHILD_ID";

/// The kernel's flag of threads of its own (`PF_KTHREAD` in `linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// How long a process that executes a program right now is asked for its mark by those who can come back to it.
const MARK_MOMENT: Duration = Duration::from_millis(10);

/// How long it is asked where a child would be taken for gone that has not come to have its mark: the program may have to
/// come from a slow disk, and the processor be somebody else's.
const MARK_PATIENCE: Duration = Duration::from_secs(2);

/// How long is rested between two questions. To yield instead would leave it to others how long it takes: on a busy machine
/// each time is as long as their share of the processor.
const MARK_REST: Duration = Duration::from_millis(1);

/// Bytes of the first attempt to read an environment; execve(2) takes up to a quarter of the limit on the stack.
const ENVIRONMENT_BYTES: usize = 32 << 10;

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
    /// The process.
    pub pid: Pid,
    /// Whether all of its threads have ended, and it only waits to be reaped.
    pub is_zombie: bool,
    /// Whether it is a thread of the kernel, which belongs to nobody and has no environment.
    pub is_of_kernel: bool,
    /// Its parent; none where that is outside of the pid namespace.
    pub parent: Option<Pid>,
    /// Its process group.
    pub group: Option<Pid>,
    /// Its session.
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
fn read_stat(path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

/// The fields of a `stat` file from the third on. The second, the name of the program, is in parentheses and may have any
/// character in it.
fn fields(text: &str) -> Option<SplitAsciiWhitespace<'_>> {
    Some(text.rsplit_once(')')?.1.split_ascii_whitespace())
}

fn is_dead(state: &str) -> bool {
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

/// What the environment that a process started with says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is that of a child.
    Child(ChildId),
    /// It is no child's, or cannot be read.
    Nobody,
    /// It cannot be told at this moment: the process is about to execute another program, and has no environment
    /// so far.
    Changing,
}

/// Reads the mark of a process. That of a command which asks whether a child is ready is the child's [`counterpart`].
pub(crate) fn mark(pid: Pid) -> Mark {
    match environment(pid) {
        Environment::Changing => Mark::Changing,
        Environment::Unreadable => Mark::Nobody,
        Environment::Read(environment) => {
            let value = variable(&environment, CHILD_ID_VARIABLE);
            let child = value.and_then(|value| uuid::Uuid::try_parse_ascii(value).ok());
            let Some(child) = child.map(ChildId::from_uuid) else { return Mark::Nobody };
            let is_probe = variable(&environment, PROBE_VARIABLE).is_some();
            Mark::Child(if is_probe { counterpart(child) } else { child })
        }
    }
}

/// The variables that a process started with, each with a zero byte behind it.
enum Environment {
    Read(Vec<u8>),
    /// It belongs to somebody else, or is gone.
    Unreadable,
    /// It cannot be told at this moment.
    Changing,
}

fn environment(pid: Pid) -> Environment {
    match environment_at(&format!("/proc/{pid}")) {
        // A first thread that has ended has no memory any more, but the other threads have.
        Environment::Changing => match living_thread(pid) {
            Some(thread) => environment_at(&thread),
            None => Environment::Changing,
        },
        found @ (Environment::Read(_) | Environment::Unreadable) => found,
    }
}

fn environment_at(folder: &str) -> Environment {
    match read_at_once(&format!("{folder}/environ")) {
        Ok(environment) if environment.is_empty() && !has_no_environment(folder) => Environment::Changing,
        Ok(environment) => Environment::Read(environment),
        // There is no descriptor or memory to read it with at the moment.
        Err(error) if is_shortage(&error) => Environment::Changing,
        Err(_) => Environment::Unreadable,
    }
}

/// Reads a file of a process's memory by one system call: it ends early for the next one when the process has executed another
/// program meanwhile (`environ_read` in the kernel's `fs/proc/base.c`), and a part would be taken for all of it.
fn read_at_once(path: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; ENVIRONMENT_BYTES];
    loop {
        let count = file.read_at(&mut bytes, 0)?;
        if count < bytes.len() {
            bytes.truncate(count);
            return Ok(bytes);
        }
        bytes.resize(2 * bytes.len(), 0);
    }
}

/// The folder of a thread that lives in a process whose first thread has ended; `None` where that one lives.
fn living_thread(pid: Pid) -> Option<String> {
    let is_dead_at = |folder: &str| {
        let text = read_stat(&format!("{folder}/stat"));
        text.as_deref().and_then(fields).and_then(|mut fields| fields.next()).is_none_or(is_dead)
    };
    if !is_dead_at(&format!("/proc/{pid}")) {
        return None;
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    threads
        .filter_map(|thread| thread.path().into_os_string().into_string().ok())
        .find(|path| !is_dead_at(path))
}

/// Reads any text as the state of a process.
pub(crate) fn read_any_stat(text: &str) {
    let _ = ProcessStat::parse(text);
}

/// Reads any bytes as the environment of a process.
pub(crate) fn read_any_environment(bytes: &[u8]) {
    let _ = variable(bytes, "PROCBROKER_CHILD_ID");
}

/// The value of a variable.
fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut variables = environment.split(|&byte| byte == 0);
    variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// Whether a process was started without any variable. The kernel tells where in its memory the environment begins and ends
/// (fields 50 and 51). While it executes a program both are at first zero, and then the same until the variables are in
/// place; only after that it is known where the code begins (field 26; `load_elf_binary` in `fs/binfmt_elf.c`).
fn has_no_environment(folder: &str) -> bool {
    let text = read_stat(&format!("{folder}/stat"));
    let Some(mut fields) = text.as_deref().and_then(fields) else { return true };
    let (code, begin, end) = (fields.nth(23), fields.nth(23), fields.next());
    code.is_some_and(|code| code != "0") && begin.is_some_and(|begin| begin != "0") && begin == end
}

/// The mark of a process, which may be about to execute a program.
pub(crate) fn settled_mark(pid: Pid) -> Mark {
    until_settled(|| mark(pid), |mark| *mark == Mark::Changing, MARK_MOMENT)
}

/// The mark of a process that is not asked again if it cannot be told now.
pub(crate) fn awaited_mark(pid: Pid) -> Mark {
    until_settled(|| mark(pid), |mark| *mark == Mark::Changing, MARK_PATIENCE)
}

fn until_settled<T>(mut ask: impl FnMut() -> T, is_changing: impl Fn(&T) -> bool, patience: Duration) -> T {
    let began = Instant::now();
    loop {
        let answer = ask();
        if !is_changing(&answer) || began.elapsed() >= patience {
            return answer;
        }
        std::thread::sleep(MARK_REST);
    }
}

/// Whether a process that has the mark of a child is of its cleanup: only that is told how the child ended. The cleanup
/// passes it on to what it starts, as it does with the mark.
pub(crate) fn is_of_cleanup(pid: Pid) -> bool {
    let is_changing = |found: &Environment| matches!(found, Environment::Changing);
    match until_settled(|| environment(pid), is_changing, MARK_PATIENCE) {
        Environment::Read(environment) => variable(&environment, EXIT_REASON_VARIABLE).is_some(),
        Environment::Unreadable | Environment::Changing => false,
    }
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

    #[test]
    fn a_mark_is_read_from_the_environment_and_its_absence_too() {
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let start = |variables: &[(&str, String)]| {
            let mut command = std::process::Command::new("/bin/cat");
            command.env_clear().envs(variables.iter().cloned()).stdin(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        let marked = [("A", "b".to_owned()), (CHILD_ID_VARIABLE, child.to_string())];
        let forged = [(CHILD_ID_VARIABLE, "7".to_owned())];
        for (variables, expected) in [
            (&marked[..], Mark::Child(child)),
            (&marked[..1], Mark::Nobody),
            (&forged, Mark::Nobody),
            (&[], Mark::Nobody),
        ] {
            let mut process = start(variables);
            let pid = Pid::new(process.id()).unwrap();
            // It may be on its way to its program.
            let found = std::iter::repeat_with(|| mark(pid)).find(|mark| *mark != Mark::Changing);
            assert_eq!(found, Some(expected));
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }

    #[test]
    fn a_mark_is_not_lost_while_its_process_executes_one_program_after_another() {
        let child = ChildId::from_uuid(uuid::Uuid::from_u128(7));
        let again = "exec sh -c \"$0\" \"$0\"";
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", again, again])
            .env("A", "x".repeat(9_000))
            .env(CHILD_ID_VARIABLE, child.to_string());
        let mut process = command.spawn().unwrap();
        let pid = Pid::new(process.id()).unwrap();
        let marks: Vec<Mark> = std::iter::repeat_with(|| mark(pid)).take(5_000).collect();
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(marks.contains(&Mark::Child(child)));
        assert!(!marks.contains(&Mark::Nobody), "a part of an environment was taken for all of it");
    }

    #[test]
    fn a_process_that_takes_its_time_to_execute_its_program_is_asked_for_its_mark_until_it_has_one() {
        let mark = Mark::Child(ChildId::from_uuid(uuid::Uuid::from_u128(1)));
        let is_changing = |mark: &Mark| *mark == Mark::Changing;
        let mut answers = [Mark::Changing; 20].into_iter().chain([mark]);
        assert_eq!(until_settled(|| answers.next().unwrap(), is_changing, Duration::from_secs(60)), mark);
        assert_eq!(until_settled(|| Mark::Changing, is_changing, Duration::ZERO), Mark::Changing);
    }
}
