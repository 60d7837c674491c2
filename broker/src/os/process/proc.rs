//! Reads what `/proc` tells of processes: their state, their children, and whose child they are marked as.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use procbroker_core::Pid;
use procbroker_protocol::ChildId;

use super::pidfd;
use crate::os::environment::EXIT_REASON_VARIABLE;

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

/// Bytes of one read of a list: some 600 pids.
const LIST_BYTES: usize = 4096;

/// Every process that this `/proc` shows.
pub(crate) fn processes() -> impl Iterator<Item = Pid> {
    all_processes().into_iter().flatten()
}

/// The same.
///
/// # Errors
/// Such as EMFILE.
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
    /// Whether it has ended, and only waits to be reaped.
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
    /// Reads that of a process; none when it has been reaped.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The second field, the name of the program, is in parentheses and may have any character in it.
        let (pid, rest) = text.split_once(' ')?;
        let (_name, rest) = rest.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let mut id = || fields.next().map(parse);
        let (parent, group, session) = (id()?, id()?, id()?);
        // Fields 9 and 22; the three before were 4 to 6.
        let flags = fields.nth(2).and_then(|flags| u64::from_str(flags).ok())?;
        let start_ticks = fields.nth(12).and_then(|ticks| u64::from_str(ticks).ok())?;
        let is_zombie = matches!(state, "Z" | "X" | "x");
        let is_of_kernel = flags & KERNEL_THREAD != 0;
        Some(Self { pid: parse(pid)?, is_zombie, is_of_kernel, parent, group, session, start_ticks })
    }
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

/// Reads the mark of a process.
pub(crate) fn mark(pid: Pid) -> Mark {
    let environment = match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environment) => environment,
        // There is no descriptor or memory to read it with at the moment.
        Err(error) if is_shortage(&error) => return Mark::Changing,
        Err(_) => return Mark::Nobody,
    };
    if environment.is_empty() {
        return if has_no_environment(pid) { Mark::Nobody } else { Mark::Changing };
    }
    let value = environment
        .split(|&byte| byte == 0)
        .find_map(|variable| variable.strip_prefix(CHILD_ID_VARIABLE.as_bytes())?.strip_prefix(b"="));
    let child = value.and_then(|value| uuid::Uuid::try_parse_ascii(value).ok());
    child.map_or(Mark::Nobody, |child| Mark::Child(ChildId::from_uuid(child)))
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// Whether a process was started without any variable. The kernel tells where in its memory the environment
/// begins and ends (fields 50 and 51), which it does not know yet while it executes a program.
fn has_no_environment(pid: Pid) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let Some((_, rest)) = text.rsplit_once(')') else { return true };
    let mut fields = rest.split_ascii_whitespace().skip(47);
    let (begin, end) = (fields.next(), fields.next());
    begin.is_some_and(|begin| begin != "0") && begin == end
}

/// The mark of a process, which may be about to execute a program.
pub(crate) fn settled_mark(pid: Pid) -> Mark {
    until_settled(|| mark(pid), MARK_MOMENT)
}

/// The same, where what cannot be told now will not be asked again.
pub(crate) fn awaited_mark(pid: Pid) -> Mark {
    until_settled(|| mark(pid), MARK_PATIENCE)
}

fn until_settled(mut ask: impl FnMut() -> Mark, patience: Duration) -> Mark {
    let began = Instant::now();
    loop {
        let mark = ask();
        if mark != Mark::Changing || began.elapsed() >= patience {
            return mark;
        }
        std::thread::sleep(MARK_REST);
    }
}

/// Whether a process that has the mark of a child is of its cleanup: only that is told how the child ended. The cleanup
/// passes it on to what it starts, as it does with the mark.
pub(crate) fn is_of_cleanup(pid: Pid) -> bool {
    let began = Instant::now();
    loop {
        match fs::read(format!("/proc/{pid}/environ")) {
            // It is about to execute another program.
            Ok(environment) if environment.is_empty() && began.elapsed() < MARK_PATIENCE => {
                std::thread::sleep(MARK_REST);
            }
            Ok(environment) => return environment.split(|&byte| byte == 0).any(tells_exit),
            Err(_) => return false,
        }
    }
}

fn tells_exit(variable: &[u8]) -> bool {
    variable.strip_prefix(EXIT_REASON_VARIABLE.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
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
    fn a_process_that_takes_its_time_to_execute_its_program_is_asked_for_its_mark_until_it_has_one() {
        let mark = Mark::Child(ChildId::from_uuid(uuid::Uuid::from_u128(1)));
        let mut answers = [Mark::Changing; 20].into_iter().chain([mark]);
        assert_eq!(until_settled(|| answers.next().unwrap(), Duration::from_secs(60)), mark);
        assert_eq!(until_settled(|| Mark::Changing, Duration::ZERO), Mark::Changing);
    }
}
